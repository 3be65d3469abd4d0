"""A model as an ONNX graph with a KV cache, in the folder layout of transformers.js and optimum, and its verification.

transformers' exporter makes the graph from the class that the folder of ``hf-native`` loads (`convert_onnx`).
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mamegpt.errors import ConfigError, require_packages
from mamegpt.exporting.checks import (
    Cases,
    Check,
    chat_checks,
    chats,
    greedy_check,
    logits_check,
    text_checks,
)
from mamegpt.exporting.clean_process import run_in_clean_process
from mamegpt.messages import msg
from mamegpt.models.hf_format import HFFormat

__all__ = ["check_onnx", "convert_to_onnx", "refuse_without_packages"]

CONVERTER = Path(__file__).with_name("convert_onnx.py")
VERIFIER = Path(__file__).with_name("verify_onnx.py")
TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, that counts as rounding: kernels differ."""


def refuse_without_packages() -> None:
    """Raise `ConfigError` if the packages of the extra ``onnx`` are missing, or if transformers has no exporter."""
    require_packages("--to onnx", ["onnx_ir", "onnxscript", "onnxruntime"], "onnx")
    if find_spec("transformers.exporters") is None:
        raise ConfigError(
            "--to onnx uses the exporter of transformers 5 (installed: {version}); pip install -U transformers",
            version=version("transformers"),
        )


def convert_to_onnx(folder: Path, hf_format: HFFormat) -> None:
    """Replace the weights in a folder of `write_hf` by ``onnx/model.onnx``. Raises `ExportError` if that fails."""
    with tempfile.TemporaryDirectory() as scratch:
        run_in_clean_process(CONVERTER, folder, {}, Path(scratch))
    for name in hf_format.weight_files:
        (folder / name).unlink()


def check_onnx(folder: Path, cases: Cases) -> list[Check]:
    """Compare the outputs of onnxruntime, in a separate process, with those of the model and the tokenizer.

    Raises `ExportError` if the folder does not load at all.
    """
    asked = {
        "prompts": cases.prompts,
        "n_new": cases.n_new,
        "rows": cases.rows,
        "texts": cases.texts,
        "chats": chats(cases),
    }
    with tempfile.TemporaryDirectory() as scratch:
        found = run_in_clean_process(VERIFIER, folder, asked, Path(scratch))
        logits = np.load(Path(scratch) / "found.npy")
    tolerance = TOLERANCE * cases.scale
    apart = float(np.abs(logits - cases.logits.numpy()).max())  # NaN stays NaN
    padding = found["padding_difference"]
    return [
        logits_check(
            apart,
            tolerance,
            msg("{n_rows} sequences x {n_tokens} tokens", n_rows=logits.shape[0], n_tokens=logits.shape[1]),
        ),
        greedy_check(msg("greedy"), cases, cases.greedy, found["greedy"], tolerance),
        greedy_check(msg("no cache"), cases, found["greedy"], found["uncached"], tolerance),
        Check(
            msg("padding"),
            padding <= tolerance,
            msg(
                "{what}: max difference {apart:.1e} (tolerance {tolerance:.1e})",
                what=msg("logits of a left-padded row and of the row alone"),
                apart=padding,
                tolerance=tolerance,
            ),
        ),
        *text_checks(cases, found["text_ids"], found["decoded"], cases.tokenizer.settings.is_lossless),
        *chat_checks(cases, found["chat_ids"]),
    ]
