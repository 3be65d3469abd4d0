"""LiteRT: the folder of ``hf``, converted by litert-torch, one pass over the whole text for each token."""

import tempfile
from pathlib import Path

import litert_torch
import torch
from ai_edge_litert.interpreter import Interpreter
from measure import Continue, Encode, encode_with, run
from transformers import AutoModelForCausalLM

LENGTH = 96
"""Tokens of a pass; those after the text change nothing before them."""


class Logits(torch.nn.Module):
    """A model of transformers without a cache."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits (1, T, V) of ids (1, T)."""
        return self.model(input_ids=ids, use_cache=False).logits


def load(folder: str) -> tuple[Continue, Encode]:
    """Return a greedy loop on one thread, and ``tokenizers``."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    converted = litert_torch.convert(Logits(model).eval(), (torch.zeros(1, LENGTH, dtype=torch.long),))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "model.tflite")
        converted.export(str(file))
        interpreter = Interpreter(model_content=file.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()

    def continued(ids: list[int], n_new: int) -> list[int]:
        text = list(ids)
        for _ in range(n_new):
            row = torch.zeros(1, LENGTH, dtype=torch.long)
            row[0, : len(text)] = torch.tensor(text)
            interpreter.set_tensor(given["index"], row.numpy().astype(given["dtype"]))
            interpreter.invoke()
            text.append(int(interpreter.get_tensor(wanted["index"])[0, len(text) - 1].argmax()))
        return text[len(ids) :]

    return continued, encode_with(Path(folder, "tokenizer.json"))


run("hf", load)
