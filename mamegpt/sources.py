"""Where text comes from: a file, a folder or a data set on the Hugging Face Hub, as a stream of documents."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamegpt.errors import DataError, HubError
from mamegpt.hub import is_hub_name, snapshot
from mamegpt.text import format_article, is_heading, normalise, parse_articles, parse_wiki40b

__all__ = ["READERS", "Document", "Downloaded", "SplitInfo", "download", "find_splits", "read_documents", "read_texts"]

PLAIN_TEXT_CHARACTERS = 10_000  # the least length of the documents that plain text is cut into
PARQUET_BATCH_ROWS = 256

_CONVERTED = "refs/convert/parquet"  # the branch where the Hub keeps its own conversion of a data set
_SPLIT = r"(?P<split>train|validation|valid|val|dev|test)"
_SPLIT_PATHS = (
    re.compile(rf"(data/)?{_SPLIT}(-[^/]*)?\.\w+"),  # train.parquet, train-2.jsonl, data/train-x.txt
    re.compile(rf"(data/)?{_SPLIT}/[^/]+"),  # train/anything.parquet
    re.compile(r"(data/)?(?P<split>[\w.]+)-\d{5}-of-\d{5}\.\w+"),  # the Hub's shards name any split
)


@dataclass(frozen=True, slots=True)
class Document:
    """One text. ``id`` is stable: file (relative to the source) ``#`` record number in it, counted from 0."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """The files of a split, its rows (None where only reading everything would tell) and bytes on disk."""

    files: tuple[Path, ...]
    rows: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A Hub data set in the local cache. ``splits`` is keyed by split name."""

    name: str
    folder: Path
    splits: dict[str, SplitInfo]


def read_documents(source: str | Path, split: str = "train") -> Iterator[Document]:
    """Yield the documents of one split of ``source``, in order, in constant memory; empty ones are left out.

    ``source`` is a file or folder of parquet, jsonl or txt, or else, if nothing of that name exists here, the
    ``owner/name`` of a data set on the Hugging Face Hub, downloaded once and then read from the cache. Which
    files of a folder belong to a split is told by `find_splits`; a single file is read whole, as the split
    ``train`` or the one it is named after.

    parquet and jsonl: the column or key ``text``, or the only one that holds strings, and ``title`` if
    there; Wiki-40B markers are understood. txt, in UTF-8: articles as `extract` writes them if the first line
    that is not blank is ``【…】``, else plain text, cut at line ends into documents of at least 10,000
    characters (the last may be shorter).

    Raises, at once: `DataError` if there is no such source, split or known format, `HubError` if the Hub
    cannot serve it. Raises while reading: `DataError` naming the file and the place in it, and at the end if
    there was no document at all.
    """
    path = Path(source)
    if path.is_file():
        splits = {name: [path] for name in {"train", _split_in_name(path.name) or "train"}}
        return _documents(path.parent, _files_of(splits, split, source), source)
    if path.is_dir():
        return _documents(path, _files_of(find_splits(path), split, source), source)
    if not isinstance(source, str) or not is_hub_name(source) or path.suffix.lower() in READERS:
        raise DataError(f"no such file or folder, and not a Hub name (owner/name): {str(source)!r}; check the spelling")
    data = download(source)
    splits = {name: list(info.files) for name, info in data.splits.items()}
    return _documents(data.folder, _files_of(splits, split, source), source)


def read_texts(source: str | Path, split: str = "train") -> Iterator[str]:
    """Yield the documents of `read_documents` as a model learns them: normalised, headed by their ``【title】``."""
    for document in read_documents(source, split):
        article = format_article(document.title, document.text) if document.title else document.text
        yield normalise(article).strip("\n")


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """Return the text files of ``folder`` by split, each list sorted.

    The first of these that finds anything decides: the ``configs`` in the front matter of a README.md (a
    data set card; the default configuration, or the only one); files named for a split (``train.parquet``,
    ``train-*.parquet``, ``train/*.parquet``, all of them also under ``data/``, and ``name-00000-of-00002``
    for a split of any name); all text files, also in subfolders, as ``train``. Hidden files never count.
    Raises `DataError` if there is no file in a known format, if a split is there in two formats, or if the
    card cannot be read or has several configurations and no default.
    """
    files = _text_files(folder)
    if not files:
        raise DataError(f"{folder} holds no file in a known format ({', '.join(READERS)}); give another folder")
    splits = _splits_from_card(folder, files)
    if not splits:
        for file in files:
            if name := _split_in_name(file.relative_to(folder).as_posix()):
                splits.setdefault(name, []).append(file)
        _refuse_mixed_formats(splits)
    return splits or {"train": files}


def download(dataset: str, cache_dir: Path | None = None) -> Downloaded:
    """Fetch the text files of a Hub data set into the cache, or find them there, also without a network.

    ``dataset`` is ``owner/name``; ``cache_dir`` is by default the one of huggingface_hub (``HF_HUB_CACHE``).
    A repository without a file in a known format is read from the Hub's automatic conversion to parquet.
    Raises `HubError` if the Hub cannot be reached, or has no such data set, or does not let this user see
    it; `DataError` if what it has cannot be used.
    """
    folder = _snapshot(dataset, "main", cache_dir)
    if _text_files(folder):
        splits = find_splits(folder)
    else:
        try:
            converted = _snapshot(dataset, _CONVERTED, cache_dir)
        except HubError as error:
            raise HubError(
                f"{dataset} has no file in a known format ({', '.join(READERS)}), and its conversion to parquet "
                f"cannot be had: {error}"
            ) from error
        folder = _default_config(dataset, converted)
        splits = {name: list(group) for name, group in itertools.groupby(_text_files(folder), _parent_name)}
    return Downloaded(dataset, folder, {name: _split_info(files) for name, files in splits.items()})


# One reader a format: a function of the path, yielding (title, text), and a line in READERS.


def _read_parquet(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the rows of a parquet file; only the columns that are needed are read, a batch at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = _text_columns(file.schema_arrow, path)
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=columns):
                texts = batch.column(columns[0]).to_pylist()
                titles = batch.column(columns[1]).to_pylist() if len(columns) > 1 else [""] * len(texts)
                for title, text in zip(titles, texts, strict=True):
                    yield _record(title, text)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file ({_first_line(error)}); fetch it again") from error


def _read_jsonl(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the records of a file with one JSON object a line; blank lines are passed over."""
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"{error.msg} at character {error.colno}"
            raise DataError(f"{path}, line {number}: not JSON ({what}); correct or remove it") from error
        if not isinstance(record, dict):
            raise DataError(f'{path}, line {number}: not a JSON object; make it one like {{"text": "…"}}')
        strings = {key: value for key, value in record.items() if isinstance(value, str)}
        title = strings.pop("title", "")
        if record.get("text", "") is None:
            strings["text"] = ""
        yield _record(title, strings[_text_key(list(record), list(strings), f"{path}, line {number}")])


def _read_txt(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the articles of a file that `extract` wrote, or long pieces of plain text without titles."""
    lines = itertools.dropwhile(lambda line: not line.strip(), _lines(path))
    first = next(lines, "")
    read = parse_articles if is_heading(first) else _pieces
    return read(itertools.chain([first], lines))


READERS: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".txt": _read_txt,
}


def _record(title: str | None, text: str | None) -> tuple[str, str]:
    """A row as (title, text): null is no text; a title of its own goes before the one in the markers."""
    wiki_title, text = parse_wiki40b(text or "")
    return title or wiki_title, text


def _text_columns(schema: Any, path: Path) -> list[str]:
    """The columns to read of a parquet file: the text, and the title if there is one."""
    from pyarrow import types

    is_string = (types.is_string, types.is_large_string, types.is_string_view)
    strings = [field.name for field in schema if any(test(field.type) for test in is_string)]
    text = _text_key(schema.names, [name for name in strings if name != "title"], str(path))
    return [text, "title"] if "title" in strings else [text]


def _text_key(names: Sequence[str], strings: Sequence[str], where: str) -> str:
    """The name that holds the text: ``text``, or the only one (but the title) that holds strings."""
    if "text" in names:
        if "text" not in strings:
            raise DataError(f"{where}: 'text' does not hold a string; make it one")
        return "text"
    if len(strings) != 1:
        raise DataError(f"{where}: cannot tell which of {list(names)} is the text; rename that one to 'text'")
    return strings[0]


def _pieces(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Cut plain text at line ends into pieces of at least PLAIN_TEXT_CHARACTERS; the last is what is left."""
    piece, length = list[str](), 0
    for line in lines:
        piece.append(line)
        length += len(line) + 1
        if length > PLAIN_TEXT_CHARACTERS:  # without the last line feed, at least that many
            yield "", "\n".join(piece)
            piece, length = [], 0
    yield "", "\n".join(piece)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, with or without a byte order mark, without their line ends."""
    offset = 0
    try:
        with path.open("rb") as file:
            for line in file:
                start = 3 if offset == 0 and line.startswith(b"\xef\xbb\xbf") else 0
                yield line[start:].decode("utf-8").rstrip("\r\n")
                offset += len(line)
    except UnicodeDecodeError as error:
        position = offset + start + error.start
        raise DataError(f"{path} is not UTF-8 text at byte {position:,}; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the disk and its permissions") from error


# Files and splits


def _documents(folder: Path, files: list[Path], source: str | Path) -> Iterator[Document]:
    """Yield the documents of ``files`` one after the other; named relative to ``folder``."""
    empty = True
    for file in files:
        name = file.relative_to(folder).as_posix()
        for number, (title, text) in enumerate(READERS[file.suffix.lower()](file)):
            if text:
                empty = False
                yield Document(f"{name}#{number}", title, text)
    if empty:
        raise DataError(f"{source} holds no text at all in {len(files)} file(s); give one that does")


def _files_of(splits: dict[str, list[Path]], split: str, source: str | Path) -> list[Path]:
    """The files of one split, all in a known format."""
    if split not in splits:
        raise DataError(f"{source} has no split {split!r}; it has {', '.join(sorted(splits))}")
    for file in splits[split]:
        if file.suffix.lower() not in READERS:
            raise DataError(f"{file}: format {file.suffix!r} is not known; give one of {', '.join(READERS)}")
    return splits[split]


def _text_files(folder: Path) -> list[Path]:
    """All files in a known format below ``folder``, sorted, but for hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in READERS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _split_in_name(name: str) -> str | None:
    """The split that a file's path, relative to its source, is named for."""
    found = next((match for pattern in _SPLIT_PATHS if (match := pattern.fullmatch(name))), None)
    return found["split"] if found else None


def _refuse_mixed_formats(splits: dict[str, list[Path]]) -> None:
    """Two formats of one split are most likely the same text twice; only the user can say."""
    for name, files in splits.items():
        by_suffix = {file.suffix.lower(): file for file in files}
        if len(by_suffix) > 1:
            both = " and ".join(map(str, by_suffix.values()))
            raise DataError(f"split {name!r} is there in several formats, {both}; name the file to read")


def _splits_from_card(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    """What ``configs: data_files`` in a data set card say; nothing if there is no card or it does not say.

    A card's patterns choose among ``files``, so that none can lead out of the folder.
    """
    card = folder / "README.md"
    configs = _card_configs(card) if card.is_file() else []
    if not configs:
        return {}
    chosen = [c for c in configs if c.get("default") or c.get("config_name") == "default"] or configs
    if len(chosen) > 1:
        names = ", ".join(str(config.get("config_name")) for config in chosen)
        raise DataError(f"{card} names several configurations ({names}) and no default; give the file of one")
    entries = chosen[0].get("data_files") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        entries = [{"split": "train", "path": entries}]
    splits = {}
    for entry in entries:
        paths = entry.get("path") or []
        patterns = [paths] if isinstance(paths, str) else paths
        try:
            found = {path for pattern in patterns for path in folder.glob(pattern)}
        except (TypeError, ValueError, NotImplementedError) as error:
            raise DataError(f"{card}: the path {paths!r} is not understood; give the file to read") from error
        if chosen_files := [file for file in files if file in found]:
            splits[str(entry.get("split", "train"))] = chosen_files
    return splits


def _card_configs(card: Path) -> list[dict[str, Any]]:
    """The configurations in a data set card's front matter."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        configs = (metadata_load(card) or {}).get("configs") or []
    except (YAMLError, ValueError) as error:
        raise DataError(f"{card}: its front matter is not YAML ({_first_line(error)}); correct it") from error
    return [config for config in configs if isinstance(config, dict)]


# The Hub


def _snapshot(dataset: str, revision: str, cache_dir: Path | None) -> Path:
    """The cached folder of a data set's card and its files in known formats."""
    patterns = [f"*{suffix}" for suffix in READERS] + ["README.md"]
    return snapshot(dataset, patterns, repo_type="dataset", revision=revision, cache_dir=cache_dir)


def _default_config(dataset: str, folder: Path) -> Path:
    """The default or only configuration of the conversion branch: ``<configuration>/<split>/*.parquet``."""
    configs = sorted({folder / file.relative_to(folder).parts[0] for file in _text_files(folder)})
    chosen = [config for config in configs if config.name == "default"] or configs
    if len(chosen) != 1:
        names = ", ".join(config.name for config in configs) or "none"
        raise DataError(f"{dataset} has no default configuration (it has: {names}); give a file of one in {folder}")
    return chosen[0]


def _parent_name(path: Path) -> str:
    return path.parent.name


def _split_info(files: list[Path]) -> SplitInfo:
    """Count a split: rows from the parquet footers, bytes from the file system."""
    all_parquet = all(file.suffix.lower() == ".parquet" for file in files)
    rows = sum(map(_parquet_rows, files)) if all_parquet else None
    return SplitInfo(tuple(files), rows, sum(file.stat().st_size for file in files))


def _parquet_rows(path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file ({_first_line(error)}); fetch it again") from error


def _first_line(error: BaseException) -> str:
    """The first line of an error's message, since ours are one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
