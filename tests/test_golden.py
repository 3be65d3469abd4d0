"""What version 0.1.0 wrote with its real commands is still read, resumed, evaluated, exported and reported.

``golden/make.py`` says how its files came about. Numbers are compared with a tolerance where processors round
differently, files byte for byte where they do not.
"""

from __future__ import annotations

import html
import json
import re
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Mame
from little import ROOT
from safetensors.torch import load_file

from mamegpt.config import TrainConfig
from mamegpt.generation.whole_characters import WholeCharacters
from mamegpt.pretrained import load

GOLDEN = Path(__file__).with_name("golden")
MAKE = runpy.run_path(str(GOLDEN / "make.py"))
RUNS = sorted(MAKE["RUNS"])
NO_NGRAMS = "--ngrams false"  # as all runs were then
LAST = Path("checkpoints", "step-00000040")
EXPORTED = ["mame-exported/hf", "seed-exported/hf", "seed-exported/hf-native"]


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, in which commands run as they did when they wrote them."""
    copy = shutil.copytree(GOLDEN, tmp_path / "golden")
    monkeypatch.chdir(copy)
    return copy


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The values in a JSON value by where they are, without those that differ from one execution to the next."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: one for k, v in entries for key, one in flat(v, f"{name}/{k}").items()}
    return {} if name.endswith(("/elapsed_s", "/mamegpt")) else {name: value}


def assert_close(found: Any, frozen: Any, rel: float = 1e-4) -> None:
    """Everything frozen is found, floats nearly, the rest exactly; there may be more now."""
    found, frozen = flat(found), flat(frozen)
    assert found.keys() >= frozen.keys()
    floats = {name for name, value in frozen.items() if isinstance(value, float)}
    assert {name: found[name] for name in floats} == pytest.approx({name: frozen[name] for name in floats}, rel=rel)
    assert {name: found[name] for name in frozen.keys() - floats} == {
        name: frozen[name] for name in frozen.keys() - floats
    }


def assert_same_weights(found: Path, frozen: Path, **tolerance: float) -> None:
    """Tensors of the same names, nearly equal with a ``tolerance``, bitwise without one."""
    torch.testing.assert_close(weights(found), weights(frozen), **({"rtol": 0, "atol": 0} | tolerance))


def weights(path: Path) -> dict[str, Any]:
    """The tensors in a file."""
    return load_file(path) if path.suffix == ".safetensors" else dict(torch.load(path, weights_only=True))


# ---------------------------------------------------------------- help and text


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("name", [*MAKE["COMMANDS"], "mamegpt"])
def test_the_help_of_a_command(mame: Mame, monkeypatch: pytest.MonkeyPatch, name: str, language: str) -> None:
    monkeypatch.setenv("MAMEGPT_LANG", language)
    code, out, err = mame(*([] if name == "mamegpt" else [name]), "--help")
    assert (code, err) == (0, "")
    assert out == (GOLDEN / "help" / language / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("name", MAKE["SCRIPTS"])
def test_the_help_of_a_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, language: str
) -> None:
    monkeypatch.setenv("MAMEGPT_LANG", language)
    monkeypatch.setenv("COLUMNS", "100")
    assert script(monkeypatch, name, "--help") == 0
    assert capsys.readouterr().out == (GOLDEN / "help" / language / f"{name}.txt").read_text(encoding="utf-8")


def script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> Any:
    """Run a root script in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / name), *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    return end.value.code


def test_a_text_becomes_the_same_corpus_with_the_same_note_of_origin(mame: Mame, golden: Path) -> None:
    made = ["topic.txt", "topic.txt.origin.json", "clean.jsonl", "clean.jsonl.origin.json", "dropped.jsonl"]
    for name in made:
        (golden / name).unlink()
    for words in MAKE["CORPUS"]:
        assert mame(*words.split())[0] == 0
    for name in made:
        assert (golden / name).read_bytes() == (GOLDEN / name).read_bytes(), name


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("name", RUNS)
def test_the_fingerprint_of_settings(name: str) -> None:
    (state,) = (GOLDEN / name).glob("checkpoints/*/state.json")
    assert TrainConfig.load(GOLDEN / name / "config.json").fingerprint() == read(state)["settings"]


@pytest.mark.parametrize("name", RUNS)
def test_an_interrupted_run_is_resumed_and_ends_as_the_one_that_was_not(mame: Mame, golden: Path, name: str) -> None:
    code, _, err = mame("train", "--resume", name)
    assert code == 0, err
    assert_ended(golden / name, name, rel=1e-4, weights=1e-3)
    step = len(records(GOLDEN / name / "metrics.jsonl"))
    assert records(golden / name / "metrics.jsonl")[:step] == records(GOLDEN / name / "metrics.jsonl")


@pytest.mark.parametrize("name", RUNS)
def test_the_same_command_trains_the_same_model(mame: Mame, golden: Path, name: str) -> None:
    shutil.rmtree(golden / name)
    words = f"{MAKE['TRAIN']} {MAKE['RUNS'][name]} {MAKE['TINY']} {NO_NGRAMS} --out {name}"
    code, _, err = mame(*words.split())
    assert code == 0, err
    for file in ("tokens/train.bin", "tokens/val.bin", "tokenizer.model"):
        assert (golden / name / file).read_bytes() == (GOLDEN / name / file).read_bytes(), file
    for file in ("config.json", "tokens/meta.json"):
        assert_close(read(golden / name / file), read(GOLDEN / name / file))
    assert read(golden / name / "machine.json").keys() >= read(GOLDEN / name / "machine.json").keys()
    assert_ended(golden / name, name)


def assert_ended(run: Path, name: str, rel: float = 2e-3, weights: float = 5e-2) -> None:
    """A run ended with the metrics and the weights that it had when it was not interrupted.

    The default tolerances are for a whole training: the first steps of AdamW make rounding errors of gradients near
    zero larger (measured: 8e-5 in the metrics and 4e-3 in one weight, with other instructions of the same processor).
    """
    frozen = GOLDEN / f"{name}-end"
    assert_close(records(run / "metrics.jsonl"), records(frozen / "metrics.jsonl"), rel)
    assert_same_weights(run / LAST / "model.safetensors", frozen / "model.safetensors", rtol=0, atol=weights)
    assert read(run / LAST / "state.json")["finished"] is True


def test_token_shards_are_text_to_learn(mame: Mame, golden: Path) -> None:
    words = f"{MAKE['TRAIN']} {MAKE['RUNS']['tied']} {MAKE['TINY']} {NO_NGRAMS} --out new"
    words = words.replace("clean.jsonl", "mame/tokens").replace(" --val-fraction 0.1", "")
    code, _, err = mame(*words.split())
    assert code == 0, err
    assert_ended(golden / "new", "tied")


def test_token_shards_that_are_damaged_are_refused(mame: Mame, golden: Path) -> None:
    tokens = golden / "mame" / "tokens" / "train.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2] + b"\0\0")
    code, _, err = mame("train", "--resume", "mame")
    assert code == 2 and "train.bin" in err, err


def test_evaluation_finds_the_same(mame: Mame, golden: Path) -> None:
    for name in RUNS:
        frozen = golden / name / "evaluation.json"
        frozen.unlink()
        assert mame("eval", "--model", name)[0] == 0
        found, expected = read(frozen), read(GOLDEN / name / "evaluation.json")
        for scores in (found, expected):  # six of the minimal pairs were replaced since
            for model in (*scores["models"], scores["baseline"]):
                del model["pairs"]
        assert_close(found, expected)


@pytest.mark.parametrize("name", MAKE["GENERATED"])
def test_a_model_writes_the_same_text_up_to_the_first_broken_character(
    mame: Mame, golden: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = MAKE["GENERATED"][name].split()
    expected = read(golden / "generated.json")[name]
    code, out, err = mame("generate", "--model", "mame", *how)
    whole, broken, _ = expected.partition("\ufffd")
    assert (code, "\ufffd" in out) == (0, False), err
    assert out.startswith(whole) and (broken or out == whole)
    monkeypatch.setattr(WholeCharacters, "of", lambda *_: WholeCharacters())  # 0.1.0 had no such rule
    code, out, err = mame("generate", "--model", "mame", *how)
    assert (code, out) == (0, expected), err


def test_a_report_states_the_same_figures(mame: Mame, golden: Path) -> None:
    code, _, err = mame("report", *MAKE["RUNS"], "--out", "report.html")
    assert code == 0, err
    assert (golden / "report.html").read_bytes() != (GOLDEN / "report.html").read_bytes(), "nothing was written"
    figures = cells(GOLDEN / "report.html")
    assert ["4.336 (1.122)"] in [row[:1] for row in figures], "the evaluation of the first run"
    found = iter(cells(golden / "report.html"))
    assert [row for row in figures if row not in found] == [], "in this order; there may be more rows now"


def cells(page: Path) -> list[list[str]]:
    """The rows of a page's tables as text, without the first cell of each and without headings."""
    rows = re.findall(r"<tr>(.*?)</tr>", page.read_text(encoding="utf-8"), re.DOTALL)
    found = [
        [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall("<td.*?>(.*?)</td>", row)] for row in rows
    ]
    return [row for row in found if row]


# ---------------------------------------------------------------- exported folders


@pytest.mark.parametrize("name", [*RUNS, *EXPORTED])
def test_a_run_and_its_exported_folders_have_the_same_logits(golden: Path, name: str) -> None:
    frozen = load_file(GOLDEN / "logits.safetensors")
    model = load(name).model.eval()
    with torch.inference_mode():
        logits = model.out_head(model.hidden(frozen["ids"]))
    torch.testing.assert_close(logits, frozen[name.partition("-")[0]], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("warm_exports")
@pytest.mark.parametrize("name", ["mame", pytest.param("seed", marks=pytest.mark.slow)])
def test_export_writes_the_same_folders_over_those_it_wrote(mame: Mame, golden: Path, name: str) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    folder = f"{name}-exported"
    code, _, err = mame("export", "--model", name, "--out", folder, *MAKE["EXPORTS"][name].split(), "--overwrite")
    assert code == 0, err
    later = "html/"  # a target that all stands for by now
    assert [file for file in names(golden / folder) if not file.startswith(later)] == names(GOLDEN / folder)
    for file in names(GOLDEN / folder):
        new, old = golden / folder / file, GOLDEN / folder / file
        assert new.stat().st_mtime_ns > old.stat().st_mtime_ns, f"{file} was not written"
        if new.name == "README.md":
            assert numbers(old) <= numbers(new), file
        elif new.suffix == ".bin":
            assert_same_weights(new, old)
        elif new.suffix != ".py":  # the model's code may change, as long as its logits do not
            assert new.read_bytes() == old.read_bytes(), file


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def numbers(card: Path) -> Counter[str]:
    """The numbers in the table of a model card."""
    table = [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return Counter(re.findall(r"\d[\d,.]*", "".join(table)))


# ---------------------------------------------------------------- the original scripts


def test_the_original_script_makes_the_same_weights_in_the_same_place(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (golden / "original.pth").unlink()
    assert script(monkeypatch, "training.py", *MAKE["ORIGINAL"].split()) == 0
    assert [path.name for path in (golden / "runs").iterdir()] == (golden / "original-run.txt").read_text().split()
    assert_same_weights(golden / "original.pth", GOLDEN / "original.pth", rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_original_weights_file_is_exported(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--weights original.pth --spm-model jp_tok.model --spm-vocab jp_tok.vocab --n-heads 2 --out-dir made"
    assert script(monkeypatch, "export_to_hf.py", *words.split()) == 0
    exported = weights(golden / "made" / "model.safetensors")
    for name, tensor in weights(golden / "original.pth").items():
        assert torch.equal(exported[f"backbone.{name}"], tensor), name
    names_of_run = {name.replace("tokenizer.", "jp_tok.") for name in names(GOLDEN / "seed-exported" / "hf")}
    assert {name.replace("tokenizer.", "jp_tok.") for name in names(golden / "made")} == names_of_run
