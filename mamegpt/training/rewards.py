"""Rewards: functions that check an answer. Some are here by name; a user's own comes from a Python file.

Code from a file runs only if the user names that file in this call. The settings of a run only tell its name, so that a
run that somebody else made runs no code.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from mamegpt.data.dialogues import is_right
from mamegpt.errors import ConfigError, TrainingError, first_line

__all__ = ["REWARDS", "Reward", "find_reward", "load_reward", "morae", "scored"]

Reward = Callable[[str, str, str], float]
"""A question, the answer of the model, and the answer in the data ("" if it has none) -> how good the answer is."""

HAIKU = (5, 7, 5)
KANA = re.compile("[ぁ-ゖァ-ヺー]+")
WITH_THE_ONE_BEFORE = re.compile("[ぁぃぅぇぉゃゅょゎァィゥェォャュョヮ]")
"""Small kana that make one mora together with the kana before them; っ, ん and ー are morae of their own."""
BETWEEN = re.compile(r"[\s、。,.!?!?・…「」『』()()]+")
"""What does not count as a character of an answer."""


def hiragana(_question: str, answer: str, _expected: str = "") -> float:
    """Return the share of hiragana in the characters of an answer, 0 to 1; punctuation does not count."""
    characters = BETWEEN.sub("", answer)
    return sum("ぁ" <= one <= "ゖ" or one == "ー" for one in characters) / max(1, len(characters))


def haiku(_question: str, answer: str, _expected: str = "") -> float:
    """Return 1 for three parts of 5, 7 and 5 morae in kana, and less the more morae are too many or missing, down to 0.

    Spaces, line breaks and punctuation separate parts.
    """
    counts = [morae(part) for part in BETWEEN.split(answer) if part]
    distance = sum(abs(found - asked) for found, asked in itertools.zip_longest(counts, HAIKU, fillvalue=0))
    return max(0.0, 1 - distance / sum(HAIKU))


def desu(_question: str, answer: str, _expected: str = "") -> float:
    """Return 1 for an answer that ends with です, else 0; punctuation does not count."""
    return float(BETWEEN.sub("", answer).endswith("です"))


def right(question: str, answer: str, expected: str) -> float:
    """Return 1 for the answer in the data, and where 豆対話 asks for the continuation of a story, for all that obey."""
    return float(is_right(question, expected, answer))


REWARDS: dict[str, Reward] = {reward.__name__: reward for reward in (right, hiragana, haiku, desu)}


def morae(text: str) -> float:
    """Return the number of morae of a text in kana; infinite if it has any other character."""
    if not KANA.fullmatch(text):
        return math.inf
    return len(text) - len(WITH_THE_ONE_BEFORE.findall(text))


def load_reward(name: str) -> Reward:
    """Return the reward of that name, or run FILE.py and return its function. Raises `ConfigError` if there is none."""
    if name in REWARDS:
        return REWARDS[name]
    file, _, function = name.rpartition(":")
    if not file.endswith(".py"):
        raise ConfigError(
            "--reward must be {names} or FILE.py:FUNCTION (got {name})", names=", ".join(REWARDS), name=name
        )
    spec = spec_from_file_location("reward", Path(file))
    assert spec is not None and spec.loader is not None, "its name ends with .py"
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise ConfigError("{file} cannot be run: {reason}", file=file, reason=first_line(error)) from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigError("{file} has no function {function}", file=file, function=function)
    return found  # type: ignore[no-any-return]  # checked when it is called


def find_reward(name: str, own: Reward | None) -> Reward:
    """Return the reward of a run: the user's ``own`` function, or the one of that name.

    Raises `ConfigError` if the run was trained with a function that is not given.
    """
    if own is not None:
        return own
    if name not in REWARDS:
        raise ConfigError("the reward {name} is Python code, which runs only if you name it as --reward", name=name)
    return REWARDS[name]


def scored(reward: Reward, question: str, answer: str, expected: str) -> float:
    """Return the reward of an answer. Raises `TrainingError` if the function fails, or returns no finite number."""
    try:
        found = float(reward(question, answer, expected))
    except Exception as error:  # whatever the user's code raises
        raise TrainingError(
            "the reward failed for the answer {answer!r}: {reason}", answer=answer, reason=first_line(error)
        ) from error
    if not math.isfinite(found):
        raise TrainingError(
            "the reward of the answer {answer!r} must be a finite number (got {found})", answer=answer, found=found
        )
    return found
