"""GGUF files: what is in them, and that llama.cpp computes and cuts text as we do, or the export fails."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from architectures import EVERY, supported
from little import ROOT, Little, export_here, random_model, sizes_for

from mamegpt import errors
from mamegpt.cli.render.models import check_table
from mamegpt.config import ModelConfig
from mamegpt.data.stories import stories
from mamegpt.errors import ConfigError, ExportError
from mamegpt.exporting import gguf as export_gguf
from mamegpt.exporting.export import Exporting, ExportReport
from mamegpt.models import registry
from mamegpt.models.base import LanguageModel
from mamegpt.models.custom_gpt import gguf as custom_gpt_gguf
from mamegpt.tokenizer.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

CHECKS = ["logits", "greedy", "no cache", "tokenizer", "round trip"]
OTHER = {
    "qkv_bias": True,
    "n_kv_heads": 2,
    "head_dim": 16,
    "rope_theta": 500.0,
    "tie_embeddings": True,
    "norm_eps": 1e-3,
}

pytestmark = pytest.mark.usefixtures("warm_exports")


def model_of(little: Little, architecture: str) -> tuple[LanguageModel, ModelConfig]:
    """A model whose logits differ from token to token, with a bias or other sizes than by default."""
    sizes = sizes_for(little.tokenizer, context_length=80, **supported(architecture, OTHER))
    model = random_model(sizes, architecture=architecture)
    with torch.no_grad():
        model.out_head.weight.mul_(0.5)
    return model, sizes


def learned(little: Little, architecture: str) -> tuple[LanguageModel, ModelConfig]:
    """The same after a few steps on stories: random weights would magnify the rounding to 16 or 8 bits."""
    sizes = sizes_for(little.tokenizer, context_length=80, **supported(architecture, OTHER))
    model = random_model(sizes, architecture=architecture, spread=0.05)
    tokens = torch.tensor(little.tokenizer.encode(little.text.read_text(encoding="utf-8")))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    windows = torch.randint(len(tokens) - 81, (60, 8, 1), generator=torch.Generator().manual_seed(0))
    for rows in tokens[windows + torch.arange(81)]:  # (8, 81)
        F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, sizes


NAMES = {
    "custom-gpt": {
        "token_embd.weight", "position_embd.weight", "output_norm.weight", "output_norm.bias", "output.weight",
        *(
            f"blk.{layer}.{module}.{kind}"
            for module in ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")
            for kind in ("weight", "bias")
            for layer in range(2)
        ),
    },
    "llama": {
        "token_embd.weight", "output_norm.weight", "output.weight",
        *(
            f"blk.{layer}.{module}.weight"
            for module in (
                "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"
            )
            for layer in range(2)
        ),
    },
}  # fmt: skip
NAMES["qwen3"] = NAMES["llama"] | {f"blk.{layer}.attn_{one}_norm.weight" for layer in range(2) for one in "qk"}
"""What llama.cpp calls the tensors of models of two blocks."""


@EVERY
def test_tensors_have_the_names_of_llama_cpp(little: Little, tmp_path: Path, architecture: str) -> None:
    sizes = sizes_for(little.tokenizer)
    model = random_model(sizes, architecture=architecture)
    gguf_format = registry.architecture(architecture).gguf_format
    export_gguf.write_gguf(tmp_path / "x.gguf", model, sizes, little.tokenizer, gguf_format, "f32")
    read = gguf.GGUFReader(tmp_path / "x.gguf")
    assert {tensor.name for tensor in read.tensors} == NAMES[architecture]
    assert len(read.tensors) == len(NAMES[architecture])


def difference(report: ExportReport) -> float:
    (check,) = (check for check in report.checks["gguf"] if check.name == "logits")
    return float(check.found.removeprefix("max difference ").split()[0])


@EVERY
@pytest.mark.parametrize(
    "kind", ["f32", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("f16", "bf16")), "q8_0"]
)
def test_llama_cpp_is_our_equal(little: Little, tmp_path: Path, architecture: str, kind: Any) -> None:
    model, sizes = (model_of if kind == "f32" else learned)(little, architecture)
    report = export_here(
        tmp_path / "豆", model, sizes, little.tokenizer, architecture, targets=["gguf"], gguf_type=kind
    )
    assert report.files == ["README.md", f"豆-{kind}.gguf"]
    assert [check.name for check in report.checks["gguf"]] == CHECKS
    assert difference(report) > 0 or kind == "f32"
    read = gguf.GGUFReader(tmp_path / "豆" / f"豆-{kind}.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert types["token_embd.weight"] == kind.upper() and types["output_norm.weight"] == "F32"
    assert ("output.weight" in types) == (not sizes.tie_embeddings)
    (down,) = (tensor for tensor in read.tensors if tensor.name == "blk.1.ffn_down.weight")
    assert down.tensor_type.name == ("F16" if kind == "q8_0" and down.shape[0] % 32 else kind.upper())
    assert read.fields["tokenizer.ggml.add_space_prefix"].contents() is False
    assert [read.fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("bos", "eos")] == [2, 2]


def test_a_file_that_computes_otherwise_never_gets_its_name(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sizes = model_of(little, "custom-gpt")
    monkeypatch.setattr(custom_gpt_gguf, "LAYER_NORM_EPS", 0.5)
    events = list[Exporting]()
    with pytest.raises(
        ExportError, match=r"as gguf it differs from the model: logits: max difference .*greedy: "
    ) as error:
        export_here(tmp_path / "out", model, sizes, little.tokenizer, targets=["gguf"], on_event=events.append)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    printed = check_table(events[-1].checks)
    assert "logits      FAILED" in printed and "tokenizer   ok" in printed  # the whole table, all the same
    assert [event.what for event in events] == ["asking", "writing", "comparing", "checked"]


def test_whatever_is_no_gguf_is_one_line(little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = model_of(little, "custom-gpt")
    own_names = SimpleNamespace(get_name=lambda name, try_suffixes: name)
    monkeypatch.setattr(gguf, "get_tensor_name_map", lambda *_: own_names)
    with pytest.raises(ExportError, match=r"out-f32.gguf does not load in a separate process: \S+") as error:
        export_here(tmp_path / "out", model, sizes, little.tokenizer, targets=["gguf"])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def other_tokenizer(path: Path, **changed: Any) -> Tokenizer:
    """A SentencePiece model as someone else would have trained it."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for _, text in stories(seed=2, n=60) for line in text.split("\n")),
        model_writer=written, **({"vocab_size": 900, "byte_fallback": True, "minloglevel": 2} | changed),
    )  # fmt: skip
    path.write_bytes(written.getvalue())
    return Tokenizer.load(path)


def test_tokenizers_that_gguf_can_hold_and_those_it_cannot(little: Little, tmp_path: Path) -> None:
    own = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    prefixed = other_tokenizer(tmp_path / "prefixed.model", model_type="bpe", **own)
    assert prefixed.settings.add_dummy_prefix
    sizes = sizes_for(prefixed)
    export_here(tmp_path / "out", random_model(sizes), sizes, prefixed, targets=["gguf"])
    folded = other_tokenizer(tmp_path / "folded.model", model_type="bpe")
    assert folded.settings.normalizer == "nmt_nfkc"
    with pytest.raises(ExportError, match=r"tokenizer: \d+ of 509 texts have the same token ids"):
        export_here(tmp_path / "bad", random_model(sizes), sizes, folded, targets=["gguf"])
    unigram = other_tokenizer(tmp_path / "unigram.model", model_type="unigram", **own)
    with pytest.raises(ExportError, match=r"unigram.model is a unigram model; .* for bpe only"):
        export_here(tmp_path / "bad", random_model(sizes), sizes, unigram, targets=["gguf"])
    bare = other_tokenizer(tmp_path / "bare.model", model_type="bpe", **own | {"byte_fallback": False})
    with pytest.raises(ExportError, match=r"bare.model has no byte fallback, and llama.cpp fails .* byte fallback"):
        export_here(tmp_path / "bad", random_model(sizes), sizes, bare, targets=["gguf"])
    assert not (tmp_path / "bad").exists()
    endless = other_tokenizer(tmp_path / "endless.model", model_type="bpe", bos_id=-1, eos_id=-1, **own)
    model = random_model(sizes)
    with torch.no_grad():
        model.final_norm.bias.fill_(1.0)
        model.out_head.weight[2] += 0.5  # a piece, not the end, which it is if nothing is said
    export_here(tmp_path / "endless", model, sizes, endless, targets=["gguf"])


def test_without_the_extra_it_says_what_to_install(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "xllamacpp" else object())
    with pytest.raises(
        ConfigError, match=r'^to gguf needs xllamacpp, not installed; .*: pip install -e "\.\[export\]"$'
    ):
        export_here(tmp_path / "out", random_model(little.sizes), little.sizes, little.tokenizer, targets=["gguf"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", ["serving.md", "serving.en.md"])
def test_tolerances_are_what_the_documentation_says(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| (f32|f16|bf16|q8_0) \| ([\d.e-]+) \|", text, re.MULTILINE))
    assert {kind: float(value) for kind, value in stated.items()} == export_gguf.TOLERANCE
