"""What was typed on a command line is known, whatever the defaults are; what would do nothing is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random

import pytest
from command import Mame, chosen
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st
from little import Little, folder_of

from mamegpt.cli.commands.registry import COMMANDS
from mamegpt.cli.parsing import is_option, read
from mamegpt.config import TrainConfig
from mamegpt.data.shards import write_shards
from mamegpt.presets import preset
from mamegpt.tokenizer.tokenizer import Tokenizer

FEW = ["--max-steps", "1", "--batch-size", "2", "--precision", "fp32", "--device", "cpu", "--compile", "false"]
TEXTS = [field.name for field in dataclasses.fields(TrainConfig) if field.type == "str"]
WORDS = st.text(st.characters(codec="utf-8"), max_size=5)


@settings(max_examples=30)
@forall(st.dictionaries(st.sampled_from(TEXTS), WORDS, max_size=6), st.randoms())
def test_every_spelling_of_an_option_is_known(values: dict[str, str], random: Random) -> None:
    words = []
    for name, value in values.items():
        spelled = "--" + random.choice([name, name.replace("_", "-")])
        has_equals = random.random() < 0.5 or is_option(value)
        words += [f"{spelled}={value}"] if has_equals else [spelled, value]
    arguments = read(COMMANDS["train"], "mamegpt train", words)[1].arguments
    read_as = arguments.get("settings", TrainConfig())
    assert arguments["given"] == values.keys()
    assert {name: getattr(read_as, name) for name in values} == values


@pytest.fixture(scope="module")
def shards(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "tokens"
    tokenizer = Tokenizer.load(little.spm)
    texts = little.text.read_text(encoding="utf-8").split("\n\n")
    write_shards(folder, {"train": texts}, tokenizer, val_fraction=0.0, source="text", origins=[])
    return folder


# fmt: off
IDLE = [
    ("train --data SHARDS --val-data /nonexistent", "--val-data, which would do nothing with token shards as --data"),
    ("train --data SHARDS --val-split validation --val-fraction 0.02 --split train",
     "--split, --val-split, --val-fraction, which would do nothing with token shards"),
    ("train --data SHARDS --eval-every-steps 250",
     "--eval-every-steps, which would do nothing without validation text"),
    ("train --val-split validation", "--val-split, which would do nothing without --val-data"),
    ("train --val-data TEXT --val-fraction 0.1", "--val-fraction, which would do nothing with --val-data"),
    ("train --val-fraction 0 --val-tokens 65536", "--val-tokens, which would do nothing without validation text"),
    ("train --minutes 5 --max-steps 2000", "--max-steps, which would do nothing with --minutes"),
    ("train --optimizer adamw --muon-lr 0.02 --emb-lr=0.25",
     "--emb-lr, --muon-lr, which would do nothing with --optimizer adamw"),
    ("train --size 1m --emb_lr 0.25", "--emb-lr, which would do nothing with tied embeddings"),
    ("train --qkv-bias False", "--qkv-bias, which would do nothing with --architecture qwen3"),
    ("train --recipe seed --rope-theta 10000", "--rope-theta, which would do nothing with --architecture custom-gpt"),
    ("train --resume RUN --max-steps 2000", "--resume takes every setting but --on-bad-loss"),
    ("train --resume RUN --lr 0.03", "--resume takes every setting but --on-bad-loss"),
    ("train --resume RUN --size 5m", "--resume takes every setting but --on-bad-loss"),
    ("train --recipe seed --size 5m", "--recipe seed has one size"),
    ("train --resume-intact False", "--resume-intact works only with"),
    ("plan --cluster h100 --minutes 10", "--cluster is an analytical estimate"),
    ("plan --cluster h100 --device auto", "--cluster is an analytical estimate"),
    ("plan --split train", "--split, which would do nothing without --data"),
    ("plan --data SHARDS --split train", "--split, which would do nothing with token shards as --data"),
    ("generate --model RUN --prompt 豆 --top-k 0 --seed 3",
     "--top-k, --seed, which would do nothing with --temperature 0"),
    ("generate --model RUN --prompt 豆 --spm-file a.model", "--spm-file, which would do nothing with a run"),
    ("export --model RUN --out o --gguf-type f32", "--gguf-type f32 is for --to gguf"),
    ("export --model RUN --out o --spm-file a.model", "--spm-file, which would do nothing with a run"),
    ("eval --model RUN --split validation", "--split, which would do nothing without --data"),
    ("eval --model RUN --train-split train", "--train-split, which would do nothing without --train-data"),
    ("extract --dataset TEXT --keyword 町 --preview 2 --json False", "--json, which would do nothing with --preview"),
]
# fmt: on


@pytest.mark.parametrize(("line", "said"), IDLE, ids=[line for line, _ in IDLE])
def test_what_would_do_nothing_is_refused_though_it_equals_the_default(
    mame: Mame, little: Little, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [{"SHARDS": str(shards), "RUN": str(little.run), "TEXT": str(little.text)}.get(w, w) for w in line.split()]
    if words[0] == "train" and "--resume" not in words:
        data = [] if "--data" in words else ["--data", str(little.text)]
        words += [*data, "--tokenizer", str(little.spm), "--out", "run"]
    code, out, err = mame(*words)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


def test_the_shape_of_a_start_is_not_contradicted_by_what_equals_a_default(
    mame: Mame, little: Little, tmp_path: Path
) -> None:
    start = folder_of(little, tmp_path / "start", "qwen3")
    words = ["train", "--init-from", start, "--data", little.text, "--out", tmp_path / "run", *FEW]
    default = preset()
    for option, value in (
        ("--context-length", default.context_length),
        ("--emb-dim", default.emb_dim),
        ("--n-heads", default.n_heads),
        ("--n-layers", default.n_layers),
        ("--architecture", "custom-gpt"),
    ):
        code, _, err = mame(*words, option, value)
        assert code == 2 and f"{option} {value}: it has " in err
    assert "--init-from brings its own shape" in mame(*words, "--size", "5m")[2]
    assert mame(*words, "--lr", default.lr)[0] == 0
    assert json.loads((tmp_path / "run/config.json").read_text(encoding="utf-8"))["lr"] == default.lr


def test_the_learning_rate_follows_width_and_optimizer_unless_it_is_given(mame: Mame) -> None:
    for words, lr in {
        (): 0.03,
        ("--size", "1m"): 0.03 * 2**0.5,
        ("--emb-dim=512",): 0.015,
        ("--emb_dim", "512"): 0.015,
        ("--optimizer", "adamw"): 0.003,
        ("--optimizer=adamw", "--emb-dim", "512"): 0.0015,
        ("--size", "15m", "--emb-dim", "128"): 0.03,
        ("--recipe", "seed", "--emb-dim", "512"): 3e-4,
        ("--recipe", "seed"): 3e-4,
        ("--recipe", "seed", "--optimizer", "muon"): 3e-4,
        ("--emb-dim", "0"): 0.03 * 128**0.5,
    }.items():
        assert chosen(*words).lr == pytest.approx(lr), words
    help_ = " ".join(mame("train", "--optimizer", "adamw", "--help")[1].replace("│", " ").split())
    assert "(default: 0.003)" in help_.split("--lr")[1].split("--emb-lr")[0]
