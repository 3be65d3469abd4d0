"""GGUF files: what is in them, and that llama.cpp computes and cuts text as we do, or the export fails."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
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
from mamegpt.exporting import gguf_types
from mamegpt.exporting.export import Exporting, ExportReport
from mamegpt.exporting.publish import export
from mamegpt.models import registry
from mamegpt.models.base import LanguageModel
from mamegpt.models.custom_gpt import gguf as custom_gpt_gguf
from mamegpt.run.run import Run
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


def learned(little: Little, architecture: str, **changed: int) -> tuple[LanguageModel, ModelConfig]:
    """The same after a few steps on stories: random weights would magnify the rounding to 16 or fewer bits."""
    sizes = sizes_for(little.tokenizer, context_length=80, **supported(architecture, OTHER | changed))
    model = random_model(sizes, architecture=architecture, spread=0.05)
    tokens = torch.tensor(little.tokenizer.encode(little.text.read_text(encoding="utf-8")))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    windows = torch.randint(len(tokens) - 81, (60, 8, 1), generator=torch.Generator().manual_seed(0))
    for rows in tokens[windows + torch.arange(81)]:  # (8, 81)
        F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, sizes


# fmt: off
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
}
# fmt: on
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
    replaced = ["data types"] if kind == "q8_0" and architecture != "custom-gpt" else []
    assert [check.name for check in report.checks["gguf"]] == ["rounding"] * (kind == "q8_0") + CHECKS + replaced
    assert difference(report) > 0 or kind == "f32"
    read = gguf.GGUFReader(tmp_path / "豆" / f"豆-{kind}.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert types["token_embd.weight"] == kind.upper() and types["output_norm.weight"] == "F32"
    assert ("output.weight" in types) == (not sizes.tie_embeddings)
    (down,) = (tensor for tensor in read.tensors if tensor.name == "blk.1.ffn_down.weight")
    assert down.tensor_type.name == ("F16" if kind == "q8_0" and down.shape[0] % 32 else kind.upper())
    assert read.fields["tokenizer.ggml.add_space_prefix"].contents() is False
    assert [read.fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("bos", "eos")] == [2, 2]


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize(("kind", "most", "head"), [("q5_k_m", "Q5_K", "Q6_K"), ("q4_k_m", "Q4_K", "Q6_K")])
def test_llama_cpp_computes_with_the_weights_of_a_mixture(
    little: Little, tmp_path: Path, architecture: str, kind: Any, most: str, head: str
) -> None:
    model, sizes = learned(little, architecture, emb_dim=256, ffn_dim=320)
    report = export_here(
        tmp_path / "豆", model, sizes, little.tokenizer, architecture, targets=["gguf"], gguf_type=kind
    )
    rounding, *_ = report.checks["gguf"]
    assert rounding.name == "rounding" and float(rounding.found.split()[0]) > 0
    read = gguf.GGUFReader(tmp_path / "豆" / f"豆-{kind}.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert types["blk.0.ffn_up.weight"] == most
    assert types["output.weight" if "output.weight" in types else "token_embd.weight"] == head
    if architecture != "custom-gpt":  # its rows are 1,024 wide
        assert types["blk.0.ffn_down.weight"] in ("Q5_0", "Q5_1", "Q8_0")
        found = report.checks["gguf"][-1].found
        assert found.startswith("rows that are not whole blocks are in other types: ") and " ffn_down q" in found


@pytest.mark.slow
def test_the_card_of_a_run_states_what_rounding_costs(little: Little, tmp_path: Path) -> None:
    export(little.run, tmp_path / "out", to="gguf", gguf_type="q8_0", n_sentences=500)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    found = re.search(
        r"rounded weights \| q8_0: ([\d.]+) ビット/文字、元の重み: ([\d.]+)\(検証データ [\d,]+ 文字\)", card
    )
    assert found
    quality = Run(little.run).quality
    assert quality and float(found[2]) == pytest.approx(quality.bits_per_character, abs=0.01)
    assert float(found[1]) == pytest.approx(float(found[2]), abs=0.05)


def test_types_of_a_mixture() -> None:
    parts = ("attn_v", "attn_qkv", "ffn_down", "ffn_up", "attn_norm")
    names = {f"blk.{layer}.{part}.weight": 1 + (part != "attn_norm") for layer in range(8) for part in parts}
    names |= {"token_embd.weight": 2, "position_embd.weight": 2}
    tied = gguf_types.wanted_types(names, "q4_k_m", 8)
    more = [layer for layer in range(8) if tied[f"blk.{layer}.attn_v.weight"] == "Q6_K"]
    assert more == [layer for layer in range(8) if tied[f"blk.{layer}.ffn_down.weight"] == "Q6_K"] == [0, 3, 6, 7]
    others = {part: tied[f"blk.1.{part}.weight"] for part in parts}
    assert others == dict(zip(parts, ("Q4_K", "Q5_K", "Q4_K", "Q4_K", "F32"), strict=True))
    assert (tied["token_embd.weight"], tied["position_embd.weight"]) == ("Q6_K", "F32")
    untied = gguf_types.wanted_types(names | {"output.weight": 2}, "q5_k_m", 8)
    assert (untied["token_embd.weight"], untied["output.weight"]) == ("Q5_K", "Q6_K")
    fitting = [gguf_types.fitting_type(kind, n) for n in (512, 384, 344) for kind in ("Q4_K", "Q5_K", "Q6_K", "Q8_0")]
    assert fitting == ["Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q5_0", "Q5_1", "Q8_0", "Q8_0", "F16", "F16", "F16", "F16"]


def test_k_types_are_rounded_by_llama_cpp() -> None:
    values = np.random.default_rng(0).standard_normal((3, 512)).astype(np.float32)
    called = np.empty((3, 512 // 32 * 18), np.uint8)
    kind = gguf.GGMLQuantizationType.Q4_0
    gguf_types.k_quantizer()(kind.value, values.ctypes.data, called.ctypes.data, 0, *values.shape, None)
    assert np.array_equal(called, gguf.quantize(values, kind))  # the same call, where another program can be asked
    errors = {
        name: np.abs(gguf_types.rounded(values, name) - values).mean() for name in ("Q4_0", "Q4_K", "Q5_K", "Q6_K")
    }
    assert errors["Q4_0"] > errors["Q4_K"] > errors["Q5_K"] > errors["Q6_K"] > 0


def test_a_mixture_that_fits_no_matrix_is_refused(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export() -> None:
        model = random_model(little.sizes)
        export_here(tmp_path / "out", model, little.sizes, little.tokenizer, targets=["gguf"], gguf_type="q4_k_m")

    with pytest.raises(ExportError, match=r"blocks of 256 numbers, which fit no matrix .*\(rows of 32, 128\).* q8_0"):
        export()
    monkeypatch.setattr(gguf_types.ctypes, "CDLL", lambda _: SimpleNamespace())
    gguf_types.k_quantizer.cache_clear()
    with pytest.raises(ConfigError, match=r"calls llama.cpp's own code, which xllamacpp does not offer .* q8_0"):
        export()
    assert list(tmp_path.iterdir()) == []


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
        model_writer=written,
        **({"vocab_size": 900, "byte_fallback": True, "minloglevel": 2} | changed),
    )
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
    stated = dict(re.findall(r"^\| (f32|f16|bf16|q\w+) \| ([\d.e-]+) \|", text, re.MULTILINE))
    assert {kind: float(value) for kind, value in stated.items()} == export_gguf.TOLERANCE
