"""The exported folder: what is in it, what transformers makes of it, and that a bad one never gets its name."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from architectures import supported
from huggingface_hub import EvalResult, ModelCard
from little import N_SENTENCES, ROOT, Little, export_here, random_model, sizes_for
from markdown_it import MarkdownIt
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mamegpt.config import TrainConfig
from mamegpt.data.provenance import Provenance
from mamegpt.data.sources import card_licenses
from mamegpt.data.stories import stories
from mamegpt.errors import ConfigError, ExportError, MamegptError, ModelError, OutputError
from mamegpt.exporting import hf as export_module
from mamegpt.exporting import publish
from mamegpt.exporting.checks import EDGE_CASES, Check
from mamegpt.exporting.export import ExportReport
from mamegpt.exporting.model_card import Facts, model_card, public_names
from mamegpt.exporting.publish import export, export_weights
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import generate, stream_ids
from mamegpt.models.base import Architecture
from mamegpt.models.custom_gpt import architecture as custom_gpt
from mamegpt.models.custom_gpt import modeling_custom_gpt
from mamegpt.models.custom_gpt.hf import CUSTOM_GPT
from mamegpt.models.hf_format import HFFormat
from mamegpt.models.registry import architecture, hf_formats
from mamegpt.pretrained import load
from mamegpt.run.metrics import Quality
from mamegpt.run.run import Run
from mamegpt.system.files import sha256_file
from mamegpt.text.display import visible
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.trainer import train

pytestmark = pytest.mark.usefixtures("warm_exports")

OTHER_PYTHON = "MAMEGPT_TRANSFORMERS4_PYTHON"
CHANGED = {"n_kv_heads": 2, "ffn_dim": 56, "rope_theta": 500.0, "tie_embeddings": True, "drop_rate": 0.1}
N_NEW = 15
TEXTS = ["昔々、あるところに", *EDGE_CASES, *(text for _, text in stories(seed=3, n=20))]
# fmt: off
FILES = [
    "README.md", "config.json", "generation_config.json", "jp_tok_wiki.model", "jp_tok_wiki.vocab",
    "model.safetensors", "modeling_custom_gpt.py", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json",
]
# fmt: on


@dataclass(frozen=True)
class Made:
    """A run and the folder of a format it was exported into."""

    name: str
    run: Path
    exported: Path

    @property
    def hf_format(self) -> HFFormat:
        return hf_formats()[self.name]


@pytest.fixture(scope="module")
def all_made(little: Little, warm_exports: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """A run of every architecture, exported in every format; where it differs from its defaults, it does so."""

    runs = {CUSTOM_GPT.architecture: little.run}

    def make(name: str) -> Made:
        own = hf_formats()[name].architecture
        if name == CUSTOM_GPT.model_type:
            return Made(name, little.run, little.exported)
        folder = tmp_path_factory.mktemp(name)
        if own not in runs:
            config = TrainConfig(
                data=str(little.text),
                tokenizer=str(little.spm),
                out=str(folder / "run"),
                device="cpu",
                val_fraction=0.1,
                context_length=32,
                emb_dim=32,
                n_layers=2,
                n_heads=4,
                batch_size=4,
                max_steps=12,
                optimizer="adamw",
                architecture=own,
                **supported(own, CHANGED),
            )
            runs[own] = train(config).out
        to: Any = "hf" if architecture(own).hf_formats[0].model_type == name else "hf-native"
        export(str(runs[own]), folder / "exported", to=to, n_sentences=N_SENTENCES)
        return Made(name, runs[own], folder / "exported")

    return {name: make(name) for name in sorted(hf_formats())}


@pytest.fixture(scope="module", params=sorted(hf_formats()))
def made(request: pytest.FixtureRequest, all_made: dict[str, Made]) -> Made:
    """One of them after the other."""
    return all_made[request.param]


@pytest.fixture(scope="module")
def ids(little: Little) -> torch.Tensor:
    """Four rows of twelve tokens of a story the model has not seen."""
    tokens = little.tokenizer.encode(TEXTS[-1])
    return torch.tensor(tokens[:48]).view(4, 12)


@pytest.fixture(scope="module", params=["here", pytest.param("transformers 4", marks=pytest.mark.slow)])
def all_seen(
    request: pytest.FixtureRequest,
    all_made: dict[str, Made],
    ids: torch.Tensor,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """What verify_transformers.py finds in exported folders, with the installed transformers and with version 4."""
    python = sys.executable if request.param == "here" else os.environ.get(OTHER_PYTHON)
    if not python:
        pytest.skip(f"set {OTHER_PYTHON} to an interpreter with transformers 4.57 (and torch, safetensors, numpy)")
    scratch = tmp_path_factory.mktemp("seen")
    words = []
    for name, made in all_made.items():
        cases = {
            "ids": ids.tolist(),
            "n_new_tokens": N_NEW,
            "texts": TEXTS,
            "scratch": str(scratch / name),
            "trust_remote_code": made.hf_format.remote_code is not None,
        }
        (scratch / f"{name}.json").write_text(json.dumps(cases), encoding="utf-8")
        words += [str(made.exported), str(scratch / f"{name}.json"), str(scratch / f"{name}.pt")]
    done = subprocess.run(
        [python, "-X", "utf8", str(ROOT / "tests" / "helpers" / "verify_transformers.py"), *words],
        env=os.environ | {"HF_HOME": str(scratch), "HF_MODULES_CACHE": str(scratch / "m"), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        cwd=scratch,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = {name: torch.load(scratch / f"{name}.pt", weights_only=False) for name in all_made}
    assert request.param == "here" or all(of["version"].startswith("4.") for of in found.values())
    return found


@pytest.fixture
def seen(all_seen: dict[str, dict[str, Any]], made: Made) -> dict[str, Any]:
    """What it finds in one of them."""
    return all_seen[made.name]


@pytest.fixture(scope="module")
def logits(made: Made, ids: torch.Tensor) -> torch.Tensor:
    """What the run itself says, by our own code."""
    with torch.inference_mode():
        found: torch.Tensor = load(made.run, device="cpu").model(ids)
    return found.clone()


def check_of(report: ExportReport, name: str) -> Check:
    (check,) = (check for checks in report.checks.values() for check in checks if check.name == name)
    return check


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- what is in it


def test_the_folder_holds_these_files_and_no_others(little: Little) -> None:
    assert little.report.files == sorted(path.name for path in little.exported.iterdir()) == FILES


def test_the_model_file_is_the_packages_own_byte_for_byte(little: Little) -> None:
    ours = Path(modeling_custom_gpt.__file__).read_bytes()
    assert (little.exported / "modeling_custom_gpt.py").read_bytes() == ours


def test_config_says_what_the_original_format_and_both_transformers_need(little: Little) -> None:
    assert json.loads((little.exported / "config.json").read_text(encoding="utf-8")) == {
        "model_type": "custom-gpt",
        "architectures": ["CustomGPTForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_custom_gpt.CustomGPTConfig",
            "AutoModelForCausalLM": "modeling_custom_gpt.CustomGPTForCausalLM",
        },
        "vocab_size": 1000,
        "context_length": 32,
        "emb_dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "drop_rate": 0.1,
        "qkv_bias": False,
        "fast": True,
        "dtype": "float32",
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }


def test_weights_are_the_same_tensors_twice_under_backbone(little: Little) -> None:
    plain = torch.load(little.weights, weights_only=True)
    assert "trf_blocks.1.att.qkv.weight" in plain
    for found in (
        load_file(little.exported / "model.safetensors"),
        torch.load(little.exported / "pytorch_model.bin", weights_only=True),
    ):
        assert found.keys() == {f"backbone.{name}" for name in plain}
        assert all(torch.equal(found[f"backbone.{name}"], tensor) for name, tensor in plain.items())


def test_sentencepiece_files_are_copies(little: Little) -> None:
    for name in ("jp_tok_wiki.model", "jp_tok_wiki.vocab"):
        assert (little.exported / name).read_bytes() == (little.spm.parent / name).read_bytes()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"step": 41}, "500 トークン、float32"),
        ({"step": 40}, "500 トークン、float32、ステップ 40 のとき"),
        (
            {"step": 40, "dtype": "bfloat16", "of_n_characters": 9000},
            "500 トークンのサンプル、bfloat16、ステップ 40 のとき",
        ),
        ({"dtype": ""}, "500 トークン"),  # a record of an older version
    ],
)
def test_a_validation_in_the_card_says_what_it_is_of(changed: dict[str, Any], told: str) -> None:
    found = {"n_tokens": 500, "n_characters": 800, "n_bytes": 2400, "of_n_characters": 800, "dtype": "float32"}
    quality = Quality(loss=3.0, bits_per_byte=1.0, bits_per_character=3.0, **found | changed)
    rows = {english: value for _, english, value in Facts(step=41, quality=quality).rows()}
    assert rows["validation"] == f"3.000 ビット/文字、1.000 ビット/バイト、損失 3.000({told})"


def test_the_card_states_the_facts(little: Little) -> None:
    n_parameters = sum(tensor.numel() for tensor in torch.load(little.weights, weights_only=True).values())
    card = (little.exported / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlanguage:\n- ja\n")
    for fact in (f"| {n_parameters:,} |", "| 2 / 32 / 4 |", "| 32 トークン |", "SentencePiece bpe、語彙サイズ 1,000"):
        assert fact in card
    assert "学習データ /" not in card and "生成例" not in card  # weights alone do not tell
    assert f"*A Japanese language model, exported with mamegpt: {n_parameters:,} parameters" in card
    assert "事前学習" not in card  # nor how the weights were trained
    assert "\nlicense: unknown\n" in card and "学習データのライセンスは記録されていません" in card
    assert "pache" not in card.replace("`modeling_custom_gpt.py` は Apache License 2.0 です。", "")
    quality = Quality(4.5, 1.5, 3.25, 1234, 2000, 6000)
    config = TrainConfig(data="/home/mame/ひみつ/本.txt@0.5", batch_size=4, context_length=32, init_from="/home/前")
    facts = Facts(
        config=config,
        step=12,
        elapsed_s=1234.5,
        n_documents=7,
        n_characters=8900,
        quality=quality,
        losses=[9.5, 7.25, 6.125],
        samples=[("昔々、", "豆が\nいました。")],
        sampling=Sampling(temperature=0.7, top_p=0.9, seed=3),
    )
    whole = model_card("豆", little.sizes, 7, little.tokenizer, CUSTOM_GPT, facts)
    for fact in (
        "| 学習データ / training data | 本.txt(7 文書、8,900 文字) |",
        "12 ステップ、1,536 トークン",
        "3.250 ビット/文字、1.500 ビット/バイト",
        "| 元のモデル / base model | 前 |",
        "| 時間 / time | 1,234 秒 |",
        "muon、学習率 0.03、4 × 32 トークン",
        "- <strong>昔々、</strong>豆がいました。",
        "| 学習損失 / training loss | █▃▁ 9.50 → 6.12 |",
    ):
        assert fact in whole
    assert "生成例(temperature 0.7、top-p 0.9、乱数シード 3 から)" in whole
    assert "ひみつ" not in whole and "home" not in whole
    assert "既存のモデルから継続学習した" in whole and "license: unknown" in whole.split("# 豆")[0]
    scratch = dataclasses.replace(facts, config=dataclasses.replace(config, init_from=""), licenses=["cc-by-sa-4.0"])
    whole = model_card("豆", little.sizes, 7, little.tokenizer, CUSTOM_GPT, scratch)
    assert "ゼロから事前学習した" in whole and "\nlicense: cc-by-sa-4.0\n" in whole
    assert "学習データのライセンス: cc-by-sa-4.0。" in whole
    both = dataclasses.replace(scratch, licenses=["cc-by-sa-4.0", "mit"])
    whole = model_card("豆", little.sizes, 7, little.tokenizer, CUSTOM_GPT, both)
    assert "\nlicense:\n- cc-by-sa-4.0\n- mit\n" in whole
    assert "{" not in whole.replace("{name}", "")


def test_names_and_texts_bring_no_markup_into_the_card(little: Little) -> None:
    mark = "<img src=x onerror=alert(1)>|`\n#"
    facts = Facts(config=TrainConfig(data=mark), step=1, machine=mark, samples=[(mark, mark)])
    for gguf_file in ("", mark):
        card = model_card(mark, little.sizes, 7, little.tokenizer, CUSTOM_GPT, facts, gguf_file=gguf_file)
        in_prose = "".join(card.split("```")[::2])
        shell = shlex.quote(" ".join(mark.replace("`", "'").split()))
        assert "<img" not in in_prose.replace(f"`mamegpt generate --model {shell} --prompt", "")
        assert card.count("```") == 2 and "\n#\n" not in card
        assert "| マシン / hardware | &lt;img src=x onerror=alert(1)&gt;\\|\\` # |" in card


def test_a_name_with_quotes_is_the_same_in_code_and_in_a_command(little: Little) -> None:
    """Markdown shows what is between backticks as it is; a string of Python has escapes."""
    name = """豆 "a" \\b"""
    card = model_card(name, little.sizes, 7, little.tokenizer, CUSTOM_GPT, Facts(config=TrainConfig(), step=1))
    assert f"from_pretrained({json.dumps(name, ensure_ascii=False)}" in card
    (shell,) = re.findall("`mamegpt (generate --model .*?)`", card)
    assert shlex.split(shell)[2] == name


HOSTILE = [
    "<img src=x onerror=alert(1)>|`\n#",
    "\"'\n---\nlicense: mit\n---\n# 別の題",
    "[x](javascript:alert(1)) ![y](http://a.example/p.png) [z]: <http://a.example>",
    "**b** _c_ ~~d~~ $e$ \\ \\| &lt;b&gt;",
    "| a | b |\n| --- | --- |\n| c | d |",
    "```\nx\n```\n~~~\n- y\n1. z",
    "--- <!-- {{ name }} {% endif %} {# -->",
    "\x1b[31m\x00\u202e\u2028---",
    ": - ? *a &b !!python/object:os.system 'c",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_whatever_texts_say_the_card_has_the_same_parts(little: Little, tmp_path: Path, hostile: str) -> None:
    plain = "豆"
    for gguf in (False, True):
        parts, heads = [], []
        for text in (plain, hostile):
            result = EvalResult(
                task_type="text-generation",
                dataset_type="custom",
                dataset_name=public_names(text),
                metric_type="bits_per_character",
                metric_value=3.25,
            )
            facts = Facts(
                config=TrainConfig(data=text),
                step=1,
                machine=text,
                samples=[(text, text)],
                results=[result],
                origins=[Provenance("extract", text, {text: text}, 2, 1, {text: 1})],
            )
            file = tmp_path / "README.md"
            card = model_card(text, little.sizes, 7, little.tokenizer, CUSTOM_GPT, facts, gguf_file=text * gguf)
            file.write_text(card, encoding="utf-8", newline="\n")
            read = ModelCard.load(file)
            assert read.data.model_name == visible(" ".join(text.split()))
            heads.append({**read.data.to_dict(), "model-index": read.data.eval_results[0].metric_value})
            parts.append(parts_of(read.text))
            assert visible(" ".join(text.split())) in parts[-1][1]
        assert heads[0] == heads[1] and parts[0][0] == parts[1][0]


def parts_of(text: str) -> tuple[list[str], str]:
    """The elements of a Markdown text in their order, and the text of them."""
    tokens = [
        inner
        for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        for inner in (token, *(token.children or ()))
    ]
    kinds = [token.type for token in tokens if token.type not in ("text", "text_special", "softbreak")]
    return kinds, "".join(token.content for token in tokens if token.type != "inline")


def test_the_hub_reads_what_is_known_in_the_card(little: Little, tmp_path: Path) -> None:
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="fujiki/wiki40b_ja",
            dataset_name="wiki",
            dataset_split="train",
            metric_type=metric,
            metric_value=value,
            metric_name=metric,
            metric_args={"n_characters": 9},
        )
        for metric, value in (("bits_per_character", 3.25), ("bits_per_byte", 1.0833))
    ]
    facts = Facts(
        config=TrainConfig(data="fujiki/wiki40b_ja", init_from="mame/bean"),
        datasets=["fujiki/wiki40b_ja"],
        base_model="mame/bean",
        results=results,
        licenses=["cc-by-sa-4.0", "mit"],
    )
    file = tmp_path / "README.md"
    file.write_text(model_card("豆", little.sizes, 7, little.tokenizer, CUSTOM_GPT, facts), encoding="utf-8")
    data = ModelCard.load(file).data
    assert (data.base_model, data.datasets, data.language) == ("mame/bean", ["fujiki/wiki40b_ja"], ["ja"])
    assert (data.library_name, data.pipeline_tag, data.tags) == (
        "transformers",
        "text-generation",
        ["mamegpt", "custom-gpt"],
    )
    assert (data.model_name, data.eval_results, data.license) == ("豆", results, "unknown")
    (whole,) = data.to_dict()["model-index"]
    assert [len(one["metrics"]) for one in whole["results"]] == [2]

    file.write_text(model_card("豆", little.sizes, 7, little.tokenizer, CUSTOM_GPT, Facts()), encoding="utf-8")
    assert set(ModelCard.load(file).data.to_dict()) == {"language", "library_name", "license", "pipeline_tag", "tags"}


def test_only_what_came_from_the_hub_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    for name in ("datasets--fujiki--wiki40b_ja", "datasets--a--b", "models--a--m"):
        (cache / name).mkdir(parents=True)
    (tmp_path / "a" / "b").mkdir(parents=True)
    sources = (
        "fujiki/wiki40b_ja@0.5, books/old,a/b,x.txt",
        "fujiki/wiki40b_ja (train)",
        "hf://datasets/fujiki/wiki40b_ja",
    )
    assert publish._datasets(*sources) == ["fujiki/wiki40b_ja"]
    assert publish._datasets("fujiki/wiki40b_ja:ja@v1@0.5") == ["fujiki/wiki40b_ja"]
    assert publish._is_known("a/m", "model") and not publish._is_known("a/m", "dataset")

    config = TrainConfig(data="fujiki/wiki40b_ja", val_fraction=0.005)
    held = "fujiki/wiki40b_ja (0.5% held out)"
    assert publish._held_out(config) == {
        "dataset_type": "fujiki/wiki40b_ja",
        "dataset_name": held,
        "dataset_split": "train",
    }
    other = dataclasses.replace(config, val_data=str(tmp_path / "ひみつ" / "val.txt"))
    assert publish._held_out(other) == {
        "dataset_type": "custom",
        "dataset_name": "val.txt",
        "dataset_split": "validation",
    }


# ---------------------------------------------------------------- what transformers makes of it


def test_loads_whole_in_float32_without_this_package(seen: dict[str, Any]) -> None:
    assert seen["odd_keys"] == []
    assert seen["dtype"] == "torch.float32"
    assert seen["sizes"] == {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
    }
    assert not seen["knows_mamegpt"]


def test_logits_are_those_of_the_run(seen: dict[str, Any], logits: torch.Tensor) -> None:
    assert logits.std() > 0.1
    for name in ("logits", "from_embeddings", "in_chunks", "logits_again"):
        assert close(seen[name], logits), name
    assert close(seen["last_two"], logits[:, -2:])


def test_generate_is_ours_with_and_without_cache(seen: dict[str, Any], made: Made, ids: torch.Tensor) -> None:
    model = load(made.exported, device="cpu").model
    expected = [[*row, *stream_ids(model, row, N_NEW)] for row in ids.tolist()]
    assert seen["cached"].tolist() == expected
    assert seen["uncached"].tolist() == expected
    assert tuple(seen["one_beam_of_two"]) == (4, 12 + N_NEW)
    assert tuple(seen["sampled"]) == (8, 15)


def test_rows_padded_on_the_left_are_as_they_are_alone(seen: dict[str, Any]) -> None:
    for name in ("padded_logits", "padded_in_chunks"):
        for padded, alone in zip(seen[name], seen["alone_logits"], strict=True):
            assert close(padded, alone), name
    assert torch.equal(seen["padded_text"], seen["alone_text"])


def test_labels_are_shifted_inside_and_minus_100_is_ignored(
    seen: dict[str, Any], logits: torch.Tensor, ids: torch.Tensor
) -> None:
    whole = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    some = F.cross_entropy(logits[:, 3:-1].flatten(0, 1), ids[:, 4:].flatten())
    assert close(seen["loss"], whole)
    assert close(seen["loss_of_some"], some)
    assert abs(whole - some) > 1e-3


def test_saved_again_it_carries_its_code_if_it_has_some(seen: dict[str, Any], made: Made) -> None:
    assert {"config.json", "model.safetensors"} <= set(seen["files_again"])
    assert ("modeling_custom_gpt.py" in seen["files_again"]) == (made.hf_format.remote_code is not None)


def test_the_fast_tokenizer_is_sentencepiece(seen: dict[str, Any], little: Little) -> None:
    assert seen["text_ids"] == [little.tokenizer.encode(normalize(text)) for text in TEXTS]
    assert seen["decoded"] == [normalize(text) for text in TEXTS]
    assert seen["special_ids"] == [2, 2, 3]  # the start of a text is the end of another, as in GPT-2
    assert seen["padding_side"] == "left"


def test_the_example_on_the_card_writes_what_we_write(seen: dict[str, Any], made: Made) -> None:
    assert seen["untrusted_ids"] == seen["text_ids"][:3]
    loaded = load(made.exported)
    assert loaded.has_start
    expected = "昔々、" + generate(loaded.model, loaded.tokenizer, "昔々、", 16, at_start=True)
    assert seen["card"].removesuffix("\n") == expected


def test_the_pipeline_writes_what_we_write(seen: dict[str, Any], made: Made) -> None:
    loaded = load(made.exported)
    assert seen["pipeline"] == generate(loaded.model, loaded.tokenizer, TEXTS[0], 4) != ""


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_a_step_of_fine_tuning_teaches_the_end_of_a_text(made: Made) -> None:
    """As TRL trains: the end token is appended as a string, and activations are computed again."""
    tokenizer = AutoTokenizer.from_pretrained(made.exported)
    texts = [text + tokenizer.eos_token for text in ("豆の木だ。", "昔々、豆が")]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids[:, -1].tolist() == [2, 2]
    cls = modeling_custom_gpt.CustomGPTForCausalLM if made.hf_format.remote_code else AutoModelForCausalLM
    model = cls.from_pretrained(made.exported, dtype=torch.float32).train()
    for dropout in (module for module in model.modules() if isinstance(module, torch.nn.Dropout)):
        dropout.p = 0.0
    labels = ids.masked_fill(mask == 0, -100)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, attention_mask=mask, labels=labels).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    plain = gradients()
    model.gradient_checkpointing_enable()
    for again, before in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(again, before)

    def end() -> torch.Tensor:
        with torch.inference_mode():
            return model(ids, attention_mask=mask).logits[:, -2].log_softmax(-1)[:, 2]

    before = end()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert (end() > before).all()


def test_the_license_is_given_or_read_from_a_card_beside_the_text(little: Little, tmp_path: Path) -> None:
    data = tmp_path / "本"
    data.mkdir()
    (data / "a.txt").write_text("豆。\n", encoding="utf-8")
    where = f"{data / 'a.txt'}@0.5, {data}"
    assert card_licenses(where) == []
    (data / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n# 本\n", encoding="utf-8")
    assert card_licenses(where) == ["cc-by-sa-4.0"]
    assert card_licenses(f"{where},{little.text}") == card_licenses("owner/name") == []
    (data / "README.md").write_text("# 本\n", encoding="utf-8")
    assert card_licenses(where) == []
    (data / "README.md").write_text("---\nlicense: 'mit\\n- x'\n---\n", encoding="utf-8")
    assert card_licenses(where) == []
    with pytest.raises(ConfigError, match=r"data_license must be an identifier of the Hub"):
        export(str(little.run), tmp_path / "out", data_license="CC BY-SA")


def test_past_the_context_the_model_says_so() -> None:
    config = modeling_custom_gpt.CustomGPTConfig(vocab_size=50, context_length=8, emb_dim=8, n_layers=1, n_heads=2)
    model = modeling_custom_gpt.CustomGPTForCausalLM(config)
    with pytest.raises(ValueError, match="9 tokens do not fit into context_length 8"):
        model(torch.zeros(1, 9, dtype=torch.long))


# ---------------------------------------------------------------- a bad folder never gets its name


def corrupt(tmp_path: Path, *changes: tuple[str, str]) -> Architecture:
    assert CUSTOM_GPT.remote_code
    code = CUSTOM_GPT.remote_code.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in code
        code = code.replace(before, after)
    (tmp_path / "code").mkdir()
    path = tmp_path / "code" / CUSTOM_GPT.remote_code.name
    path.write_text(code, encoding="utf-8")
    bad = dataclasses.replace(CUSTOM_GPT, remote_code=path)
    return dataclasses.replace(custom_gpt.ARCHITECTURE, hf_formats=(bad,))


NO_POSITIONS = ("x + self.pos_emb(positions)", "x")
HALF_THE_CACHE = ("k, v = cache.update(k, v, self.layer)", "k, v = (t / 2 for t in cache.update(k, v, self.layer))")
NO_PADDING = ("mask & attention_mask.bool()[:, None, None, :]", "mask[None, None]")
TWICE_THE_LOSS = ("return CausalLMOutputWithPast(loss=loss,", "return CausalLMOutputWithPast(loss=loss and 2 * loss,")
ALL_BAD = ("from typing import Any, Protocol", "raise SystemError('豆が足りない')")


@pytest.mark.parametrize(
    ("changes", "complaints"),
    [
        (
            [NO_POSITIONS, HALF_THE_CACHE],
            ["logits: ", "greedy: ", "logits with and without cache"],
        ),
        ([NO_PADDING, TWICE_THE_LOSS], ["left-padded row", "the loss of labels", "have the same token ids"]),
    ],
)
def test_an_export_that_behaves_differently_fails_and_leaves_nothing(
    little: Little,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: list[tuple[str, str]],
    complaints: list[str],
) -> None:
    monkeypatch.setattr(custom_gpt, "ARCHITECTURE", corrupt(tmp_path, *changes))
    if "the loss of labels" in complaints:
        data = json.loads(export_module.fast_tokenizer_json(little.tokenizer))
        data["normalizer"] = {"type": "Replace", "pattern": {"String": "豆"}, "content": "麦"}
        monkeypatch.setattr(export_module, "fast_tokenizer_json", lambda _tokenizer: json.dumps(data))
    torch.save(random_model(little.sizes).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ExportError) as error:
        export_weights(tmp_path / "weights.pth", little.spm, tmp_path / "out" / "folder", n_sentences=N_SENTENCES)
    assert [complaint for complaint in complaints if complaint not in str(error.value)] == []
    assert "\n" not in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_overwrite_leaves_the_old_folder(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(little.exported, out)
    with pytest.raises(OutputError, match="already exists"):
        export_weights(little.weights, little.spm, out)
    with pytest.raises(OutputError, match="already exists"):
        export(str(little.run), out)
    monkeypatch.setattr(custom_gpt, "ARCHITECTURE", corrupt(tmp_path, ALL_BAD))
    with pytest.raises(ExportError, match=r"does not load in a separate process.*豆が足りない") as error:
        export_weights(little.weights, little.spm, out, n_sentences=N_SENTENCES, overwrite=True)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir() if path.name != "code"] == ["out"]
    assert sorted(path.name for path in out.iterdir()) == FILES
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is not overwritten"):
        export(str(little.run), out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "mine.txt"])


# ---------------------------------------------------------------- other models, other tokenizers


def test_a_run_exports_with_its_history_and_replaces_on_demand(little: Little, tmp_path: Path) -> None:
    out = tmp_path / "豆モデル v1.0"
    shutil.copytree(little.exported, out)
    report = export(str(little.run), out, n_sentences=N_SENTENCES, overwrite=True)
    assert sha256_file(out / "README.md") != sha256_file(little.exported / "README.md")
    assert [check.name for check in report.checks["hf"]] == [
        "weights",
        "logits",
        "greedy",
        "no cache",
        "cache",
        "padding",
        "loss",
        "tokenizer",
        "round trip",
        "empty prompt",
        "pipeline",
    ]
    assert str(little.text) in check_of(report, "tokenizer").found  # its own text
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "12 ステップ、1,536 トークン" in card  # 12 steps of 4 windows of 32
    assert "| 検証 / validation |" in card
    quality = Run(little.run).validations[-1]
    index = {one.metric_type: one for one in ModelCard.load(out / "README.md").data.eval_results}
    assert index["bits_per_character"].metric_value == round(quality.bits_per_character, 4)
    assert index["bits_per_byte"].metric_value == round(quality.bits_per_byte, 4)
    assert index["bits_per_byte"].dataset_name == "stories.txt (10% held out)" and len(index) == 2
    exported = load_file(out / "model.safetensors")
    for name, tensor in torch.load(little.weights, weights_only=True).items():
        assert torch.equal(exported[f"backbone.{name}"], tensor)


def test_a_users_nmt_nfkc_unigram_exports_and_its_agreement_is_measured(little: Little, tmp_path: Path) -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for _, text in stories(seed=2, n=60) for line in text.split("\n")),
        model_writer=written,
        vocab_size=900,
        model_type="unigram",
        byte_fallback=True,
        minloglevel=2,
    )
    (tmp_path / "mine.model").write_bytes(written.getvalue())
    tokenizer = Tokenizer.load(tmp_path / "mine.model")
    assert tokenizer.settings.normalizer == "nmt_nfkc"
    sizes = sizes_for(tokenizer, qkv_bias=True, context_length=20)
    report = export_here(tmp_path / "out", random_model(sizes), sizes, tokenizer, settings={"fast": False})
    found = re.match(r"(\d+) of (\d+) texts have the same token ids", check_of(report, "tokenizer").found)
    assert found and 0.9 < int(found[1]) / int(found[2]) <= 1
    assert load(str(tmp_path / "out")).sizes == sizes
    assert json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))["fast"] is False


def test_a_model_that_always_ends_its_text_exports_even_with_a_tiny_context(little: Little, tmp_path: Path) -> None:
    sizes = sizes_for(little.tokenizer, context_length=3, n_heads=1)
    model = random_model(sizes)
    with torch.no_grad():
        model.final_norm.bias.fill_(1.0)
        model.out_head.weight[2] += 50.0
    assert list(stream_ids(model, [5], 2)) == [2, 2]
    report = export_here(tmp_path / "out", model, sizes, little.tokenizer)
    assert check_of(report, "greedy").found == "50 of 50 prompts are continued with the same 1 tokens"


def test_sizes_left_out_are_read_from_the_weights_and_contradictions_name_both(little: Little, tmp_path: Path) -> None:
    wrong = {"vocab_size": 999, "context_length": 64, "emb_dim": 64, "n_layers": 4, "qkv_bias": True}
    for name, value in wrong.items():
        right = getattr(little.sizes, name)
        with pytest.raises(ModelError) as error:
            export_weights(little.weights, little.spm, tmp_path / "out", **{name: value})
        assert f"{name} {value}" in str(error.value)
        assert f"{name} {right}" in str(error.value)
    with pytest.raises(MamegptError, match=r"emb_dim 32 is not divisible by n_heads 5"):
        export_weights(little.weights, little.spm, tmp_path / "out", n_heads=5)
    config = json.loads((little.exported / "config.json").read_text(encoding="utf-8"))  # made with no size given
    for name in ("vocab_size", "context_length", "emb_dim", "n_layers", "n_heads", "qkv_bias"):
        assert config[name] == getattr(little.sizes, name), name


def test_a_tokenizer_of_another_size_is_refused_naming_both(little: Little, tmp_path: Path) -> None:
    sizes = dataclasses.replace(little.sizes, vocab_size=900)
    with pytest.raises(ModelError, match="vocabulary size 1000, but the model 900"):
        export_here(tmp_path / "out", random_model(sizes), sizes, little.tokenizer)
    with pytest.raises(ModelError, match=r"no vocabulary file .*none\.vocab"):
        export_weights(little.weights, little.spm, tmp_path / "out", spm_vocab=tmp_path / "none.vocab")
    assert list(tmp_path.iterdir()) == []
