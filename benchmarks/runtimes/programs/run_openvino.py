"""OpenVINO: the graph of ``onnx``, which it reads itself."""

from pathlib import Path

import numpy as np
import openvino
from measure import Continue, Encode, encode_with, run


def load(folder: str) -> tuple[Continue, Encode]:
    """Return a greedy loop over the graph and its cache, computed in float32 on one thread, and ``tokenizers``."""
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = core.compile_model(core.read_model(Path(folder, "onnx", "model.onnx")), "CPU", settings)
    cached = {it.any_name: it.partial_shape for it in model.inputs if it.any_name.startswith("past_key_values")}
    request = model.create_infer_request()

    def continued(ids: list[int], n_new: int) -> list[int]:
        past = {
            name: np.zeros((1, shape[1].get_length(), 0, shape[3].get_length()), np.float32)
            for name, shape in cached.items()
        }
        new, text = ids, list(ids)
        for _ in range(n_new):
            positions = np.arange(len(text) - len(new), len(text))[None]
            feed = {"input_ids": np.array([new]), "attention_mask": np.ones((1, len(text)), np.int64)}
            request.infer({**feed, "position_ids": positions, **past})
            past = {name: request.get_tensor(name.replace("past_key_values", "present")).data.copy() for name in cached}
            new = [int(request.get_tensor("logits").data[0, -1].argmax())]
            text += new
        return text[len(ids) :]

    return continued, encode_with(Path(folder, "tokenizer.json"))


run("onnx", load)
