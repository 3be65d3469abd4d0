"""Atomic writes of files and folders, locks, and hashes."""

from __future__ import annotations

import errno
import hashlib
import importlib
import itertools
import json
import os
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from mamegpt.errors import MamegptWarning, OutputError, first_line
from mamegpt.messages import msg

__all__ = [
    "DESKTOP_FILES",
    "IN_USE",
    "LOCK",
    "MARK",
    "SCRATCH",
    "atomic_directory",
    "atomic_write",
    "destination",
    "free_name",
    "gone_if_empty",
    "hardening",
    "held",
    "is_here",
    "is_lfs_pointer",
    "is_stream",
    "make_folder",
    "make_scratch",
    "move",
    "neighbor",
    "refuse_existing",
    "refuse_unwritable",
    "remove_folder",
    "remove_leftovers",
    "sha256_file",
    "shown",
    "sync",
    "sync_file",
    "write_json",
    "write_mark",
]

LOCK = ".lock"
"""The lock file of a folder that a process uses."""
MARK = "made-by-mamegpt"
"""The file that marks a hidden folder as one of mamegpt."""
SCRATCH = ".mamegpt-"
"""Prefix of the names of folders for unfinished files; the rest is random."""
UNFINISHED = "mamegpt was writing here; if no mamegpt runs any more, this folder may be removed"
NEW, OLD = ".partial", ".old"
"""The entries of a scratch folder: the new version, and the version that it replaces."""
DESKTOP_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that file managers create in any folder that is viewed."""
MAX_NAME_BYTES = 255
"""Length in bytes of a file name that every common file system supports."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNSUPPORTED = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOLCK,
    errno.ENOTTY,
    errno.EPERM,
    errno.EBADF,
}
"""Errors of file systems that lack locks, permissions, or fsync of a folder."""
IN_USE = (errno.EACCES, errno.EBUSY, errno.ENOTEMPTY)
"""Errors when a file is to be removed that another program has open (Windows, NFS)."""
WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds between attempts to rename what another program has open."""
_OPEN_ELSEWHERE = (5, 32, 33)
"""Windows: access denied, sharing violation, lock violation."""
_warned: set[str] = set()


def is_here(name: str | Path) -> bool:
    """Return whether a local file or folder exists; a list of sources, or another value, may be too long for a name."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def shown(name: str | os.PathLike[str]) -> str:
    """Return a file's name in a form that can be written anywhere: a byte that is not UTF-8 becomes ``\\udc8c``.

    Python represents such bytes, which occur in names from old archives, by lone surrogates (PEP 383). UTF-8 text
    cannot contain these; JSON escapes them in the same way. A name is converted only when it is printed or written into
    a text.
    """
    return str(name).encode("utf-8", "backslashreplace").decode()


def free_name(path: Path) -> Path:
    """Return a path, or, if it exists, the first of path-2, path-3, ... that does not."""
    others = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(one for one in itertools.chain([path], others) if not one.exists())


def neighbor(path: Path, prefix: str, suffix: str) -> Path:
    """Return the path next to ``path`` whose name has this prefix and suffix added.

    A name that would be too long is shortened, with a hash.
    """
    name, whole = path.name, os.fsencode(path.name)
    room = MAX_NAME_BYTES - len(os.fsencode(prefix + suffix))
    if len(whole) > room:
        while len(os.fsencode(name)) > room - 17:
            name = name[:-1]  # no incomplete characters, which not every file system supports
        name += "-" + hashlib.sha256(whole).hexdigest()[:16]
    return path.with_name(prefix + name + suffix)


def make_folder(path: Path) -> list[Path]:
    """Create a folder and its missing parents; return the created folders, the innermost first."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return made


@contextmanager
def gone_if_empty(folders: Sequence[Path]) -> Iterator[None]:
    """If the block fails, remove those of the folders that are empty or contain a lock only."""
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
def held(lock: Path) -> Iterator[bool]:
    """Hold a lock file against all other processes. Raises `Timeout` at once if another process holds it.

    If the file system has no locks, a warning says so once, and the block runs without a lock; it is then given False.
    """
    file_lock = FileLock(lock, timeout=0)
    with hardening(msg("a lock"), lock):
        file_lock.acquire()
    try:
        yield file_lock.is_locked
    finally:
        file_lock.release()


@contextmanager
def destination(path: Path) -> Iterator[Path]:
    """Yield the path of a regular file to write for the output ``path``.

    A link is followed and stays. If ``path`` is a pipe, a device, or the file that standard output goes to, the yielded
    path is in a temporary folder, and its content is sent to ``path`` when the block ends without an error. Raises
    `OutputError` for a folder, a socket or a disk.
    """
    path = Path(path)
    refuse_unwritable(path)
    if not is_stream(path):
        yield Path(os.path.realpath(path))
        return
    with tempfile.TemporaryDirectory() as folder:
        yield (whole := Path(folder) / path.name)
        output = _standard_output(path)
        with whole.open("rb") as source, os.fdopen(os.dup(output), "wb") if output else path.open("ab") as sink:
            shutil.copyfileobj(source, sink)


def is_stream(path: Path) -> bool:
    """Return whether ``path`` is not replaced but written to: a pipe, a device, or the file of standard output."""
    return path.exists() and (not path.is_file() or _standard_output(path) > 0)


def refuse_unwritable(path: Path) -> None:
    """Raise `OutputError` if a folder, a socket or a disk is at ``path``."""
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise OutputError("{path} is a folder; give the name of a file to write", path=path)
        if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
            raise OutputError("{path} is a socket or a disk; give the name of a file to write", path=path)


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Yield a file that takes the name ``path`` only when the block ends without an error.

    ``mode`` is ``"w"`` (UTF-8 text, line feeds as given; a lone surrogate, as in file names, is escaped) or ``"wb"``.
    Until then the bytes are in a hidden folder next to it; after an error that folder is removed, and an existing file
    at ``path`` is unchanged. `destination` handles links, pipes and devices.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with _named(path), destination(path) as place:
        with _scratch(place.parent) as scratch:
            with (scratch / NEW).open(mode, **text) as file:
                yield file
                file.flush()
                sync(file)
            move(scratch / NEW, place)
        _sync_folder(place.parent)


@contextmanager
def atomic_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes the name ``path`` only when the block ends without an error.

    Raises `OutputError` if ``path`` exists and ``overwrite`` is false. With ``overwrite`` an existing folder stays
    until the new one is complete, and is then replaced; the caller must know that it may be.
    """
    place = Path(os.path.realpath(path))
    if not overwrite:
        refuse_existing(path)
    with _named(path), _scratch(place.parent) as scratch:
        new, old = scratch / NEW, scratch / OLD
        new.mkdir()
        yield new
        usual = stat.S_IMODE((scratch / MARK).stat().st_mode)  # the mode of a new file
        for file in new.rglob("*"):
            if file.is_file():
                if stat.S_IMODE(file.stat().st_mode) != usual:  # some writers make their files private
                    with hardening(msg("to set permissions"), file):
                        file.chmod(usual)
                sync_file(file)
        if not overwrite:
            refuse_existing(path)
        elif place.exists():
            move(place, old)
        try:
            move(new, place)
        except BaseException:
            if old.exists():
                move(old, place)
            raise
    _sync_folder(place.parent)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, in place of the file that has the name.

    On Windows a file that another program has open (a scanner for viruses, OneDrive, an editor) cannot be renamed or
    replaced, nor a folder with such a file. Scanners let go after a moment, so it is tried again for some seconds, and
    then `OutputError` says why.
    """
    for wait_s in (*WAITS_S, None):
        try:
            source.replace(target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _OPEN_ELSEWHERE:
                raise
            if wait_s is None:
                raise OutputError(
                    "{path} cannot be replaced: another program has it open, or it is read-only; close that program, "
                    "or choose another folder",
                    path=target if SCRATCH in str(source) else source,
                ) from error
            time.sleep(wait_s)


def refuse_existing(path: Path) -> None:
    """Raise `OutputError` if there is anything at ``path``."""
    if Path(path).exists():
        raise OutputError("{path} already exists; choose another name, or pass --overwrite to replace it", path=path)


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is a pointer of Git LFS, without the content."""
    with Path(path).open("rb") as file:
        return file.read(len(_LFS)) == _LFS


_LFS = b"version https://git-lfs.github.com/spec/"


def remove_folder(path: Path) -> None:
    """Remove a folder so that it never exists in part; after an error it is still complete."""
    with _scratch(path.parent) as scratch:
        move(path, scratch / OLD)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files in ``folder`` of processes that were killed.

    Only folders with our name and our mark are removed, and only if no process holds them. Before its mark is written,
    and after the mark is removed, such a folder is empty except for the lock. One with a new and an old version stays:
    the process was killed before the new one took the name of the old one, which is nowhere else.
    """
    for scratch in folder.glob(f"{SCRATCH}*"):
        if scratch.is_symlink() or not scratch.is_dir() or ((scratch / NEW).exists() and (scratch / OLD).exists()):
            continue
        if (scratch / MARK).is_file() or {path.name for path in scratch.iterdir()} <= {LOCK}:
            with suppress(OSError, NotImplementedError):  # another process uses it, or that cannot be determined
                with FileLock(scratch / LOCK, timeout=0):
                    pass
                _empty(scratch)


def make_scratch(folder: Path, number: int) -> Path:
    """Create a hidden folder for files that several processes write, named by ``number``; see `remove_leftovers`."""
    scratch = folder / f"{SCRATCH}{number:x}"
    scratch.mkdir(parents=True)
    write_mark(scratch, UNFINISHED)
    return scratch


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically; a file name in it that is not UTF-8 is escaped."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def write_mark(folder: Path, what: str) -> None:
    """Write the mark of a hidden folder of ours, with a description."""
    (folder / MARK).write_text(f"{what}\n", encoding="utf-8")


def sync(file: IO[Any]) -> None:
    """Make a file durable (fsync), if the file system supports it."""
    with hardening(msg("fsync"), Path(str(file.name))):
        if sys.platform == "darwin":  # whose fsync leaves the data in the cache of the drive
            with suppress(OSError):  # not every file system supports it
                fcntl = importlib.import_module("fcntl")
                fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
                return
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Make a closed file durable (fsync), if the file system supports it."""
    with path.open("rb+") as file:
        sync(file)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder in ``folder`` for unfinished files; it is removed at the end.

    Its name is short, whatever is written. Its mark identifies it as ours, its lock shows that a process uses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
    try:
        with held(scratch / LOCK):
            write_mark(scratch, UNFINISHED)
            yield scratch
    finally:
        with hardening(msg("to remove a folder"), scratch, *IN_USE):
            _empty(scratch)


def _empty(scratch: Path) -> None:
    """Remove a scratch folder, its mark last, so that a remainder after a kill can still be identified."""
    for path in sorted(scratch.iterdir(), key=lambda path: path.name == MARK):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    scratch.rmdir()


@contextmanager
def hardening(what: str, path: Path, *also: int) -> Iterator[None]:
    """Ignore an error that means that a file system does not support ``what``, an additional safety measure; warn once.

    ``also`` are further error numbers with this meaning.
    """
    try:
        yield
    except NotImplementedError as error:
        _warn(what, path, error)
    except OSError as error:
        if error.errno not in _UNSUPPORTED.union(also):
            raise
        _warn(what, path, error)


def _warn(what: str, path: Path, error: BaseException) -> None:
    if what not in _warned:
        _warned.add(what)
        warnings.warn(
            msg(
                "{path}: {what} is not possible here ({reason}); continuing without it",
                path=path,
                what=what,
                reason=first_line(error),
            ),
            MamegptWarning,
            stacklevel=2,
        )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name ``path`` in errors that name its scratch folder, and in those of a full disk, which name no file."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in _FULL and error.filename is None
        if is_full or SCRATCH in str(error.filename):
            error.filename, error.filename2 = str(path), None
        raise


def _standard_output(path: Path) -> int:
    """Return the descriptor, 1 or 2, of the standard output or error that goes to this file; 0 if neither does."""
    for handle in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
    return 0


def _sync_folder(path: Path) -> None:
    """Make a rename durable. Windows cannot open folders, and does not need this."""
    if os.name == "nt":
        return
    with hardening(msg("fsync of a folder"), path, errno.EACCES):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
