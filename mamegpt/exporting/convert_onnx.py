"""Convert an exported folder to an ONNX graph, in a process of its own, with public packages only.

    python convert_onnx.py FOLDER CASES.json FOUND

`write_onnx` runs it. transformers' exporter makes the graph, which gets the names of inputs and outputs that
transformers.js and optimum expect. It is written to ``onnx/model.onnx`` in the folder; ``FOUND.json`` lists its inputs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.exporters.configs import OnnxConfig
from transformers.exporters.exporter_onnx import OnnxExporter

BATCH, PAST, NEW = 2, 5, 3
"""Sizes of the example that is traced. All of them vary in the graph, so none may be 0 or 1."""
CACHED = re.compile(r"(input|output)\.past_key_values\.layers\.(\d+)\.(key|value)s")
PREFIX = {"input": "past_key_values", "output": "present"}
AXES = {
    "input_ids": ("batch_size", "sequence_length"),
    "attention_mask": ("batch_size", "total_sequence_length"),
    "position_ids": ("batch_size", "sequence_length"),
    "logits": ("batch_size", "sequence_length", None),
    "past_key_values": ("batch_size", None, "past_sequence_length", None),
    "present": ("batch_size", None, "total_sequence_length", None),
}
"""Names of the axes that vary."""


def main(folder: str, _cases_file: str, found_name: str) -> None:
    """Convert the model in the folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    program = OnnxExporter().export(model, example(model), OnnxConfig(dynamic=True)).program
    for value in [*program.graph.inputs, *program.graph.outputs]:
        name(value)
    file = Path(folder, "onnx", "model.onnx")
    file.parent.mkdir()
    onnx_ir.save(program, file)
    inputs = [value.name for value in program.graph.inputs]
    Path(f"{found_name}.json").write_text(json.dumps(inputs), encoding="utf-8")


@torch.inference_mode()
def example(model: Any) -> dict[str, Any]:
    """Return inputs of a model that continues a text: its new tokens, and the keys and values of those before."""
    cache = DynamicCache(config=model.config)
    ids = torch.arange(BATCH * (PAST + NEW)).view(BATCH, -1) % model.config.vocab_size
    model(ids[:, :PAST], past_key_values=cache, use_cache=True)
    return {
        "input_ids": ids[:, PAST:].contiguous(),
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(PAST, PAST + NEW).repeat(BATCH, 1),
        "past_key_values": cache,
    }


def name(value: Any) -> None:
    """Give an input or output of the graph its usual name, and names to its axes."""
    if cached := CACHED.fullmatch(value.name):
        value.name = f"{PREFIX[cached[1]]}.{cached[2]}.{cached[3]}"
    axes = AXES[value.name.split(".")[0]]
    sizes = [size if isinstance(size, int) else size.value for size in value.shape]
    # The tracer has a fixed size of an input as text.
    value.shape = onnx_ir.Shape([axis or int(size) for axis, size in zip(axes, sizes, strict=True)])


if __name__ == "__main__":
    main(*sys.argv[1:])
