"""What a run's folder tells: settings, curves, text, and what its checkpoints write."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mamegpt.data.shards import Split
from mamegpt.errors import CheckpointError
from mamegpt.evaluation.evaluate import KeptEvaluation
from mamegpt.generation.settings import Sampling
from mamegpt.messages import msg
from mamegpt.pretrained import load
from mamegpt.report.verdict import Verdict, verdict
from mamegpt.run.run import Run
from mamegpt.system.run_files import METRICS_FILE
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["AXES", "CheckpointSample", "ReportRun", "samples"]

AXES = ("step", "tokens", "elapsed_s")
"""What a curve can be drawn over, as named in ``metrics.jsonl``."""
MAX_CHECKPOINTS = 6
"""Checkpoints of a run that write samples; of more, some in between are left out."""
N_PROMPTS = 3
PROMPT_TOKENS = 10
QUESTION_TOKENS = 60
"""Longest question that is asked again."""
N_READ_TOKENS = 20_000
SAMPLE_TOKENS = 60
SAMPLING = Sampling(temperature=0.7, top_p=0.9)


class ReportRun(Run):
    """A run that was read, and what the report draws and says of it.

    ``timed_steps`` are its steps with an ``elapsed_s`` of their own each. ``meta`` is of its text and ``openings`` are
    the first words of some documents, or for a model that answers some questions, if the tokens are still there. Raises
    `CheckpointError` if the folder is no run, or if there is no step yet.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        found = self.tokens(verify=False)
        self.meta = found[0] if found else None
        read = _questions if self.config.answers else _openings
        self.openings = read(found[1], self.tokenizer) if found and self.config.task != "classify" else []
        self.timed_steps = _with_times(self.steps)
        if not self.timed_steps:
            raise CheckpointError(
                "{folder} has no step in its {metrics_file} yet; wait for its first lines of progress",
                folder=folder,
                metrics_file=METRICS_FILE,
            )

    @property
    def scores(self) -> dict[str, str]:
        """What `mamegpt eval` found of it, by name, with an n-gram model's in brackets; empty if it was not asked.

        Raises `CheckpointError` if the file is damaged.
        """
        found = self.read_evaluation(KeptEvaluation)
        return _scores(found) if found else {}

    @property
    def verdict(self) -> Verdict | None:
        """What the newest validation's bits per character mean; None if there was none. Raises as `scores`.

        They are compared with an n-gram model's of as much of the same text only.
        """
        own = self.quality
        if own is None or not own.has_bits:
            return None
        found = self.read_evaluation(KeptEvaluation)
        qualities = found.baseline.text.values() if found else ()
        baseline = next((quality.bits_per_character for quality in qualities if quality.of == own.of), None)
        return verdict(own.bits_per_character, baseline)

    @property
    def name(self) -> str:
        """The folder as it was given."""
        return str(self.folder)

    @property
    def tokens_per_s(self) -> float:
        """Mean over the run from its first step on, validations and checkpoints included."""
        first, last = self.timed_steps[0], self.timed_steps[-1]
        if last["elapsed_s"] <= first["elapsed_s"]:
            return float(last["tokens"] / last["elapsed_s"])
        return float((last["tokens"] - first["tokens"]) / (last["elapsed_s"] - first["elapsed_s"]))

    def curve(self, axis: str, field: str) -> list[tuple[float, float]]:
        """(x, y) of each step that has the field, and as a finite number: a run may end with one that is none."""
        points = ((step[axis], step.get(field)) for step in self.timed_steps)
        return [(x, y) for x, y in points if y is not None and math.isfinite(y)]

    def bits(self, axis: str) -> list[tuple[float, float]]:
        """Training loss as bits per character, by the text's mean number of characters a token.

        A run that learns to answer has none: its loss is of answers, and a share of it of another text.
        """
        if self.meta is None or self.config.answers or self.config.task == "classify":
            return []
        train = self.meta.splits["train"]
        factor = train.n_tokens / train.n_characters / math.log(2)
        return [(x, y * factor) for x, y in self.curve(axis, "loss")]

    def validated(self, axis: str, field: str) -> list[tuple[str, list[tuple[float, float]]]]:
        """(x, y) of validations, y a field of `Quality`: a curve for each kind of figure, by what it is of.

        With labels, pairs of answers or rewards there are no bits, and with rewards no loss. The first is of the
        sample that was measured while training, the last of what was measured after the last step.
        """
        at = {step["step"]: step[axis] for step in self.timed_steps}
        curves: dict[str, list[tuple[float, float]]] = {}
        for quality in self.validations:
            value = getattr(quality, field)
            if (field.startswith("bits") and not quality.has_bits) or (field == "loss" and quality.reward is not None):
                continue
            if quality.step in at and value is not None:
                curves.setdefault(quality.of, []).append((at[quality.step], value))
        return [*curves.items()]

    def speed(self, axis: str) -> list[tuple[float, float]]:
        """Tokens per second from step to step."""
        return [
            (b[axis], (b["tokens"] - a["tokens"]) / (b["elapsed_s"] - a["elapsed_s"]))
            for a, b in itertools.pairwise(self.timed_steps)
            if b["elapsed_s"] > a["elapsed_s"]
        ]


@dataclass(frozen=True)
class CheckpointSample:
    """What a checkpoint made of each prompt."""

    run: str
    step: int
    n_parameters: int
    texts: list[str]


def samples(run: ReportRun, prompts: Sequence[str], on_checkpoint: Callable[[Path], None]) -> list[CheckpointSample]:
    """Return what the checkpoints that are there write, or answer if they do, oldest first.

    ``on_checkpoint`` hears of each before it begins.
    """
    if run.config.task == "classify":  # it generates nothing
        return []
    saved = run.checkpoints()
    n = min(len(saved), MAX_CHECKPOINTS)
    chosen = [saved[len(saved) * (i + 1) // n - 1] for i in range(n)]
    found = []
    for step, path in chosen:
        on_checkpoint(path)
        loaded = load(path, device="cpu")
        write = loaded.answer if loaded.answers else loaded.generate
        texts = [write(prompt, max_new_tokens=SAMPLE_TOKENS, sampling=SAMPLING) for prompt in prompts]
        found.append(CheckpointSample(run.name, step, loaded.n_parameters, texts))
    return found


def _scores(found: KeptEvaluation) -> dict[str, str]:
    """Return the figures of an evaluation."""
    (model,), baseline = found.models, found.baseline
    scores: dict[str, str] = {msg("checkpoint evaluated"): Path(model.origin).name}
    for text, quality in model.text.items():
        there = baseline.text[text].bits_per_character
        scores[msg("bits/character")] = f"{quality.bits_per_character:.3f} ({there:.3f})"
    for name, own, other in (
        (msg("minimal pairs, accuracy (by chance 50%)"), model.pairs.total, baseline.pairs.total),
        (msg("cloze, accuracy (by chance 25%)"), model.cloze, baseline.cloze),
    ):
        if own and other:
            scores[name] = f"{own.share:.1%} ({other.share:.1%})"
    if model.recited is not None:
        scores[msg("memorization (generated 20-character strings found in the training data)")] = f"{model.recited:.2%}"
    if found.heldout_recited is not None:
        scores[msg("for comparison: validation data itself")] = f"{found.heldout_recited:.2%}"
    return scores


def _openings(splits: dict[str, Split], tokenizer: Tokenizer) -> list[str]:
    """Return the first words of some documents: held-out ones, if there are any."""
    split = splits.get("val", splits["train"])
    tokens = split.tokens[:N_READ_TOKENS].tolist()
    starts = [0, *(i + 1 for i, token in enumerate(tokens) if token == split.eos_id)]
    found = (tokenizer.decode(tokens[start : start + PROMPT_TOKENS]).rstrip("\ufffd") for start in starts)
    return [text for text in found if text][:N_PROMPTS]


def _questions(splits: dict[str, Split], tokenizer: Tokenizer) -> list[str]:
    """Return the first questions of some conversations, each once: held-out ones, if there are any, and short ones."""
    split, turns = splits.get("val", splits["train"]), tokenizer.turns
    assert turns is not None, "asked before tokenizing"
    tokens = split.tokens[:N_READ_TOKENS]
    found = []
    for part in np.split(tokens, np.flatnonzero(tokens == split.eos_id) + 1)[:-1]:
        ids = part.tolist()
        begin = ids.index(turns.begin["user"]) + 1
        found.append(ids[begin : ids.index(turns.end, begin)])
    texts = [tokenizer.decode(ids) for ids in found if len(ids) <= QUESTION_TOKENS]
    return [*dict.fromkeys(texts)][:N_PROMPTS]


def _with_times(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spread the time of each group of steps evenly over them; they are written with the time of the last."""
    timed = []
    before = 0.0
    for elapsed_s, group in itertools.groupby(steps, key=lambda step: step["elapsed_s"]):
        members = list(group)
        share = (elapsed_s - before) / len(members)
        timed += [step | {"elapsed_s": before + share * (i + 1)} for i, step in enumerate(members)]
        before = elapsed_s
    return timed
