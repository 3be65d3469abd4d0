"""The pages of a parquet file's string column, searched as they lie in the file, without making Arrow arrays of them.

To look for a word in a column nothing is needed but its bytes. A page of strings is, once decompressed, each value
after its length (encoding PLAIN), or numbers into a first page of different values (a dictionary). So only pages that
hold the word are cut into values, and only those values that do become strings. Source: the Apache Parquet format,
parquet.thrift and Encodings.md; headers of pages are in Thrift's compact protocol.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["DAMAGES", "Page", "can_read", "dictionary_size", "read_pages"]

CODECS = {"UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD"}
ENCODINGS = {"PLAIN", "RLE", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3  # PageType
PLAIN = 0  # Encoding; the others of a data page that can be read are numbers into the dictionary
HEADER_BYTES = 1 << 12  # read at first; with statistics a header may be longer

DAMAGES = (IndexError, ValueError, OverflowError, struct.error)
"""What `read_pages` and its pages raise, besides what Arrow and the system do, if the bytes contradict the format."""


class _Values:
    """``n`` strings in the encoding PLAIN, each after its number of bytes (4, little-endian), from ``start`` on."""

    def __init__(self, data: memoryview, start: int, n: int) -> None:
        self.n = n
        self._data, self._start = data, start
        self._found: dict[tuple[bytes, ...], npt.NDArray[np.bool_] | None] = {}

    @cached_property
    def _ends(self) -> list[int]:
        """Where the bytes of each value end."""
        ends, at, length_at = list[int](), self._start, struct.Struct("<I").unpack_from
        for _ in range(self.n):
            at += 4 + length_at(self._data, at)[0]
            ends.append(at)
        if at > len(self._data):
            raise ValueError("a value is longer than its page")
        return ends

    def with_any(self, needles: Sequence[bytes]) -> npt.NDArray[np.bool_] | None:
        """Return whether each value contains any of these byte strings, (n,); None if none does."""
        wanted = tuple(needles)
        if wanted not in self._found:  # a dictionary is asked by each of its pages
            self._found[wanted] = self._search(wanted)
        return self._found[wanted]

    def _search(self, needles: tuple[bytes, ...]) -> npt.NDArray[np.bool_] | None:
        import numpy as np
        from stringzilla import Str

        text, found = Str(self._data), None
        for needle in needles:
            if needle == b"\0" and text.count(needle, self._start) == self._zeros_in_lengths():
                continue  # the lengths are full of them
            position = text.find(needle, self._start)
            while position >= 0 and (value := bisect_right(self._ends, position)) < self.n:
                begin, end = self._bounds(value)
                if begin <= position and position + len(needle) <= end:
                    found = np.zeros(self.n, bool) if found is None else found
                    found[value] = True
                    position = end
                else:  # in a length, or over the end of the value
                    position = max(begin, position + 1)
                position = text.find(needle, position)
        return found

    def _zeros_in_lengths(self) -> int:
        """Return how many of the bytes that hold lengths are zero."""
        import numpy as np

        lengths = np.diff(np.array([self._start, *self._ends], np.uint32)) - np.uint32(4)
        return 4 * self.n - int(np.count_nonzero(lengths.view(np.uint8)))

    def _bounds(self, value: int) -> tuple[int, int]:
        """Return where the bytes of a value begin and end."""
        return (self._ends[value - 1] if value else self._start) + 4, self._ends[value]

    def text(self, value: int) -> str:
        """Return a value as a string. Raises `UnicodeDecodeError` if it is not UTF-8."""
        start, end = self._bounds(value)
        return str(self._data[start:end], "utf-8")


class Page:
    """Some rows of a column. ``levels`` say which are there (None: all), ``numbers`` which value each of these has."""

    def __init__(self, n_rows: int, values: _Values, levels: memoryview | None, numbers: memoryview | None) -> None:
        self.n_rows = n_rows
        self._values, self._levels, self._numbers = values, levels, numbers

    @cached_property
    def _value_of_row(self) -> npt.NDArray[np.int64]:
        """The number of each row's value, -1 for null, (n_rows,)."""
        import numpy as np

        there = np.ones(self.n_rows, bool) if self._levels is None else _unpack(self._levels, 1, self.n_rows) > 0
        n = int(there.sum())
        rows = np.full(self.n_rows, -1, np.int64)
        rows[there] = np.arange(n) if self._numbers is None else _unpack(self._numbers[1:], self._numbers[0], n)
        if n and rows.max() >= self._values.n:
            raise ValueError("a row has a value that is not there")
        return rows

    def with_any(self, needles: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Return whether each row contains any of these byte strings, (n_rows,)."""
        import numpy as np

        found = self._values.with_any(needles)
        if found is None:
            return np.zeros(self.n_rows, bool)
        return (self._value_of_row >= 0) & found[self._value_of_row]

    def text(self, row: int) -> str | None:
        """Return a row's string; None for null. Raises `UnicodeDecodeError` if it is not UTF-8."""
        value = int(self._value_of_row[row])
        return None if value < 0 else self._values.text(value)


def can_read(chunk: Any, column: Any) -> bool:
    """Whether `read_pages` knows all that occurs in a column chunk, by Arrow's metadata of it and of its column."""
    return bool(
        chunk.physical_type == "BYTE_ARRAY"
        and chunk.compression in CODECS
        and set(chunk.encodings) <= ENCODINGS
        and column.max_repetition_level == 0
        and column.max_definition_level <= 1
    )


def read_pages(file: BinaryIO, chunk: Any, column: Any) -> Iterator[Page]:
    """Yield the pages of a column chunk in order; there are never more in memory than one and the dictionary.

    Raises one of `DAMAGES`, `pyarrow.ArrowException` or `OSError` for a damaged file.
    """
    import pyarrow

    codec = None if chunk.compression == "UNCOMPRESSED" else pyarrow.Codec(chunk.compression.lower())
    nullable = column.max_definition_level > 0
    at, n_rows, dictionary = chunk.dictionary_page_offset or chunk.data_page_offset, 0, None
    while n_rows < chunk.num_values:
        header, at = _header_at(file, at)
        if not (
            0 <= header.packed <= chunk.total_compressed_size and 0 <= header.size <= chunk.total_uncompressed_size
        ):
            raise ValueError("a page is larger than its column")
        raw = memoryview(file.read(header.packed))
        at += header.packed
        levels, start = raw[: header.n_level_bytes], 0
        data = raw[header.n_level_bytes :]
        if codec and header.is_packed:
            data = memoryview(codec.decompress(data, header.size - header.n_level_bytes)).cast("B")
        if header.kind == DICTIONARY_PAGE:
            dictionary = _Values(data, 0, header.n)
        if header.kind not in (DATA_PAGE, DATA_PAGE_V2):
            continue  # it may also be an index
        if header.kind == DATA_PAGE and nullable:
            start = 4 + struct.unpack_from("<I", data)[0]
            levels = data[4:start]
        n_rows += header.n
        if header.encoding == PLAIN:
            n_there = int((_unpack(levels, 1, header.n) > 0).sum()) if nullable else header.n
            values, numbers = _Values(data, start, n_there), None
        elif dictionary is None:
            raise ValueError("a page needs a dictionary that is not there")
        else:
            values, numbers = dictionary, data[start:]
        yield Page(header.n, values, levels if nullable else None, numbers)


def dictionary_size(file: BinaryIO, chunk: Any) -> tuple[int, int]:
    """Return the bytes of a column chunk's dictionary, decompressed, and its values; zeros if it has none.

    Raises what `read_pages` raises.
    """
    header, _ = _header_at(file, chunk.dictionary_page_offset or chunk.data_page_offset)
    return (header.size, header.n) if header.kind == DICTIONARY_PAGE else (0, 0)


@dataclass(frozen=True)
class _Header:
    """What a page's header says: its kind, its bytes as they lie and unpacked, how many values, how they are written.

    Of version 2 the first ``n_level_bytes`` are levels, which are never packed.
    """

    kind: int
    packed: int
    size: int
    n: int
    encoding: int
    n_level_bytes: int = 0
    is_packed: bool = True

    @classmethod
    def read(cls, fields: dict[int, Any]) -> _Header:
        """Take Thrift's fields by their numbers."""
        try:
            kind, size, packed = fields[1], fields[2], fields[3]
            if kind == DATA_PAGE_V2:
                about = fields[8]
                return cls(kind, packed, size, about[1], about[4], about[5], about.get(7, True))
            about = fields.get({DATA_PAGE: 5, DICTIONARY_PAGE: 7}.get(kind, 0), {1: 0, 2: 0})
            return cls(kind, packed, size, about[1], about[2])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("a page header lacks something") from error


def _header_at(file: BinaryIO, at: int) -> tuple[_Header, int]:
    """Return the header of the page at a position, and where the page's bytes begin."""
    size = HEADER_BYTES
    while True:
        file.seek(at)
        some = file.read(size)
        try:
            fields, length = _struct(some, 0)
        except IndexError:
            if len(some) < size:
                raise
            size *= 16
            continue
        file.seek(at + length)
        return _Header.read(fields), at + length


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return a Thrift struct of numbers, truths, strings (left out) and structs, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        at += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, at = _signed(data, at)
        kind &= 15
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind == 3:
            fields[number], at = data[at], at + 1
        elif kind in (4, 5, 6):
            fields[number], at = _signed(data, at)
        elif kind == 7:
            at += 8
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            fields[number], at = _struct(data, at)
        else:
            raise ValueError(f"a page header has a field of kind {kind}")
    return fields, at + 1


def _signed(data: bytes, at: int) -> tuple[int, int]:
    """Return a zigzag number, and where it ends."""
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _unpack(data: memoryview, n_bits: int, n: int) -> npt.NDArray[np.int64]:
    """``n`` numbers of ``n_bits`` bits, in runs of one number or packed by eights (Encodings.md, RLE), (n,)."""
    import numpy as np

    runs, at, n_done = list[Any](), 0, 0
    while n_done < n and n_bits:
        header, at = _varint(data, at)
        count = header >> 1
        if header & 1:
            packed = np.frombuffer(data, np.uint8, count * n_bits, at)
            bits = np.unpackbits(packed, bitorder="little").reshape(-1, n_bits)
            runs.append(bits @ (1 << np.arange(n_bits)))
            at, count = at + count * n_bits, 8 * count
        else:
            n_bytes = -(-n_bits // 8)
            runs.append(np.full(min(count, n - n_done), int.from_bytes(data[at : at + n_bytes], "little")))
            at += n_bytes
        if not count:
            raise ValueError("an empty run")
        n_done += count
    return np.concatenate(runs)[:n] if runs else np.zeros(n, np.int64)
