"""Which files of a folder belong to which split: by its dataset card, by file names, or all as train."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mamegpt.data.provenance import SUFFIX as ORIGIN_SUFFIX
from mamegpt.data.readers.lines import COMPRESSIONS
from mamegpt.data.readers.read import INPUT_FORMATS, format_of, has_text
from mamegpt.data.schema import GUESS, Schema
from mamegpt.errors import DataError, MamegptWarning, first_line
from mamegpt.messages import join, msg
from mamegpt.system.files import shown
from mamegpt.system.hub import card_metadata

__all__ = [
    "CARD",
    "card_configs",
    "choose_config",
    "config_paths",
    "data_dir",
    "find_splits",
    "split_in_name",
    "splits_of_config",
    "text_files",
]

CARD = "README.md"
"""The dataset card, whose front matter may name configurations."""

_SPLIT = r"(?P<split>train|validation|valid|val|dev|test)"
_SUFFIX = rf"\.\w+({'|'.join(map(re.escape, COMPRESSIONS))})?"
_SPLIT_PATHS = (
    re.compile(rf"(data/)?{_SPLIT}(-[^/]*)?{_SUFFIX}"),  # train.parquet, train-2.jsonl, data/train-x.txt
    re.compile(rf"(data/)?{_SPLIT}/[^/]+"),  # train/anything.parquet
    re.compile(rf"(data/)?(?P<split>[\w.]+)-\d{{5}}-of-\d{{5}}{_SUFFIX}"),  # the Hub's shards name any split
)


def find_splits(folder: Path, schema: Schema = GUESS, config_name: str = "") -> dict[str, list[Path]]:
    """Return the text files of ``folder`` by split, each list sorted.

    The first rule that finds files applies. (1) The ``configs`` in the front matter of README.md, the dataset card: the
    configuration ``config_name``, else the default or only one. (2) File names, if all files are named after splits:
    ``train.parquet``, ``train-*.parquet``, ``train/*.parquet``, all of them also under ``data/``, and
    ``name-00000-of-00002`` for a split of any name; README, LICENSE, NOTICE and tables in which no column can be the
    text by ``schema`` need no such name. (3) All text files are ``train``, also in subfolders and behind links.

    Hidden files are ignored. A `MamegptWarning` names skipped files, and why. Raises `DataError` if there is no file in
    a known format, if a split has files in two formats, or if the card cannot be read or has several configurations and
    no default.
    """
    files = text_files(folder)
    if not files:
        raise DataError(
            "{folder} holds no file in a known format ({names}); give another folder",
            folder=folder,
            names=", ".join(INPUT_FORMATS),
        )
    unknown = (path for path in _files_below(folder) if format_of(path) not in INPUT_FORMATS)
    if others := sorted(path for path in unknown if not _is_note(path)):
        _pass_over(folder, others, msg("their format is not known"))
    configs = card_configs(folder / CARD)
    config = choose_config(configs, config_name, folder / CARD)
    if splits := splits_of_config(folder, files, config):
        of_each = [chosen for each in configs for chosen in splits_of_config(folder, files, each).values()]
        if others := [file for file in files if not any(file in chosen for chosen in of_each)]:
            _pass_over(folder, others, msg("README.md does not name them"))
        return splits
    if below := data_dir(config):
        files = [file for file in files if file.is_relative_to(folder / below)]
        folder = folder / below
    for file in files:
        splits.setdefault(split_in_name(file.relative_to(folder).as_posix()) or "", []).append(file)
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


def _is_note(path: Path) -> bool:
    """Return whether a file is documentation of the texts next to it."""
    return path.name.endswith(ORIGIN_SUFFIX) or path.stem.upper() in ("README", "LICENSE", "NOTICE")


def _pass_over(folder: Path, files: list[Path], why: str) -> None:
    """Warn about files that are not read."""
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


def text_files(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Return all files in known formats in ``folder`` that match, sorted, without hidden ones."""
    return sorted(path for path in _files_below(folder, pattern) if format_of(path) in INPUT_FORMATS)


def _files_below(folder: Path, pattern: str = "**/*") -> set[Path]:
    """Return the files in ``folder`` that match a pattern, without hidden ones."""
    found = _glob(folder, Path(pattern).parts)
    hidden = (path for path in found if any(part.startswith(".") for part in path.relative_to(folder).parts))
    return {path for path in found - {*hidden} if path.is_file()}


def _glob(folder: Path, parts: tuple[str, ...]) -> set[Path]:
    """Return the paths below ``folder`` that match the parts of a pattern.

    ``**`` follows links, unlike in pathlib.
    """
    if "**" not in parts:
        return set(folder.glob("/".join(parts)))
    at = parts.index("**")
    tops = folder.glob("/".join(parts[:at])) if at else [folder]
    return {path for top in tops for below in _folders(top) for path in _glob(below, parts[at + 1 :] or ("*",))}


def _folders(top: Path) -> Iterator[Path]:
    """Yield ``top`` and all folders below it, without hidden ones; links are followed.

    A folder that several paths lead to is yielded once, by its own name if it is below ``top``; circular links
    therefore end.
    """
    met, links = set[tuple[int, int]](), [top]
    for link in links:  # the list grows meanwhile
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


def split_in_name(name: str) -> str | None:
    """Return the split that a file is named after; ``name`` is its path relative to its source."""
    found = next((match for pattern in _SPLIT_PATHS if (match := pattern.fullmatch(name))), None)
    return found["split"] if found else None


def _refuse_mixed_formats(splits: dict[str, list[Path]]) -> None:
    """Raise `DataError` if a split has files in two formats: most likely the same text twice, so the user must
    choose.
    """
    for name, files in splits.items():
        by_suffix = {format_of(file): file for file in files}
        if len(by_suffix) > 1:
            both = join(" and ", map(str, by_suffix.values()))
            raise DataError(
                "split {name!r} is there in several formats, {both}; name the file to read", name=name, both=both
            )


def card_configs(card: Path) -> list[dict[str, Any]]:
    """Return the configurations that a dataset card names; empty if there is no card. Raises `DataError`."""
    listed = (card_metadata(card).get("configs") or []) if card.is_file() else []
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def choose_config(configs: list[dict[str, Any]], config: str, where: str | Path) -> dict[str, Any]:
    """Return the configuration of that name, or without a name the default or only one; empty if there are none.

    Raises `DataError`, naming ``where`` they are defined, if it is not among them, or if a name is needed.
    """
    names = [str(entry.get("config_name", "default")) for entry in configs]
    if config:
        chosen = [entry for entry, name in zip(configs, names, strict=True) if name == config]
    else:
        chosen = [c for c in configs if c.get("default") or c.get("config_name") == "default"] or configs
    if len(chosen) == 1 or not configs:
        return chosen[0] if chosen else {}
    if config:
        raise DataError(
            "{where} has no configuration {config!r}; it has {names}",
            where=where,
            config=config,
            names=", ".join(names),
        )
    raise DataError(
        "{where} names several configurations ({names}) and no default; give the file of one, or of a dataset on the "
        "Hub owner/name:configuration",
        where=where,
        names=", ".join(names),
    )


def config_paths(config: dict[str, Any], card: Path) -> list[tuple[str, list[str]]]:
    """Return the splits of a configuration, with the patterns of their files; empty if it does not define them.

    Raises `DataError` for an invalid path.
    """
    entries = config.get("data_files") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        entries = [{"split": "train", "path": entries}] if entries else []
    found = []
    for entry in entries:
        paths = entry.get("path") or []
        patterns = [paths] if isinstance(paths, str) else paths
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise DataError(
                "{card}: the path {paths!r} is not understood; give the file to read", card=card, paths=paths
            )
        found.append((str(entry.get("split", "train")), patterns))
    return found


def data_dir(config: dict[str, Any]) -> str:
    """Return the folder of all files of a configuration; "" if it names no folder, or names files."""
    where = config.get("data_dir")
    return where.strip("/") if isinstance(where, str) and not config.get("data_files") and ".." not in where else ""


def splits_of_config(folder: Path, files: list[Path], config: dict[str, Any]) -> dict[str, list[Path]]:
    """Return the splits that a configuration of the dataset card in ``folder`` defines.

    Its patterns choose among ``files``, so they cannot select a file outside the folder.
    """
    card, splits = folder / CARD, {}
    for split, patterns in config_paths(config, card):
        try:
            found = {path for pattern in patterns for path in _glob(folder, Path(pattern).parts)}
        except (ValueError, NotImplementedError) as error:
            raise DataError(
                "{card}: the path {paths!r} is not understood; give the file to read", card=card, paths=patterns
            ) from error
        if chosen := [file for file in files if file in found]:
            splits[split] = chosen
    return splits
