"""Sources of text (files, folders, Hugging Face Hub datasets, URLs) as streams of documents."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mamegpt.arguments import checked
from mamegpt.data.address import hub_address, split_list, split_weight, without_weight
from mamegpt.data.hub_dataset import HubFiles, fetch_dataset, fetch_path
from mamegpt.data.readers.read import INPUT_FORMATS, format_of, read_file
from mamegpt.data.schema import GUESS, Schema
from mamegpt.data.splits import CARD, find_splits, split_in_name, text_files
from mamegpt.errors import DataError, HubError, MamegptWarning, first_line
from mamegpt.messages import msg, tally, without_secrets
from mamegpt.system.files import is_here, shown
from mamegpt.system.hub import card_metadata
from mamegpt.system.remote import fetch, is_url
from mamegpt.text.articles import one_line
from mamegpt.text.normalize import normalize

__all__ = [
    "Document",
    "Downloaded",
    "SourceFile",
    "SplitInfo",
    "card_licenses",
    "download",
    "find_files",
    "noted_source",
    "read_documents",
    "read_files",
    "read_texts",
]

_PATTERN = set("*?[")  # characters of a pattern


@dataclass(frozen=True, slots=True)
class Document:
    """One text. ``id`` is stable: the file, relative to the source, ``#``, and the number of the record in it,
    from 0.
    """

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """The files of a split, its rows (None if only reading all files would tell) and its bytes on disk."""

    files: tuple[Path, ...]
    rows: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A dataset or the files at a URL, in the local cache; ``splits`` is keyed by the name of the split.

    ``revision`` is the commit of a dataset on the Hub, else empty.
    """

    name: str
    folder: Path
    splits: dict[str, SplitInfo]
    revision: str = ""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. The ids of its documents begin with ``name``; ``weight`` is how often each is read.

    ``source`` is the address under which it was found, for notes: with the commit if it is on the Hub, and without
    secrets.
    """

    path: Path
    name: str
    weight: float = 1.0
    source: str = ""


@checked
def read_documents(source: str | Path, split: str = "train", schema: Schema = GUESS) -> Iterator[Document]:
    """Yield the documents of one split of ``source``, in order, in constant memory; empty ones are left out.

    `find_files` describes sources. In parquet, csv, tsv and jsonl, the text is the column or key ``text``, or the only
    one that contains strings; the title is ``title``; Wiki-40B markers are understood. The first row of csv and tsv
    names the columns. A txt file, in UTF-8, contains articles as `extract` writes them if its first line that is not
    blank is ``【…】``; else it is plain text, cut at line ends into documents of at least 10,000 characters (the last
    may be shorter). An xml file is a MediaWiki dump (`readers.mediawiki`). ``schema`` overrides these rules.

    In a source with a weight, each document is read as often as the whole part of the weight, and once more for about
    as large a share of the documents as its fraction. A hash of their ids selects these, so the order in the file has
    no influence.

    Raises, at once: `DataError` if there is no such source, split or known format, `HubError` if the Hub cannot serve
    it. Raises while reading: `DataError` naming the file and the place in it, and at the end if there was no document
    at all.
    """
    return _documents(find_files(source, split, schema), schema, source)


@checked
def read_texts(source: str | Path, split: str = "train", schema: Schema = GUESS) -> Iterator[str]:
    """Yield the documents of `read_documents` in the form that models are trained on: normalized, with a ``【title】``
    heading.

    Documents that become empty, such as line feeds alone, are left out.
    """
    for document in read_documents(source, split, schema):
        heading = f"【{one_line(document.title)}】\n" if document.title else ""
        if text := normalize(heading + document.text).strip("\n"):
            yield text


def read_files(files: Iterable[SourceFile], schema: Schema = GUESS) -> Iterator[Document]:
    """Yield the documents of some files of a source, as `read_documents` does for all files; there may be none.

    After a file with dropped records, a `MamegptWarning` counts them by reason.
    """
    for file in files:
        dropped = Counter[str]()
        for share in _shares(file.weight):
            dropped.clear()  # count each record once
            for batch in read_file(file.path, schema):
                dropped.update(batch.dropped)
                for number, title, text in batch.records:
                    if text and (share == 1 or _place(f"{file.name}#{number}") < share):
                        yield Document(f"{file.name}#{number}", title, text)
        if dropped:
            warnings.warn(
                msg("{name}: dropped records without text ({reasons})", name=file.name, reasons=tally(dropped)),
                MamegptWarning,
                stacklevel=2,
            )


def find_files(source: str | Path, split: str = "train", schema: Schema = GUESS) -> list[SourceFile]:
    """Return the files of one split of ``source``, in the order they are read.

    ``source`` is a file or folder of parquet, jsonl, txt, csv, tsv or xml, all but the first also with .gz, .bz2, .xz
    or .zst; a pattern with ``*``, ``?`` or ``[…]`` (``**`` for subfolders); or, if no such local path exists, a dataset
    on the Hugging Face Hub (``owner/name``, ``owner/name:configuration``, both with ``@revision``), a path or pattern
    in one (``hf://datasets/owner/name@revision/path``), or a URL of any file system that fsspec opens (``https://…``,
    ``s3://…``). Remote files are fetched into a cache and read from there. Several sources are separated by commas, and
    each may end with ``@`` and a weight: ``wiki.parquet,books/*.txt@0.5``.

    `find_splits` determines which files of a folder belong to a split; a single file is read whole, as the split
    ``train`` to learn from, ``validation`` to measure on, or the one it is named after.

    Raises `DataError` if there is no such source, split or known format, or a URL cannot be fetched, and `HubError` if
    the Hub cannot serve it.
    """
    if isinstance(source, Path) or is_here(source):
        return _files_of_one(Path(source), split, schema)
    found = []
    for part in (parts := split_list(source)):
        name, weight = split_weight(part)
        prefix = f"{without_secrets(name)}:" if len(parts) > 1 else ""
        found += [
            SourceFile(file.path, prefix + file.name, weight, file.source + part[len(name) :])
            for file in _files_of_one(name, split, schema)
        ]
    return found


def noted_source(files: Iterable[SourceFile]) -> str:
    """Return the address of files, for the provenance of what is made from them."""
    return ",".join(dict.fromkeys(file.source for file in files))


@checked
def download(dataset: str, cache_dir: str | Path | None = None, schema: Schema = GUESS) -> Downloaded:
    """Fetch the text files of a dataset on the Hub, or at a URL, into the cache, or find them there.

    ``dataset`` is one address as in `find_files`. By default, ``cache_dir`` is the cache of huggingface_hub for
    datasets (``HF_HUB_CACHE``) or for other files (``HF_ASSETS_CACHE``). A dataset in the cache is found without a
    network. A dataset without a file in a known format is read from the Hub's automatic conversion to parquet, or by
    the library ``datasets``. Raises `HubError` if the Hub cannot be reached, has no such dataset, or does not grant
    access to it; `DataError` if a URL cannot be fetched or its files cannot be used.
    """
    if (found := _remote(dataset, cache_dir, schema)) is None:
        raise DataError(
            "{dataset!r} is neither a dataset on the Hub (owner/name) nor a URL; check the spelling", dataset=dataset
        )
    return Downloaded(
        without_secrets(dataset),
        found.folder,
        {name: _split_info(files) for name, files in found.splits.items()},
        found.commit,
    )


# Files and splits


def _documents(files: list[SourceFile], schema: Schema, source: str | Path) -> Iterator[Document]:
    """Yield the documents of ``files`` one after the other."""
    empty = True
    for document in read_files(files, schema):
        empty = False
        yield document
    if empty:
        raise DataError(
            "{source} holds no text at all in {n_files} file(s); give one that does", source=source, n_files=len(files)
        )


def _shares(weight: float) -> list[float]:
    """Return the share of documents that is read in each pass: 1.0 for whole passes, then the fraction that is left."""
    whole, rest = divmod(weight, 1)
    shares = [1.0] * int(whole)
    return [*shares, rest] if rest else shares


def _place(document_id: str) -> float:
    """Return a number from 0 to below 1 that depends only on a document's id."""
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "little") / 2**64


LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
"""Identifiers of licenses on the Hub, such as ``cc-by-sa-4.0``."""


def card_licenses(source: str) -> list[str]:
    """Return the licenses named by the dataset cards next to, or in the folders of, the sources of a list.

    Empty if one of them has no card or names no license. Raises `DataError` if a card's front matter is not YAML.
    """
    found: list[str] = []
    for part in split_list(source):
        path = Path(without_weight(part))
        card = (path if path.is_dir() else path.parent) / "README.md"
        stated = card_metadata(card).get("license") if is_here(str(path)) and card.is_file() else None
        named = stated if isinstance(stated, list) else [stated]
        licenses = [it for it in named if isinstance(it, str) and LICENSE.fullmatch(it)]
        if not licenses:
            return []
        found += [it for it in licenses if it not in found]
    return found


def _files_of_one(source: str | Path, split: str, schema: Schema) -> list[SourceFile]:
    """Return the files of a single source: a file, folder, pattern, address on the Hub or URL."""
    source, is_path = str(source), isinstance(source, Path)
    if is_here(source):
        found = _here(Path(source), "", schema)
    elif not is_path and (remote := _remote(source, None, schema)) is not None:
        found = remote
    elif _PATTERN & set(source):
        found = _here(Path(), source, schema)
    else:
        raise DataError(
            "no such file or folder, and not a Hub name (owner/name): {source!r}; check the spelling", source=source
        )
    splits = found.splits
    if split not in splits:
        if not any(file.stat().st_size for files in splits.values() for file in files):
            raise DataError("{source} is empty; give a file that holds text", source=source)
        raise DataError(
            "{source} has no split {split!r}; it has {names}",
            source=source,
            split=split,
            names=", ".join(sorted(splits)),
        )
    for file in splits[split]:
        if format_of(file) not in INPUT_FORMATS:
            raise DataError(
                "{file}: format {suffix!r} is not known; give one of {names}",
                file=file,
                suffix=file.suffix,
                names=", ".join(INPUT_FORMATS),
            )
    noted = without_secrets(found.source or source)
    return [SourceFile(file, shown(file.relative_to(found.folder).as_posix()), source=noted) for file in splits[split]]


def _remote(source: str, cache_dir: str | Path | None, schema: Schema) -> HubFiles | None:
    """Fetch the files at an address on the Hub or a URL; None if the source is neither."""
    address = hub_address(source)
    if address and not address.path:
        return fetch_dataset(address, cache_dir, schema)
    if address:
        folder, commit = fetch_path(address, cache_dir)
        is_pattern = bool(_PATTERN & set(address.path))
        if not is_pattern and not (folder / address.path).exists():
            raise HubError(
                "{source}: there is no such file or folder, or the cache does not hold it; check the path",
                source=source,
            )
        found = _here(folder, address.path, schema) if is_pattern else _here(folder / address.path, "", schema)
        return replace(found, commit=commit, source=address.pinned(commit))
    if is_url(source):
        return _here(*fetch(source, _is_wanted, cache_dir), schema)
    return None


def _is_wanted(name: str) -> bool:
    """Return whether a file at a URL is fetched: text, or a card that describes its folder."""
    return format_of(Path(name)) in INPUT_FORMATS or Path(name).name == CARD


def _here(path: Path, pattern: str, schema: Schema) -> HubFiles:
    """Return the splits of a local file or folder, or of a pattern below a folder."""
    if pattern:
        return _matching(path, pattern)
    if path.is_dir():
        return HubFiles(path, find_splits(path, schema))
    return HubFiles(path.parent, {name: [path] for name in ("train", "validation", *_splits_of_file(path))})


def _matching(top: Path, pattern: str) -> HubFiles:
    """Return the files in known formats that match a pattern below a folder, sorted, without hidden ones."""
    parts = Path(pattern).parts
    n_fixed = next(i for i, part in enumerate(parts) if _PATTERN & set(part))
    folder = top.joinpath(*parts[:n_fixed])
    files = text_files(folder, "/".join(parts[n_fixed:]))
    if not files:
        raise DataError(
            "no file in a known format ({names}) matches {pattern!r}; check the spelling",
            names=", ".join(INPUT_FORMATS),
            pattern=pattern,
        )
    splits: dict[str, list[Path]] = {}
    for path in files:
        for name in _splits_of_file(path):
            splits.setdefault(name, []).append(path)
    return HubFiles(folder, splits)


def _splits_of_file(path: Path) -> set[str]:
    """Return the splits of which a file, one of several, can be a part."""
    return {"train", split_in_name(path.name) or "train"}


def _split_info(files: list[Path]) -> SplitInfo:
    """Count a split: rows from the parquet footers, bytes from the file system."""
    all_parquet = all(format_of(file) == ".parquet" for file in files)
    rows = sum(map(_parquet_rows, files)) if all_parquet else None
    return SplitInfo(tuple(files), rows, sum(file.stat().st_size for file in files))


def _parquet_rows(path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            "{path} is not a readable parquet file ({reason}); fetch it again", path=path, reason=first_line(error)
        ) from error
