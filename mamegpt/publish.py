"""From whatever holds a model to an exported folder: a run, a weights file, another folder, a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mamegpt import checkpoint
from mamegpt.config import TrainConfig
from mamegpt.errors import ModelError
from mamegpt.export_hf import ExportReport, export_hf
from mamegpt.files import refuse_existing
from mamegpt.layouts import LAYOUTS, sizes_of
from mamegpt.model_card import model_card
from mamegpt.models import build_model
from mamegpt.pretrained import load_pretrained, load_weights, read_weights
from mamegpt.tokenizer import Tokenizer
from mamegpt.trainer import last_quality

__all__ = ["export_pretrained", "export_weights"]


def export_pretrained(model: str, out: Path, *, spm_file: str = "", overwrite: bool = False) -> ExportReport:
    """Export a run (its newest checkpoint), an exported folder or a Hub repository into the folder ``out``.

    Raises what `load_pretrained` and `export_hf` raise, and `ModelError` for a model of an unknown architecture.
    """
    if not overwrite:
        refuse_existing(out)
    loaded = load_pretrained(model, spm_file=spm_file)
    if loaded.sizes is None:
        raise ModelError(f"{model} is a {loaded.architecture} model; only {', '.join(LAYOUTS)} can be exported")
    known: dict[str, Any] = {}
    run = Path(model)
    if (run / "checkpoints").is_dir():
        config = TrainConfig.load(run / "config.json")
        step = checkpoint.read_state(Path(loaded.origin)).step
        known = {
            "data": config.data,
            "step": step,
            "n_tokens": step * config.batch_size * config.context_length,
            "quality": last_quality(run, step),
        }
    n_parameters = sum(p.numel() for p in loaded.model.parameters())
    card = model_card(out.name, loaded.sizes, n_parameters, loaded.tokenizer, loaded.architecture, **known)
    return export_hf(
        out, loaded.model, loaded.sizes, loaded.tokenizer, loaded.architecture, card=card, overwrite=overwrite
    )


def export_weights(
    weights: Path,
    spm_model: Path,
    out: Path,
    *,
    spm_vocab: Path | None = None,
    fast: bool = True,
    overwrite: bool = False,
    **sizes: Any,
) -> ExportReport:
    """Export a weights file of the book's layout with its tokenizer into the folder ``out``.

    ``sizes`` are fields of `ModelConfig`; those that are None are read from the weights. Raises `ModelError` if one
    contradicts the weights, or what `read_weights` and `export_hf` raise.
    """
    if not overwrite:
        refuse_existing(out)
    if spm_vocab is not None and not spm_vocab.is_file():
        raise ModelError(f"no vocabulary file {spm_vocab}; leave --spm-vocab out and it is written from the model")
    tensors = read_weights(weights)
    implied = sizes_of(tensors, str(weights), **sizes)
    tokenizer = Tokenizer.load(spm_model)
    model = build_model("custom-gpt", implied)
    load_weights(model, tensors, str(weights))
    card = model_card(out.name, implied, sum(t.numel() for t in tensors.values()), tokenizer)
    return export_hf(out, model, implied, tokenizer, spm_vocab=spm_vocab, fast=fast, card=card, overwrite=overwrite)
