"""The initial weights of Qwen3, chosen for small models."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mamegpt.models.base import LanguageModel, token_embedding
from mamegpt.models.qwen3.modeling_qwen3 import rotate

__all__ = ["hidden_of_tokens", "init_weights", "look_back"]

EMBEDDING_STD = 0.2
"""Initial standard deviation of the token embedding, if it is not also the head."""

TIED_LOGIT = 2.0
"""Initial logit of the current token with a tied embedding. Of 13, 3.2, 2 and 1.3, the last two give the lowest loss
after 80 steps, 0.04 bits per character below the first (docs/log.md)."""

LOOK_BACK = (1, 2)
"""How many tokens back the heads of a layer look, in turn."""
RANDOM = 0.5
"""Size of the random part of queries and keys, relative to their constant part."""
SIZE = 0.1
"""Size of both where they are normalized: the smaller they are, the sooner they turn (docs/log.md)."""


def init_weights(model: nn.Module) -> None:
    """Set initial weights: matrices N(0, 1/fan_in), but zero at the end of each residual branch and in an untied head.

    Every block therefore begins as the identity, and the first prediction is uniform (Zhang et al. 2019, "Fixup"; Yang
    et al. 2021, "Tensor Programs V", appendix D.2). A tied embedding is narrow enough for a nearly uniform prediction:
    the logit of the current token, C * std after the last norm, begins at `TIED_LOGIT`. Norms stay at one.
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


def hidden_of_tokens(model: nn.Module, ids: Tensor) -> Tensor:
    """Return the final hidden states of tokens while all blocks are the identity: (N,) -> (N, C)."""
    body = cast(Any, model).model
    return cast(Tensor, body.norm(body.embed_tokens(ids)))


@torch.no_grad()
def look_back(model: nn.Module, mean: Tensor) -> None:
    """Let the heads of a new model attend to the last tokens, as most heads of the first layers learn to do anyway.

    ``mean`` (C,) is the mean of `hidden_of_tokens` over a text. It is what all tokens share, so weights along it act
    as a bias: every key gets the same constant, and the queries of a head the constant turned back by its number of
    tokens. By RoPE, attention then peaks at that distance. What a head makes of it is zero still (see `init_weights`).
    """
    body = cast(Any, model).model
    toward = mean / mean.dot(mean)  # its product with a hidden state is 1 on average
    for layer in body.layers:
        attention = layer.self_attn
        size = SIZE if hasattr(attention, "q_norm") else 1.0
        constant = mean.new_full((attention.head_dim,), size)
        for projection, is_query in ((attention.q_proj, True), (attention.k_proj, False)):
            heads = projection.weight.view(-1, attention.head_dim, len(mean))  # (H, D, C)
            heads *= size * RANDOM
            for i, head in enumerate(heads):
                cos, sin = body.rope[:, LOOK_BACK[i % len(LOOK_BACK)]]  # (D/2,) each
                shared = rotate(constant, torch.stack((cos, -sin))) if is_query else constant  # (D,)
                head += torch.outer(shared - head @ mean, toward)
