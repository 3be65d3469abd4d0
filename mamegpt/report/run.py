"""What a run's folder tells: settings, curves, text, and what its checkpoints write."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mamegpt.config import TrainConfig
from mamegpt.data.shards import Meta, Split, is_shards, open_shards
from mamegpt.errors import CheckpointError
from mamegpt.generation.settings import Sampling
from mamegpt.pretrained import load
from mamegpt.run import checkpoint
from mamegpt.run.metrics import Quality, read_metrics
from mamegpt.system.run_files import (
    CHECKPOINTS,
    CONFIG_FILE,
    EVALUATION_FILE,
    MACHINE_FILE,
    METRICS_FILE,
    TOKENIZER_FILE,
)
from mamegpt.system.shell import command
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.autotune import Extension, read_extensions
from mamegpt.training.validation import Verdict, verdict

__all__ = ["AXES", "Run", "Sample", "read_run", "samples"]

AXES = ("step", "tokens", "elapsed_s")
"""What a curve can be drawn over, as named in ``metrics.jsonl``."""
MAX_CHECKPOINTS = 6
"""Checkpoints of a run that write samples; of more, some in between are left out."""
N_PROMPTS = 3
PROMPT_TOKENS = 10
N_READ_TOKENS = 20_000
SAMPLE_TOKENS = 60
SAMPLING = Sampling(temperature=0.7, top_p=0.9)

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run that was read. ``steps`` are the records of steps, with ``elapsed_s`` of each.

    ``meta`` tells of its text and ``openings`` are the first words of some documents, if the tokens are still there.
    """

    folder: Path
    config: TrainConfig
    steps: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    tokenizer: Tokenizer
    meta: Meta | None
    openings: list[str]

    @property
    def machine(self) -> dict[str, str]:
        """What it was started on, as ``machine.json`` has it."""
        return {name: str(value) for name, value in _read_object(self.folder / MACHINE_FILE).items()}

    @property
    def evaluation(self) -> dict[str, str]:
        """What `mamegpt eval` found of it, by word, with an n-gram model's in brackets; empty if it was not asked.

        Raises `CheckpointError` if the file is damaged.
        """
        return self._read_evaluation(
            lambda found: _scores(found["models"][0], found["baseline"], found["heldout_recited"]), {}
        )

    def _read_evaluation(self, read: Callable[[dict[str, Any]], T], nothing: T) -> T:
        """Return what ``read`` makes of the evaluation; ``nothing`` if there was none."""
        path = self.folder / EVALUATION_FILE
        found = _read_object(path)
        try:
            return read(found) if found else nothing
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is damaged ({error}); delete it, or run: {command('eval', '--model', self.folder)}"
            ) from None

    @property
    def extensions(self) -> list[Extension]:
        """What was added to it after it was finished."""
        return read_extensions(self.folder)

    @property
    def verdict(self) -> Verdict | None:
        """What the newest validation's bits per character mean; None if there was none. Raises as `evaluation`.

        They are compared with an n-gram model's of as much of the same text only.
        """
        if not self.quality:
            return None
        own = Quality(**self.validations[-1]["quality"])
        found = self._read_evaluation(
            lambda found: [Quality(**quality) for quality in found["baseline"]["text"].values()], list[Quality]()
        )
        baseline = next((quality.bits_per_character for quality in found if quality.of == own.of), None)
        return verdict(own.bits_per_character, baseline)

    @property
    def name(self) -> str:
        """The folder as it was given."""
        return str(self.folder)

    @property
    def quality(self) -> dict[str, float]:
        """What the newest validation found; empty if there was none."""
        return self.validations[-1]["quality"] if self.validations else {}

    @property
    def tokens_per_s(self) -> float:
        """Mean over the run from its first step on, validations and checkpoints included."""
        first, last = self.steps[0], self.steps[-1]
        if last["elapsed_s"] <= first["elapsed_s"]:
            return float(last["tokens"] / last["elapsed_s"])
        return float((last["tokens"] - first["tokens"]) / (last["elapsed_s"] - first["elapsed_s"]))

    def curve(self, axis: str, field: str) -> list[tuple[float, float]]:
        """(x, y) of each step that has the field, and as a finite number: a run may end with one that is none."""
        return [(step[axis], step[field]) for step in self.steps if math.isfinite(step.get(field, math.nan))]

    def bits(self, axis: str) -> list[tuple[float, float]]:
        """Training loss as bits per character, by the text's mean number of characters a token."""
        if self.meta is None:
            return []
        train = self.meta.splits["train"]
        factor = train.n_tokens / train.n_characters / math.log(2)
        return [(x, y * factor) for x, y in self.curve(axis, "loss")]

    def validated(self, axis: str, field: str) -> list[tuple[str, list[tuple[float, float]]]]:
        """(x, y) of validations, y a field of `Quality`: a curve for each kind of figure, by what it is of.

        The first is of the sample that was measured while training, the last of the whole text after the last step.
        """
        at = {step["step"]: step[axis] for step in self.steps}
        curves: dict[str, list[tuple[float, float]]] = {}
        for one in self.validations:
            quality = Quality(**one["quality"])
            if one["step"] in at:
                curves.setdefault(quality.of, []).append((at[one["step"]], getattr(quality, field)))
        return [*curves.items()]

    def speed(self, axis: str) -> list[tuple[float, float]]:
        """Tokens per second from step to step."""
        return [
            (b[axis], (b["tokens"] - a["tokens"]) / (b["elapsed_s"] - a["elapsed_s"]))
            for a, b in itertools.pairwise(self.steps)
            if b["elapsed_s"] > a["elapsed_s"]
        ]


@dataclass(frozen=True)
class Sample:
    """What a checkpoint made of each prompt."""

    run: str
    step: int
    n_parameters: int
    texts: list[str]


def read_run(folder: Path) -> Run:
    """Read a run. Raises `CheckpointError` if it is none, or has not made a step yet."""
    config = TrainConfig.load(folder / CONFIG_FILE)
    records = read_metrics(folder)
    steps = _with_times([record for record in records if "loss" in record])
    if not steps:
        raise CheckpointError(f"{folder} has no step in its {METRICS_FILE} yet; wait for its first lines of progress")
    tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
    validations = [record for record in records if "quality" in record]
    for place in (folder / "tokens", Path(config.data)):
        if is_shards(place):
            meta, splits = open_shards(place, tokenizer, verify=False)
            return Run(folder, config, steps, validations, tokenizer, meta, _openings(splits, tokenizer))
    return Run(folder, config, steps, validations, tokenizer, None, [])


def samples(run: Run, prompts: Sequence[str], on_checkpoint: Callable[[Path], None]) -> list[Sample]:
    """What the checkpoints that are there write, oldest first; ``on_checkpoint`` hears of each before it begins."""
    saved = checkpoint.checkpoints(run.folder / CHECKPOINTS)
    n = min(len(saved), MAX_CHECKPOINTS)
    chosen = [saved[len(saved) * (i + 1) // n - 1] for i in range(n)]
    found = []
    for path in chosen:
        on_checkpoint(path)
        loaded = load(path, device="cpu")
        texts = [loaded.generate(prompt, max_new_tokens=SAMPLE_TOKENS, sampling=SAMPLING) for prompt in prompts]
        n_parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
        found.append(Sample(run.name, int(path.name.removeprefix("step-")), n_parameters, texts))
    return found


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty if there is no file. Raises `CheckpointError` if it holds anything else."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} does not hold a JSON object; move it away, and the report is made without it")
    return found


def _scores(model: dict[str, Any], baseline: dict[str, Any], heldout_recited: float | None) -> dict[str, str]:
    """The figures of an evaluation; for the fields see `evaluation.Result`."""
    scores = {"evaluated": Path(model["origin"]).name}
    for text, quality in model["text"].items():
        there = baseline["text"][text]
        scores["bits-per-character"] = f"{quality['bits_per_character']:.3f} ({there['bits_per_character']:.3f})"
    for name, found, there in (
        ("minimal-pairs", model["pairs"]["total"], baseline["pairs"]["total"]),
        ("cloze", model["cloze"], baseline["cloze"]),
    ):
        if found and there:
            scores[name] = f"{found['share']:.1%} ({there['share']:.1%})"
    if model["recited"] is not None:
        scores["recited"] = f"{model['recited']:.2%}"
    if heldout_recited is not None:
        scores["recited-by-chance"] = f"{heldout_recited:.2%}"
    return scores


def _openings(splits: dict[str, Split], tokenizer: Tokenizer) -> list[str]:
    """The first words of some documents: held-out ones, if there are any."""
    split = splits.get("val", splits["train"])
    tokens = split.tokens[:N_READ_TOKENS].tolist()
    starts = [0, *(i + 1 for i, token in enumerate(tokens) if token == split.eos_id)]
    found = (tokenizer.decode(tokens[start : start + PROMPT_TOKENS]).rstrip("\ufffd") for start in starts)
    return [text for text in found if text][:N_PROMPTS]


def _with_times(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps are written in groups that share the time of the last; spread it over them evenly."""
    timed = []
    before = 0.0
    for elapsed_s, group in itertools.groupby(steps, key=lambda step: step["elapsed_s"]):
        members = list(group)
        share = (elapsed_s - before) / len(members)
        timed += [step | {"elapsed_s": before + share * (i + 1)} for i, step in enumerate(members)]
        before = elapsed_s
    return timed
