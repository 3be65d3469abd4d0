"""OpenAI's completions, as far as they make sense here: requests read strictly, answers and chunks written.

Format: OpenAI's API reference, "Completions" (``POST /v1/completions``). Beyond it a request may hold ``top_k``,
``min_p`` and ``repetition_penalty``, as `Sampling` explains them, up to ten ``logprobs``, and
``at_start``: whether the prompts begin a text (without it: if the model was trained with such beginnings).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mamegpt.errors import ConfigError, naming_fields
from mamegpt.generation.settings import Sampling
from mamegpt.playground.engine import MAX_TEXTS, CompletionRequest, NewToken
from mamegpt.system.files import shown
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["MAX_CHARACTERS", "MAX_TOKENS", "error", "merge", "read_request", "usage"]

MAX_CHARACTERS = 20_000
"""Longest prompt (all prompts of one request together)."""
MAX_STOP_CHARACTERS = 1_000
MAX_TOKENS = 2048
"""Longest continuation."""
MAX_LOGPROBS = 10
MAX_TOP_K = 1_000_000
MAX_SEED = (1 << 53) - MAX_TEXTS
"""Largest seed: JavaScript keeps whole numbers up to 2**53 - 1, and the last text of a request has seed + 7."""

UNSUPPORTED: dict[str, Any] = {
    "suffix": "",
    "echo": False,
    "best_of": 1,
    "logit_bias": {},
    "frequency_penalty": 0,
    "presence_penalty": 0,
}
"""What OpenAI has and we do not, by the value that asks for nothing."""
OUTSIDE = {"stream", "stream_options", "user"}
"""Fields that do not change the texts."""
NUMBERS: dict[str, float] = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


def read_request(body: object) -> CompletionRequest:
    """Read the JSON of a request. Raises `ConfigError` for what is wrong, unknown or too much."""
    if not isinstance(body, dict):
        raise ConfigError("the body must be a JSON object")
    fields: dict[str, Any] = {name: value for name, value in body.items() if value is not None}
    for name, nothing in UNSUPPORTED.items():
        if fields.pop(name, nothing) != nothing:
            raise ConfigError(f"{name} is not supported; leave it out")
    prompts = _texts(fields.pop("prompt", ""), "prompt", MAX_CHARACTERS)
    numbers = {name: _number(fields.pop(name, default), name) for name, default in NUMBERS.items()}
    sampling = Sampling(
        **numbers,
        top_k=_between(fields.pop("top_k", 0), "top_k", 0, MAX_TOP_K),
        seed=_between(fields.pop("seed", random.randrange(MAX_SEED)), "seed", 0, MAX_SEED),
        stop=_texts(fields.pop("stop", []), "stop", MAX_STOP_CHARACTERS),
    )
    sampling.validate()
    logprobs = fields.pop("logprobs", None)
    request = CompletionRequest(
        model=str(fields.pop("model", "")),
        prompts=prompts,
        n=_between(fields.pop("n", 1), "n", 1, MAX_TEXTS),
        max_tokens=_between(fields.pop("max_tokens", 16), "max_tokens", 1, MAX_TOKENS),
        sampling=sampling,
        at_start=_flag(fields.pop("at_start", None), "at_start"),
        n_alternatives=None if logprobs is None else _between(logprobs, "logprobs", 0, MAX_LOGPROBS),
    )
    if unknown := sorted(fields.keys() - OUTSIDE):
        raise ConfigError(f"unknown: {', '.join(map(repr, unknown))}")
    if not 1 <= request.n_texts <= MAX_TEXTS:
        raise ConfigError(f"prompts times n must lie between 1 and {MAX_TEXTS}, not be {request.n_texts}")
    return request


def merge(batch: Sequence[NewToken], scored: bool) -> list[dict[str, Any]]:
    """Return steps of several texts, in order, as ``choices``: one a text, with ``logprobs`` if asked for."""
    texts: dict[int, list[NewToken]] = {}
    for step in batch:
        texts.setdefault(step.number, []).append(step)
    return [
        {
            "index": number,
            "text": "".join(step.token.text for step in steps),
            "finish_reason": steps[-1].token.finish,
            "logprobs": _logprobs(steps) if scored else None,
        }
        for number, steps in texts.items()
    ]


def usage(request: CompletionRequest, steps: Sequence[NewToken]) -> dict[str, int]:
    """Count tokens read, each prompt once whatever ``n`` is, and tokens written; ``steps`` are all of them."""
    loaded = steps[0].loaded
    n_read = sum(len(loaded.prompt_ids(prompt, at_start=request.at_start)) for prompt in request.prompts)
    n_written = sum(step.token.id is not None for step in steps)
    return {"prompt_tokens": n_read, "completion_tokens": n_written, "total_tokens": n_read + n_written}


def error(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """Return a failure as OpenAI's clients expect it; half of a surrogate pair, as in a file's name, is escaped.

    It names settings as the fields of a request, though a command runs the server.
    """
    return {"error": {"message": shown(naming_fields(message)), "type": kind, "param": None, "code": None}}


def _logprobs(steps: Sequence[NewToken]) -> dict[str, Any]:
    """``text_offset`` counts characters of the continuation; a token that begins nothing has that of the next."""
    steps = [step for step in steps if step.token.id is not None]
    return {
        "tokens": [_shown(step.loaded.tokenizer, step.token.id) for step in steps],
        "token_logprobs": [step.token.logprob for step in steps],
        "top_logprobs": [
            {_shown(step.loaded.tokenizer, i): logprob for i, logprob in step.token.alternatives} for step in steps
        ],
        "text_offset": [step.token.offset for step in steps],
    }


def _shown(tokenizer: Tokenizer, token: int | None) -> str:
    """Return the text of a token; the name of one that has none of its own, such as ``<0xE8>`` or ``</s>``."""
    assert token is not None
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode() or tokenizer.piece(token)
    except UnicodeDecodeError:
        return tokenizer.piece(token)


def _texts(value: object, name: str, most: int) -> list[str]:
    """Return a string, or a list of them

    OpenAI's lists of token ids are not taken, for they depend on the tokenizer.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{name} must be a string or a list of strings")
    if sum(map(len, texts)) > most:
        raise ConfigError(f"{name} must not be longer than {most:,} characters")
    return texts


def _flag(value: object, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false")
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
        raise ConfigError(f"{name} must be a number, and a sensible one")
    return float(value)


def _between(value: object, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number")
    if not least <= value <= most:
        raise ConfigError(f"{name} must lie between {least:,} and {most:,}, not be {value:,}")
    return value
