"""Where text comes from: a file, a folder or a data set on the Hugging Face Hub, as a stream of documents."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mamegpt.arguments import checked
from mamegpt.data.provenance import SUFFIX as ORIGIN_SUFFIX
from mamegpt.data.readers.lines import COMPRESSIONS
from mamegpt.data.readers.read import INPUT_FORMATS, format_of, has_text, read_file
from mamegpt.data.schema import GUESS, Schema
from mamegpt.errors import DataError, HubError, MamegptWarning, first_line
from mamegpt.messages import Message, join, msg
from mamegpt.system.files import is_here, shown
from mamegpt.system.hub import card_metadata, is_hub_name, snapshot
from mamegpt.text.articles import one_line
from mamegpt.text.normalize import normalize

__all__ = [
    "Document",
    "Downloaded",
    "SourceFile",
    "SplitInfo",
    "download",
    "find_files",
    "find_splits",
    "read_documents",
    "read_files",
    "read_texts",
]

MAX_WEIGHT = 100
_PATTERN = set("*?[")  # characters of a pattern

_CONVERTED = "refs/convert/parquet"  # the branch where the Hub keeps its own conversion of a data set
_SPLIT = r"(?P<split>train|validation|valid|val|dev|test)"
_SUFFIX = rf"\.\w+({'|'.join(map(re.escape, COMPRESSIONS))})?"
_SPLIT_PATHS = (
    re.compile(rf"(data/)?{_SPLIT}(-[^/]*)?{_SUFFIX}"),  # train.parquet, train-2.jsonl, data/train-x.txt
    re.compile(rf"(data/)?{_SPLIT}/[^/]+"),  # train/anything.parquet
    re.compile(rf"(data/)?(?P<split>[\w.]+)-\d{{5}}-of-\d{{5}}{_SUFFIX}"),  # the Hub's shards name any split
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


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. Its documents' ids begin with ``name``; ``weight`` says how often each is read."""

    path: Path
    name: str
    weight: float = 1.0


@checked
def read_documents(source: str | Path, split: str = "train", schema: Schema = GUESS) -> Iterator[Document]:
    """Yield the documents of one split of ``source``, in order, in constant memory; empty ones are left out.

    What a source is: `find_files`. parquet, csv, tsv and jsonl: the column or key ``text``, or the only one that
    holds strings, and ``title`` if there; Wiki-40B markers are understood. The first row of csv and tsv names the
    columns. txt, in UTF-8: articles as `extract` writes them if the
    first line that is not blank is ``【…】``, else plain text, cut at line ends into documents of at least 10,000
    characters (the last may be shorter). xml: a dump of a MediaWiki (`readers.mediawiki`). ``schema`` says otherwise.

    Of a source with a weight, documents are read as often as its whole part says, and about as large a share of them as
    its fraction says once more. A hash of their ids chooses these, so that no order in a file has a part in it.

    Raises, at once: `DataError` if there is no such source, split or known format, `HubError` if the Hub
    cannot serve it. Raises while reading: `DataError` naming the file and the place in it, and at the end if
    there was no document at all.
    """
    return _documents(find_files(source, split, schema), schema, source)


@checked
def read_texts(source: str | Path, split: str = "train", schema: Schema = GUESS) -> Iterator[str]:
    """Yield the documents of `read_documents` as a model learns them: normalised, headed by their ``【title】``.

    Those of which nothing is left, as of line feeds alone, are left out.
    """
    for document in read_documents(source, split, schema):
        heading = f"【{one_line(document.title)}】\n" if document.title else ""
        if text := normalize(heading + document.text).strip("\n"):
            yield text


def read_files(files: Iterable[SourceFile], schema: Schema = GUESS) -> Iterator[Document]:
    """Yield the documents of some files of a source, as `read_documents` does of all; there may be none.

    After a file of which records were left out, a `MamegptWarning` counts them by reason.
    """
    for file in files:
        dropped = Counter[str]()
        for share in _shares(file.weight):
            dropped.clear()  # they are the same at each time
            for batch in read_file(file.path, schema):
                dropped.update(batch.dropped)
                for number, title, text in batch.records:
                    if text and (share == 1 or _place(f"{file.name}#{number}") < share):
                        yield Document(f"{file.name}#{number}", title, text)
        if dropped:
            reasons = join(", ", [msg("{reason} {n:,}", reason=Message(reason), n=n) for reason, n in dropped.items()])
            warnings.warn(
                msg("{name}: dropped records without text ({reasons})", name=file.name, reasons=reasons),
                MamegptWarning,
                stacklevel=2,
            )


def find_files(source: str | Path, split: str = "train", schema: Schema = GUESS) -> list[SourceFile]:
    """Return the files of one split of ``source``, in the order they are read.

    ``source`` is a file or folder of parquet, jsonl, txt, csv, tsv or xml, all but the first also with .gz, .bz2, .xz
    or .zst; a pattern with ``*``, ``?`` or ``[…]`` (``**`` for folders below); or else, if nothing of that name exists
    here, the ``owner/name`` of a data set on the Hugging Face Hub, downloaded once and then read from the cache.
    Several of these are separated by commas, and each may end in ``@`` and a weight: ``wiki.parquet,books/*.txt@0.5``.

    Which files of a folder belong to a split is told by `find_splits`; a single file is read whole, as the split
    ``train`` or the one it is named after.

    Raises `DataError` if there is no such source, split or known format, and `HubError` if the Hub cannot serve it.
    """
    if isinstance(source, Path) or is_here(source):
        return _files_of_one(source, split, schema)
    found = []
    for part in (parts := source.split(",")):
        name, weight = _weighted(part.strip())
        prefix = f"{name}:" if len(parts) > 1 else ""
        found += [SourceFile(file.path, prefix + file.name, weight) for file in _files_of_one(name, split, schema)]
    return found


def find_splits(folder: Path, schema: Schema = GUESS) -> dict[str, list[Path]]:
    """Return the text files of ``folder`` by split, each list sorted.

    The first of these that finds anything decides: the ``configs`` in the front matter of a README.md (a
    data set card; the default configuration, or the only one); names of splits (``train.parquet``,
    ``train-*.parquet``, ``train/*.parquet``, all of them also under ``data/``, and ``name-00000-of-00002``
    for a split of any name), if all files have such a name but tables in which no column can be the text by
    ``schema``, and README, LICENSE and NOTICE;
    all text files, also in subfolders and behind links, as ``train``. Hidden files never count. A `MamegptWarning` says
    which files were passed over, and why.
    Raises `DataError` if there is no file in a known format, if a split is there in two formats, or if the
    card cannot be read or has several configurations and no default.
    """
    files = _text_files(folder)
    if not files:
        raise DataError(
            "{folder} holds no file in a known format ({names}); give another folder",
            folder=folder,
            names=", ".join(INPUT_FORMATS),
        )
    unknown = (path for path in _files_below(folder) if format_of(path) not in INPUT_FORMATS)
    if others := sorted(path for path in unknown if not _is_note(path)):
        _pass_over(folder, others, msg("their format is not known"))
    if splits := _splits_from_card(folder, files):
        if others := [file for file in files if not any(file in chosen for chosen in splits.values())]:
            _pass_over(folder, others, msg("README.md does not name them"))
        return splits
    for file in files:
        splits.setdefault(_split_in_name(file.relative_to(folder).as_posix()) or "", []).append(file)
    unnamed = splits.pop("", [])
    if not splits:
        return {"train": files}
    notes = [file for file in unnamed if _is_note(file)]
    if empty := [file for file in unnamed if not has_text(file, schema)]:
        _pass_over(folder, empty, msg("no column of theirs can be the text"))
    if texts := [file for file in unnamed if file not in notes and file not in empty]:
        named, other = next(iter(splits.values()))[0], texts[0]
        warnings.warn(
            msg(
                "{folder}: {name} is read as part of 'train', not as a split, since {name_2} is named for none",
                folder=folder,
                name=named.name,
                name_2=other.name,
            ),
            MamegptWarning,
            stacklevel=2,
        )
        return {"train": [file for file in files if file not in notes and file not in empty]}
    _refuse_mixed_formats(splits)
    return splits


@checked
def download(dataset: str, cache_dir: str | Path | None = None, schema: Schema = GUESS) -> Downloaded:
    """Fetch the text files of a Hub data set into the cache, or find them there, also without a network.

    ``dataset`` is ``owner/name``; ``cache_dir`` is by default the one of huggingface_hub (``HF_HUB_CACHE``).
    A repository without a file in a known format is read from the Hub's automatic conversion to parquet.
    Raises `HubError` if the Hub cannot be reached, or has no such data set, or does not let this user see
    it; `DataError` if what it has cannot be used.
    """
    folder = _snapshot(dataset, "main", cache_dir)
    if _text_files(folder):
        splits = find_splits(folder, schema)
    else:
        try:
            converted = _snapshot(dataset, _CONVERTED, cache_dir)
        except HubError as error:
            raise HubError(
                "{dataset} has no file in a known format ({names}), and its parquet conversion is not "
                "available: {reason}",
                dataset=dataset,
                names=", ".join(INPUT_FORMATS),
                reason=error,
            ) from error
        folder = _default_config(dataset, converted)
        splits = {name: list(group) for name, group in itertools.groupby(_text_files(folder), _parent_name)}
    return Downloaded(dataset, folder, {name: _split_info(files) for name, files in splits.items()})


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
    """Return what share of the documents is read each time: all of them, as often as they go, and then what is left."""
    whole, rest = divmod(weight, 1)
    shares = [1.0] * int(whole)
    return [*shares, rest] if rest else shares


def _place(document_id: str) -> float:
    """Return a number from 0 up to 1 that depends on a document's id and nothing else."""
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "little") / 2**64


def _weighted(part: str) -> tuple[str, float]:
    """Return a source and its weight, 1 if it has none."""
    name, at, number = part.rpartition("@")
    if not at or is_here(part):
        return part, 1.0
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not 0 < weight <= MAX_WEIGHT:
        raise DataError(
            "{part!r}: {number!r} is not a weight; give a number above 0 and at most {max_weight} after the @",
            part=part,
            number=number,
            max_weight=MAX_WEIGHT,
        )
    return name, weight


LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
"""How the Hub identifies a license: ``cc-by-sa-4.0``."""


def card_licenses(source: str) -> list[str]:
    """Return the licenses that the data cards beside the files of a list of sources name, or in its folders.

    Empty if one of them has no card or names none. Raises `DataError` if a card's front matter is not YAML.
    """
    found: list[str] = []
    for part in source.split(","):
        path = Path(part.strip().rpartition("@")[0] or part.strip())
        card = (path if path.is_dir() else path.parent) / "README.md"
        stated = card_metadata(card).get("license") if is_here(str(path)) and card.is_file() else None
        named = stated if isinstance(stated, list) else [stated]
        licenses = [it for it in named if isinstance(it, str) and LICENSE.fullmatch(it)]
        if not licenses:
            return []
        found += [it for it in licenses if it not in found]
    return found


def _files_of_one(source: str | Path, split: str, schema: Schema) -> list[SourceFile]:
    """Return the files of a source that is one file, folder, pattern or Hub data set."""
    path = Path(source)
    if not is_here(str(source)):
        pass  # it may be too long for a name, and asking about it an error
    elif path.is_file():
        splits = _splits_of_file(path)
        if split not in splits and not path.stat().st_size:
            raise DataError("{source} is empty; give a file that holds text", source=source)
        return _files_of(path.parent, {name: [path] for name in splits}, split, source)
    elif path.is_dir():
        return _files_of(path, find_splits(path, schema), split, source)
    if _PATTERN & set(str(source)):
        return _files_of_pattern(str(source), split)
    if not isinstance(source, str) or not is_hub_name(source) or format_of(path) in INPUT_FORMATS:
        raise DataError(
            "no such file or folder, and not a Hub name (owner/name): {source!r}; check the spelling",
            source=str(source),
        )
    data = download(source, schema=schema)
    return _files_of(data.folder, {name: list(info.files) for name, info in data.splits.items()}, split, source)


def _files_of_pattern(pattern: str, split: str) -> list[SourceFile]:
    """Return the files in known formats that match a pattern, sorted, but for hidden ones."""
    parts = Path(pattern).parts
    n_fixed = next(i for i, part in enumerate(parts) if _PATTERN & set(part))
    folder = Path(*parts[:n_fixed])
    files = _text_files(folder, "/".join(parts[n_fixed:]))
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
    return _files_of(folder, splits, split, pattern)


def _splits_of_file(path: Path) -> set[str]:
    """Return the splits that a file named for itself can be read as."""
    return {"train", _split_in_name(path.name) or "train"}


def _files_of(folder: Path, splits: dict[str, list[Path]], split: str, source: str | Path) -> list[SourceFile]:
    """Return the files of one split, all in a known format, named relative to ``folder``."""
    if split not in splits:
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
    return [SourceFile(file, shown(file.relative_to(folder).as_posix())) for file in splits[split]]


def _is_note(path: Path) -> bool:
    """Return whether a file is known to be about the texts beside it."""
    return path.name.endswith(ORIGIN_SUFFIX) or path.stem.upper() in ("README", "LICENSE", "NOTICE")


def _pass_over(folder: Path, files: list[Path], why: str) -> None:
    """Warn of files that are not read."""
    names = ", ".join(shown(file.relative_to(folder).as_posix()) for file in files[:3])
    more = ", ..." if len(files) > 3 else ""
    warnings.warn(
        msg(
            "{folder}: skipped {n_files:,} file(s) ({names}{more}): {why}",
            folder=folder,
            n_files=len(files),
            names=names,
            more=more,
            why=why,
        ),
        MamegptWarning,
        stacklevel=3,
    )


def _text_files(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Return all files in a known format in ``folder`` that match, sorted, but for hidden ones."""
    return sorted(path for path in _files_below(folder, pattern) if format_of(path) in INPUT_FORMATS)


def _files_below(folder: Path, pattern: str = "**/*") -> set[Path]:
    """Return the files in ``folder`` that match a pattern, but for hidden ones."""
    found = _glob(folder, Path(pattern).parts)
    hidden = (path for path in found if any(part.startswith(".") for part in path.relative_to(folder).parts))
    return {path for path in found - {*hidden} if path.is_file()}


def _glob(folder: Path, parts: tuple[str, ...]) -> set[Path]:
    """Return the paths below ``folder`` that match a pattern's parts.

    Its ``**`` follows links, which pathlib's does not.
    """
    if "**" not in parts:
        return set(folder.glob("/".join(parts)))
    at = parts.index("**")
    tops = folder.glob("/".join(parts[:at])) if at else [folder]
    return {path for top in tops for below in _folders(top) for path in _glob(below, parts[at + 1 :] or ("*",))}


def _folders(top: Path) -> Iterator[Path]:
    """Yield ``top`` and all folders below it, hidden ones left out, links followed.

    A folder that can be reached on several ways is met once, so that links in a circle end, by its own name if it has
    one here.
    """
    met, links = set[tuple[int, int]](), [top]
    for link in links:  # which grows
        inside = [link]
        for folder in inside:
            try:
                about = folder.stat()
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                warnings.warn(
                    msg("skipped {folder} ({reason})", folder=folder, reason=first_line(error)),
                    MamegptWarning,
                    stacklevel=2,
                )
                continue
            if (about.st_dev, about.st_ino) in met:
                continue
            met.add((about.st_dev, about.st_ino))
            yield folder
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir():
                    (links if entry.is_symlink() else inside).append(folder / entry.name)


def _split_in_name(name: str) -> str | None:
    """Return the split that a file's path, relative to its source, is named for."""
    found = next((match for pattern in _SPLIT_PATHS if (match := pattern.fullmatch(name))), None)
    return found["split"] if found else None


def _refuse_mixed_formats(splits: dict[str, list[Path]]) -> None:
    """Two formats of one split are most likely the same text twice; only the user can say."""
    for name, files in splits.items():
        by_suffix = {format_of(file): file for file in files}
        if len(by_suffix) > 1:
            both = " and ".join(map(str, by_suffix.values()))
            raise DataError(
                "split {name!r} is there in several formats, {both}; name the file to read", name=name, both=both
            )


def _splits_from_card(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Return what ``configs: data_files`` in a data set card say; nothing if there is no card or it does not say.

    A card's patterns choose among ``files``, so that none can lead out of the folder.
    """
    card = folder / "README.md"
    listed = (card_metadata(card).get("configs") or []) if card.is_file() else []
    configs = [config for config in listed if isinstance(config, dict)] if isinstance(listed, list) else []
    if not configs:
        return {}
    chosen = [c for c in configs if c.get("default") or c.get("config_name") == "default"] or configs
    if len(chosen) > 1:
        names = ", ".join(str(config.get("config_name")) for config in chosen)
        raise DataError(
            "{card} names several configurations ({names}) and no default; give the file of one", card=card, names=names
        )
    entries = chosen[0].get("data_files") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        entries = [{"split": "train", "path": entries}]
    splits = {}
    for entry in entries:
        paths = entry.get("path") or []
        patterns = [paths] if isinstance(paths, str) else paths
        try:
            if not all(isinstance(pattern, str) for pattern in patterns):
                raise TypeError("a path is no text")
            found = {path for pattern in patterns for path in _glob(folder, Path(pattern).parts)}
        except (TypeError, ValueError, NotImplementedError) as error:
            raise DataError(
                "{card}: the path {paths!r} is not understood; give the file to read", card=card, paths=paths
            ) from error
        if chosen_files := [file for file in files if file in found]:
            splits[str(entry.get("split", "train"))] = chosen_files
    return splits


# The Hub


def _snapshot(dataset: str, revision: str, cache_dir: str | Path | None) -> Path:
    """Return the cached folder of a data set's card and its files in known formats."""
    suffixes = [*INPUT_FORMATS, *(f"{suffix}{packed}" for suffix in INPUT_FORMATS for packed in COMPRESSIONS)]
    patterns = [f"*{suffix}" for suffix in suffixes] + ["README.md"]
    return snapshot(dataset, patterns, repo_type="dataset", revision=revision, cache_dir=cache_dir)


def _default_config(dataset: str, folder: Path) -> Path:
    """Return the default or only configuration of the conversion branch: ``<configuration>/<split>/*.parquet``."""
    configs = sorted({folder / file.relative_to(folder).parts[0] for file in _text_files(folder)})
    chosen = [config for config in configs if config.name == "default"] or configs
    if len(chosen) != 1:
        names = ", ".join(config.name for config in configs) or "none"
        raise DataError(
            "{dataset} has no default configuration (it has: {names}); give a file of one in {folder}",
            dataset=dataset,
            names=names,
            folder=folder,
        )
    return chosen[0]


def _parent_name(path: Path) -> str:
    return path.parent.name


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
