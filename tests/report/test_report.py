"""The report: the numbers in it are those of the run, and it is one file that needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from html_tags import Tags
from little import Little

from mamegpt.cli.main import main
from mamegpt.errors import CheckpointError, OutputError
from mamegpt.generation.stream import generate
from mamegpt.pretrained import load
from mamegpt.report.page import page
from mamegpt.report.run import AXES, MAX_CHECKPOINTS, SAMPLE_TOKENS, SAMPLING, CheckpointSample, ReportRun, samples
from mamegpt.report.verdict import verdict
from mamegpt.report.write import write_report
from mamegpt.run.metrics import Quality, read_metrics
from mamegpt.run.run import Run
from mamegpt.text.display import visible
from mamegpt.training.metrics import Metrics

# ---------------------------------------------------------------- what a run tells


def test_curves_are_the_lines_of_the_metrics(little: Little) -> None:
    run = ReportRun(little.run)
    records = read_metrics(little.run)
    steps = [record for record in records if "loss" in record]
    assert [x for x, _ in run.curve("step", "loss")] == list(range(1, 13))
    assert run.curve("tokens", "loss") == [(step["tokens"], step["loss"]) for step in steps]
    times = [x for x, _ in run.curve("elapsed_s", "lr")]
    assert times == sorted(set(times)) and times[-1] == steps[-1]["elapsed_s"]
    assert run.curve("step", "grad_norm") == [(step["step"], step["grad_norm"]) for step in steps]
    quality = records[-1]["quality"]
    for axis in AXES:
        (_, ((x, y),)) = run.validated(axis, "bits_per_character")[-1]
        assert (x, y) == (run.curve(axis, "loss")[-1][0], quality["bits_per_character"])
    assert run.quality == Quality(**quality)
    first, last = run.timed_steps[0], run.timed_steps[-1]  # the time before the first step is its set-up
    assert run.tokens_per_s == (last["tokens"] - first["tokens"]) / (last["elapsed_s"] - first["elapsed_s"])
    assert [tokens * s for (tokens, _), s in zip(run.curve("tokens", "loss"), [1] * 12, strict=True)] == [
        128 * i for i in range(1, 13)
    ]


def test_figures_of_another_kind_are_another_curve(little: Little, tmp_path: Path) -> None:
    """Runs of older versions measured the first tokens while training, and all of them in their last figure."""
    run = Path(shutil.copytree(little.run, tmp_path / "run"))
    lines = [json.dumps(record) for record in read_metrics(run) if "loss" in record]

    def quality(bits: float, n: int, **more: int | str) -> dict[str, float | int | str]:
        return {
            "loss": bits,
            "bits_per_byte": bits,
            "bits_per_character": bits,
            "n_tokens": n,
            "n_characters": n,
            "n_bytes": n,
            **more,
        }

    old = [(4, quality(4.73, 500)), (8, quality(4.33, 500)), (12, quality(6.07, 9000))]
    sampled = {"of_n_characters": 9000, "dtype": "bfloat16"}
    whole = {"of_n_characters": 9000, "dtype": "float32"}
    new = [(step, quality(bits, 500, step=step, **sampled)) for step, bits in ((4, 5.5), (8, 5.2), (12, 5.1))]
    new.append((12, quality(5.13, 9000, step=12, **whole)))
    for figures, names in (
        (old, ["500 characters", "9,000 characters"]),
        (new, ["500 of 9,000 characters, bfloat16", "9,000 characters, float32"]),
    ):
        rows = [*lines, *(json.dumps({"step": step, "quality": quality}) for step, quality in figures)]
        (run / "metrics.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        found = ReportRun(run)
        curves = dict(found.validated("step", "bits_per_character"))
        assert list(curves) == names
        assert curves[names[0]] == [(step, value["bits_per_character"]) for step, value in figures[:-1]]
        assert curves[names[1]] == [(12, figures[-1][1]["bits_per_character"])]
        assert found.quality == Quality(**{"step": 12, **figures[-1][1]})
        assert found.quality == Metrics(run, 12, write=False).quality and found.quality.of == names[1]
        text = page([found], [], datetime(2026, 1, 2))
        Tags(text)
        assert f"{run}, {names[1]}: " in text


def test_bits_of_the_training_loss_fit_those_of_the_validation(little: Little) -> None:
    """The mean length of a token stands for the lengths of the tokens themselves: a few per cent off, not more."""
    run = ReportRun(little.run)
    factor = run.bits("step")[0][1] / run.curve("step", "loss")[0][1]
    assert run.quality is not None
    assert factor == pytest.approx(run.quality.bits_per_character / run.quality.loss, rel=0.1)


def test_speed_and_times_of_steps_that_were_written_together(little: Little, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(little.run, run)
    lines = [(1, 2.0), (2, 2.0), (3, 3.0), (4, 3.0)]
    (run / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"step": step, "loss": 1.0, "lr": 0.1, "tokens": 100 * step, "elapsed_s": s, "grad_norm": 0.5})
            + "\n"
            for step, s in lines
        )
        + '{"step": 5, "lo',
        encoding="utf-8",
    )
    found = ReportRun(run)
    assert found.curve("elapsed_s", "grad_norm") == [(1.0, 0.5), (2.0, 0.5), (2.5, 0.5), (3.0, 0.5)]
    assert found.speed("step") == [(2, 100.0), (3, 200.0), (4, 200.0)]
    assert (found.quality, found.validated("step", "loss")) == (None, [])


def test_a_run_whose_loss_was_no_number_is_shown_up_to_there(little: Little, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(little.run, run)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 13, "loss": NaN, "lr": 0.1, "grad_norm": Infinity, "tokens": 1664, "elapsed_s": 1e3}\n')
    found = ReportRun(run)
    assert len(found.steps) == 13 and len(found.bits("step")) == len(found.curve("step", "grad_norm")) == 12
    assert len(found.curve("step", "lr")) == 13
    Tags(page([found], [], datetime(2026, 1, 2)))


def test_samples_are_what_generate_writes_after_unseen_openings(little: Little) -> None:
    run = ReportRun(little.run)
    assert len(run.openings) == 3
    text = little.text.read_text(encoding="utf-8")
    assert all(opening in text and opening.startswith("【") for opening in run.openings)
    heard: list[Path] = []
    (sample,) = samples(run, run.openings[:1], heard.append)
    loaded = load(little.run)
    assert sample.texts == [
        generate(loaded.model, loaded.tokenizer, run.openings[0], SAMPLE_TOKENS, SAMPLING, at_start=True)
    ]
    assert sample.n_parameters == sum(p.numel() for p in loaded.model.parameters())
    assert (sample.step, heard) == (12, [little.run / "checkpoints" / "step-00000012"])


def test_a_model_that_answers_is_asked_whole_questions_each_once(tuned: Path) -> None:
    run = ReportRun(tuned)
    found = run.tokens()
    assert found and run.tokenizer.turns
    _, splits = found
    read = run.tokenizer.decode(splits.get("val", splits["train"]).tokens.tolist())
    assert run.openings and len({*run.openings}) == len(run.openings)
    assert all(opening in read for opening in run.openings)
    *_, sample = samples(run, run.openings, lambda _: None)
    loaded = load(run.checkpoints()[-1].path)
    answers = [loaded.answer(asked, max_new_tokens=SAMPLE_TOKENS, sampling=SAMPLING) for asked in run.openings]
    assert sample.texts == answers
    assert run.bits("step") == []  # its loss is of answers, and the characters are not those of all its tokens
    html = page([run], [sample], datetime(2026, 1, 2))
    assert "検証データの質問に" in html and "検証データの文書の冒頭" not in html


def test_of_many_checkpoints_some_write_the_newest_among_them(little: Little, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(little.run, run)
    (newest,) = (run / "checkpoints").iterdir()
    for step in range(1, 9):
        shutil.copytree(newest, newest.with_name(f"step-{step:08d}"))
    steps = [sample.step for sample in samples(ReportRun(run), [], lambda _: None)]
    assert len(steps) == MAX_CHECKPOINTS and steps == sorted(set(steps)) and steps[-1] == 12


def test_a_run_without_its_tokens_is_told_without_them(little: Little, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(little.run, run)
    shutil.rmtree(run / "tokens")
    found = ReportRun(run)
    assert (found.meta, found.openings, found.bits("step")) == (None, [], [])
    write_report([run], tmp_path / "report.html")
    assert "生成例" not in (tmp_path / "report.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def written(little: Little, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(little.run, folder / "<b>&")
    write_report([folder / "<b>&", little.run], folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_it_is_one_sound_file_that_asks_for_nothing(written: str, little: Little) -> None:
    tags = Tags(written)
    assert not {"script", "link", "img", "iframe", "object", "b"} & tags.names
    names = [name for name, _ in tags.attributes]
    assert not {"src", "href", "style"} & set(names) and not any(name.startswith("on") for name in names)
    assert "http" not in "".join(value or "" for name, value in tags.attributes if name != "http-equiv")
    assert not re.search(r"url\(|@import|\$\w", written)
    assert "<b>" not in written and "&lt;b&gt;&amp;" in written


def test_the_numbers_in_it_are_the_runs(written: str, little: Little) -> None:
    run = ReportRun(little.run)
    text = " ".join(Tags(written).texts)
    meta = run.meta
    assert meta is not None and run.quality is not None
    train = meta.splits["train"]
    for value in (
        f"{run.quality.bits_per_character:.4f}",
        f"{run.quality.loss:.4f}",
        "1,536",
        f"{run.tokens_per_s:,.0f}",
        f"{train.n_characters / train.n_tokens:.3f}",
        f"{train.n_documents:,} / {meta.splits['val'].n_documents:,}",
        little.tokenizer.fingerprint[:12],
        "--context-length",
        *run.openings,
    ):
        assert value in text
    assert f"{run.quality.bits_per_character:.4g} (12)" in text  # what the dot says


def test_names_and_texts_of_strangers_stay_text(little: Little, tmp_path: Path) -> None:
    hostile = "</title></style><script>alert(1)<img src=x onerror=y>\"'\n&lt;{{ 7 * 7 }}\u202e\u2066\x1b豆"
    run = tmp_path / hostile
    run.parent.mkdir(parents=True)
    shutil.copytree(little.run, run)
    (run / "machine.json").write_text(json.dumps({hostile: hostile}), encoding="utf-8")
    found = ReportRun(run)
    found.openings = [hostile]
    text = page([found], [CheckpointSample(found.name, 12, 1, [hostile])], datetime(2026, 1, 2))
    tags = Tags(text)
    assert not {"script", "img"} & tags.names and not any(name.startswith("on") for name, _ in tags.attributes)
    assert not {"\u202e", "\u2066", "\x1b"} & set(text)
    name = visible(found.name)
    assert tags.texts.count(visible(hostile)) == 4, "a prompt, a sample, the name of a fact and its value"
    assert tags.texts.count(name) == 5 and tags.texts.count(f"豆GPT: {name}") == 1, "the legend, and four tables"
    assert any(one.startswith(f"{name}, ") for one in tags.texts), "what a dot says"
    for chart in re.findall("<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(chart)


@pytest.mark.parametrize("axis", AXES)
def test_every_chart_is_there_for_every_axis(written: str, axis: str) -> None:
    charts = re.findall(rf'<div class="by-{axis}">(<svg.*?</svg>)</div>', written)
    assert len(charts) == 5
    for chart in charts:
        lines = ElementTree.fromstring(chart).findall("path")
        assert {"c0", "c1"} <= {name for line in lines for name in line.attrib["class"].split()}
    assert f"body:has(#by-{axis}:checked)" in written and f'id="by-{axis}"' in written


def test_each_word_is_there_in_both_languages(written: str, little: Little) -> None:
    english, japanese = (Tags(written, without).texts for without in ("ja", "en"))
    for words in (("Results", "結果"), ("vocabulary size", "語彙サイズ"), ("Machine", "学習に使ったマシン")):
        assert [english.count(words[0]), japanese.count(words[1])] == [1, 1]
        assert words[0] not in japanese and words[1] not in english
    assert len(english) == len(japanese)


def test_settings_that_differ_stand_out(little: Little, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(little.run, other)
    settings = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(settings | {"lr": 0.125}), encoding="utf-8")
    html = page([ReportRun(little.run), ReportRun(other)], [], datetime(2026, 1, 2))
    assert re.findall(r'<tr class="differs"><th>([\w-]+)</th>', html) == ["--lr"]
    assert "<td>0.125</td>" in html and "2026-01-02" in html


def test_machine_and_evaluation_are_those_in_the_folders_of_the_runs(little: Little, tmp_path: Path) -> None:
    machine = json.loads((little.run / "machine.json").read_text(encoding="utf-8"))
    other = tmp_path / "other"
    shutil.copytree(little.run, other)
    (other / "machine.json").write_text(json.dumps({"processor": "a <fast> one"}), encoding="utf-8")
    share = {"share": 0.5, "n": 372}
    text = {"validation": Run(other).metrics[-1]["quality"] | {"bits_per_character": 5.0}}
    pairs = {"total": share, "per_character": share, "by_phenomenon": {}}
    baseline = {"name": "3-gram", "text": text, "pairs": pairs, "cloze": None}
    model = baseline | {"origin": "run/checkpoints/step-00000012", "recited": 0.0123}
    scores = {"models": [model], "baseline": baseline, "heldout_recited": 0.001}
    (other / "evaluation.json").write_text(json.dumps(scores), encoding="utf-8")
    html = page([ReportRun(little.run), ReportRun(other)], [], datetime(2026, 1, 2))
    assert f"processor</span></th><td>{machine['processor']}</td><td>a &lt;fast&gt; one</td>" in html
    assert '<span lang="ja">プロセッサ</span>' in html
    assert (
        "no better than the n-gram model&#39;s 5.000 bits" in html and html.count("as uncertain as a choice among") == 2
    )
    assert "processes</span></th><td>1</td><td>–</td>" in html
    text["validation"]["n_characters"] -= 1
    (other / "evaluation.json").write_text(json.dumps(scores), encoding="utf-8")
    assert (found := ReportRun(other).verdict) and found.kind == "alone", "of a sample, the validation of all"
    text["validation"]["of_another_version"] = 1
    (other / "evaluation.json").write_text(json.dumps(scores), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"evaluation.json is damaged .* run: mamegpt eval"):
        assert ReportRun(other).verdict
    del text["validation"]["of_another_version"]
    (other / "evaluation.json").write_text(json.dumps(scores), encoding="utf-8")
    assert [ReportRun(run).scores for run in (little.run, other)] == [
        {},
        {
            "checkpoint evaluated": "step-00000012",
            "bits/character": "5.000 (5.000)",
            "minimal pairs, accuracy (by chance 50%)": "50.0% (50.0%)",
            "memorization (generated 20-character strings found in the training data)": "1.23%",
            "for comparison: validation data itself": "0.10%",
        },
    ]
    assert "minimal pairs, accuracy (by chance 50%)</span></th><td>–</td><td>50.0% (50.0%)</td>" in html
    assert "Evaluation" not in page([ReportRun(little.run)], [], datetime(2026, 1, 2))
    (other / "machine.json").unlink()
    (other / "evaluation.json").write_text("[1]", encoding="utf-8")
    assert ReportRun(other).machine == {}
    with pytest.raises(
        CheckpointError,
        match=r"evaluation.json is damaged \(it must be a JSON object .*; delete it, or run: mamegpt eval",
    ):
        page([ReportRun(other)], [], datetime(2026, 1, 2))
    (other / "evaluation.json").write_text('{"models": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"evaluation.json is damaged .* run: mamegpt eval"):
        page([ReportRun(other)], [], datetime(2026, 1, 2))


def test_mistakes_are_one_line_and_change_nothing(
    little: Little, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    out.write_text("old", encoding="utf-8")
    run = tmp_path / "young"
    shutil.copytree(little.run, run)
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(CheckpointError, match="has no step"):
        write_report([run], out)
    with pytest.raises(OutputError, match="is a folder"):
        write_report([little.run], tmp_path)
    for words in (["report", str(tmp_path / "nothing"), "--out", str(out)], ["report", "--out", str(out)]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
    assert "no run in" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "old"


def test_bits_are_judged_beside_an_ngram_model() -> None:
    assert verdict(1.0).line == "1.000 bits per character: as uncertain as a choice among 2.0 characters"
    better = verdict(1.0, 1.5)
    assert better.kind == "better" and "better than the n-gram model's 1.500 bits" in better.line
    for bits in (1.5, 2.0, 1e4):
        assert verdict(bits, 1.5).kind == "worse" and "more training would help" in verdict(bits, 1.5).line
