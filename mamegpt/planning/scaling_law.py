"""Predict the quality of a model from its size and its training tokens.

    bits per character = E + A / N^alpha + B / D^beta        N parameters, D training tokens

(Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", section 3.3), fitted to our own runs, which
`benchmarks/research/scaling_runs.py` makes: the default recipe on Japanese Wikipedia with vocabulary size 16,000. The
file ``scaling_runs.json`` contains the runs, not the five numbers: a new run is one more line, and no constant becomes
out of date.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

__all__ = ["Law", "ScalingRun", "expected_quality", "fit", "own_runs", "useful_tokens"]

RUNS_FILE = "scaling_runs.json"

EXPONENTS = np.arange(0.02, 1.5, 0.02)
"""Candidates for alpha and beta; for each pair, the other three numbers are a linear least-squares problem."""

REPETITION_SCALE = 15.4
"""Decay constant of the value of repeated epochs (Muennighoff et al. 2023, table 2: R*_D)."""


@dataclass(frozen=True)
class ScalingRun:
    """A finished run: its settings and its quality. ``held_out`` runs are not fitted but predicted, as a check."""

    size: str
    n_parameters: int
    n_tokens: int
    seed: int
    bits_per_character: float
    held_out: bool = False


@dataclass(frozen=True)
class Law:
    """The five numbers of the equation above."""

    e: float
    a: float
    alpha: float
    b: float
    beta: float

    def __call__(self, n_parameters: float, n_tokens: float) -> float:
        """Return the expected bits per character."""
        return float(self.e + self.a * n_parameters**-self.alpha + self.b * n_tokens**-self.beta)


def fit(runs: Sequence[ScalingRun]) -> Law:
    """Return the law with the smallest squared error over ``runs``, among those whose terms are not negative."""
    n = np.array([run.n_parameters for run in runs], dtype=float)
    d = np.array([run.n_tokens for run in runs], dtype=float)
    bits = np.array([run.bits_per_character for run in runs])
    best: tuple[float, Law] | None = None
    for alpha in EXPONENTS:
        for beta in EXPONENTS:
            terms = np.stack([np.ones_like(n), n**-alpha, d**-beta], axis=1)
            found = np.linalg.lstsq(terms, bits, rcond=None)[0]
            error = float(np.square(terms @ found - bits).sum())
            if (found >= 0).all() and (best is None or error < best[0]):
                e, a, b = (float(number) for number in found)
                best = error, Law(e, a, float(alpha), b, float(beta))
    if best is None:
        raise ValueError(f"{len(runs)} runs that no law of this form describes")
    return best[1]


def useful_tokens(n_tokens: float, n_unique: float) -> float:
    """Return the number of new tokens with the same effect as ``n_tokens`` of training on a text of ``n_unique``
    tokens.

    Muennighoff et al. 2023 ("Scaling Data-Constrained Language Models"), equation 5: four epochs are nearly as good as
    new text; forty give little more than twenty.
    """
    repetitions = max(0.0, n_tokens / n_unique - 1)
    return min(n_tokens, n_unique * (1 - REPETITION_SCALE * math.expm1(-repetitions / REPETITION_SCALE)))


@functools.cache
def own_runs() -> tuple[ScalingRun, ...]:
    """Return the runs in the package."""
    text = resources.files("mamegpt.planning").joinpath(RUNS_FILE).read_text(encoding="utf-8")
    return tuple(ScalingRun(**run) for run in json.loads(text))


@functools.cache
def expected_quality() -> tuple[Law, float]:
    """Return the law fitted to our own runs, and its mean absolute error, in bits per character, on runs not fitted."""
    law = fit([run for run in own_runs() if not run.held_out])
    errors = [abs(law(run.n_parameters, run.n_tokens) - run.bits_per_character) for run in own_runs() if run.held_out]
    return law, sum(errors) / len(errors)
