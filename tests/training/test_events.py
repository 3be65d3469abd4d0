"""What a training tells: a live view, plain lines, JSON, loggers and a page, all with the numbers of the run."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from training_helpers import final_weights, records, tiny

from mamegpt import errors
from mamegpt.cli import console
from mamegpt.cli.commands.registry import COMMANDS
from mamegpt.cli.console import answering, busy, counted
from mamegpt.cli.main import main
from mamegpt.cli.progress import _View, json_lines, show_progress
from mamegpt.errors import ConfigError
from mamegpt.report.live import live_report
from mamegpt.training.events import Event, Started, StepEvent
from mamegpt.training.loggers import logger
from mamegpt.training.trainer import train

Train = Callable[..., Path]


class Tty(io.StringIO):
    """A terminal to write to."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def trained(stories_txt: Path, stories_model: Path, tmp_path: Path) -> Train:
    """Train a tiny run with these watchers; returns its folder."""

    def run(*watchers: Any, name: str = "run") -> Path:
        config = tiny(stories_txt, stories_model, tmp_path / name, drop_rate=0.1)
        return train(config, watchers=watchers).out

    return run


def test_the_live_view_shows_the_run_and_changes_nothing_in_it(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    tty = Tty()
    monkeypatch.setattr("sys.stdout", tty)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    run = trained(show_progress())
    monkeypatch.undo()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", tty.getvalue())
    last = [record for record in records(run) if "loss" in record][-1]
    quality = records(run)[-1]["quality"]
    assert "step 12/12" in shown and "0:00 left" in shown
    assert f"loss {last['loss']:.4f}  " in shown
    assert f"gradient {last['grad_norm']:.2f}" in shown
    assert f"validation loss {quality['loss']:.4f}" in shown
    assert "sample at step 6: " in shown and "sample at step 12: " in shown
    assert final_weights(trained(name="other"), 12) == final_weights(run, 12)


def test_a_tokenizer_without_an_end_of_text_has_no_sample(stories_txt: Path, tmp_path: Path) -> None:
    model = tmp_path / "bare.model"
    sentencepiece.SentencePieceTrainer.train(
        input=str(stories_txt),
        model_prefix=str(tmp_path / "bare"),
        vocab_size=400,
        eos_id=-1,
        bos_id=-1,
        character_coverage=0.98,
        minloglevel=2,
    )
    heard: list[str] = []

    view: _View | None = None

    def looking(event: Event) -> None:
        nonlocal view
        heard.append(type(event).__name__)
        if isinstance(event, Started):
            view = _View(event)
        elif view is not None:
            view.on_event(event)

    assert train(tiny(stories_txt, model, tmp_path / "run"), watchers=(looking,)).step == 12
    assert "Validated" in heard


def test_json_lines_are_the_metrics_and_nothing_else_is_on_standard_output(
    stories_txt: Path, stories_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["train", "--data", str(stories_txt), "--tokenizer", str(stories_model), "--out", str(run), "--json"]
    words += ["--context-length", "16", "--emb-dim", "16", "--n-heads", "2", "--max-steps", "12", "--precision", "fp32"]
    words += ["--eval-every-steps", "6", "--save-every-steps", "6", "--report", "--device", "cpu"]
    with pytest.raises(SystemExit) as end:
        main(words)
    out, err = capsys.readouterr()
    assert end.value.code == 0 and "tokenizing" in err
    events = [json.loads(line) for line in out.splitlines()]
    heard = [(event["event"], event["step"]) for event in events]
    expected = [
        ("step", 1),
        ("step", 6),
        ("validation", 6),
        ("step", 10),
        ("step", 12),
        ("validation", 12),
        ("done", 12),
    ]
    assert [one for one in heard if one[0] != "saved"] == expected
    # A checkpoint is told when it is complete, which may be some steps later.
    assert [one for one in heard if one[0] == "saved"] == [("saved", 6), ("saved", 12)]
    assert heard.index(("validation", 6)) < heard.index(("saved", 6)) < heard.index(("saved", 12)) < len(heard) - 1
    written = {record["step"]: record for record in records(run) if "loss" in record}
    for event in events:
        if event["event"] == "step":
            assert written[event["step"]].items() <= event.items()
            assert event["n_steps"] == 12 and event["tokens_per_s"] > 0 and event["memory_bytes"] > 1e6
    quality = next(record["quality"] for record in records(run) if "quality" in record)
    assert quality.items() <= events[2].items()
    assert Path(events[heard.index(("saved", 6))]["path"]).name == "step-00000006"
    assert events[-1]["run"] == str(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in page and 'class="sample"' in page


def test_the_page_renews_itself_until_the_run_ends(trained: Train, tmp_path: Path) -> None:
    pages: list[str] = []

    def looking(event: Event) -> None:
        if isinstance(event, StepEvent):
            pages.append((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))

    run = trained(live_report(), looking)
    assert '<meta http-equiv="refresh" content="10">' in pages[0] and len(set(pages)) == 1
    end = (run / "report.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in end and f"{records(run)[-1]['quality']['loss']:.4f}" in end


def test_tensorboard_holds_the_metrics(trained: Train) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(logger("tensorboard"))
    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    steps = [record for record in records(run) if "loss" in record]
    for name in ("loss", "lr", "grad_norm"):
        scalars = found.Scalars(f"train/{name}")
        assert [scalar.step for scalar in scalars] == list(range(1, 13))
        assert [scalar.value for scalar in scalars] == pytest.approx([step[name] for step in steps])
    *qualities, result = (record["quality"]["bits_per_byte"] for record in records(run) if "quality" in record)
    assert [scalar.value for scalar in found.Scalars("validation/bits_per_byte")] == pytest.approx(qualities)
    assert [scalar.value for scalar in found.Scalars("result/bits_per_byte")] == pytest.approx([result])


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_logger_that_is_not_installed_is_refused_before_anything_is_made(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=rf'^log {name} needs {name}, not installed; .*: pip install -e "\.\[{name}\]"$'
    ):
        logger(name)
    with pytest.raises(SystemExit) as end:
        main(["train", "--log", name, "--data", "a", "--tokenizer", "b", "--out", str(tmp_path / "run")])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_answer_is_lines_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json, out, err in ((False, "talk\n豆\n", ""), (True, '{"豆": "a"}\n', "talk\n")):
        with answering(as_json) as answer:
            console.say("talk")
            answer({"豆": Path("a")}, "豆")
        assert capsys.readouterr() == (out, err)


def test_a_long_step_is_seen_in_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with busy("reading") as show:
        assert list(counted(range(250), show)) == list(range(250))
    assert capsys.readouterr().out == ""
    tty = Tty()
    monkeypatch.setattr("sys.stdout", tty)
    monkeypatch.setenv("TERM", "xterm")
    with busy("reading", total=250) as show:
        assert list(counted(range(250), show)) == list(range(250))
    assert "reading" in tty.getvalue() and "200/250" in tty.getvalue()


def test_json_is_written_by_every_command_that_prints_a_table() -> None:
    without = {name for name, command in COMMANDS.items() if "json" not in inspect.signature(command).parameters}
    assert without == {"demo", "generate", "chat", "play", "report", "completion"}


def test_the_time_of_a_run_is_a_time_for_people(trained: Train, capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[Event] = []
    trained(kept.append)
    (started,) = [event for event in kept if isinstance(event, Started)]
    capsys.readouterr()
    show_progress()(dataclasses.replace(started, budget_s=70 * 2 / 3, reserve_s=4.2))
    assert "time: 47 s, about 4 s of it for the last validation" in capsys.readouterr().out


def test_watchers_may_be_none(trained: Train, capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    assert capsys.readouterr() == ("", "")
    heard: list[Any] = []
    trained(json_lines(heard.append), name="second")
    assert [event["event"] for event in heard if event["event"] == "saved"] == ["saved"] * 4
