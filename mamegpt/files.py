"""Files and folders that appear whole or not at all, and the hashes that prove it."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mamegpt.errors import OutputError

__all__ = [
    "LOCK", "atomic_directory", "atomic_write", "free_name", "gone_if_empty", "is_lfs_pointer", "make_folder",
    "refuse_existing",    "sha256_file", "sync_file", "write_json",
]  # fmt: skip

LOCK = ".lock"
"""The file by which a process holds a folder."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def free_name(path: Path) -> Path:
    """A path, or if that is taken the first of path-2, path-3, ... that is not."""
    others = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(one for one in itertools.chain([path], others) if not one.exists())


def make_folder(path: Path) -> list[Path]:
    """Make a folder, with its parents, if it is not there; returns those that were made, the innermost first."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return made


@contextmanager
def gone_if_empty(folders: Sequence[Path]) -> Iterator[None]:
    """If the block fails, remove those of some folders in which there is nothing, or a lock only."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for folder in folders:
                if [path.name for path in folder.iterdir()] == [LOCK]:
                    (folder / LOCK).unlink()
                folder.rmdir()
        raise


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Yield a file that takes the name ``path`` only when the block ends without an error.

    ``mode`` is ``"w"`` (UTF-8 text, line feeds as given) or ``"wb"``. Until then the bytes lie in a hidden
    file beside ``path``; after an error that file is removed and what stood at ``path`` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = str(path)  # a write does not know where it went
        raise
    _sync_folder(path.parent)


@contextmanager
def atomic_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes the name ``path`` only when the block ends without an error.

    Raises `OutputError` if ``path`` is there already and ``overwrite`` is false. With ``overwrite`` the old
    folder is replaced, and stays until the new one is complete.
    """
    path = Path(path)
    if not overwrite:
        refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                file.chmod(0o666 & ~_umask())  # some writers keep their files to their owner
                sync_file(file)
        partial.chmod(0o777 & ~_umask())
        if path.exists():
            _swap(partial, path)
        else:
            partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def refuse_existing(path: Path) -> None:
    """Raise `OutputError` if there is anything at ``path``."""
    if Path(path).exists():
        raise OutputError(f"{path} already exists; choose another name, or say --overwrite to replace it")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file only names one that Git LFS keeps elsewhere."""
    with Path(path).open("rb") as file:
        return file.read(len(_LFS)) == _LFS


_LFS = b"version https://git-lfs.github.com/spec/"


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented UTF-8 JSON, whole or not at all."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def _swap(new: Path, path: Path) -> None:
    """Put a folder in the place of the one at ``path``; if that fails, what stood there stands there again."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    try:
        path.replace(aside / path.name)
        try:
            new.replace(path)
        except BaseException:
            (aside / path.name).replace(path)
            raise
    except BaseException:
        with suppress(OSError):
            aside.rmdir()
        raise
    shutil.rmtree(aside)


_UMASK = threading.Lock()


def _umask() -> int:
    """The process's file-creation mask; it can only be read by setting it."""
    with _UMASK:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make a rename durable. Windows cannot open folders, and does not need it."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
