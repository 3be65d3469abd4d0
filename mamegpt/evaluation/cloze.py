"""Cloze test: a word is removed from a held-out article; does the model prefer it to three other words?

The word occurs earlier in the article and is in katakana or kanji. The three others have the same script and length,
and occur in about as many other articles, but not in this one. No annotation is needed, so any text can be used.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mamegpt.evaluation.proportion import Proportion
from mamegpt.evaluation.scorer import Scorer, log_likelihoods

__all__ = ["Gap", "cloze", "make_gaps"]

N_GAPS = 300
N_WRONG = 3
BEFORE, AFTER = 150, 30
"""Most characters shown before and after the gap; after it, at most to the end of its sentence."""
MAX_FREQUENCY_RATIO = 2
"""Largest ratio of the numbers of articles that use the right word and the other words."""

_WORD = re.compile(r"[ァ-ヴー]+|[一-鿿々]+")
_LENGTHS = range(2, 9)


@dataclass(frozen=True)
class Gap:
    """A text with a gap, and the words to choose from, the right one first."""

    before: str
    after: str
    words: tuple[str, ...]


def make_gaps(texts: Sequence[str], seed: int = 0) -> list[Gap]:
    """Return at most `N_GAPS` gaps, one per article; the same for the same texts and seed."""
    dice = random.Random(seed)
    words_of = [Counter(word for word in _WORD.findall(text) if len(word) in _LENGTHS) for text in texts]
    n_articles = Counter(word for words in words_of for word in words)
    pools: dict[tuple[bool, int], list[tuple[int, str]]] = defaultdict(list)
    for word, n in n_articles.items():
        pools[_kind(word)].append((n, word))
    for pool in pools.values():
        pool.sort()
    gaps: list[Gap] = []
    for i in dice.sample(range(len(texts)), len(texts)):
        # Words that hardly any other article uses are left out: a model cannot know them, nor equally rare ones.
        known = sorted(word for word, n in words_of[i].items() if n > 1 and n_articles[word] > 2)
        if len(gaps) < N_GAPS and known:
            word = dice.choice(known)
            wrong = _like(n_articles[word] - 1, pools[_kind(word)], texts[i])
            if len(wrong) >= N_WRONG:
                gaps.append(_gap(texts[i], word, dice.sample(wrong, N_WRONG), dice))
    return gaps


def cloze(scorer: Scorer, gaps: Sequence[Gap]) -> Proportion | None:
    """Return the share of gaps where the right word gives the most likely text (chance: 0.25); None without gaps."""
    if not gaps:
        return None
    texts = [gap.before + word + gap.after for gap in gaps for word in gap.words]
    found = log_likelihoods(scorer, texts)
    size = 1 + N_WRONG
    right = sum(max(found[i + 1 : i + size]) < found[i] for i in range(0, len(found), size))
    return Proportion(right / len(gaps), len(gaps))


def _kind(word: str) -> tuple[bool, int]:
    """Return script and length."""
    return word[0] <= "ヿ", len(word)


def _like(n: int, pool: list[tuple[int, str]], text: str) -> list[str]:
    """Return the words of a pool that occur in about ``n`` articles, but not in ``text``."""
    first = bisect_left(pool, (-(-n // MAX_FREQUENCY_RATIO), ""))
    end = bisect_left(pool, (n * MAX_FREQUENCY_RATIO + 1, ""))
    return [other for _, other in pool[first:end] if other not in text]


def _gap(text: str, word: str, wrong: Sequence[str], dice: random.Random) -> Gap:
    """Remove the word at a random place, except at its first."""
    places = [found.start() for found in _WORD.finditer(text) if found.group() == word][1:]
    begin = dice.choice(places)
    end = begin + len(word)
    after = re.split("(?<=。)|\n", text[end : end + AFTER])[0]
    return Gap(text[max(0, begin - BEFORE) : begin], after, (word, *wrong))
