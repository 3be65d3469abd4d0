"""`clean` in tasks: whatever the number of files, tasks and workers, the bytes of one process."""

from __future__ import annotations

import functools
import inspect
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little import ROOT, run_script
from readme import commands

from examples.clean_cluster import main
from mamegpt.cli import main as command_line
from mamegpt.data.clean.clean import clean
from mamegpt.data.clean.counts import CleanReport
from mamegpt.data.clean.page import count_rows
from mamegpt.data.clean.tasks import CleanTasks
from mamegpt.data.provenance import read_provenance
from mamegpt.data.sources import read_documents
from mamegpt.data.stories import stories
from mamegpt.errors import ConfigError, DataError, MamegptWarning, OutputError

STORIES = [text for _, text in stories(seed=5, n=30)]
LINE = "この文は三十字をこえていて、ほかの文書にも同じものがあるので、二度目からは取り除かれます。"
N_FILES = 4


def near(text: str, n: int, seed: int = 0) -> str:
    """A text with ``n`` other characters."""
    characters = list(text)
    for at in random.Random(seed).sample(range(len(text)), n):
        characters[at] = "々"
    return "".join(characters)


def chain() -> list[str]:
    """Texts each like the one before and after it, but not like those further away."""
    texts = ["\n".join(STORIES[:5])]
    for seed in range(5):
        texts.append(near(texts[-1], len(texts[0]) // 50, seed))
    return texts


TEXTS = [
    *chain(),
    *STORIES[5:15],
    STORIES[6].replace("。", " 。"),
    STORIES[7] + "\n" + LINE,
    STORIES[8] + "\n" + LINE,
    STORIES[20] + "\n" + LINE,
    STORIES[20],
    LINE + "\n" + STORIES[20],
    "短い。",
    "<br>",
    "English only. " * 9,
    STORIES[21] + "<b>太字</b>（）",
    STORIES[22] + "\n" + STORIES[23],
    "今すぐ登録。" * 50,
]


def write_files(folder: Path, texts: list[str], n_files: int = N_FILES) -> Path:
    """The texts as jsonl files, as many in each."""
    folder.mkdir()
    for k in range(n_files):
        part = texts[len(texts) * k // n_files : len(texts) * (k + 1) // n_files]
        lines = [json.dumps({"title": text[:3], "text": text}) + "\n" for text in part]
        (folder / f"{k}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus whose near-copies, copies and lines are spread over its files."""
    texts = list(TEXTS)
    random.Random(4).shuffle(texts)
    return write_files(tmp_path / "corpus", texts)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"question": STORIES[23]}), encoding="utf-8")
    return path


def run(job: CleanTasks) -> CleanReport:
    """Every task of every stage, one after the other, the last first."""
    job.start()
    for stage in job.stages()[:-1]:
        for rank in reversed(range(stage.n_tasks)):
            stage(None, rank, stage.n_tasks)
    return job.report()


def joined(out: Path, suffix: str) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(out.glob(f"train-*{suffix}")))


@pytest.mark.parametrize("n_tasks", [1, 3, N_FILES])
def test_the_parts_are_what_one_process_writes(corpus: Path, items: Path, tmp_path: Path, n_tasks: int) -> None:
    alone, page = tmp_path / "alone.jsonl", tmp_path / "page.html"
    report = clean(str(corpus), alone, against=[items], report=page)
    dropped = report.data.dropped
    assert dropped["near-duplicates"] > 2 and dropped["duplicates"] and dropped["contamination"] == 1
    assert report.data.edited_places["repeated-lines"] > 1
    out = tmp_path / "out"
    done = run(CleanTasks(str(corpus), out, n_tasks, format=".jsonl", against=(items,)))
    assert len(list(out.glob("train-*.jsonl"))) == n_tasks
    assert joined(out, ".jsonl") == alone.read_bytes()
    assert (out / "report.html").read_bytes() == page.read_bytes()
    assert count_rows(done) == count_rows(report)
    assert read_provenance(sorted(out.glob("train-*.jsonl"))) == read_provenance([alone]) == [report.provenance()]


REPORT = r"skipped 1 file\(s\) \(report\.html\): their format is not known"


@pytest.mark.parametrize("suffix", [".txt", ".parquet"])
def test_the_parts_are_a_data_set(corpus: Path, tmp_path: Path, suffix: str) -> None:
    alone, out = tmp_path / f"alone{suffix}", tmp_path / "out"
    clean(str(corpus), alone, without=["near-duplicates"], normalisation="nfkc")
    run(CleanTasks(str(corpus), out, 3, format=suffix, normalisation="nfkc", without=("near-duplicates",)))
    plain = [(one.title, one.text) for one in read_documents(alone)]
    with pytest.warns(MamegptWarning, match=REPORT):
        assert [(one.title, one.text) for one in read_documents(out)] == plain
    assert suffix == ".parquet" or joined(out, suffix) == alone.read_bytes()


SMALL = st.sampled_from([*STORIES[:3], near(STORIES[0], 2), LINE, LINE.replace("。", ""), "<br>", "短い。", "か\u3099"])
SOME = st.lists(st.lists(SMALL, max_size=5).map("\n".join), min_size=1, max_size=12)


@settings(deadline=None, max_examples=15)
@given(SOME, st.integers(1, 3))
def test_any_texts_in_any_parts(tmp_path_factory: pytest.TempPathFactory, texts: list[str], n_files: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    corpus = str(write_files(folder / "corpus", [STORIES[9], *texts], n_files))
    report = clean(corpus, folder / "alone.jsonl")
    done = run(CleanTasks(corpus, folder / "out", n_files, format=".jsonl"))
    assert joined(folder / "out", ".jsonl") == (folder / "alone.jsonl").read_bytes()
    assert done.data.to_dict() == report.data.to_dict()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
def test_a_text_that_only_deciding_brings_about_is_compared_too(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Without the lines of the second text the third is the first, which shares nothing with any as it was read."""
    lines = "\n".join(story.replace("\n", "") for story in STORIES[10:14])
    text = "\n".join(re.findall(".{20}", STORIES[3]))  # its own lines are too short to count
    texts = [text, STORIES[4] + "\n" + lines, text + "\n" + lines]
    corpus = str(write_files(tmp_path / "corpus", [texts[i] for i in order], 3))
    report = clean(corpus, tmp_path / "alone.jsonl")
    assert report.data.dropped["duplicates"] == 1
    assert run(CleanTasks(corpus, tmp_path / "out", 3, format=".jsonl")).data.to_dict() == report.data.to_dict()
    assert joined(tmp_path / "out", ".jsonl") == (tmp_path / "alone.jsonl").read_bytes()


def test_documents_that_share_nothing_are_not_decided_on(corpus: Path, tmp_path: Path) -> None:
    job = CleanTasks(str(corpus), tmp_path / "out", 1)
    job.start()
    job.prepare(0)
    job.share(0)
    job.decide()
    decided = pyarrow.parquet.read_table(job.work / "decided" / "00000.parquet")
    prepared = pyarrow.parquet.read_table(job.work / "prepared" / "00000.parquet")
    assert 0 < len(decided) < len(prepared) - 5


def test_a_part_may_be_empty(tmp_path: Path) -> None:
    corpus = write_files(tmp_path / "corpus", [STORIES[0], "短い。"], 2)
    run(CleanTasks(str(corpus), tmp_path / "out", 2))
    with pytest.warns(MamegptWarning, match=REPORT):
        assert [document.text for document in read_documents(tmp_path / "out")] == [STORIES[0]]
    assert sum(1 for _ in (tmp_path / "out").glob("*.parquet")) == 2


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"n_tasks": 9}, ConfigError, "9 tasks for 4 files"),
        ({"n_tasks": 0}, ConfigError, "0 tasks for 4 files"),
        ({"format": ".csv"}, ConfigError, "format '.csv'"),
        ({"without": ("nonsense",)}, ConfigError, "without must be one of aozora, .* \\(got 'nonsense'\\)"),
        ({"split": "test"}, DataError, "has no split 'test'"),
        ({"n_tasks": 2}, OutputError, "other files or settings"),
        ({"out": "elsewhere"}, OutputError, "is not empty"),
    ],
)
def test_mistakes_are_told_before_any_task(
    corpus: Path, tmp_path: Path, changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("four years", encoding="utf-8")
    CleanTasks(str(corpus), tmp_path / "out", 4).start()
    if "out" in changed:
        changed = {"out": tmp_path / changed["out"]}
    with pytest.raises(error, match=words):
        CleanTasks(**{"data": str(corpus), "out": tmp_path / "out", "n_tasks": 4} | changed).start()
    CleanTasks(str(corpus), tmp_path / "out", 4).start()  # what was noted is still there


@pytest.mark.parametrize("lines", [slice(1, None), slice(None, -1)])
def test_a_file_that_changes_between_the_stages_is_noticed(tmp_path: Path, lines: slice) -> None:
    corpus = write_files(tmp_path / "corpus", STORIES[:4], 1)
    job = CleanTasks(str(corpus), tmp_path / "out", 1)
    job.start()
    job.prepare(0)
    job.share(0)
    job.decide()
    text = (corpus / "0.jsonl").read_text(encoding="utf-8")
    (corpus / "0.jsonl").write_text("".join(text.splitlines(keepends=True)[lines]), encoding="utf-8")
    with pytest.raises(DataError, match="files changed"):
        job.write(0)
    assert not list((tmp_path / "out").glob("train-*"))


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    corpus = write_files(tmp_path / "corpus", ["短い。", "短い。"], 2)
    with pytest.raises(DataError, match=r"every document of .* was dropped"):
        run(CleanTasks(str(corpus), tmp_path / "out", 2))


# The example, which runs the tasks on datatrove


def example(folder: Path, *words: object) -> str:
    """What the example says last, on standard error if it failed."""
    done = run_script("examples/clean_cluster.py", *words, cwd=folder)
    assert done.returncode in (0, 2), done.stderr
    return (done.stderr if done.returncode else done.stdout).splitlines()[-1]


def completed(out: Path) -> dict[str, int]:
    """When datatrove noted which tasks to be done."""
    logs = out / ".work" / "logs"
    return {str(path.relative_to(logs)): path.stat().st_mtime_ns for path in logs.glob("*/completions/*")}


@pytest.mark.slow
def test_datatrove_runs_again_what_failed_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    alone, out, damaged = tmp_path / "alone.jsonl", tmp_path / "out", corpus / "2.jsonl"
    clean(str(corpus), alone)
    intact = damaged.read_bytes()
    damaged.write_bytes(intact[:-9])
    words = ["--data", corpus, "--out", out, "--tasks", N_FILES, "--workers", 2, "--format", ".jsonl"]
    assert f"error: {damaged}, line" in example(tmp_path, *words)
    done = completed(out)
    assert done and "prepare/completions/00002" not in done and not list(out.glob("train-*"))
    damaged.write_bytes(intact)
    assert "report.html" in example(tmp_path, *words)
    assert completed(out).items() > done.items()
    assert len(completed(out)) == 3 * N_FILES + 2
    assert joined(out, ".jsonl") == alone.read_bytes()
    assert not list(out.glob(".*.partial"))


@pytest.mark.slow
def test_two_workers_of_a_ray_cluster_write_the_same(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    alone, out = tmp_path / "alone.jsonl", tmp_path / "out"
    clean(str(corpus), alone)
    words = ["--data", corpus, "--out", out, "--tasks", N_FILES, "--workers", 2, "--format", ".jsonl"]
    example(tmp_path, *words, "--executor", "ray")
    assert joined(out, ".jsonl") == alone.read_bytes()
    assert len(completed(out)) == 3 * N_FILES + 2


def test_without_the_extra_it_says_what_to_install(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "datatrove.py").write_text("raise ImportError(name='datatrove')", encoding="utf-8")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "MAMEGPT_LANG": "en"}
    done = run_script("examples/clean_cluster.py", "--data", corpus, "--out", tmp_path / "o", cwd=tmp_path, env=env)
    assert done.returncode == 2 and 'pip install -e ".[cluster]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "o").exists()


def test_the_pages_commands_of_the_example_parse() -> None:
    ran = []

    @functools.wraps(main)
    def note(*args: object, **words: object) -> None:
        bound = inspect.signature(main).bind(*args, **words)
        bound.apply_defaults()
        ran.append(bound.arguments["executor"])

    for words in commands("docs/web-scale.md"):
        if (rest := words[words.index("python") :] if "python" in words else [])[1:2] == ["examples/clean_cluster.py"]:
            with pytest.raises(SystemExit) as end:
                command_line.run_command_line(note, rest[2:])
            assert end.value.code == 0, words
    assert ran == ["local", "slurm", "ray", "slurm"]
