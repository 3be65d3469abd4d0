"""The checks that every exported model must pass: the cases, the original model's answers, and the comparison.

A check compares the results that a separate process computed from the exported files with those of the model in memory.
Its outcome is a line of a table; a failed check ends the export.

**Texts.** A text is tokenized as a whole, and must give the ids of `prompt_ids`, which defines them. Generated ids are
compared as ids, and as text only if they are whole characters: programs decode an incomplete character in different
ways.

**Ties.** Two programs add numbers in different orders, so their logits differ by rounding. A greedy choice between two
logits that are closer than that may go either way. A continuation may therefore differ from the original's only at such
a place; the tokens after it continue another text and are not compared.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mamegpt.data.stories import stories
from mamegpt.exporting.prompts import PROMPTS
from mamegpt.generation.stream import prompt_ids, stream_ids
from mamegpt.messages import msg
from mamegpt.models.base import LanguageModel
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.chat import Message, chat_ids
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = [
    "CHATS",
    "EDGE_CASES",
    "N_SENTENCES",
    "Cases",
    "Check",
    "answer_checks",
    "chat_checks",
    "chat_prompts",
    "chats",
    "example_texts",
    "fitting_chats",
    "greedy_check",
    "last_logits",
    "logits_check",
    "make_cases",
    "rounding_check",
    "text_checks",
    "text_prompt",
    "until_end",
    "whole_text",
]

PROMPT_TOKENS, NEW_TOKENS = 8, 64
N_ROWS, ROW_TOKENS = 2, 256
N_SENTENCES = 20_000

EDGE_CASES = (
    "ﾌｧﾐｺﾝは1983年7月15日に発売された。",  # half-width kana, digits
    "か\u3099き\u3099く\u3099、が、ﾃﾞｰﾀ",  # kana with combining marks
    "大嘗宮の儀、𠮷野家、髙島屋",  # rare kanji, which need byte fallback
    "👨‍👩‍👧と🍣を食べた😀",  # joined emoji
    "一行目\n二行目\n\n\t四行目  空白が二つ　全角空白",
    "</s>と<unk>と<0xE3>はただの文字",
    "二つ  の 空白   と\r\n行\rの終わり\0、▁と",  # what `normalize` replaces
    "ＡＢＣ１２３ ～ Hello, world! naïve café",
    " 先頭と末尾の空白 ",
)


@dataclass(frozen=True)
class Check:
    """The name of a check, whether it passed, and what was found, as a sentence."""

    name: str
    passed: bool
    found: str


CHATS = (
    (Message("user", "豆は何色ですか"),),
    (
        Message("system", "短く答えます。"),
        Message("user", "ﾌｧﾐｺﾝの が\n二行目"),
        Message("assistant", "𠮷野家です。"),
        Message("user", " 空白  と「か\u3099」 "),
    ),
    (Message("user", "こんにちは"), Message("assistant", "こんにちは。"), Message("user", "「山」は何と読みますか")),
)
"""Conversations for the chat template."""


@dataclass(frozen=True)
class Cases:
    """Inputs for an exported model, and the outputs of the original model.

    ``prompts`` are rows of ids of one length; ``greedy`` are their continuations, past the end of a text too; ``rows``
    are longer, and ``logits`` (rows, T, V) are the original's for them. ``texts``, as users write them, must give
    ``text_ids``; ``source`` names their origin.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    prompts: list[list[int]]
    greedy: list[list[int]]
    rows: list[list[int]]
    logits: Tensor
    texts: list[str]
    text_ids: list[list[int]]
    source: str
    answers: bool = False
    """Whether the model was tuned to answer."""

    @property
    def n_new(self) -> int:
        """The number of tokens in each continuation."""
        return len(self.greedy[0])

    @property
    def ends(self) -> set[int | None]:
        """The ids at which other programs end a text."""
        turns = self.tokenizer.turns
        return {self.tokenizer.eos_id, turns.end if self.answers and turns else None}

    @property
    def scale(self) -> float:
        """The largest absolute logit, at least 1: rounding errors grow with it."""
        return max(1.0, self.logits.abs().max().item())


def make_cases(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Iterable[str] | None = None,
    source: str = "",
    n_sentences: int = N_SENTENCES,
    *,
    answers: bool = False,
) -> Cases:
    """Compute the original model's answers. ``texts`` are the user's own, from ``source``; the default is 豆物語.

    The cases contain the first ``n_sentences`` of the texts. Prompts and rows are shortened to fit the model's context.
    """
    texts, source, text_ids = example_texts(tokenizer, texts, source, n_sentences)
    n_context = model.context_length
    n_new = max(1, min(NEW_TOKENS, n_context // 2))
    encoded = [prompt_ids(tokenizer, prompt) for prompt in PROMPTS]
    n_prompt = max(1, min(PROMPT_TOKENS, n_context - n_new, *map(len, encoded)))
    prompts = [ids[:n_prompt] for ids in encoded]
    stream = [token for ids in [*text_ids[len(EDGE_CASES) :], *encoded] for token in ids]
    n_row = min(ROW_TOKENS, n_context, len(stream) // N_ROWS)
    rows = [stream[i * n_row : (i + 1) * n_row] for i in range(N_ROWS)]
    device = model.out_head.weight.device
    with torch.inference_mode():
        logits: Tensor = model.out_head(model.hidden(torch.tensor(rows, device=device))).float().cpu()
    greedy = [list(stream_ids(model, prompt, n_new)) for prompt in prompts]
    return Cases(model, tokenizer, prompts, greedy, rows, logits, texts, text_ids, source, answers)


def example_texts(
    tokenizer: Tokenizer, texts: Iterable[str] | None, source: str, n_sentences: int
) -> tuple[list[str], str, list[list[int]]]:
    """Return texts to compare tokenizers on, the name of their source, and their ids; as in `make_cases`."""
    if texts is None:
        texts, source = (text for _, text in stories(seed=7, n=n_sentences)), "豆物語"
    chosen = [*EDGE_CASES, *itertools.islice(_sentences(texts), n_sentences)]
    return chosen, source, tokenizer.encode_batch([normalize(text) for text in chosen])


def _sentences(texts: Iterable[str]) -> Iterable[str]:
    """Split texts after each full stop and line feed."""
    return (part for text in texts for part in re.split(r"(?<=[。！？\n])", text) if part)


def last_logits(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """Return the logits (V,) of the token after ``ids``, from one pass over all of them."""
    with torch.inference_mode():
        row = torch.tensor([ids], device=model.out_head.weight.device)
        logits: Tensor = model.out_head(model.hidden(row)[:, -1])[0].float().cpu()
    return logits


def logits_check(difference: float, tolerance: float, what: str) -> Check:
    """Return the check that the largest difference of logits is within rounding."""
    return Check(
        msg("logits"),
        difference <= tolerance,
        msg(
            "max difference {difference:.1e} (tolerance {tolerance:.1e}), {what}",
            difference=difference,
            tolerance=tolerance,
            what=what,
        ),
    )


def rounding_check(original: Tensor, rounded: Tensor, kind: str, most_bits: float) -> Check:
    """Return the check that rounded weights predict as the original ones, given logits (rows, T, V) of both."""
    p, q = original.log_softmax(-1), rounded.log_softmax(-1)
    bits = (p.exp() * (p - q)).sum(-1).mean().item() / math.log(2)  # Kullback-Leibler divergence
    found = msg(
        "{bits:.1e} bits per token between the original weights and {kind} (tolerance {most:.1e})",
        bits=bits,
        kind=kind,
        most=most_bits,
    )
    return Check(msg("rounding"), bits <= most_bits, found)


def until_end(ids: list[int], ends: Collection[int | None]) -> list[int]:
    """Return the ids up to and including the first of ``ends``, where other programs end a text."""
    return next((ids[: i + 1] for i, token in enumerate(ids) if token in ends), ids)


def whole_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str | None:
    """Return the text of ids; None if a character in it lacks some of its bytes."""
    try:
        b"".join(map(tokenizer.token_bytes, ids)).decode()
    except UnicodeDecodeError:
        return None
    return tokenizer.decode(ids)


def text_prompt(cases: Cases) -> str | None:
    """Return a prompt that fits the model: the longest beginning of the first prompt whose text has the same ids.

    It contains no name of a special token, which a pipeline would read as that token. None if there is no such
    beginning.
    """
    tokenizer = cases.tokenizer
    names = [piece.text for piece in tokenizer.pieces if piece.kind in ("control", "unknown")]
    for n in range(len(cases.prompts[0]), 0, -1):
        ids = cases.prompts[0][:n]
        text = whole_text(tokenizer, ids)
        if text and prompt_ids(tokenizer, text) == ids and not any(name in text for name in names):
            return text
    return None


def chats(cases: Cases) -> list[list[dict[str, str]]]:
    """Return the conversations for the chat template, normalized as other programs may not do; none for a model
    without one.
    """
    if not cases.answers:
        return []
    return [[{"role": role, "content": normalize(content)} for role, content in messages] for messages in CHATS]


def chat_checks(cases: Cases, found_ids: Sequence[Sequence[int]]) -> list[Check]:
    """Return the check that the chat template gives the ids of `chat_ids`, for a model that has one."""
    if not cases.answers:
        return []
    own = [chat_ids(cases.tokenizer, messages) for messages in CHATS]
    n_equal = sum(list(found) == ids for found, ids in zip(found_ids, own, strict=True))
    found = msg("{n_equal} of {n} conversations have the same token ids", n_equal=n_equal, n=len(own))
    return [Check(msg("chat template"), n_equal == len(own), found)]


def fitting_chats(cases: Cases) -> list[tuple[Message, ...]]:
    """Return the conversations after which the model's context has room for an answer; none for other models."""
    room = cases.model.context_length - cases.n_new
    return [chat for chat in CHATS if cases.answers and len(chat_ids(cases.tokenizer, chat)) <= room]


def chat_prompts(cases: Cases) -> list[list[int]]:
    """Return `fitting_chats` as token ids."""
    return [chat_ids(cases.tokenizer, chat) for chat in fitting_chats(cases)]


def answer_checks(cases: Cases, found_ids: list[list[int]], tolerance: float) -> list[Check]:
    """Return the check that `chat_prompts` are answered with the same tokens, up to the end."""
    asked = chat_prompts(cases)
    own = [until_end(list(stream_ids(cases.model, ids, cases.n_new)), cases.ends) for ids in asked]
    return [greedy_check(msg("answers"), cases, own, found_ids, tolerance, asked)] if asked else []


def greedy_check(
    name: str,
    cases: Cases,
    own_ids: list[list[int]],
    found_ids: list[list[int]],
    tolerance: float,
    prompts: list[list[int]] | None = None,
) -> Check:
    """Return the check that two sets of greedy continuations of ``prompts`` (default: those of ``cases``) are equal.

    They may differ from a tie on: two logits closer than twice ``tolerance``.
    """
    n_equal, ties, worst = 0, 0, 0.0
    for prompt, own, other in zip(prompts or cases.prompts, own_ids, found_ids, strict=True):
        at = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), min(len(own), len(other)))
        if at == len(own) == len(other):
            n_equal += 1
            continue
        gap = float("inf")
        if at < min(len(own), len(other)):
            logits = last_logits(cases.model, prompt + own[:at])
            gap = (logits[own[at]] - logits[other[at]]).abs().item()
        worst = max(worst, gap)
        ties += gap <= 2 * tolerance
    n = len(found_ids)
    n_new = max(map(len, own_ids))
    found = msg(
        "{n_equal} of {n} prompts are continued with the same {n_new} tokens", n_equal=n_equal, n=n, n_new=n_new
    )
    if n_equal < n:
        found = msg(
            "{found}, {ties} differ at a tie of logits: max difference {worst:.1e} (tolerance {tolerance:.1e})",
            found=found,
            ties=ties,
            worst=worst,
            tolerance=2 * tolerance,
        )
    return Check(name, n_equal + ties == n, found)


def text_checks(cases: Cases, found_ids: list[list[int]], decoded: list[str], must_agree: bool) -> list[Check]:
    """Return the checks that texts give the ids of `prompt_ids`, and that these decode to the texts.

    ``decoded`` may contain the first texts only. Without ``must_agree`` the outcome is only reported: no other program
    reproduces a tokenizer with a normalization table exactly.
    """
    same = [a == b for a, b in zip(found_ids, cases.text_ids, strict=True)]
    own = [cases.tokenizer.decode(ids) for ids in cases.text_ids[: len(decoded)]]
    whole = [a == b for a, b in zip(decoded, own, strict=True)]

    def check(name: str, equal: list[bool], what: str) -> Check:
        n = len(equal)
        share = f"{sum(equal) / n:.1%}"
        found = msg(
            "{n_equal:,} of {n:,} texts {what} ({share}; {source} and {n_cases} edge cases)",
            n_equal=sum(equal),
            n=n,
            what=what,
            share=share,
            source=cases.source,
            n_cases=len(EDGE_CASES),
        )
        if not all(equal):
            found = msg("{found}, not {text!r}", found=found, text=cases.texts[equal.index(False)][:30])
        return Check(name, all(equal) or not must_agree, found)

    return [
        check(msg("tokenizer"), same, msg("have the same token ids")),
        check(msg("round trip"), whole, msg("are restored from their token ids")),
    ]
