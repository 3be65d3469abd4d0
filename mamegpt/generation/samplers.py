"""From logits to the next token: samplers as small pure functions.

Logits are on the CPU, whatever computed them: one copy a step instead of a wait for each question, one text for a seed
on every device, and not MPS's multinomial, which draws ids of probability 0 (pytorch#192577).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mamegpt.generation.settings import Sampling, check_finite

__all__ = ["choose", "keep_min_p", "keep_top_k", "keep_top_p", "penalise_repetition", "probabilities"]


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make ids in ``seen`` less likely: positive logits (V,) are divided, negative multiplied.

    Keskar et al. 2019 ("CTRL"), section 4.1, with the sign as transformers has it.
    """
    chosen = logits[seen]
    return logits.index_put((seen,), torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Return all but the ``k`` largest logits (V,) become -inf (Fan et al. 2018)."""
    smallest = logits.topk(min(k, logits.numel())).values[-1]
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest logits (V,), at least one, whose probabilities reach ``p`` (Holtzman et al. 2020, eq. 2)."""
    ordered, order = logits.softmax(-1).sort(descending=True)
    before = ordered.cumsum(-1) - ordered  # probability of everything more likely
    return logits.index_fill(0, order[1:][before[1:] >= p], -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep logits (V,) at least ``p`` times as likely as the largest (Nguyen et al. 2024, eq. 2)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.max(), -torch.inf)


def choose(
    logits: Tensor,
    seen: Sequence[int] | Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    mask: Tensor | None = None,
) -> int:
    """Return the next id, from logits (V,) and the ids so far (N,).

    ``mask`` (V,) is 0 for an id that may come and -inf for others. Raises `ModelError` if a logit is NaN or infinite.
    """
    if mask is not None:
        logits = logits + mask
    check_finite(logits.max().item())
    if sampling.repetition_penalty != 1:
        logits = penalise_repetition(logits, torch.as_tensor(seen), sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits.numpy(force=True).argmax())  # a tenth of the time of torch's
    return int(torch.multinomial(probabilities(logits, sampling), 1, generator=generator))


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Turn logits (V,) into the probabilities (V,) to sample with; the temperature is above 0."""
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p > 0:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.softmax(-1)
