"""A dataset on the Hugging Face Hub: its text files by split, and the commit that they are from."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mamegpt.data.address import HubAddress
from mamegpt.data.readers.lines import COMPRESSIONS
from mamegpt.data.readers.read import INPUT_FORMATS, format_of
from mamegpt.data.schema import Schema
from mamegpt.data.splits import (
    CARD,
    card_configs,
    choose_config,
    config_paths,
    data_dir,
    find_splits,
    splits_of_config,
    text_files,
)
from mamegpt.data.writers import write_rows
from mamegpt.errors import DataError, HubError, how_to_install
from mamegpt.messages import msg
from mamegpt.system.files import atomic_directory
from mamegpt.system.hub import reason, snapshot

__all__ = ["HubFiles", "fetch_dataset", "fetch_path"]

_CONVERTED = "refs/convert/parquet"
"""The branch with the Hub's own conversion of a dataset."""
_COMMIT = re.compile("[0-9a-f]{40}")
_SUFFIXES = [suffix + packed for suffix in INPUT_FORMATS for packed in ("", *COMPRESSIONS)]


@dataclass(frozen=True, slots=True)
class HubFiles:
    """The text files of a dataset by split, all in ``folder``; its ``commit``, and ``source``, its address at that
    commit.
    """

    folder: Path
    splits: dict[str, list[Path]]
    commit: str = ""
    source: str = ""


def fetch_dataset(address: HubAddress, cache_dir: str | Path | None, schema: Schema) -> HubFiles:
    """Fetch the files of a configuration of a dataset into the cache, or find them there, also without a network.

    These are its files in the formats that mamegpt reads; if there are none, the Hub's own conversion to parquet (of
    the newest revision); else the rows that the library ``datasets`` reads, if it is installed. Raises `HubError` if
    the Hub cannot serve the dataset, and `DataError` if its files cannot be used.
    """
    name, revision = address.name, address.revision or "main"
    folder = snapshot(name, [CARD], repo_type="dataset", revision=revision, cache_dir=cache_dir)
    commit = folder.name
    configs = card_configs(folder / CARD)
    config = choose_config(configs, address.config, name)
    patterns = _wanted(
        [path for _, paths in config_paths(config, folder / CARD) for path in paths]
        or [f"{data_dir(config)}/*" if data_dir(config) else "*"]
    )
    if address.config in ("", "default") or configs:
        same = commit if _COMMIT.fullmatch(commit) else revision
        folder = snapshot(name, [CARD, *patterns], repo_type="dataset", revision=same, cache_dir=cache_dir)
        files = text_files(folder)
        if splits := splits_of_config(folder, files, config):
            return HubFiles(folder, splits, commit, address.pinned(commit))
        if files and not config.get("data_files"):
            splits = find_splits(folder, schema, address.config if configs else "")
            return HubFiles(folder, splits, commit, address.pinned(commit))
    try:
        if revision != "main":
            raise HubError("there is none of the revision {revision}", revision=revision)
        converted = _converted(address, cache_dir)
    except HubError as error:
        return _read_by_datasets(replace(address, revision=commit), cache_dir, error)
    splits = {split: list(group) for split, group in itertools.groupby(text_files(converted), _parent_name)}
    commit, place = converted.parent.name, HubAddress(name, path=converted.name)
    return HubFiles(converted, splits, commit, place.pinned(commit))


def fetch_path(address: HubAddress, cache_dir: str | Path | None) -> tuple[Path, str]:
    """Fetch the files at a path or pattern in a dataset into the cache; return the folder of the dataset, and the
    commit.

    Raises `HubError`.
    """
    is_pattern = bool(set("*?[") & set(address.path))
    patterns = _wanted([address.path] if is_pattern else [address.path, f"{address.path}/*"])
    revision = address.revision or "main"
    folder = snapshot(address.name, patterns, repo_type="dataset", revision=revision, cache_dir=cache_dir)
    return folder, folder.name


def _wanted(paths: list[str]) -> list[str]:
    """Return patterns for the Hub's client that match at least all text files at these paths and patterns.

    In these patterns ``*`` also matches slashes.
    """
    found = []
    for path in (path.replace("**/", "*") for path in paths):
        found += [path + suffix for suffix in _SUFFIXES] if path.endswith("*") else [path]
    return [path for path in found if format_of(Path(path)) in INPUT_FORMATS] or ["*/no file is wanted"]


def _converted(address: HubAddress, cache_dir: str | Path | None) -> Path:
    """Return the folder of one configuration of the conversion branch: ``<configuration>/<split>/*.parquet``."""
    patterns = [f"{address.config or '*'}/*.parquet"]
    folder = snapshot(address.name, patterns, repo_type="dataset", revision=_CONVERTED, cache_dir=cache_dir)
    names = sorted({file.relative_to(folder).parts[0] for file in text_files(folder)})
    chosen = [name for name in names if name == (address.config or "default")] or ([] if address.config else names)
    if len(chosen) == 1:
        return folder / chosen[0]
    there = ", ".join(names) or msg("none")
    if address.config:
        raise HubError("it has no configuration {config!r} (it has: {names})", config=address.config, names=there)
    raise DataError(
        "{name} has no default configuration (it has: {names}); give one, as in {name}:configuration",
        name=address.name,
        names=there,
    )


def _read_by_datasets(address: HubAddress, cache_dir: str | Path | None, why: HubError) -> HubFiles:
    """Read a dataset with the library ``datasets``; return its string columns as parquet files in the cache."""
    from huggingface_hub import cached_assets_path

    name = f"{address.name}{':' * bool(address.config)}{address.config}"
    formats = ", ".join(INPUT_FORMATS)
    try:
        from datasets import load_dataset
    except ImportError:
        raise HubError(
            "{name} has no file in a known format ({formats}), and its parquet conversion is not available: {reason}; "
            "to read it with the library datasets, {install}",
            name=name,
            formats=formats,
            reason=why,
            install=how_to_install("hub-data"),
        ) from why
    place = f"{address.name.replace('/', '--')}--{address.config or 'default'}--{address.revision}"
    folder = cached_assets_path("mamegpt", "datasets", assets_dir=cache_dir) / place
    if not folder.is_dir():
        with atomic_directory(folder, overwrite=True) as new:
            try:
                found = load_dataset(address.name, address.config or None, revision=address.revision, streaming=True)
                for split, rows in found.items():
                    _write_strings(rows, new / f"{split}-00000-of-00001.parquet")
            except Exception as error:  # each format has its own errors
                raise HubError(
                    "{name} has no file in a known format ({formats}), its parquet conversion is not available "
                    "({why}), and datasets cannot read it ({reason}); give another dataset",
                    name=name,
                    formats=formats,
                    why=why,
                    reason=reason(error),
                ) from error
    splits = {file.name.removesuffix("-00000-of-00001.parquet"): [file] for file in text_files(folder)}
    return HubFiles(folder, splits, address.revision, address.pinned(address.revision))


def _write_strings(rows: Any, path: Path) -> None:
    """Write the string columns of a stream of rows."""
    import pyarrow

    names: list[str] = []
    with write_rows(path) as write:
        for batch in rows.with_format("arrow").iter(batch_size=100):
            table = batch if isinstance(batch, pyarrow.Table) else pyarrow.table(batch)
            is_string = (pyarrow.types.is_string, pyarrow.types.is_large_string)
            names = names or [field.name for field in table.schema if any(of(field.type) for of in is_string)]
            if not names:
                raise ValueError(msg("none of its columns holds strings"))
            for row in table.select(names).to_pylist():
                write(row)


def _parent_name(path: Path) -> str:
    return path.parent.name
