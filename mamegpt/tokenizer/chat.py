"""Conversations as tokens: what a model that was tuned to answer reads.

    </s> <|user|> 問い <|end|> <|assistant|> 答え <|end|>

Each turn begins with the token of its role and ends with ``<|end|>``; a ``<|system|>`` turn may come first. There is
nothing else between them, no space and no line break. `TEMPLATE` says the same to other programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mamegpt.errors import TokenizerError
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.reserved import ROLES, Role
from mamegpt.tokenizer.tokenizer import Tokenizer, check_characters

__all__ = ["TEMPLATE", "Message", "chat_ids", "conversation_ids", "order_problem"]

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('the role must be system, user or assistant') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The chat template for transformers and llama.cpp (Jinja). There, "<|end|>" in a message is read as the token."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Role
    content: str


def order_problem(messages: Sequence[Message]) -> bool:
    """Return whether turns are out of order: after a system turn, or none, user and assistant take turns."""
    roles = [message.role for message in messages]
    return any(role != ROLES[1 + i % 2] for i, role in enumerate(roles[roles[:1] == ["system"] :]))


def conversation_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Return the ids of turns. Raises `TokenizerError` if the tokenizer has no tokens for turns."""
    turns = tokenizer.turns
    if turns is None:
        raise TokenizerError(
            "{path} has no tokens for the turns of a conversation; mamegpt tune adds them", path=tokenizer.path
        )
    ids: list[int] = []
    for role, content in messages:
        check_characters(content)  # normalizing would put U+FFFD there without a word
        ids += [turns.begin[role], *tokenizer.encode(normalize(content)), turns.end]
    return ids


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Return what a model reads before it answers: the start of a text, the turns, and the beginning of its own.

    Raises `TokenizerError` if the tokenizer has no tokens for turns, or no end-of-text token.
    """
    ids = conversation_ids(tokenizer, messages)
    turns, start_id = tokenizer.turns, tokenizer.start_id
    if turns is None or start_id is None:
        raise TokenizerError("{path} has no end-of-text token, with which a chat begins", path=tokenizer.path)
    return [start_id, *ids, turns.begin["assistant"]]
