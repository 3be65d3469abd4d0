"""ExecuTorch: the folder of ``hf``, converted by transformers and ExecuTorch with a cache of fixed length."""

import tempfile
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from measure import Continue, Encode, encode_with, run
from transformers import AutoModelForCausalLM
from transformers.integrations.executorch import convert_and_export_with_cache


def load(folder: str) -> tuple[Continue, Encode]:
    """Return a greedy loop on one thread, and ``tokenizers``."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    cache = {"batch_size": 1, "max_cache_len": model.config.max_position_embeddings}
    model.generation_config.update(use_cache=True, cache_implementation="static", cache_config=cache)
    exported = convert_and_export_with_cache(model)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "model.pte")
        file.write_bytes(lowered.buffer)
        loaded = Loaded(file)
    return loaded.continued, encode_with(Path(folder, "tokenizer.json"))


class Loaded:
    """A converted model. A method does not keep its program alive."""

    def __init__(self, file: Path) -> None:
        self._program = Runtime.get().load_program(file)
        self._method = self._program.load_method("forward")

    def continued(self, ids: list[int], n_new: int) -> list[int]:
        """Return new ids; the prompt is read token by token too."""
        text = list(ids)
        for i in range(len(ids) + n_new - 1):
            (logits,) = self._method.execute([torch.tensor([[text[i]]]), torch.tensor([i])])
            if i + 1 == len(text):
                text.append(int(logits[0, -1].argmax()))
        return text[len(ids) :]


run("hf", load)
