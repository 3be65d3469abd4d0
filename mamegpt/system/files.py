"""Files and folders that appear whole or not at all, and the hashes that prove it."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import stat
import tempfile
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
    "neighbor",
    "parse_json",
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
"""The file by which a process holds a folder."""
MARK = "made-by-mamegpt"
"""The file by which a hidden folder of ours is known."""
SCRATCH = ".mamegpt-"
"""How the names of folders for unfinished files begin; the rest is random."""
UNFINISHED = "mamegpt was writing here; if no mamegpt runs any more, this folder may be removed"
NEW, OLD = ".partial", ".old"
"""What a scratch folder holds: what is being written, and what it replaces."""
DESKTOP_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file managers leave in any folder that was looked at."""
MAX_NAME_BYTES = 255
"""Bytes of a file name that every common file system takes."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNSUPPORTED = {
    errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOTTY, errno.EPERM, errno.EBADF,
}  # fmt: skip
"""How file systems answer what they do not have: locks, permissions, fsync of a folder."""
IN_USE = (errno.EACCES, errno.EBUSY, errno.ENOTEMPTY)
"""How they answer when a file is to go that another program has open (Windows, NFS)."""
_warned: set[str] = set()


def is_here(name: str | Path) -> bool:
    """Say whether there is such a file or folder; a list of sources, or a value, may be too long for a name."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def shown(name: str | os.PathLike[str]) -> str:
    """Return a file's name as it can be written anywhere: a byte that is not UTF-8 (old archives) as ``\\udc8c``.

    Python holds such bytes as lone surrogates (PEP 383), which no UTF-8 text can; JSON escapes them the same way. A
    name stays as it is until it is printed or written into a text.
    """
    return str(name).encode("utf-8", "backslashreplace").decode()


def free_name(path: Path) -> Path:
    """Return a path, or if that is taken the first of path-2, path-3, ... that is not."""
    others = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(one for one in itertools.chain([path], others) if not one.exists())


def neighbor(path: Path, prefix: str, suffix: str) -> Path:
    """Return the file beside ``path`` whose name has a prefix and a suffix more.

    Cut, with a hash, if that is too long.
    """
    name, whole = path.name, os.fsencode(path.name)
    room = MAX_NAME_BYTES - len(os.fsencode(prefix + suffix))
    if len(whole) > room:
        while len(os.fsencode(name)) > room - 17:
            name = name[:-1]  # no half characters, which not every file system takes
        name += "-" + hashlib.sha256(whole).hexdigest()[:16]
    return path.with_name(prefix + name + suffix)


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
def held(lock: Path) -> Iterator[bool]:
    """Hold a lock file against all other processes. Raises `Timeout` at once if another process has it.

    Where the file system has no locks, this is said once, and the block runs without: it is given False.
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
    """Yield the place at which to write a regular file for the output ``path``.

    A link is followed, so that it stays. For a pipe, a device, or the file that standard output goes to, the place is
    in a temporary folder, and what lies there is sent to ``path`` when the block ends without an error. Raises
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
    """Whether what is written to ``path`` goes elsewhere: a pipe, a device, or the file standard output goes to."""
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

    ``mode`` is ``"w"`` (UTF-8 text, line feeds as given; half a surrogate, as of
    a file name, escaped) or ``"wb"``. Until then the bytes lie in a hidden folder
    beside it; after an error that folder is removed and what stood at ``path`` is untouched. Links, pipes and devices
    are written to as `destination` says.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with _named(path), destination(path) as place:
        with _scratch(place.parent) as scratch:
            with (scratch / NEW).open(mode, **text) as file:
                yield file
                file.flush()
                sync(file)
            (scratch / NEW).replace(place)
        _sync_folder(place.parent)


@contextmanager
def atomic_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes the name ``path`` only when the block ends without an error.

    Raises `OutputError` if ``path`` is there already and ``overwrite`` is false. With ``overwrite`` what is there is
    replaced, and stays until the new folder is complete: only a caller who knows whose it is may ask for that.
    """
    place = Path(os.path.realpath(path))
    if not overwrite:
        refuse_existing(path)
    with _named(path), _scratch(place.parent) as scratch:
        new, old = scratch / NEW, scratch / OLD
        new.mkdir()
        yield new
        usual = stat.S_IMODE((scratch / MARK).stat().st_mode)  # of a new file
        for file in new.rglob("*"):
            if file.is_file():
                if stat.S_IMODE(file.stat().st_mode) != usual:  # some writers keep their files to their owner
                    with hardening(msg("to set permissions"), file):
                        file.chmod(usual)
                sync_file(file)
        if not overwrite:
            refuse_existing(path)
        elif place.exists():
            place.replace(old)
        try:
            new.replace(place)
        except BaseException:
            if old.exists():
                old.replace(place)
            raise
    _sync_folder(place.parent)


def refuse_existing(path: Path) -> None:
    """Raise `OutputError` if there is anything at ``path``."""
    if Path(path).exists():
        raise OutputError("{path} already exists; choose another name, or use --overwrite", path=path)


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file only names one that Git LFS keeps elsewhere."""
    with Path(path).open("rb") as file:
        return file.read(len(_LFS)) == _LFS


_LFS = b"version https://git-lfs.github.com/spec/"


def remove_folder(path: Path) -> None:
    """Remove a folder so that it is never there in part; an error means that it is there, whole."""
    with _scratch(path.parent) as scratch:
        path.rename(scratch / OLD)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes left in ``folder`` that were killed while they wrote there.

    Only a folder with our name and our mark in it is removed, and only if no process holds it. Before its mark is
    written, and after it is removed, such a folder is empty but for the lock.
    """
    for scratch in folder.glob(f"{SCRATCH}*"):
        if scratch.is_symlink() or not scratch.is_dir():
            continue
        if (scratch / MARK).is_file() or {path.name for path in scratch.iterdir()} <= {LOCK}:
            with suppress(OSError, NotImplementedError):  # another process is at work there, or that cannot be known
                with FileLock(scratch / LOCK, timeout=0):
                    pass
                _empty(scratch)


def make_scratch(folder: Path, number: int) -> Path:
    """Make a hidden folder for files that several processes write: `remove_leftovers` knows it, ``number`` names it."""
    scratch = folder / f"{SCRATCH}{number:x}"
    scratch.mkdir(parents=True)
    write_mark(scratch, UNFINISHED)
    return scratch


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(text: str | bytes) -> Any:
    """Return the value of JSON text.

    Raises `ValueError` for all that is none, also for text nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(msg("it is nested too deeply")) from None


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented UTF-8 JSON, whole or not at all; a file name that is not UTF-8 in it comes back."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def write_mark(folder: Path, what: str) -> None:
    """Mark a hidden folder as ours, and say in the mark what it is."""
    (folder / MARK).write_text(f"{what}\n", encoding="utf-8")


def sync(file: IO[Any]) -> None:
    """Make a file's bytes durable, if the file system can."""
    with hardening(msg("fsync"), Path(str(file.name))):
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Make the bytes of a closed file durable, if the file system can."""
    with path.open("rb+") as file:
        sync(file)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder in ``folder`` for what is not complete; it is gone at the end.

    Its name is short whatever is written. A mark in it says whose it is, a lock that somebody is at work.
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
    """Remove a scratch folder, its mark last, so that what is left of it after a kill is still known."""
    for path in sorted(scratch.iterdir(), key=lambda path: path.name == MARK):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    scratch.rmdir()


@contextmanager
def hardening(what: str, path: Path, *also: int) -> Iterator[None]:
    """Pass over an error that says that a file system cannot do ``what``, which only makes things safer; say so once.

    ``also`` are more error numbers that say it.
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
    """Name ``path`` in errors of a scratch folder, and in that of a full disk: a write does not know where it went."""
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
    """Make a rename durable. Windows cannot open folders, and does not need it."""
    if os.name == "nt":
        return
    with hardening(msg("fsync of a folder"), path, errno.EACCES):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
