"""Which outputs a command may write: no input, no file of a run, and no folder except one that an earlier export
wrote.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from mamegpt.errors import OutputError
from mamegpt.messages import msg
from mamegpt.system.files import DESKTOP_FILES, is_here, refuse_existing, refuse_unwritable, sha256_file, shown
from mamegpt.system.run_files import RUN_FILES, is_run

__all__ = [
    "CARD",
    "check_folder",
    "check_outputs",
    "export_mark",
    "refuse_inside_run",
    "refuse_parent",
    "refuse_unreadable",
]

CARD = "README.md"
_MARK = re.compile(
    r"<!-- files as mamegpt export wrote them(?: in (?P<parts>[a-z, -]+))?: (?P<digest>[0-9a-f]{64}) -->\n\Z"
)
_TAG = "\ntags:\n- mamegpt\n"
"""Part of the front matter of every exported card, also of those without a mark, from before December 2026."""
_UNMARKED = re.compile(
    r"README\.md|(config|generation_config|tokenizer|tokenizer_config)\.json|model\.safetensors|pytorch_model\.bin|"
    r"modeling_custom_gpt\.py|[^/]+\.(model|vocab|gguf)"
)
"""The files of an export without a mark."""
_READ = re.compile(
    r"(.*config|tokenizer.*|vocab|special_tokens_map|added_tokens|.*\.index|meta|state|machine)\.json|merges\.txt|"
    r".*\.(safetensors|bin|pth|pt|model|vocab|gguf|py|jinja|jsonl)"
)
"""Files in the folder of a model or of token shards that are read; other files in it may be overwritten."""
_UNMARKED_PARTS = ("", "gguf, hf", "gguf, hf, hf-native")


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[str | Path] = (), *, overwrite: bool = True) -> None:
    """Raise `OutputError` if one of the files to write must not be written; outputs that are None are ignored.

    Refused are: a folder, a socket or a disk; an existing file, without ``overwrite``; a file of a run; one of the
    ``inputs``, or a file that is read in a folder among them (links are resolved, and case is ignored); a file that is
    named twice. Inputs that are not local, such as names on the Hub, are ignored.
    """
    read = [Path(source) for source in inputs if is_here(source)]
    seen: set[tuple[str, str]] = set()
    for output in outputs:
        if output is None:
            continue
        refuse_unwritable(output)
        if not overwrite and output.is_file():
            refuse_existing(output)
        _refuse_run_file(output)
        if any(_holds(path, output) for path in read):
            raise OutputError("{output} is also read; give another name", output=output)
        place = Path(os.path.realpath(output))
        key = str(place.parent), unicodedata.normalize("NFC", place.name).casefold()
        if key in seen:
            raise OutputError("{output} is named twice; give another name", output=output)
        seen.add(key)


def refuse_unreadable(out: Path) -> None:
    """Raise `OutputError` for a folder whose name is not UTF-8: safetensors could not read weights in it."""
    if shown(out) != str(out):
        raise OutputError(
            "{out} is not UTF-8, and weights in such a folder cannot be read; choose another name", out=out
        )


def check_folder(out: Path, inputs: Iterable[str | Path] = (), *, overwrite: bool = False) -> None:
    """Raise `OutputError` if an exported folder must not be written to ``out``.

    Without ``overwrite``, ``out`` must not exist. With it, ``out`` may be an empty folder, or one that an earlier
    export wrote and that was not changed or added to since. The current folder, a folder with an input in it, and a
    place inside a run are always refused.
    """
    refuse_unreadable(out)
    if not overwrite:
        refuse_existing(out)
    _refuse_run_file(out)
    refuse_inside_run(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError("{out} is not a folder; choose another name", out=out)
    refuse_parent(out, [Path(), *inputs])
    if found := _foreign(out):
        raise OutputError(
            "{out} is not overwritten, since {found} is not as an export wrote it; choose another "
            "name, or move the folder away",
            out=out,
            found=found,
        )


def refuse_parent(out: Path, inputs: Iterable[str | Path]) -> None:
    """Raise `OutputError` if one of the ``inputs`` is the folder ``out`` or is in it; links are resolved."""
    for path in (Path(source) for source in inputs if source and is_here(source)):
        if any(folder.samefile(out) for folder in _with_parents(path)):
            what = msg("the current folder") if path == Path() else str(path)
            raise OutputError(
                "{out} is not overwritten, since {what} is in it; choose another name", out=out, what=what
            )


def export_mark(folder: Path, card: str, targets: Collection[str] = ()) -> str:
    """Return the last line of an exported folder's card, by which `check_folder` detects changed files.

    If several ``targets`` are written together, each has such a folder, and the mark contains their names.
    """
    parts = f" in {', '.join(sorted(targets))}" if len(targets) > 1 else ""
    return f"<!-- files as mamegpt export wrote them{parts}: {_digest(folder, card)} -->\n"


def _foreign(out: Path) -> str:
    """Return the first path in a folder that is not as an export wrote it, "" without one."""
    if (out / CARD).is_file():
        return _foreign_in(out, "")
    folders = sorted(path for path in out.iterdir() if path.name not in DESKTOP_FILES)
    parts = ", ".join(path.name for path in folders)
    return next(filter(None, (_foreign_in(folder, parts) for folder in folders)), "")


def _foreign_in(folder: Path, parts: str) -> str:
    """Return the same for the folder of one target; ``parts`` names all folders next to each other."""
    if folder.is_symlink() or not (folder / CARD).is_file():
        return str(folder)
    card = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    if mark := _MARK.search(card):
        is_as_written = mark["digest"] == _digest(folder, card[: mark.start()]) and (mark["parts"] or "") == parts
        return "" if is_as_written else str(folder)
    if _TAG not in card or parts not in _UNMARKED_PARTS:
        return str(folder / CARD)
    return next((str(folder / name) for name in _files(folder) if not _UNMARKED.fullmatch(name)), "")


def _digest(folder: Path, card: str) -> str:
    """Return a SHA-256 over the names and contents of all files in a folder except its card, and over the text of the
    card.
    """
    paths = {name: folder / name for name in _files(folder) if name != CARD}
    lines = [f"{name} {sha256_file(path) if path.is_file() else ''}" for name, path in paths.items()]
    return hashlib.sha256("\n".join([*lines, card]).encode()).hexdigest()


def _files(folder: Path) -> list[str]:
    """Return the relative paths of all files and empty folders in a folder, except files of desktops."""
    paths = (path for path in folder.rglob("*") if path.name not in DESKTOP_FILES)
    return sorted(
        shown(path.relative_to(folder).as_posix())
        for path in paths
        if not path.is_dir() or path.is_symlink() or not any(path.iterdir())
    )


def _refuse_run_file(output: Path) -> None:
    """Raise `OutputError` for a file that only training writes."""
    place = Path(os.path.realpath(output))
    for path in _with_parents(place):
        run = path.parent
        if path != run and is_run(run) and any(_is_same(path, run / name) for name in RUN_FILES):
            raise OutputError("{output} belongs to the run {run}; choose another name", output=output, run=run)


def refuse_inside_run(folder: Path) -> None:
    """Raise `OutputError` if a new folder, of a run or an export, would be inside a run."""
    outer = next(filter(is_run, Path(os.path.realpath(folder)).parents), None)
    if outer is not None:
        raise OutputError("{folder} would lie in the run {outer}; choose another --out", folder=folder, outer=outer)


def _holds(read: Path, output: Path) -> bool:
    """Return whether an output is a file that is read, or one that is read in a folder."""
    if read.is_dir():
        of_a_model = (path for path in read.rglob("*") if _READ.fullmatch(path.name) and path.is_file())
        return output.exists() and any(_is_same(output, path) for path in of_a_model)
    return _is_same(output, read)


def _is_same(path: Path, other: Path) -> bool:
    """Return whether two paths are, or would be, the same file."""
    if path.exists() and other.exists():
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)


def _with_parents(path: Path) -> Iterator[Path]:
    place = Path(os.path.realpath(path))
    yield place
    yield from place.parents
