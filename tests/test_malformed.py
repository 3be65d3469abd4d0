"""Files and requests with one value that nobody writes are refused in one line, at every place where it may stand."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from little import ROOT

from mamegpt.data.provenance import read_provenance
from mamegpt.data.shards import open_shards
from mamegpt.errors import MamegptError
from mamegpt.evaluation.evaluate import KeptEvaluation
from mamegpt.playground.api import read_request
from mamegpt.run.checkpoint import read_state
from mamegpt.run.run import Run

GOLDEN = ROOT / "tests" / "golden"
CHECKPOINT = "mame/checkpoints/step-00000013"
NOTE = {
    "n_bytes": 3,
    "steps": [
        {"command": "extract", "source": "a", "settings": {"keywords": "豆"}, "read": 9, "kept": 1, "dropped": {"x": 8}}
    ],
}
# fmt: off
BODY = {
    "model": "a", "prompt": ["豆", ""], "max_tokens": 3, "n": 2, "temperature": 0.7, "top_p": 1.0, "min_p": 0.0,
    "repetition_penalty": 1.0, "top_k": 5, "seed": 1, "stop": ["。"], "logprobs": 1, "at_start": False, "stream": True,
    "stream_options": {"include_usage": True}, "user": "u", "suffix": "", "echo": False, "best_of": 1,
    "frequency_penalty": 0, "presence_penalty": 0.0,
}
# fmt: on
EXTENSIONS = [{"from_step": 12, "from_s": 1.5, "steps": 3, "minutes": 0.5, "job": "a"}]
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "note": ("text.txt.origin.json", lambda folder: read_provenance([folder / "text.txt"])),
    "meta": ("mame/tokens/meta.json", lambda folder: open_shards(folder / "mame/tokens")[0].fingerprint()),
    "state": (f"{CHECKPOINT}/state.json", lambda folder: read_state(folder / CHECKPOINT)),
    "config": ("mame/config.json", lambda folder: Run(folder / "mame").config),
    "machine": ("mame/machine.json", lambda folder: Run(folder / "mame").machine),
    "extensions": ("mame/extensions.json", lambda folder: Run(folder / "mame").extensions),
    "evaluation": ("mame/evaluation.json", lambda folder: Run(folder / "mame").read_evaluation(KeptEvaluation)),
    "body": ("body.json", lambda folder: read_request(json.loads((folder / "body.json").read_bytes()))),
    "metrics": ("mame/metrics.jsonl", lambda folder: Run(folder / "mame").validations),
}
"""Where a file lies, and what reads it."""
WRONG: list[tuple[str, str, list[Any]]] = [
    ("note", "steps.0.settings", ["", []]),
    ("note", "steps.0.dropped", ["", []]),
    ("note", "n_bytes", ["", None, -1, 1.5, True, [], {}]),
    ("note", "steps", ["", {}]),
    ("meta", "origins.0.settings", ["", []]),
    ("meta", "origins.1.dropped", ["", []]),
    ("state", "files.model.safetensors", [7, 1.5, None, True, [], {}]),
    ("state", "files.optimizer.safetensors", [0, False]),
    ("state", "step", [-1]),
    ("state", "elapsed_s", [float("nan"), float("inf")]),
    ("state", "skipped", [-1]),
    ("state", "rollbacks", [-1]),
    ("metrics", "step", [-1]),
    ("metrics", "quality.n_tokens", [-1, 1.5]),
    ("metrics", "quality.step", [-1, 1.5, None]),
    ("extensions", "0.from_s", [True, float("inf")]),
    ("extensions", "0.minutes", [False, float("inf")]),
    ("extensions", "0.job", [None, 7, [], {}]),
    ("extensions", "", ["", {}]),
    ("evaluation", "models.0.pairs.per_character", [7, []]),
    ("evaluation", "models.0.name", [7, None]),
    ("evaluation", "models.0.text.validation.n_bytes", ["", -1]),
    ("evaluation", "models", ["", [], {}]),
    ("body", "model", [7, True, [], {}]),
    ("body", "stream", ["x", 1, 0, [], {}]),
    ("body", "stream_options", ["x", True, []]),
    ("body", "stream_options.include_usage", ["x", 1]),
    ("body", "user", [7, {}]),
    ("body", "echo", [{}, 0]),
    ("body", "best_of", [True]),
    ("body", "frequency_penalty", [False]),
]
"""By file, a place in it and values there that were once accepted."""
NOWHERE: list[Any] = [{"豆": [None]}, [[1]], 10**400]
"""What stands nowhere."""
ANYTHING = {
    ("evaluation", "mamegpt"),
    ("evaluation", "run"),
    ("evaluation", "heldout_trained_on"),
    ("body", "stream_options"),
}
"""What is not read, or may have any keys; as nearly all in ``machine.json``."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files as they should be."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copytree(GOLDEN / "mame", folder / "mame")
    (folder / "text.txt").write_text("豆", encoding="utf-8")
    state = json.loads((folder / CHECKPOINT / "state.json").read_text(encoding="utf-8"))
    del state["sha256"]
    for name, value in (
        ("text.txt.origin.json", NOTE),
        ("body.json", BODY),
        ("mame/extensions.json", EXTENSIONS),
        (f"{CHECKPOINT}/state.json", state),
    ):
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    lines = (folder / "mame/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "mame/metrics.jsonl").write_text(next(line for line in lines if "quality" in line), encoding="utf-8")
    return folder


def verdict(folder: Path, name: str, value: Any) -> str:
    """What is said of a file with this value; "" if it is accepted."""
    file, read = READERS[name]
    before = (folder / file).read_bytes()
    (folder / file).write_text(json.dumps(value), encoding="utf-8")
    try:
        read(folder)
    except MamegptError as error:
        assert len(str(error).splitlines()) == 1
        return str(error)
    finally:
        (folder / file).write_bytes(before)
    return ""


def at(value: Any, place: str) -> Any:
    """Return the list or object in which a place is, and its key there."""
    holder, index = value, ""
    while place:
        keys = list(value) if isinstance(value, dict) else [str(i) for i in range(len(value))]
        key = next(key for key in keys if place == key or place.startswith(f"{key}."))
        holder, place = value, place[len(key) + 1 :]
        index = int(key) if isinstance(holder, list) else key
        value = holder[index]
    return holder, index


def places(value: Any, before: str = "") -> Iterator[str]:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (place := f"{before}{key}")
            yield from places(value[key], f"{place}.")


@pytest.mark.parametrize("name", READERS)
def test_what_is_as_it_should_be_is_read(folder: Path, name: str) -> None:
    assert READERS[name][1](folder)


@pytest.mark.parametrize(
    ("name", "place", "value"), [(name, place, value) for name, place, values in WRONG for value in values], ids=repr
)
def test_a_value_that_was_once_accepted_is_refused(folder: Path, name: str, place: str, value: Any) -> None:
    file, _ = READERS[name]
    whole = [json.loads((folder / file).read_text(encoding="utf-8"))]
    holder, key = at(whole, f"0.{place}" if place else "0")
    holder[key] = value
    said = verdict(folder, name, whole[0])
    shown = (place or "it").rpartition(".")[2]
    assert said and (shown in said or "models" in place), said


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"machine"}))
def test_what_stands_nowhere_is_refused_everywhere(folder: Path, name: str) -> None:
    file, _ = READERS[name]
    good = json.loads((folder / file).read_text(encoding="utf-8"))
    accepted = []
    for place, wrong in itertools.product(places(good), NOWHERE):
        value = copy.deepcopy(good)
        holder, key = at(value, place)
        holder[key] = wrong
        if (name, place) not in ANYTHING and not verdict(folder, name, value):
            accepted.append((place, wrong))
    assert accepted == []


def test_a_run_of_no_threads_is_refused_and_other_facts_of_a_machine_are_free(folder: Path) -> None:
    for wrong in (0, 1 << 13, True, "1", None, [], 1.0):
        assert "threads must be" in verdict(folder, "machine", {"threads": wrong})
    assert not verdict(folder, "machine", {"threads": 2, "memory": NOWHERE})
