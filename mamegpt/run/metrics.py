"""Read the metrics of a run: ``metrics.jsonl``, one line per step and one line per validation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from mamegpt.errors import CheckpointError
from mamegpt.system.parse import parse_json
from mamegpt.system.run_files import METRICS_FILE
from mamegpt.system.validation import Count, FromJSON, Number, Within, validated

__all__ = ["Quality", "read_metrics"]


@dataclass(frozen=True)
class Quality(FromJSON):
    """Result of a validation: ``loss`` in nats per token; bits of all tokens, including end-of-text, per unit of text.

    ``of_n_characters`` is the length of the whole text, of which ``n_characters`` may be a sample; ``dtype`` is that of
    matrix products; ``step`` is the number of training steps, if the validation is part of a training. Records of older
    versions lack these three. Of a classifier, ``loss`` is in nats per label, ``n_tokens`` counts labels, and
    ``accuracy`` is the share of right ones. Of pairs of answers (DPO), ``loss`` is in nats per pair, ``n_tokens`` and
    ``n_characters`` count pairs, ``accuracy`` is the share in which the better one has the higher reward, and
    ``margin`` is the mean difference of rewards. Of sampled answers (GRPO), ``n_tokens`` and ``n_characters`` count
    questions; ``reward``, ``kl`` (the divergence from the start model in nats per token) and ``answer_tokens`` (the
    length of an answer) are means, ``distinct`` is the number of different answers per answer, and ``loss`` is
    ``--kl-beta`` times ``kl`` minus ``reward``.
    """

    loss: Number
    bits_per_byte: Number
    bits_per_character: Number
    n_tokens: Count
    n_characters: Count
    n_bytes: Count
    of_n_characters: Count = 0
    dtype: str = ""
    step: Count | None = None
    accuracy: Number | None = None
    margin: Number | None = None
    reward: Number | None = None
    kl: Number | None = None
    answer_tokens: Number | None = None
    distinct: Number | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured as plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_nats(
        cls,
        nats: float,
        n_tokens: int,
        n_characters: float,
        n_bytes: float,
        *,
        of_n_characters: int,
        dtype: str,
        step: int | None = None,
    ) -> Quality:
        """Return the quality of a model from ``nats``, the sum of -log p of ``n_tokens`` tokens (at least 1).

        The tokens represent ``n_characters`` and ``n_bytes`` of text, which may be estimates for a sample: fields are
        rounded, quotients are not.
        """
        bits = nats / math.log(2)
        return cls(
            loss=nats / n_tokens,
            bits_per_byte=bits / (n_bytes or 1),
            bits_per_character=bits / (n_characters or 1),
            n_tokens=n_tokens,
            n_characters=round(n_characters),
            n_bytes=round(n_bytes),
            of_n_characters=of_n_characters,
            dtype=dtype,
            step=step,
        )

    @property
    def has_bits(self) -> bool:
        """Whether text was measured, in bits per unit of it."""
        return self.accuracy is None and self.reward is None

    @property
    def of(self) -> str:
        """The text and dtype of the measurement; compare only results for which it is equal."""
        all_ = self.of_n_characters
        whole = f" of {all_:,}" if all_ > self.n_characters else ""
        unit = "pairs" if self.margin is not None else "questions" if self.reward is not None else "characters"
        return f"{self.n_characters:,}{whole} {unit}" + (f", {self.dtype}" if self.dtype else "")


@dataclass(frozen=True)
class _Record(FromJSON, extra="ignore"):
    """The field of every line."""

    step: Count


@dataclass(frozen=True)
class _Step(_Record, extra="ignore", allow_inf_nan=True):
    """The line of a step. ``loss`` and ``grad_norm`` of a run that fails may be infinite or NaN; the norm of a skipped
    step is null.
    """

    loss: float
    lr: Number
    tokens: Number
    elapsed_s: Annotated[float, Within(gt=0, lt=1e18)]
    grad_norm: float | None = 0.0


STEP_FIELDS = {field.name for field in fields(_Step)}


@dataclass(frozen=True)
class _Measured(Quality):
    """A quality as training records it; older versions recorded no step."""

    step: Count = 0


@dataclass(frozen=True)
class _Validation(_Record, extra="ignore"):
    """The line of a validation."""

    quality: _Measured


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the records of a run, in order; empty if nothing was written yet.

    A step has ``step``, ``loss`` (nats per token), ``lr``, ``grad_norm`` (before clipping), ``tokens`` and
    ``elapsed_s`` since the run began; a validation has ``step`` and ``quality``, the fields of `Quality`. After the
    last step there are two validations: on the same sample as before, and on the whole text. The first step after a
    checkpoint also has ``save_blocked_s``, the seconds it waited for the copy of the weights; a step in float16 whose
    gradient was not finite, and which left the weights as they were, has ``skipped``: 1 and None as ``grad_norm``.
    Steps of GRPO have ``reward`` and ``answer_tokens``, means of their answers. An incomplete last line, which a killed
    process leaves, is ignored. Raises `CheckpointError` for a line that a run would never write.
    """
    path = run / METRICS_FILE
    records = []
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            try:
                record = parse_json(line)
            except ValueError:
                continue
            try:
                _check(record)
            except ValueError as error:
                raise CheckpointError(
                    "{path}, line {number} is not a metrics record ({reason}); remove that line",
                    path=path,
                    number=number,
                    reason=error,
                ) from None
            records.append(record)
    return records


def _check(record: Any) -> None:
    """Raise `ValueError` for a record that a run would never write."""
    if not isinstance(record, dict) or record.keys().isdisjoint({"quality", "loss"}):
        validated(_Record, record)
        return
    if "quality" in record:
        validated(_Validation, record)
    if "loss" in record:
        validated(_Step, record)
        if others := record.keys() - STEP_FIELDS:
            validated(dict[str, Number], {name: record[name] for name in others})
