"""Every architecture of the registry, in every way in which its models differ, for the tests of all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from little import Little, random_model, sizes_for
from torch import Tensor

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.models.base import LanguageModel
from mamegpt.models.hf_format import HFFormat
from mamegpt.models.registry import ARCHITECTURES, hf_formats, unsupported_fields

__all__ = [
    "CHANGES",
    "EVERY",
    "NATIVE",
    "NATIVE_VARIANTS",
    "SIZES",
    "TIED",
    "VARIANTS",
    "edit",
    "foreign_folder",
    "model_of",
    "random_ids",
    "reference",
    "settings_of",
    "sizes",
    "supported",
]

SIZES = TrainConfig(context_length=24, emb_dim=24, n_layers=3, n_heads=4, drop_rate=0.0).model(61)
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a bias": {"qkv_bias": True},
    "one head": {"n_heads": 1, "n_layers": 2},
    "tied": {"tie_embeddings": True},
    "two heads of keys and values, tied": {"n_kv_heads": 2, "tie_embeddings": True, "rope_theta": 100.0},
    "one head of keys and values": {"n_kv_heads": 1, "ffn_dim": 40},
    "wide heads": {"head_dim": 10, "n_heads": 3, "rope_theta": 50.0, "norm_eps": 0.1},
    "odd sizes": {"n_kv_heads": 1, "head_dim": 6, "ffn_dim": 50, "norm_eps": 1e-2, "n_layers": 1},
}
"""In what sizes differ from `SIZES`."""

_UNSUPPORTED = unsupported_fields()


def supported(architecture: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Those of the changes that an architecture has."""
    return {name: value for name, value in changes.items() if name not in _UNSUPPORTED[architecture]}


def _params(named: dict[str, str]) -> list[Any]:
    """What is named, with all changes that its architecture has."""
    return [
        pytest.param(name, changes, id=f"{name}, {kind}")
        for name, architecture in named.items()
        for kind, changes in CHANGES.items()
        if supported(architecture, changes) == changes
    ]


_NATIVE = {name: found.architecture for name, found in hf_formats().items() if not found.remote_code}
EVERY = pytest.mark.parametrize("architecture", list(ARCHITECTURES))
TIED = pytest.mark.parametrize("architecture", [n for n in ARCHITECTURES if supported(n, CHANGES["tied"])])
VARIANTS = pytest.mark.parametrize(("architecture", "changes"), _params({name: name for name in ARCHITECTURES}))
NATIVE = pytest.mark.parametrize("model_type", list(_NATIVE))
"""Formats of folders that transformers reads without our code."""
NATIVE_VARIANTS = pytest.mark.parametrize(("model_type", "changes"), _params(_NATIVE))


def sizes(**changes: Any) -> ModelConfig:
    """`SIZES`, some of them changed."""
    return ModelConfig(**{**SIZES.__dict__, **changes})


def model_of(architecture: str, spread: float = 0.3, **changes: Any) -> LanguageModel:
    """A model in which every parameter matters: no zero bias, no unit norm; with less spread, roundings count less."""
    return random_model(sizes(**changes), seed=3, architecture=architecture, spread=spread)


def random_ids(batch: int = 2, length: int = 24) -> Tensor:
    """Ids (batch, length)."""
    return torch.randint(0, 61, (batch, length), generator=torch.Generator().manual_seed(0))


def reference(hf_format: HFFormat, config: ModelConfig, **more: Any) -> Any:
    """The model of transformers that a format describes, with weights of its own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = hf_format.config(config) | more
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).eval()


def foreign_folder(little: Little, folder: Path, model_type: str, **changes: Any) -> Path:
    """A folder as transformers saves it, with a SentencePiece model beside; a change that is not supported is none."""
    hf_format = hf_formats()[model_type]
    config = sizes_for(
        little.tokenizer,
        emb_dim=24,
        **supported(hf_format.architecture, {"n_kv_heads": 2, "rope_theta": 77.0} | changes),
    )
    theirs = reference(hf_format, config)
    model = random_model(config, architecture=hf_format.architecture)
    theirs.load_state_dict(hf_format.to_file(model.state_dict()))
    theirs.save_pretrained(folder)
    (folder / "jp.model").write_bytes(little.spm.read_bytes())
    return folder


def settings_of(folder: Path) -> dict[str, Any]:
    """What a folder's ``config.json`` says."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def edit(folder: Path, **changes: object) -> None:
    """Change settings of a folder; "-" takes one out."""
    kept = {name: value for name, value in (settings_of(folder) | changes).items() if value != "-"}
    (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")
