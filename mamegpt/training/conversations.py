"""The data of a run that tunes a model: conversations, and text beside them, as token shards of the run."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mamegpt.config import TuneConfig
from mamegpt.data.conversation_order import ConversationOrder, Conversations, Examples, LabelledTexts, Questions
from mamegpt.data.conversations import Conversation, ConversationReader, PreferenceReader, QuestionReader
from mamegpt.data.shards import TEXT, Encoded, Meta, Split, is_shards, open_shards, sample_tokens, write_shards
from mamegpt.data.sources import noted_source, read_texts
from mamegpt.data.window_order import WindowOrder
from mamegpt.distributed.processes import World
from mamegpt.errors import DataError, TokenizerError
from mamegpt.messages import msg, tally
from mamegpt.models.base import LanguageModel
from mamegpt.native.library import Native
from mamegpt.run.metrics import Quality
from mamegpt.run.run import Run
from mamegpt.text.subsample import subsample
from mamegpt.tokenizer.chat import conversation_ids
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.batches import ConversationBatches, PairBatches
from mamegpt.training.events import ConversationsRead, Emit
from mamegpt.training.forward import micro_batch
from mamegpt.training.validation import evaluate_examples

__all__ = [
    "conversation_batches",
    "mean_length",
    "pairs_of",
    "questions_of",
    "validation_of",
    "write_conversations",
]

TOO_LONG = msg("longer than the context of the model")
TEXT_TOKENS = 1 << 20
"""Tokens of the text that are kept, at most; of a longer one, pieces from everywhere in it."""
TEXT_PIECES = 64
TEXT_CHARACTERS = 2 * TEXT_TOKENS
PASS_COST = 320
"""Tokens of padding that take as long as a further forward pass on a CPU (docs/log.md)."""


def write_conversations(
    folder: Path, config: TuneConfig, tokenizer: Tokenizer, check: Callable[[Meta], None], emit: Emit
) -> None:
    """Write token shards of the conversations, which leave out those that do not fit into the context, and of the text.

    Raises `DataError` if there is no conversation, `TokenizerError` if the tokenizer has no end-of-text token.
    """
    if tokenizer.eos_id is None:
        raise TokenizerError("{path} has no end-of-text token, with which a chat begins", path=tokenizer.path)
    kind = {"dpo": PreferenceReader, "grpo": QuestionReader}.get(config.task, ConversationReader)
    readers = {name: kind(*source, config.encoding) for name, source in config.sources.items()}
    dropped = Counter[str]()
    documents: dict[str, Iterable[str | Encoded]] = {
        name: _encoded(reader, tokenizer, config, dropped) for name, reader in readers.items()
    }
    if config.text_share:
        documents[TEXT] = _text(config, tokenizer)
    train = readers["train"]
    try:
        made = write_shards(
            folder,
            documents,
            tokenizer,
            val_fraction=config.val_fraction,
            source=noted_source(train.files),
            check=check,
        )
    except DataError as error:
        if reasons := dropped + train.dropped:
            raise DataError(
                "{problem} (rows that were left out: {reasons})", problem=error, reasons=tally(reasons)
            ) from None
        raise
    for reader in readers.values():
        dropped += reader.dropped
    are_pairs = config.task == "dpo"
    n_rows = {name: split.n_documents // (1 + are_pairs) for name, split in made.splits.items() if name != TEXT}
    n_text_tokens = made.splits[TEXT].n_tokens if TEXT in made.splits else 0
    emit(ConversationsRead([*train.columns], n_rows, are_pairs, dict(dropped), n_text_tokens))


def _encoded(
    reader: Iterable[Conversation], tokenizer: Tokenizer, config: TuneConfig, dropped: Counter[str]
) -> Iterator[Encoded]:
    """Yield conversations that fit into the context as ids; the others are counted, and pairs only together."""
    one_by_one = iter(reader)
    for together in zip(*[one_by_one] * (2 if config.task == "dpo" else 1), strict=True):
        found = [conversation_ids(tokenizer, messages) for messages in together]
        longest = max(map(len, found))
        if config.task == "grpo":  # the model gives the last answer
            longest = max(longest, len(conversation_ids(tokenizer, together[0][:-1])) + 1 + config.answer_tokens)
        if longest > config.context_length:
            dropped[TOO_LONG] += 1
            continue
        for ids, messages in zip(found, together, strict=True):
            answers = "".join(content for role, content in messages if role == "assistant")
            question = next(content for role, content in messages if role == "user")
            yield Encoded(ids, answers, question)


def _text(config: TuneConfig, tokenizer: Tokenizer) -> Iterator[str | Encoded]:
    """Yield a sample of a text: of what a run trained on, of token shards, or of documents.

    Raises `DataError` if a run lacks its tokens, or if another tokenizer made them.
    """
    source = config.text_data
    run = Run.find(source)
    if run is None and not is_shards(source):
        try:
            yield from subsample(read_texts(source), TEXT_CHARACTERS, len)
        except DataError as error:
            if "--text-column" not in error.message:  # which tuning does not have
                raise
            raise DataError(
                "--text-data {source}: several columns may be the text; rename the right one to 'text'", source=source
            ) from None
        return
    found = run.tokens() if run else open_shards(Path(source))
    if found is None:
        raise DataError("{source} has no tokens any more; give another --text-data", source=source)
    if found[0].tokenizer_sha256 not in (tokenizer.fingerprint, Tokenizer.load(config.tokenizer).fingerprint):
        raise DataError(
            "{source} was made with another tokenizer than {path}; give text as --text-data",
            source=source,
            path=config.tokenizer,
        )
    splits = found[1]
    tokens = sample_tokens(splits.get(TEXT, splits["train"]).tokens, TEXT_TOKENS, TEXT_PIECES)
    yield Encoded(tokens, tokenizer.decode(tokens.tolist()), "")


def conversation_batches(
    config: TuneConfig, splits: dict[str, Split], tokenizer: Tokenizer, world: World
) -> ConversationBatches | PairBatches:
    """Return what the steps of a run learn from."""
    conversations = _examples(config, splits["train"], tokenizer)
    if isinstance(conversations, Conversations) and config.task == "dpo":
        lengths = conversations.lengths
        n_rows = micro_batch(config, config.batch_size // world.size, world.device, 2 * int(lengths.max()))
        order = ConversationOrder(len(conversations) // 2, config.batch_size, config.seed)
        return PairBatches(conversations, order, n_rows)
    order = ConversationOrder(len(conversations), config.batch_size, config.seed)
    longest, share = int(conversations.lengths.max()), config.batch_size // world.size
    if config.task == "grpo":
        longest, share = longest + config.answer_tokens, share * config.group_size
    n_rows = micro_batch(config, share, world.device, longest)
    pass_cost = PASS_COST if world.device.type == "cpu" and not config.micro_batch_size else None
    if TEXT not in splits:
        return ConversationBatches(conversations, order, n_rows, pass_cost=pass_cost)
    tokens, T = splits[TEXT].tokens, config.context_length
    n_tokens = config.batch_size * float(conversations.lengths.mean())
    if len(tokens) <= T:
        raise DataError(
            "--text-data {source} has {n:,} tokens, but the model reads {n_read:,} at once; give more text, or "
            "--text-share 0",
            source=config.text_data,
            n=len(tokens),
            n_read=T + 1,
        )
    n_windows = max(1, round(config.text_share / (1 - config.text_share) * n_tokens / T))
    text = WindowOrder(len(tokens), T, n_windows, config.seed)
    return ConversationBatches(conversations, order, n_rows, text, tokens, config.text_share, pass_cost)


def mean_length(batches: ConversationBatches | PairBatches) -> int:
    """Return the mean number of tokens in a row of a step, of conversations and text."""
    return max(1, round(batches.n_tokens_after(1) / batches.order.batch_size))


def pairs_of(split: Split, tokenizer: Tokenizer) -> Conversations:
    """Return the conversations of a split of pairs: each even one is better than the one after it."""
    assert tokenizer.turns is not None and tokenizer.eos_id is not None, "asked before tokenizing"
    return Conversations(split.tokens, tokenizer.turns, tokenizer.eos_id)


def questions_of(split: Split, tokenizer: Tokenizer) -> Questions:
    """Return the questions of a split."""
    assert tokenizer.turns is not None and tokenizer.eos_id is not None, "asked before tokenizing"
    return Questions(split.tokens, tokenizer.turns, tokenizer.eos_id)


def validation_of(
    config: TuneConfig, split: Split, tokenizer: Tokenizer, model: LanguageModel, world: World, native: Native | None
) -> Callable[..., Quality]:
    """Return a function that measures a model on a split."""
    return functools.partial(
        evaluate_examples,
        model,
        _examples(config, split, tokenizer),
        n_characters=split.meta.n_characters,
        n_bytes=split.meta.n_bytes,
        world=world,
        native=native,
    )


def _examples(config: TuneConfig, split: Split, tokenizer: Tokenizer) -> Examples:
    assert tokenizer.eos_id is not None, "asked before tokenizing"
    if config.task == "classify":
        return LabelledTexts(split.tokens, tokenizer.eos_id)
    assert tokenizer.turns is not None, "asked before tokenizing"
    return Conversations(split.tokens, tokenizer.turns, tokenizer.eos_id)
