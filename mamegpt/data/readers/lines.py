"""The lines of text files: line ends, encodings, compression."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from mamegpt.errors import ConfigError, DataError, first_line
from mamegpt.messages import msg

__all__ = ["COMPRESSIONS", "DAMAGED", "MAX_LINE_CHARACTERS", "decoder_of", "lines", "open_file"]

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""Exceptions of the decompressors for a damaged file, besides OSError."""

MAX_LINE_CHARACTERS = 1 << 28
BLOCK_BYTES = 1 << 16
BYTE_ORDER_MARK = "\ufeff"

SUSPECT = (b"\0", b"\x1b$")
"""ASCII bytes that suggest another encoding: kana in UTF-16 have many zeros, and ISO-2022-JP is ASCII with escapes."""
CANDIDATES = ("utf-8", "cp932", "euc-jp", "iso-2022-jp", "utf-16", "utf-16le", "utf-16be", "cp1252")
"""Encodings to choose a guess from; both Python and iconv know these names."""
MIN_PLAUSIBILITY = 0.25


def lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the lines of a text file, compressed (`COMPRESSIONS`) or not, without their ends, in constant memory.

    All text files are split into lines by this function. LF, CR LF and CR end a line. U+2028, U+2029, U+0085, form feed
    and vertical tab do not: they are ordinary characters. Byte order marks (U+FEFF) at the beginning of a line are
    removed, however many there are; files that were concatenated have them in the middle.

    Raises `ConfigError` for an unknown encoding. Raises `DataError`, naming the place, for bytes that are not text in
    this encoding (with the likely encoding), for a line of more than MAX_LINE_CHARACTERS, and for a file that is
    damaged or cannot be read.
    """
    decode = io.IncrementalNewlineDecoder(decoder_of(encoding), translate=True).decode
    is_utf_8 = codecs.lookup(encoding).name == "utf-8"
    begun, n_begun = list[str](), 0  # the parts of a line whose end is not read yet
    n_bytes, number, block = 0, 1, b"-"
    try:
        with open_file(path) as file:
            while block:
                block = file.read(BLOCK_BYTES)
                n_bytes += len(block)
                try:
                    text = decode(block, final=not block)
                except UnicodeDecodeError as error:
                    place = n_bytes - len(error.object) + error.start
                    name = _likely(error.object + file.read(BLOCK_BYTES))
                    raise _other_encoding(path, encoding, place, name) from error
                suspect = SUSPECT if is_utf_8 and block.isascii() else ()
                marks = [at for mark in suspect if (at := block.find(mark)) >= 0]
                if marks and (name := _likely(block)) not in ("", "utf-8"):
                    place = n_bytes - len(block) + min(marks)
                    raise _other_encoding(path, encoding, place, name)
                first, *others = text.split("\n")
                begun.append(first)
                n_begun += len(first)
                if n_begun > MAX_LINE_CHARACTERS:
                    raise DataError(
                        "{path}, line {number} is longer than {max_line_characters:,} characters; split it into "
                        "several",
                        path=path,
                        number=number,
                        max_line_characters=MAX_LINE_CHARACTERS,
                    )
                if others:
                    yield "".join(begun).lstrip(BYTE_ORDER_MARK)
                    number += len(others)
                    begun = [others.pop()]
                    n_begun = len(begun[0])
                    if BYTE_ORDER_MARK in text:
                        others = [line.lstrip(BYTE_ORDER_MARK) for line in others]
                    yield from others
            if n_begun:
                yield "".join(begun).lstrip(BYTE_ORDER_MARK)
    except DAMAGED as error:
        raise DataError(
            "{path} is damaged or cut off after line {line:,} ({reason}); fetch it again",
            path=path,
            line=number - 1,
            reason=first_line(error),
        ) from error
    except OSError as error:
        raise DataError(
            "{path} cannot be read ({reason}); check the file, the disk and its permissions",
            path=path,
            reason=first_line(error),
        ) from error


def open_file(path: Path) -> BinaryIO:
    """Open a file, decompressing it if its name says so."""
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path))
    if path.suffix.lower() == ".bz2":
        return cast(BinaryIO, bz2.open(path))
    if path.suffix.lower() == ".xz":
        return cast(BinaryIO, lzma.open(path))
    if path.suffix.lower() == ".zst":
        import pyarrow

        return cast(BinaryIO, io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd")))
    return path.open("rb")


def decoder_of(encoding: str) -> codecs.IncrementalDecoder:
    """Return an incremental decoder. Raises `ConfigError` if there is no such text encoding."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)  # unlike the look-up, this refuses codecs that are not text encodings
        return codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError) as error:
        raise ConfigError(
            "--encoding {encoding} is not a text encoding; use one such as {names}",
            encoding=encoding,
            names=", ".join(CANDIDATES[1:5]),
        ) from error


def _other_encoding(path: Path, encoding: str, place: int, likely: str) -> DataError:
    """Return the error for a file in another encoding, with a suggestion."""
    if not likely or codecs.lookup(likely) == codecs.lookup(encoding):
        advice = msg("save it as UTF-8")
    else:
        advice = msg(
            "it looks like {name}: use --encoding {name}, or save it as UTF-8 (iconv -f {name} -t utf-8)", name=likely
        )
    return DataError(
        "{path} is not {encoding} text at byte {place:,}; {advice}",
        path=path,
        encoding=encoding.upper(),
        place=place,
        advice=advice,
    )


def _likely(sample: bytes) -> str:
    """Guess the encoding of a Japanese text from some of its bytes, cut anywhere; "" if none is plausible."""
    found = dict[str, float]()
    for name in CANDIDATES:
        if name == "utf-16" and sample[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            continue
        text = sample.decode(name, "replace")
        found[name] = sum(map(_plausibility, text)) / max(1, len(text))
    best = max(found, key=found.__getitem__, default="")
    return best if found.get(best, 0) > MIN_PLAUSIBILITY else ""


def _plausibility(character: str) -> float:
    """Score how likely a character is in Japanese prose; wrong encodings give rare kanji, symbols and controls."""
    code = ord(character)
    if 0x3041 <= code <= 0x30FF or 0x3000 <= code <= 0x3011:  # kana and punctuation
        return 1.0
    if 0x20 <= code < 0x7F or character in "\t\n\r":
        return 0.5
    if 0x4E00 <= code <= 0x9FFF or 0xFF01 <= code <= 0xFF5E:  # kanji and full-width forms
        return 0.4
    if code == 0 or 0xC0 <= code <= 0xFF:  # stray zeros, and letters of Western Europe
        return 0.0
    return -1.0
