"""The five scripts in the root: their flags and defaults are frozen, and they run as they are written down."""

from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hub_server import HubServer
from little import Little, folder_of, run_mamegpt, run_script
from scripts import entry

from mamegpt.cli.main import run_command_line
from mamegpt.cli.original import train_original
from mamegpt.data.stories import stories

REQUIRED = inspect.Parameter.empty
CONTRACT: dict[str, dict[str, Any]] = {
    "download_dataset.py": {"dataset": "fujiki/wiki40b_ja", "cache_dir": None},
    "make_dataset.py": {
        "keyword": REQUIRED,
        "dataset": "fujiki/wiki40b_ja",
        "split": "train",
        "out": Path("output_with_titles.txt"),
    },
    "training.py": {
        "train_txt": REQUIRED,
        "spm_model": REQUIRED,
        "out_weights": Path("model.pth"),
        "context_length": 256,
        "emb_dim": 128,
        "n_layers": 4,
        "n_heads": 4,
        "drop_rate": 0.1,
        "qkv_bias": False,
        "batch_size": 32,
        "max_steps": 2000,
        "lr": 3e-4,
        "device": None,
        "seed": 42,
        "samples_per_epoch": 10000,
        "precision": "auto",
    },
    "generate.py": {
        "prompt": REQUIRED,
        "max_new_tokens": 50,
        "repo_id": "oga5/hf-jp-gpt-wiki",
        "spm_file": "jp_tok_wiki.model",
        "device": None,
        "trust_remote_code": False,
    },
    "export_to_hf.py": {
        "weights": REQUIRED,
        "spm_model": REQUIRED,
        "spm_vocab": None,
        "out_dir": Path("hf_jp_gpt_wiki"),
        "context_length": None,
        "emb_dim": None,
        "n_layers": None,
        "n_heads": None,
        "drop_rate": 0.1,
        "qkv_bias": None,
        "vocab_size": None,
        "fast": False,
        "overwrite": False,
    },
}
COMMANDS = {
    "make_dataset.py": '--dataset fujiki/wiki40b_ja --split train --keyword "ファミコン" --out output_with_titles.txt',
    "training.py": "--train-txt output_with_titles.txt --spm-model jp_tok_wiki.model --out-weights "
    "hyper_small_jp_wiki.pth --context-length 256 --emb-dim 128 --n-layers 4 --n-heads 4 --drop-rate 0.1 "
    "--batch-size 32 --max-steps 2000 --lr 3e-4",
    "generate.py": '--prompt "こんにちは。最近あった面白いことは、" --max-new-tokens 50',
    "export_to_hf.py": "--weights hyper_small_jp_wiki.pth --spm_model jp_tok_wiki.model --spm_vocab jp_tok_wiki.vocab "
    "--out_dir hf_jp_gpt_wiki --context_length 256 --emb_dim 128 --n_layers 4 --n_heads 4 --drop_rate 0.1 "
    "--qkv_bias False --fast",
}


def words(script: str, **changed: object) -> list[str]:
    """The frozen command as a shell would cut it, some values changed."""
    found = COMMANDS[script].replace('"', "").split()
    for name, value in changed.items():
        found[found.index("--" + name.replace("_", "-")) + 1] = str(value)
    return found


def parse(script: str, arguments: list[str]) -> dict[str, Any]:
    """What the script's function would be called with."""
    found: dict[str, Any] = {}
    function = entry(script)

    @functools.wraps(function)
    def note(*args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        found.update(bound.arguments)

    with pytest.raises(SystemExit) as end:
        run_command_line(note, arguments)
    assert end.value.code == 0
    return found


# ---------------------------------------------------------------- flags and defaults


@pytest.mark.parametrize("script", CONTRACT)
def test_flags_and_defaults_are_frozen(script: str) -> None:
    parameters = inspect.signature(entry(script)).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == CONTRACT[script]


@pytest.mark.parametrize("script", CONTRACT)
def test_help_names_every_flag_with_its_default_and_says_what_it_is(script: str, tmp_path: Path) -> None:
    done = run_script(script, "--help", cwd=tmp_path)
    assert done.returncode == 0
    text = " ".join(done.stdout.replace("│", " ").split())
    for name, default in CONTRACT[script].items():
        after = text.split(f" --{name.replace('_', '-')} ", 1)[1]  # what it is, and the default, stand behind it
        known = "(required)" if default is REQUIRED else "(default: " if default is None else f"(default: {default})"
        assert known in after
    sentences = [line.split(": ", 1)[1] for line in _help_lines(entry(script))]
    assert len(sentences) == len(CONTRACT[script])
    whole = "".join(text.split())  # Japanese letters break anywhere
    assert [s for s in sentences if "".join(s.split()) not in whole] == []


def _help_lines(function: Callable[..., Any]) -> Iterator[str]:
    """The lines of Args in a docstring, continuation lines joined."""
    assert function.__doc__
    arguments = inspect.cleandoc(function.__doc__).split("Args:\n")[1]
    return iter(inspect.cleandoc(arguments.replace("\n        ", " ")).splitlines())


@pytest.mark.parametrize("script", COMMANDS)
def test_dashes_and_underscores_are_the_same(script: str) -> None:
    arguments = words(script)
    dashes = [w.replace("_", "-") if w.startswith("--") else w for w in arguments]
    underscores = ["--" + w[2:].replace("-", "_") if w.startswith("--") else w for w in arguments]
    assert dashes != underscores or script == "make_dataset.py"
    assert parse(script, arguments) == parse(script, dashes) == parse(script, underscores)


def test_the_frozen_commands_mean_what_they_say() -> None:
    assert parse("training.py", words("training.py")) == CONTRACT["training.py"] | {
        "train_txt": Path("output_with_titles.txt"),
        "spm_model": Path("jp_tok_wiki.model"),
        "out_weights": Path("hyper_small_jp_wiki.pth"),
    }
    assert parse("export_to_hf.py", words("export_to_hf.py")) == {
        "weights": Path("hyper_small_jp_wiki.pth"),
        "spm_model": Path("jp_tok_wiki.model"),
        "spm_vocab": Path("jp_tok_wiki.vocab"),
        "out_dir": Path("hf_jp_gpt_wiki"),
        "context_length": 256,
        "emb_dim": 128,
        "n_layers": 4,
        "n_heads": 4,
        "drop_rate": 0.1,
        "qkv_bias": False,
        "vocab_size": None,
        "fast": True,
        "overwrite": False,
    }


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ([], None),
        (["--qkv_bias"], True),
        (["--qkv_bias", "True"], True),
        (["--qkv-bias", "true"], True),
        (["--qkv_bias", "False"], False),
        (["--qkv-bias", "false"], False),
        (["--qkv_bias", "FALSE", "--fast"], False),
    ],
)
def test_switches_stand_alone_or_before_true_or_false(switch: list[str], expected: bool | None) -> None:
    found = parse("export_to_hf.py", [*switch, "--weights", "w", "--spm_model", "s"])
    assert found["qkv_bias"] is expected
    assert found["fast"] is ("--fast" in switch)


def test_a_switch_takes_nothing_but_true_or_false(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_command_line(entry("export_to_hf.py"), ["--weights", "w", "--spm_model", "s", "--fast", "maybe"])
    assert end.value.code == 2
    assert "maybe" in capsys.readouterr().err


# ---------------------------------------------------------------- the same seed, the same weights


SMALL = {"context_length": 32, "emb_dim": 16, "n_layers": 1, "n_heads": 2, "batch_size": 4, "max_steps": 6}
RECIPE = {"drop_rate": 0.1, "lr": 3e-4, "device": "cpu", "samples_per_epoch": 10000, "precision": "fp32"} | SMALL


def train_in(folder: Path, little: Little, seed: int, name: str = "model.pth") -> bytes:
    folder.mkdir(exist_ok=True)
    shutil.copy(little.text, folder / "t.txt")
    code = train_original(folder / "t.txt", little.spm, folder / name, seed=seed, **RECIPE)
    assert code == 0
    return (folder / name).read_bytes()


def losses(folder: Path) -> list[float]:
    (metrics,) = folder.glob("runs/*/metrics.jsonl")
    return [json.loads(line)["loss"] for line in metrics.read_text(encoding="utf-8").splitlines()]


def test_the_seed_fixes_every_byte_wherever_it_runs(little: Little, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train_in(tmp_path / "a", little, 42)
    torch.manual_seed(2)
    second = train_in(tmp_path / "b", little, 42, "other.pth")
    other = train_in(tmp_path / "c", little, 43)
    assert first == second != other
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")
    (tmp_path / "a" / "model.pth").unlink()
    assert train_in(tmp_path / "a", little, 42) == first  # the finished run is found again
    assert len(losses(tmp_path / "a")) == 6


def test_the_recipe_is_the_original_one(little: Little, tmp_path: Path) -> None:
    train_in(tmp_path / "a", little, 42)
    (config_file,) = (tmp_path / "a").glob("runs/*/config.json")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    # A constant rate, torch.optim.AdamW's own defaults, no clipping, all of the text.
    recipe = {
        "lr": 3e-4,
        "warmup_fraction": 0.0,
        "cooldown_fraction": 0.0,
        "weight_decay": 0.01,
        "beta2": 0.999,
        "grad_clip": 0.0,
        "val_fraction": 0.0,
        "drop_rate": 0.1,
        "optimizer": "adamw",
        "samples_per_epoch": 10000,
    }
    assert {name: config[name] for name in recipe} == recipe
    metrics = (config_file.parent / "metrics.jsonl").read_text(encoding="utf-8")
    rates = [json.loads(line)["lr"] for line in metrics.splitlines()]
    assert rates == [3e-4] * 6
    saved = torch.load(tmp_path / "a" / "model.pth", weights_only=True)
    assert {name.split(".")[0] for name in saved} == {"tok_emb", "pos_emb", "trf_blocks", "final_norm", "out_head"}
    assert saved["trf_blocks.0.att.qkv.weight"].shape == (48, 16)


# ---------------------------------------------------------------- from nothing to text, as it is written down


def wiki40b(n: int, first: int, keyword: str) -> pyarrow.Table:
    """Rows as Wiki-40B has them; every other one mentions the keyword."""
    rows = []
    for i, (title, text) in enumerate(islice(stories(seed=9), first, first + n)):
        more = f"そのあと{keyword}で遊びました。" if i % 2 == 0 else ""
        body = (text + more).replace("\n", "_NEWLINE_")
        rows.append(f"\n_START_ARTICLE_\n{title}\n_START_SECTION_\n概要\n_START_PARAGRAPH_\n{body}")
    return pyarrow.table(
        {"wikidata_id": [f"Q{i}" for i in range(n)], "text": rows, "version_id": [str(10**9 + i) for i in range(n)]}
    )


@pytest.mark.slow
def test_the_whole_contract_verbatim(hub: HubServer, tmp_path: Path) -> None:
    data = hub.root / "datasets/fujiki/wiki40b_ja/data"
    data.mkdir(parents=True)
    for split, n, first in (("train", 120, 0), ("validation", 8, 200), ("test", 6, 300)):
        pyarrow.parquet.write_table(wiki40b(n, first, "ﾌｧﾐｺﾝ"), data / f"{split}-00000-of-00001.parquet")
    (tmp_path / "home").mkdir()
    here: dict[str, Any] = {"cwd": tmp_path / "home", "env": hub.env(tmp_path)}

    done = run_script("download_dataset.py", **here)
    assert done.returncode == 0, done.stderr
    assert "fujiki/wiki40b_ja is in" in done.stdout
    for split, rows in (("train", "120 rows"), ("validation", "8 rows"), ("test", "6 rows")):
        assert any(split in line and rows in line for line in done.stdout.splitlines())

    downloads = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    done = run_script("make_dataset.py", *words("make_dataset.py"), **here)
    assert done.returncode == 0, done.stderr
    again = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    assert again == downloads  # not a second time
    text = (tmp_path / "home/output_with_titles.txt").read_text(encoding="utf-8")
    assert text.startswith("【") and text.endswith("\n\n") and text.count("ﾌｧﾐｺﾝで遊びました") == 60
    assert not any(marker in text for marker in ("_START_", "_NEWLINE_"))

    done = run_mamegpt(
        "tokenizer",
        "--data",
        "output_with_titles.txt",
        "--out",
        "jp_tok_wiki",
        "--vocab-size",
        900,
        "--character-coverage",
        0.99,
        **here,
    )
    assert done.returncode == 0, done.stderr
    done = run_script("training.py", *words("training.py", batch_size=2, max_steps=3), **here)
    assert done.returncode == 0, done.stderr
    assert "Vocab size: 900" in done.stdout and "[OK] Saved weights -> hyper_small_jp_wiki.pth" in done.stdout

    done = run_script("export_to_hf.py", *words("export_to_hf.py"), **here)
    assert done.returncode == 0, done.stderr
    assert "[OK] Exported to hf_jp_gpt_wiki" in done.stdout
    folder = tmp_path / "home/hf_jp_gpt_wiki"
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["fast"] is True

    shutil.copytree(folder, hub.root / "models/oga5/hf-jp-gpt-wiki")
    done = run_script("generate.py", *words("generate.py"), **here)
    assert done.returncode == 0, done.stderr
    assert "\n=== Generation ===\nこんにちは。最近あった面白いことは、" in done.stdout
    hub.stop()
    offline = run_script("generate.py", *words("generate.py"), **here)
    assert (offline.returncode, offline.stdout) == (0, done.stdout), offline.stderr


def test_the_scripts_speak_japanese_to_the_end(little: Little, tmp_path: Path) -> None:
    env = dict(os.environ) | {"MAMEGPT_LANG": "ja"}
    done = run_script("make_dataset.py", "--dataset", little.text, "--keyword", "豆", cwd=tmp_path, env=env)
    assert (
        done.stdout.splitlines()[-1].startswith("output_with_titles.txt を出力しました(") and "wrote" not in done.stdout
    )
    model = folder_of(little, tmp_path / "model", "qwen3")  # without the seconds in which transformers is imported
    words = ["--repo-id", model, "--prompt", "豆", "--max-new-tokens", "1", "--device", "cpu"]
    done = run_script("generate.py", *words, cwd=tmp_path, env=env)
    assert done.stdout.startswith("デバイス: cpu\n\n=== 生成結果 ===\n豆")
