"""Many continuations together: the weights are read once for all of them.

All sequences stand at the same position. As prompts differ in length, a sequence that is still inside its own takes
the next id from there, and the others the one they chose: no padding, no mask, and each sees exactly what it would
see alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from mamegpt.generation.cache import KVCache
from mamegpt.generation.samplers import choose
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import Continuation, checked, fitting, prompt_ids
from mamegpt.generation.whole_characters import WholeCharacters
from mamegpt.models.base import LanguageModel
from mamegpt.tokenizer.chat import Message, chat_ids
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["answer_many", "continue_ids", "generate_many"]

BATCH_SIZE = 32
"""Sequences at once; measured in docs/log.md."""


def generate_many(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    *,
    at_start: bool = False,
    use_cache: bool = True,
) -> Iterator[str]:
    """Yield the continuation of each of ``prompts``, in their order, prompt i with ``sampling.of_text(i)``.

    ``at_start`` as in `stream.stream`. Raises `ConfigError`, before anything is computed, as that does.
    """
    sampling = checked(sampling, max_new_tokens)
    given = [prompt_ids(tokenizer, prompt, at_start=at_start) for prompt in prompts]
    samplings = [sampling.of_text(i) for i in range(len(given))]
    return _generate_many(model, tokenizer, given, max_new_tokens, samplings, tokenizer.eos_id, use_cache)


def answer_many(
    model: LanguageModel,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    *,
    use_cache: bool = True,
) -> Iterator[str]:
    """Yield the answer to each of ``conversations``, in their order; otherwise as `stream.stream_answer`."""
    sampling = checked(sampling, max_new_tokens)
    given = [chat_ids(tokenizer, fitting(model, tokenizer, messages, max_new_tokens)) for messages in conversations]
    samplings = [sampling.of_text(i) for i in range(len(given))]
    end = None if tokenizer.turns is None else tokenizer.turns.end
    return _generate_many(model, tokenizer, given, max_new_tokens, samplings, end, use_cache)


def _generate_many(
    model: LanguageModel,
    tokenizer: Tokenizer,
    given: Sequence[list[int]],
    max_new_tokens: int,
    samplings: Sequence[Sampling],
    end: int | None,
    use_cache: bool,
) -> Iterator[str]:
    """Yield the generator behind `generate_many`, which has looked at its arguments."""
    for i in range(0, len(given), BATCH_SIZE):
        some, how = given[i : i + BATCH_SIZE], samplings[i : i + BATCH_SIZE]
        yield from _together(model, tokenizer, some, max_new_tokens, how, end, use_cache)


def _together(
    model: LanguageModel,
    tokenizer: Tokenizer,
    given: Sequence[list[int]],
    max_new_tokens: int,
    samplings: Sequence[Sampling],
    end: int | None,
    use_cache: bool,
) -> list[str]:
    """Return the continuations of one batch."""
    texts = [Continuation(tokenizer, ids, sampling.stop) for ids, sampling in zip(given, samplings, strict=True)]
    parts: list[list[str]] = [[] for _ in given]

    def take(i: int, token: int) -> bool:
        parts[i].append(texts[i].push(token))
        return texts[i].stopped or token == tokenizer.eos_id

    characters = WholeCharacters.of(tokenizer)
    continue_ids(
        model,
        given,
        max_new_tokens,
        samplings,
        end,
        characters=characters,
        use_cache=use_cache,
        ends=take,
    )
    return ["".join([*part, text.end()]) for part, text in zip(parts, texts, strict=True)]


@torch.inference_mode()
def continue_ids(
    model: LanguageModel,
    given: Sequence[Sequence[int]],
    max_new_tokens: int,
    samplings: Sequence[Sampling],
    eos_id: int | None = None,
    *,
    characters: WholeCharacters | None = None,
    use_cache: bool = True,
    ends: Callable[[int, int], bool] = lambda _i, _token: False,
) -> list[list[int]]:
    """Return new ids after each of ``given`` (of at least one id each), up to ``eos_id`` or ``max_new_tokens``.

    ``ends`` is called with the number of a sequence and its new id, and says whether the sequence ends with it.
    As `stream.stream_ids` finds them one by one, up to rounding. With ``characters`` byte pieces make whole ones. The
    model is switched to evaluation mode.
    """
    model.eval()
    device, context_length = model.out_head.weight.device, model.context_length
    generators = [torch.Generator().manual_seed(int(sampling.seed)) for sampling in samplings]
    all_ids = [list(ids) for ids in given]
    characters = characters or WholeCharacters()
    missing = [characters.after(ids) for ids in given]
    alive = list(range(len(all_ids)))
    n_read = min(map(len, all_ids), default=0)  # ids of each sequence that the next step has seen
    cache = KVCache(context_length)
    while alive:
        has_cache = use_cache and n_read <= context_length
        begin = cache.get_seq_length() if has_cache else max(0, n_read - context_length)
        x = torch.tensor([all_ids[i][begin:n_read] for i in alive], device=device)  # (B, T)
        states = model.hidden(x, cache) if has_cache else model.hidden(x)
        logits = model.out_head(states[:, -1]).float().cpu()  # (B, V)
        goes_on = []
        for row, i in enumerate(alive):
            if len(all_ids[i]) == n_read:
                mask = characters.mask(missing[i])
                next_id = choose(logits[row], all_ids[i], samplings[i], generators[i], mask)
                if next_id == eos_id:
                    continue
                all_ids[i].append(next_id)
                missing[i] = characters.after([next_id], missing[i])
                if ends(i, next_id):
                    continue
            if len(all_ids[i]) < len(given[i]) + max_new_tokens:
                goes_on.append(row)
        if len(goes_on) < len(alive):
            alive = [alive[row] for row in goes_on]
            cache.keep(goes_on)
        n_read += 1
    return [ids[len(start) :] for ids, start in zip(all_ids, given, strict=True)]
