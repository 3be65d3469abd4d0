"""What a run wrote down while it trained: ``metrics.jsonl``, one line a step and one line a validation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mamegpt.errors import CheckpointError
from mamegpt.system.files import parse_json
from mamegpt.system.run_files import METRICS_FILE

__all__ = ["Quality", "read_metrics"]


@dataclass(frozen=True)
class Quality:
    """``loss`` in nats per token; the bits are of all tokens, end-of-text included, over the text's own length.

    ``of_n_characters`` are those of the whole text, of which ``n_characters`` may be a sample; ``dtype`` is the one of
    matrix products; ``step`` is how many steps the model was trained, where a training measures it. Records of older
    versions have none of the three.
    """

    loss: float
    bits_per_byte: float
    bits_per_character: float
    n_tokens: int
    n_characters: int
    n_bytes: int
    of_n_characters: int = 0
    dtype: str = ""
    step: int | None = None

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
        """Return the quality of a model by ``nats``, the sum of -log p of ``n_tokens`` tokens (1 or more).

        The tokens stand for ``n_characters`` and ``n_bytes`` of text. Those of a sample may be estimates: fields are
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
    def of(self) -> str:
        """How much of which text was measured, and in which dtype; only figures of which this is equal are compared."""
        all_ = self.of_n_characters
        whole = f" of {all_:,}" if all_ > self.n_characters else ""
        return f"{self.n_characters:,}{whole} characters" + (f", {self.dtype}" if self.dtype else "")


STEP_FIELDS = {"step", "loss", "lr", "tokens", "elapsed_s"}
MAY_BE_INFINITE = {"loss", "grad_norm"}
"""Of a run that fails."""
QUALITY_FIELDS = {field.name for field in fields(Quality)}
LATER_FIELDS = {"of_n_characters", "dtype", "step"}
"""Those of `Quality` that records of older versions lack."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the records of a run, in order; none if nothing was written yet.

    Of a step: ``step``, ``loss`` (nats per token), ``lr``, ``grad_norm`` (before it is clipped), ``tokens`` and
    ``elapsed_s`` since the run began; of a validation: ``step`` and ``quality``, the fields of `Quality`. After the
    last step there are two validations: on the sample of those before it, and on the whole text. The first step after
    a checkpoint also has ``save_blocked_s``, seconds it waited for the copy of the weights. Half a line, which a
    killed process leaves, is passed over. Raises `CheckpointError` for a line that a run would never write.
    """
    path = run / METRICS_FILE
    records = []
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            try:
                record = parse_json(line)
            except ValueError:
                continue
            if not _is_record(record):
                raise CheckpointError(f"{path}, line {number} is no record of a run; remove that line")
            records.append(record)
    return records


def _is_record(value: Any) -> bool:
    """Return whether what is drawn and counted of it is there and a number."""
    if not isinstance(value, dict) or type(value.get("step")) is not int:
        return False
    if "quality" in value:
        quality = value["quality"]
        if not isinstance(quality, dict) or quality.keys() | LATER_FIELDS != QUALITY_FIELDS:
            return False
        if not all(_is_finite(value) for name, value in quality.items() if name != "dtype"):
            return False
        if not isinstance(quality.get("dtype", ""), str):
            return False
    if "loss" in value:
        numbers = [
            number for name, number in value.items() if not (name in MAY_BE_INFINITE and isinstance(number, float))
        ]
        return value.keys() >= STEP_FIELDS and all(map(_is_finite, numbers)) and value["elapsed_s"] > 0
    return True


def _is_finite(value: Any) -> bool:
    """Return whether it is a number to compute with; only the loss of a run that failed may be none."""
    return type(value) in (int, float) and -1e18 < value < 1e18
