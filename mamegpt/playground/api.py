"""OpenAI's completions, as far as they make sense here: requests read strictly, answers and chunks written.

Format: OpenAI's API reference, "Completions" (``POST /v1/completions``) and "Chat" (``POST /v1/chat/completions``, for
models that were tuned to answer). Beyond it a request may hold ``top_k``, ``min_p`` and ``repetition_penalty``, as
`Sampling` explains them, and one for completions up to ten ``logprobs`` and ``at_start``: whether the prompts begin a
text (without it: if the model was trained with such beginnings).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, TypeVar

from mamegpt.errors import ConfigError, naming_fields
from mamegpt.generation.settings import Sampling
from mamegpt.playground.engine import MAX_TEXTS, CompletionRequest, NewToken, n_read
from mamegpt.system.files import shown
from mamegpt.system.validation import FromJSON, Number, Within, validated
from mamegpt.tokenizer.reserved import Role
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = [
    "MAX_CHARACTERS",
    "MAX_TOKENS",
    "begin_chat",
    "choices",
    "error",
    "read_chat_request",
    "read_request",
    "usage",
]

MAX_CHARACTERS = 20_000
"""Longest prompt (all prompts of one request together)."""
MAX_STOP_CHARACTERS = 1_000
MAX_TOKENS = 2048
"""Longest continuation."""
MAX_LOGPROBS, MAX_TOP_LOGPROBS = 10, 20
"""Most alternatives of a token: of completions, where OpenAI has five, and of chats."""
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


@dataclass(frozen=True)
class _StreamOptions(FromJSON, extra="ignore"):
    include_usage: bool | None = None


@dataclass(frozen=True, kw_only=True)
class _Body(FromJSON):
    """The fields of every request."""

    model: str = ""
    n: Annotated[int, Within(ge=1, le=MAX_TEXTS)] = 1
    temperature: Number = 1.0
    top_p: Number = 1.0
    min_p: Number = 0.0
    repetition_penalty: Number = 1.0
    top_k: Annotated[int, Within(ge=0, le=MAX_TOP_K)] = 0
    seed: Annotated[int, Within(ge=0, le=MAX_SEED)] = field(default_factory=lambda: random.randrange(MAX_SEED))
    stop: list[str] = field(default_factory=list)
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    user: str = ""
    logit_bias: dict[str, float] = field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Completion(_Body):
    """The fields of a request to continue texts."""

    prompt: list[str] = field(default_factory=lambda: [""])
    max_tokens: Annotated[int, Within(ge=1, le=MAX_TOKENS)] = 16
    logprobs: Annotated[int, Within(ge=0, le=MAX_LOGPROBS)] | None = None
    at_start: bool | None = None
    suffix: str = ""
    echo: bool = False
    best_of: int = 1


@dataclass(frozen=True)
class _Message(FromJSON, extra="ignore"):
    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class _Chat(_Body):
    """The fields of a request to answer a conversation."""

    messages: list[_Message]
    max_tokens: Annotated[int, Within(ge=1, le=MAX_TOKENS)] = 100
    max_completion_tokens: Annotated[int, Within(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Within(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


def read_request(value: object) -> CompletionRequest:
    """Read the JSON of a request to continue texts. Raises `ConfigError` for what is wrong, unknown or too much."""
    # OpenAI's lists of token ids are not taken, for they depend on the tokenizer.
    body = _read(_Completion, value, ("prompt", "stop"))
    _refuse_long("prompt", body.prompt, MAX_CHARACTERS)
    return _request(
        body, prompts=body.prompt, max_tokens=body.max_tokens, at_start=body.at_start, n_alternatives=body.logprobs
    )


def read_chat_request(value: object) -> CompletionRequest:
    """Read the JSON of a request to answer a conversation. Raises as `read_request`."""
    body = _read(_Chat, value, ("stop",))
    messages = [(message.role, message.content) for message in body.messages]
    _refuse_long("messages", [content for _, content in messages], MAX_CHARACTERS)
    if body.top_logprobs and not body.logprobs:
        raise ConfigError("top_logprobs needs logprobs; give both")
    return _request(
        body,
        prompts=[""],
        max_tokens=body.max_completion_tokens or body.max_tokens,
        messages=messages,
        n_alternatives=(body.top_logprobs or 0) if body.logprobs else None,
    )


B = TypeVar("B", bound=_Body)


def _read(kind: type[B], value: object, lists: Sequence[str]) -> B:
    """Return the fields of a request; one text may stand for a list of one in ``lists``."""
    if not isinstance(value, dict):
        raise ConfigError("the body must be a JSON object")
    given = {name: one for name, one in value.items() if one is not None}
    texts = {name: [text] for name in lists if isinstance(text := given.get(name), str)}
    try:
        body = validated(kind, given | texts)
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    for name, nothing in UNSUPPORTED.items():
        if getattr(body, name, nothing) != nothing:
            raise ConfigError("{name} is not supported; leave it out", name=name)
    _refuse_long("stop", body.stop, MAX_STOP_CHARACTERS)
    return body


def _refuse_long(name: str, texts: Sequence[str], most: int) -> None:
    if sum(map(len, texts)) > most:
        raise ConfigError("{name} must not be longer than {most:,} characters", name=name, most=most)


def _request(body: _Body, **of_kind: Any) -> CompletionRequest:
    sampling = Sampling(**{setting.name: getattr(body, setting.name) for setting in fields(Sampling)})
    sampling.validate()
    request = CompletionRequest(
        model=body.model,
        n=body.n,
        sampling=sampling,
        stream=body.stream,
        with_usage=bool(body.stream_options.include_usage),
        **of_kind,
    )
    if not 1 <= request.n_texts <= MAX_TEXTS:
        raise ConfigError(
            "prompts times n must be between 1 and {most} (got {n_texts})", most=MAX_TEXTS, n_texts=request.n_texts
        )
    return request


def begin_chat(request: CompletionRequest) -> list[dict[str, Any]]:
    """Return the ``choices`` that begin a streamed answer: they say who speaks."""
    return [
        {"index": i, "delta": {"role": "assistant", "content": ""}, "finish_reason": None, "logprobs": None}
        for i in range(request.n_texts)
    ]


def choices(request: CompletionRequest, batch: Sequence[NewToken]) -> list[dict[str, Any]]:
    """Return steps of several texts, in order, as ``choices``: one a text, with ``logprobs`` if asked for."""
    texts: dict[int, list[NewToken]] = {}
    for step in batch:
        texts.setdefault(step.number, []).append(step)
    return [
        {
            "index": number,
            **_content(request, "".join(step.token.text for step in steps)),
            "finish_reason": steps[-1].token.finish,
            "logprobs": _logprobs(request, steps),
        }
        for number, steps in texts.items()
    ]


def _content(request: CompletionRequest, text: str) -> dict[str, Any]:
    if request.messages is None:
        return {"text": text}
    return {"delta": {"content": text}} if request.stream else {"message": {"role": "assistant", "content": text}}


def usage(request: CompletionRequest, steps: Sequence[NewToken]) -> dict[str, int]:
    """Count tokens read, each prompt once whatever ``n`` is, and tokens written; ``steps`` are all of them."""
    n_prompt = n_read(steps[0].loaded, request)
    n_written = sum(step.token.id is not None for step in steps)
    return {"prompt_tokens": n_prompt, "completion_tokens": n_written, "total_tokens": n_prompt + n_written}


def error(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """Return a failure as OpenAI's clients expect it; half of a surrogate pair, as in a file's name, is escaped.

    It names settings as the fields of a request, though a command runs the server.
    """
    return {"error": {"message": shown(naming_fields(message)), "type": kind, "param": None, "code": None}}


def _logprobs(request: CompletionRequest, steps: Sequence[NewToken]) -> dict[str, Any] | None:
    if request.n_alternatives is None:
        return None
    steps = [step for step in steps if step.token.id is not None]
    if request.messages is not None:
        return {"content": [_scored(step) for step in steps], "refusal": None}
    # text_offset counts characters of the continuation; a token that begins nothing has that of the next.
    return {
        "tokens": [_shown(step.loaded.tokenizer, step.token.id) for step in steps],
        "token_logprobs": [step.token.logprob for step in steps],
        "top_logprobs": [
            {_shown(step.loaded.tokenizer, i): logprob for i, logprob in step.token.alternatives} for step in steps
        ],
        "text_offset": [step.token.offset for step in steps],
    }


def _scored(step: NewToken) -> dict[str, Any]:
    """Return a token of an answer with its log-probability, its bytes, and its alternatives."""
    tokenizer = step.loaded.tokenizer

    def one(token: int | None, logprob: float | None) -> dict[str, Any]:
        assert token is not None
        return {
            "token": _shown(tokenizer, token),
            "logprob": logprob,
            "bytes": list(tokenizer.token_bytes(token)),
        }

    return one(step.token.id, step.token.logprob) | {"top_logprobs": [one(*pair) for pair in step.token.alternatives]}


def _shown(tokenizer: Tokenizer, token: int | None) -> str:
    """Return the text of a token; the name of one that has none of its own, such as ``<0xE8>`` or ``</s>``."""
    assert token is not None
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode() or tokenizer.piece(token)
    except UnicodeDecodeError:
        return tokenizer.piece(token)
