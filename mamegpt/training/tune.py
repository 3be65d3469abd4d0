"""Tune a model in one call, as ``mamegpt tune`` does: settings from the model, then the same training as any run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mamegpt.arguments import checked
from mamegpt.config import TuneConfig
from mamegpt.training.events import Watcher
from mamegpt.training.init_from import tuned_config
from mamegpt.training.rewards import Reward, load_reward
from mamegpt.training.trainer import TrainResult, train

__all__ = ["tune"]


@checked
def tune(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    reward: str | Reward = "",
    watchers: Sequence[Watcher] = (),
    **settings: Any,
) -> TrainResult:
    """Train a model further into the folder ``out``: on conversations, so that it answers, or on texts with labels.

    ``settings`` are options of ``mamegpt tune``: ``task="classify"``, ``lora=8``, ``minutes=2``. With ``task="grpo"``,
    ``reward`` is a name, or a function of a question, an answer, and the answer in the data ("" if it has none). The
    run is one like any other: ``train(Run(out).config, resume=True)`` resumes it, with ``reward=`` if that is a
    function. Raises what `train` and `load` raise.
    """
    name, own = (reward, None) if isinstance(reward, str) else (getattr(reward, "__qualname__", "reward"), reward)
    if own is None and name:
        own = load_reward(name)
    config = TuneConfig(init_from=os.fspath(model), data=os.fspath(data), out=os.fspath(out), reward=name, **settings)
    config.check_types()
    return train(tuned_config(config, settings.keys()), reward=own, watchers=watchers)
