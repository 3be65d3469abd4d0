"""Comparison of tokenizers on a text: length, share of bytes, and pieces that are never used.

Any SentencePiece model and any ``tokenizer.json`` can be compared, since all is counted on the bytes that tokens
stand for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from mamegpt.errors import TokenizerError, first_line
from mamegpt.messages import msg
from mamegpt.system.hub import is_hub_name, snapshot
from mamegpt.system.parse import parse_json
from mamegpt.text.characters import count_classes
from mamegpt.text.subsample import subsample
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = [
    "EXAMPLE_WORDS",
    "Comparison",
    "JsonTokenizer",
    "TokenizerStats",
    "compare_tokenizers",
    "longest_pieces",
    "measure_tokenizer",
    "odd_pieces",
    "open_tokenizer",
    "split_word",
]

EXAMPLE_WORDS = (
    "東京都",
    "ありがとうございます",
    "食べられませんでした",
    "ファミリーコンピュータ",
    "2026年11月23日",
    "大嘗宮",
    "𠮷野家",
    "ﾌｧﾐｺﾝ",
    "GPT-2",
    "👨‍👩‍👧",
)
"""Words to show the splits of, if none are given."""

ODDITIES = (msg("one character four times and more"), msg("Latin and Japanese letters"), msg("letters and signs"))


class AnyTokenizer(Protocol):
    """What is asked of a tokenizer here; `Tokenizer` and `JsonTokenizer` have it."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    @property
    def unk_id(self) -> int | None:
        """The id of what has no piece, if there is one."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 a token stands for; nothing for special ones."""


class JsonTokenizer:
    """A ``tokenizer.json``, read with the ``tokenizers`` library.

    Names of special tokens in a text are text; that it may ask for truncation and padding is not heard.
    """

    def __init__(self, path: Path) -> None:
        """Read a file; raises `TokenizerError` if it is not one."""
        import tokenizers

        self._path = path
        with self._complaints():
            self._fast = tokenizers.Tokenizer.from_file(str(path))
        self._fast.encode_special_tokens = True
        self._fast.no_truncation()
        self._fast.no_padding()
        model = parse_json(path.read_text(encoding="utf-8"))["model"]
        unknown = model.get("unk_token")
        self.unk_id: int | None = self._fast.token_to_id(unknown) if unknown is not None else model.get("unk_id")
        self.vocab_size = int(self._fast.get_vocab_size())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text. Raises `TokenizerError` if the file does not hold what they need."""
        with self._complaints():
            return [found.ids for found in self._fast.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; special ones are nothing."""
        with self._complaints():
            return str(self._fast.decode(list(ids)))

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 a token stands for."""
        piece = self._fast.id_to_token(token)  # none where the ids have a gap
        if piece is None or token in self._special:
            return b""
        if self._is_byte_level:
            return bytes(_BYTE_LEVEL[character] for character in piece if character in _BYTE_LEVEL)
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").removeprefix("##").encode()

    @contextmanager
    def _complaints(self) -> Iterator[None]:
        """Turn what the library raises for a bad file, bare exceptions and panics, into a `TokenizerError`."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise TokenizerError(
                "{path} is not a tokenizer.json ({reason})", path=self._path, reason=first_line(error)
            ) from error

    @cached_property
    def _special(self) -> set[int]:
        return {token for token, added in self._fast.get_added_tokens_decoder().items() if added.special}

    @cached_property
    def _is_byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self._fast.to_str())["decoder"])


def _byte_level() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 ones are themselves, the others come after U+0100 in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level()


def open_tokenizer(where: str) -> Tokenizer | JsonTokenizer:
    """Return a tokenizer from a ``.model`` or ``tokenizer.json`` file, a folder or a Hub repository with one of them.

    Of a folder with both it is the ``tokenizer.json``, which is what transformers reads. Raises `TokenizerError` or
    `HubError`.
    """
    path = Path(where)
    if not path.exists() and is_hub_name(where) and path.suffix not in (".model", ".json"):
        path = snapshot(where, ["tokenizer.json", "*.model"], repo_type="model")
    if path.is_dir():
        models = sorted(path.glob("*.model"))
        path = path / "tokenizer.json" if (path / "tokenizer.json").is_file() or len(models) != 1 else models[0]
    if path.suffix != ".json":
        return Tokenizer.load(path)
    if not path.is_file():
        raise TokenizerError(
            "no tokenizer.json and no single .model file in {parent}; give the file itself", parent=path.parent
        )
    return JsonTokenizer(path)


@dataclass(frozen=True)
class TokenizerStats:
    """What a tokenizer did to a text.

    ``byte_rate`` is the share of tokens that are less than a character (byte fallback, or a byte-level piece that
    cuts a character), ``unknown_rate`` of unknown ones; ``unused_rate`` the share of the vocabulary that the text
    never used; ``round_trips`` the share of documents that come back as they were.
    """

    vocab_size: int
    n_tokens: int
    characters_per_token: float
    bytes_per_token: float
    byte_rate: float
    unknown_rate: float
    unused_rate: float
    round_trips: float


@dataclass(frozen=True)
class Comparison:
    """What ``tokenizers`` did to one text, by their names, and pieces of the first of them.

    ``longest`` are its longest pieces, ``odd`` those of little use by what is odd about them; ``splits`` has for each
    word how each tokenizer cuts it.
    """

    tokenizers: list[str]
    n_documents: int
    n_characters: int
    fits: dict[str, TokenizerStats]
    longest: list[str]
    odd: dict[str, list[str]]
    splits: list[list[str]]


def compare_tokenizers(
    tokenizers: Sequence[str],
    texts: Iterable[str],
    *,
    words: Sequence[str] = (),
    max_characters: int | None = None,
) -> Comparison:
    """Compare ``tokenizers`` (as `open_tokenizer` takes them) on a `subsample` of ``texts``.

    Raises what `open_tokenizer` raises, and `TokenizerError` if there is no text.
    """
    opened = [open_tokenizer(name) for name in tokenizers]
    held = subsample(texts, max_characters, len)
    return Comparison(
        tokenizers=list(tokenizers),
        n_documents=len(held),
        n_characters=sum(map(len, held)),
        fits={name: measure_tokenizer(tokenizer, held) for name, tokenizer in zip(tokenizers, opened, strict=True)},
        longest=longest_pieces(opened[0]),
        odd=odd_pieces(opened[0]),
        splits=[[split_word(tokenizer, word) for tokenizer in opened] for word in words or EXAMPLE_WORDS],
    )


def measure_tokenizer(tokenizer: AnyTokenizer, texts: Iterable[str]) -> TokenizerStats:
    """Measure a tokenizer on texts. Raises `TokenizerError` if they hold nothing."""
    n_documents = n_characters = n_bytes = n_back = 0
    used: dict[int, int] = {}
    for text in texts:
        ids = tokenizer.encode_batch([text])[0]
        n_documents += 1
        n_characters += len(text)
        n_bytes += len(text.encode())
        n_back += tokenizer.decode(ids) == text
        for token in ids:
            used[token] = used.get(token, 0) + 1
    n_tokens = sum(used.values())
    if not n_tokens:
        raise TokenizerError("there is no text to measure a tokenizer on; give one that holds some")
    n_parts = sum(n for token, n in used.items() if _is_part(tokenizer.token_bytes(token)))
    return TokenizerStats(
        vocab_size=tokenizer.vocab_size,
        n_tokens=n_tokens,
        characters_per_token=n_characters / n_tokens,
        bytes_per_token=n_bytes / n_tokens,
        byte_rate=n_parts / n_tokens,
        unknown_rate=used.get(-1 if tokenizer.unk_id is None else tokenizer.unk_id, 0) / n_tokens,
        unused_rate=1 - len(used) / tokenizer.vocab_size,
        round_trips=n_back / n_documents,
    )


def longest_pieces(tokenizer: AnyTokenizer, n: int = 12) -> list[str]:
    """Return the ``n`` pieces of most characters, the longest first."""
    return sorted(_pieces(tokenizer), key=lambda piece: (-len(piece), piece))[:n]


def odd_pieces(tokenizer: AnyTokenizer) -> dict[str, list[str]]:
    """Pieces that a model has little use for, by what is odd about them, the longest first."""
    found: dict[str, list[str]] = {name: [] for name in ODDITIES}
    for piece in longest_pieces(tokenizer, tokenizer.vocab_size):
        counts = count_classes(piece)
        japanese = counts["hiragana"] + counts["katakana"] + counts["kanji"]
        oddities = (
            len(piece) >= 4 and len(set(piece)) == 1,
            counts["Latin"] and japanese,
            counts["punctuation"] and counts["Latin"] + japanese,
        )
        for name, is_so in zip(ODDITIES, oddities, strict=True):
            if is_so:
                found[name].append(piece)
    return found


def split_word(tokenizer: AnyTokenizer, word: str) -> str:
    """Return how a word is cut, as ``東京|都``; bytes of less than a character as ``<E5>``."""
    ids = tokenizer.encode_batch([word])[0]
    return "|".join(_readable(tokenizer.token_bytes(token)) for token in ids)


def _pieces(tokenizer: AnyTokenizer) -> list[str]:
    """Return all pieces that are whole characters."""
    raw = map(tokenizer.token_bytes, range(tokenizer.vocab_size))
    return [piece.decode() for piece in raw if piece and not _is_part(piece)]


def _is_part(piece: bytes) -> bool:
    """Return whether a token stands for less than whole characters."""
    try:
        piece.decode()
    except UnicodeDecodeError:
        return True
    return False


def _readable(piece: bytes) -> str:
    return "".join(f"<{byte:02X}>" for byte in piece) if _is_part(piece) else piece.decode()
