"""ONNX Runtime in Python: the folder of ``onnx``."""

from pathlib import Path

import numpy as np
import onnxruntime
from measure import Continue, Encode, encode_with, run


def load(folder: str) -> tuple[Continue, Encode]:
    """Return a greedy loop over the graph and its cache on one thread, and ``tokenizers``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(Path(folder, "onnx", "model.onnx"), options, ["CPUExecutionProvider"])
    cached = {it.name: it.shape for it in session.get_inputs() if it.name.startswith("past_key_values")}
    names = ["logits", *(name.replace("past_key_values", "present") for name in cached)]

    def continued(ids: list[int], n_new: int) -> list[int]:
        past = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in cached.items()}
        new, text = ids, list(ids)
        for _ in range(n_new):
            positions = np.arange(len(text) - len(new), len(text))[None]
            feed = {"input_ids": np.array([new]), "attention_mask": np.ones((1, len(text)), np.int64)}
            logits, *present = session.run(names, {**feed, "position_ids": positions, **past})
            past = dict(zip(past, present, strict=True))
            new = [int(logits[0, -1].argmax())]
            text += new
        return text[len(ids) :]

    return continued, encode_with(Path(folder, "tokenizer.json"))


run("onnx", load)
