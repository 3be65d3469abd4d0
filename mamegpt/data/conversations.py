"""Conversations to learn from: rows of jsonl and parquet with a question and its answer, or with messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mamegpt.data.rows import rows
from mamegpt.data.schema import GUESS
from mamegpt.data.sources import find_files
from mamegpt.errors import DataError, TokenizerError
from mamegpt.messages import join, msg
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.chat import Message, order_problem
from mamegpt.tokenizer.reserved import ROLES
from mamegpt.tokenizer.tokenizer import check_characters

__all__ = ["COLUMNS", "Conversation", "ConversationReader", "PreferenceReader", "QuestionReader"]

Conversation = tuple[Message, ...]

COLUMNS = (("messages",), ("prompt", "response"), ("instruction", "input", "output"), ("instruction", "output"))
"""The columns that rows may have; of several, the first that are all there are read."""
PAIR_COLUMNS = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
"""The columns of pairs of answers, as TRL has them; without a prompt, both hold the question, too."""
QUESTION_COLUMNS = (*COLUMNS, ("prompt",))
"""The columns of questions, of which some have an answer."""
NO_OBJECT = msg("not an object with columns")
NO_STRING = msg("not text")
NO_CHARACTERS = msg("an unpaired surrogate")
NO_QUESTION = msg("empty question")
NO_ANSWER = msg("empty answer")
NO_DIFFERENCE = msg("equal answers")
NO_MESSAGES = msg("messages are not a list of role and content")
UNKNOWN_ROLE = msg("unknown role")
WRONG_ORDER = msg("turns out of order")


class ConversationReader:
    """Reads the conversations of a source, in order; ``columns`` and ``dropped`` tell what was found so far."""

    known: Sequence[tuple[str, ...]] = COLUMNS

    def __init__(self, source: str, split: str = "train", encoding: str = GUESS.encoding) -> None:
        """Find the files. Raises as `find_files`."""
        self.files = find_files(source, split)
        self.encoding = encoding
        self.columns: dict[str, None] = {}
        """The columns that were read, joined by commas."""
        self.dropped = Counter[str]()
        """How many rows hold no conversation, by reason."""

    def __iter__(self) -> Iterator[Conversation]:
        """Yield conversations. Raises `DataError` for a file without fitting columns, and for one that is damaged."""
        for file in self.files:
            columns: tuple[str, ...] | None = None
            for row in rows(file, self.encoding, {name for names in self.known for name in names}):
                if not isinstance(row, dict):
                    self.dropped[NO_OBJECT] += 1
                    continue
                columns = columns or _columns(row, file.path, self.known)
                self.columns[", ".join(columns)] = None
                found = self._found(row, columns)
                if isinstance(found, str):
                    self.dropped[found] += 1
                else:
                    yield from found

    def _found(self, row: Mapping[str, Any], columns: Sequence[str]) -> Sequence[Conversation] | str:
        """Return the conversations in a row, or why it has none."""
        found = _conversation(row, columns)
        return found if isinstance(found, str) else _problem(found) or [found]


class PreferenceReader(ConversationReader):
    """Reads pairs of answers to a question: for each, the conversation with the better one, then that with the other.

    ``dropped`` counts pairs.
    """

    known = PAIR_COLUMNS

    def _found(self, row: Mapping[str, Any], columns: Sequence[str]) -> Sequence[Conversation] | str:
        pair = []
        for answer in columns[-2:]:
            found = _answered(row.get("prompt", []), row.get(answer))
            if isinstance(found, str):
                return found
            if problem := _problem(found):
                return problem
            pair.append(found)
        return pair if pair[0] != pair[1] else NO_DIFFERENCE


class QuestionReader(ConversationReader):
    """Reads questions that a model is to answer itself; a conversation has the answer in the data, or an empty one."""

    known = QUESTION_COLUMNS

    def _found(self, row: Mapping[str, Any], columns: Sequence[str]) -> Sequence[Conversation] | str:
        if columns != ("prompt",):
            return super()._found(row, columns)
        found = _answered(row["prompt"], "" if isinstance(row["prompt"], str) else [Message("assistant", "")._asdict()])
        return found if isinstance(found, str) else _problem(found[:-1]) or [found]


def _columns(row: Mapping[str, Any], path: Path, known: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the columns of conversations in a file, which are ``known``. Raises `DataError` if it has none."""
    for columns in known:
        if row.keys() >= set(columns):
            return columns
    raise DataError(
        "{path} has no columns of conversations (it has {names}); rename them to one of these: {known}",
        path=path,
        names=", ".join(map(str, row)),
        known=join("; ", [", ".join(columns) for columns in known]),
    )


def _conversation(row: Mapping[str, Any], columns: Sequence[str]) -> Conversation | str:
    """Return the conversation in a row, or why there is none."""
    if columns == ("messages",):
        return _of_messages(row.get("messages"))
    values = [row.get(name) if name != "input" else row.get(name) or "" for name in columns]
    if not all(isinstance(value, str) for value in values):
        return NO_STRING
    *asked, answer = (value.strip() for value in cast(list[str], values))
    return Message("user", "\n".join(filter(None, asked))), Message("assistant", answer)


def _answered(prompt: Any, answer: Any) -> Conversation | str:
    """Return the conversation of a prompt and an answer, or why there is none.

    Both are text or lists of messages. With a text, the messages are the answer, or, as UltraFeedback has them, all.
    """
    if isinstance(prompt, str) and isinstance(answer, list):
        is_whole = any(isinstance(one, dict) and one.get("role") == "user" for one in answer)
        prompt = [] if is_whole else [Message("user", prompt)._asdict()]
    if isinstance(prompt, list) and isinstance(answer, list):
        return _of_messages([*prompt, *answer])
    return _conversation({"prompt": prompt, "response": answer}, ("prompt", "response"))


def _of_messages(messages: Any) -> Conversation | str:
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        return NO_MESSAGES
    found = [Message(one.get("role"), one.get("content")) for one in messages]  # checked below
    if not all(isinstance(part, str) for message in found for part in message):
        return NO_MESSAGES
    if not {message.role for message in found} <= set(ROLES):
        return UNKNOWN_ROLE
    found = [Message(role, content.strip()) for role, content in found]
    if order_problem(found) or not found or found[-1].role != "assistant":
        return WRONG_ORDER
    return tuple(found)


def _problem(found: Conversation) -> str:
    """Return why a conversation cannot be learned, "" if it can."""
    for role, content in found:
        try:
            check_characters(content)
        except TokenizerError:
            return NO_CHARACTERS
        if not normalize(content).strip():
            return NO_ANSWER if role == "assistant" else NO_QUESTION
    return ""
