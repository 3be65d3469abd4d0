"""The initial weights of Qwen3, as small models here learn best from."""

from __future__ import annotations

from typing import cast

from torch import nn

from mamegpt.models.base import LanguageModel, token_embedding

__all__ = ["init_weights"]

EMBEDDING_STD = 0.2
"""Standard deviation of the token embedding at the start, where it is not also the head."""

TIED_LOGIT = 2.0
"""Where it is: the logit of the token just read, at the start. Of 13, 3.2, 2 and 1.3, the last two end lowest after 80
steps, 0.04 bits a character below the first (docs/log.md)."""


def init_weights(model: nn.Module) -> None:
    """Set initial weights: matrices N(0, 1/fan_in), but zero where a branch joins the residual and in an untied head.

    So every block begins as the identity and the first guess is uniform (Zhang et al. 2019, "Fixup"; Yang et al.
    2021, "Tensor Programs V", appendix D.2). A tied embedding is narrow enough that it is nearly so: the logit of the
    token just read, C * std after the last norm, begins at `TIED_LOGIT`. Norms stay at one.
    """
    embedding = token_embedding(model).weight
    is_tied = cast(LanguageModel, model).out_head.weight is embedding
    embedding_std = TIED_LOGIT / embedding.shape[1] if is_tied else EMBEDDING_STD
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
            nn.init.zeros_(parameter)
        elif name.endswith("embed_tokens.weight"):
            nn.init.normal_(parameter, std=embedding_std)
        elif parameter.ndim == 2:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
