"""Convert an exported folder to an ONNX graph, in a process of its own, with public packages only.

    python convert_onnx.py FOLDER CASES.json FOUND

`write_onnx` runs it. transformers' exporter makes the graph, which gets the names of inputs and outputs that
transformers.js and optimum expect. It is written to ``onnx/model.onnx`` in the folder, and ``genai_config.json``, which
describes it to onnxruntime-genai, beside that folder; ``FOUND.json`` lists its inputs.
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
    described = genai_config(model.config, model.generation_config.eos_token_id)
    Path(folder, "genai_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    inputs = [value.name for value in program.graph.inputs]
    Path(f"{found_name}.json").write_text(json.dumps(inputs), encoding="utf-8")


def genai_config(config: Any, ends: int | list[int]) -> dict[str, Any]:
    """Return what onnxruntime-genai must know of the graph, from a configuration of transformers and the ids at which a
    text ends.

    The type only tells it that each layer has one input for keys and one for values, which "gpt2" would deny.
    """
    n_heads = config.num_attention_heads
    decoder = {
        "filename": "onnx/model.onnx",
        "hidden_size": config.hidden_size,
        "head_size": getattr(config, "head_dim", config.hidden_size // n_heads),
        "num_attention_heads": n_heads,
        "num_key_value_heads": getattr(config, "num_key_value_heads", n_heads),
        "num_hidden_layers": config.num_hidden_layers,
        "session_options": {"provider_options": []},
        "inputs": {
            **{name: name for name in ("input_ids", "attention_mask", "position_ids")},
            **{f"past_{part}_names": f"past_key_values.%d.{part}" for part in ("key", "value")},
        },
        "outputs": {"logits": "logits", **{f"present_{part}_names": f"present.%d.{part}" for part in ("key", "value")}},
    }
    length = config.max_position_embeddings
    model = {
        "type": "llama",
        "vocab_size": config.vocab_size,
        "context_length": length,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": ends,
        "pad_token_id": config.pad_token_id,
        "decoder": decoder,
    }
    return {"model": model, "search": {"max_length": length, "past_present_share_buffer": False}}


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
