"""Text from a model, token by token, in pieces that never cut a character.

What a model sees is the last ``context_length`` tokens. While they fit, each new token costs one position, for
keys and values of the earlier ones are kept. Past that the window moves on by one token a step, every position
changes, and each step runs the whole window: slower, but exactly what the model was trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mamegpt.errors import ConfigError
from mamegpt.generation.cache import KVCache
from mamegpt.generation.fast_decode import DecodeStep, Head, native_for, supports_fast_decode
from mamegpt.generation.samplers import choose
from mamegpt.generation.settings import Sampling
from mamegpt.generation.whole_characters import WholeCharacters
from mamegpt.models.base import LanguageModel
from mamegpt.models.decode import one_thread
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.chat import Message, chat_ids, conversation_ids
from mamegpt.tokenizer.tokenizer import Tokenizer, check_characters

__all__ = [
    "Continuation",
    "Token",
    "checked",
    "fitting",
    "generate",
    "prompt_ids",
    "stream",
    "stream_answer",
    "stream_ids",
    "stream_tokens",
]


class Token(NamedTuple):
    """One step of a text, as `stream_tokens` makes it.

    The last step is no token and has no id: it brings the text that was held back, and says why the text ended.
    """

    text: str
    """What can be shown now: nothing while a character, or what may become a stop string, is incomplete."""
    offset: int
    """Characters of the continuation before this token."""
    id: int | None = None
    logprob: float | None = None
    """Natural logarithm of the model's own probability, before temperature, penalty and cuts."""
    alternatives: Sequence[tuple[int, float]] = ()
    """The most likely ids and their ``logprob``, best first."""
    finish: Literal["stop", "length"] | None = None
    """Of the last step: a stop string or the end of the text came, or there were enough tokens."""


class Continuation:
    """The text of new ids as they come: without half characters, and up to the first stop string.

    A character that lacks bytes when no more ids come is left out. The text ends as soon as a stop string is complete,
    and before the longest of those that end there. So it does not depend on how the text is cut into tokens.
    """

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str]) -> None:
        """Begin after the ids of a prompt."""
        self._decoder = tokenizer.stream()
        for token in ids:
            self._decoder.push(token)
        self._stops = stops
        self._held = ""  # text that may be the beginning of a stop string
        self.n_characters = 0
        """Characters of the continuation so far, those held back included."""
        self.stopped = False
        """Whether a stop string came."""

    def push(self, token: int) -> str:
        """Take an id and return the text that can be shown now."""
        return self._release(self._decoder.push(token))

    def end(self) -> str:
        """Return the text that was held back, as no more ids come."""
        return self._held

    def _release(self, new: str) -> str:
        if self.stopped:
            return ""
        self.n_characters += len(new)
        held = self._held + new
        found = [(at + len(stop), at) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)[1]]
        n_wait = max((n for stop in self._stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        ready = held[: len(held) - n_wait]
        self._held = held[len(ready) :]
        return ready


def stream_ids(
    model: LanguageModel,
    ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    eos_id: int | None = None,
    *,
    characters: WholeCharacters | None = None,
    use_cache: bool = True,
) -> Iterator[int]:
    """Yield new ids one at a time, until ``eos_id`` (not yielded) or ``max_new_tokens``.

    ``ids`` holds at least one id. With ``characters`` byte pieces make whole ones. The model is switched to evaluation
    mode.
    """
    sampling, characters = sampling or Sampling(), characters or WholeCharacters()
    steps = _steps(model, ids, max_new_tokens, sampling, (eos_id,), characters, use_cache, with_logits=False)
    return (next_id for next_id, _ in steps)


@torch.inference_mode()
def _steps(
    model: LanguageModel,
    ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    ends: Container[int | None],
    characters: WholeCharacters,
    use_cache: bool,
    with_logits: bool,
) -> Iterator[tuple[int, Tensor | None]]:
    """Each new id, and the logits (V,) it was chosen from; without ``with_logits`` they may be left out."""
    model.eval()
    generator = torch.Generator().manual_seed(int(sampling.seed))
    is_plain = sampling.temperature == 0 and sampling.repetition_penalty == 1 and not with_logits
    native = native_for(model) if use_cache else None
    head = Head(model.out_head.weight, native) if native or (use_cache and supports_fast_decode(model)) else None
    all_ids = list(ids)
    missing = characters.after(all_ids)
    step = DecodeStep(model, native) if head and len(all_ids) <= model.context_length else None
    for state in itertools.islice(_last_states(model, all_ids, use_cache, step), max_new_tokens):
        logits = None
        next_id = head.most_likely(state) if head is not None and is_plain else None
        if next_id is None or not characters.allows(next_id, missing):
            logits = (model.out_head(state) if head is None else head.logits(state)).float().cpu()
            with one_thread():
                next_id = choose(logits, all_ids, sampling, generator, characters.mask(missing))
        if next_id in ends:
            return
        yield next_id, logits
        all_ids.append(next_id)
        missing = characters.after([next_id], missing)


def _last_states(model: LanguageModel, ids: list[int], use_cache: bool, step: DecodeStep | None) -> Iterator[Tensor]:
    """Hidden states (C,) of the last of ``ids``, to which the caller appends one before it asks for another."""
    device, context_length = model.out_head.weight.device, model.context_length

    def read(some: list[int], *cache: object) -> Tensor:
        return model.hidden(torch.tensor([some], device=device), *cache)[0, -1]

    if step:
        yield step.prompt(ids)
        while len(ids) <= context_length:
            yield step.hidden(ids[-1])
    elif use_cache and len(ids) <= context_length:
        cache = KVCache(context_length)
        yield read(ids, cache)
        while len(ids) <= context_length:
            yield read(ids[-1:], cache)
    while True:
        yield read(ids[-context_length:])


def stream(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    *,
    at_start: bool = False,
    use_cache: bool = True,
) -> Iterator[str]:
    """Yield the continuation of ``prompt`` in pieces that never hold half a character.

    ``at_start`` says that the prompt is the beginning of a text; see `prompt_ids`. Raises `ConfigError`, before
    anything is computed, for impossible settings, and as `prompt_ids` does.
    """
    tokens = stream_tokens(model, tokenizer, prompt, max_new_tokens, sampling, at_start=at_start, use_cache=use_cache)
    return (token.text for token in tokens if token.text)


def stream_tokens(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    *,
    at_start: bool = False,
    n_alternatives: int | None = None,
    use_cache: bool = True,
) -> Iterator[Token]:
    """Yield what `stream` does, token by token; with ``n_alternatives`` (0 and more) also how likely each was, and what
    else was.
    """
    sampling = checked(sampling, max_new_tokens)
    ids = prompt_ids(tokenizer, prompt, at_start=at_start)
    return _tokens(model, tokenizer, ids, max_new_tokens, sampling, (tokenizer.eos_id,), n_alternatives, use_cache)


def stream_answer(
    model: LanguageModel,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    *,
    n_alternatives: int | None = None,
    use_cache: bool = True,
) -> Iterator[Token]:
    """Yield the answer to a conversation token by token, until the end of the turn; otherwise as `stream_tokens`.

    The oldest turns are forgotten if the conversation and its answer do not fit into the context: see `fitting`.
    """
    sampling = checked(sampling, max_new_tokens)
    ids = chat_ids(tokenizer, fitting(model, tokenizer, messages, max_new_tokens))
    assert tokenizer.turns is not None, "asked in chat_ids"
    ends = (tokenizer.turns.end, tokenizer.eos_id)
    return _tokens(model, tokenizer, ids, max_new_tokens, sampling, ends, n_alternatives, use_cache)


def fitting(
    model: LanguageModel, tokenizer: Tokenizer, messages: Sequence[Message], max_new_tokens: int
) -> Sequence[Message]:
    """Return the newest turns that fit into the context together with an answer, and a system turn if there is one.

    Turns are left out in pairs, a question and its answer. The last question always stays. Of an answer that may be
    long, half of the context counts: else nothing would be left of the conversation. Raises `ConfigError` for a
    question that does not fit even without an answer.
    """
    begin = n_system = int(bool(messages) and messages[0].role == "system")
    lengths = [len(conversation_ids(tokenizer, [message])) for message in messages]
    n_tokens = len(chat_ids(tokenizer, [])) + sum(lengths)
    n_tokens += min(max_new_tokens, model.context_length // 2)
    while n_tokens > model.context_length and begin + 2 < len(messages):
        n_tokens -= sum(lengths[begin : begin + 2])
        begin += 2
    n_tokens -= min(max_new_tokens, model.context_length // 2)
    if n_tokens > model.context_length:
        raise ConfigError(
            "the question is too long: {n:,} tokens with its turn, but the model reads {most:,} at once; shorten it",
            n=n_tokens,
            most=model.context_length,
        )
    return [*messages[:n_system], *messages[begin:]]


def checked(sampling: Sampling | None, max_new_tokens: int) -> Sampling:
    """Return how to sample, greedily if nothing is said. Raises `ConfigError` for impossible settings."""
    sampling = sampling or Sampling()
    sampling.validate()
    if max_new_tokens < 1:
        raise ConfigError("--max-new-tokens must be at least 1 (got {max_new_tokens})", max_new_tokens=max_new_tokens)
    return sampling


def prompt_ids(tokenizer: Tokenizer, prompt: str, *, at_start: bool = False) -> list[int]:
    """Return what a model reads first: the ids of ``prompt``, normalised as training text is.

    ``at_start`` says that the prompt is the beginning of a text (`Pretrained.has_start`: whether the model was trained
    on texts with a start). It then follows `Tokenizer.start_id`, as each text did in training. An empty prompt is
    always a beginning. Raises `ConfigError` for a beginning if the tokenizer has no end-of-text token, and
    `TokenizerError` for half a surrogate pair.
    """
    check_characters(prompt)  # normalising would put U+FFFD there without a word
    ids = tokenizer.encode(normalize(prompt))
    if ids and not at_start:
        return ids
    if tokenizer.start_id is None:
        if ids:
            raise ConfigError("--at-start True needs an end-of-text token, and this tokenizer has none; leave it out")
        raise ConfigError("--prompt is empty, and this tokenizer has no end-of-text token to start from")
    return [tokenizer.start_id, *ids]


def _tokens(
    model: LanguageModel,
    tokenizer: Tokenizer,
    ids: list[int],
    max_new_tokens: int,
    sampling: Sampling,
    ends: Container[int | None],
    n_alternatives: int | None,
    use_cache: bool,
) -> Iterator[Token]:
    """Yield the generator behind `stream_tokens`, which has looked at its arguments."""
    text = Continuation(tokenizer, ids, sampling.stop)
    n_tokens = 0
    scored = n_alternatives is not None
    characters = WholeCharacters.of(tokenizer)
    for new_id, logits in _steps(model, ids, max_new_tokens, sampling, ends, characters, use_cache, scored):
        offset = text.n_characters
        ready = text.push(new_id)
        n_tokens += 1
        if n_alternatives is None or logits is None:
            yield Token(ready, offset, new_id)
        else:
            yield Token(ready, offset, new_id, *_likely(logits, new_id, n_alternatives))
        if text.stopped:
            break
    offset = text.n_characters
    rest = text.end()
    is_end = text.stopped or n_tokens < max_new_tokens
    yield Token(rest, offset, finish="stop" if is_end else "length")


def _likely(logits: Tensor, chosen: int, k: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log-probability of the id ``chosen`` by logits (V,), and the ``k`` most likely ids with theirs."""
    with torch.inference_mode(), one_thread():
        logprobs = logits.log_softmax(-1)
        best = logprobs.topk(min(k, logits.numel()))
        return logprobs[chosen].item(), list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    *,
    at_start: bool = False,
    use_cache: bool = True,
) -> str:
    """Return the continuation of ``prompt``, whole; see `stream`."""
    return "".join(stream(model, tokenizer, prompt, max_new_tokens, sampling, at_start=at_start, use_cache=use_cache))
