"""Files that grow in steps, so that a process that is killed goes on where its last step ended."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import Timeout

from mamegpt.errors import OutputError
from mamegpt.system.files import MARK, held, neighbor, shown, sync, write_json, write_mark

__all__ = ["ResumableWriter", "resumable_writer"]

STATE = "state.json"
BUFFER_BYTES = 1 << 20


class ResumableWriter:
    """A hidden folder beside ``out`` with files to append to; see `resumable_writer`."""

    def __init__(self, folder: Path, settings: Any) -> None:
        self.folder = folder
        self._settings = json.loads(json.dumps(settings))
        self._files: dict[str, IO[bytes]] = {}
        self._lengths: dict[str, int] = {}
        self.names = {STATE, MARK}
        """The files that this work, or unfinished work before it, made in the folder."""
        self.state: Any = None
        """What the last step was told to remember; None before the first."""
        try:
            saved = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        self.names |= saved["lengths"].keys()
        if saved["settings"] == self._settings and all(
            (folder / name).is_file() and (folder / name).stat().st_size >= n for name, n in saved["lengths"].items()
        ):
            self.state, self._lengths = saved["state"], saved["lengths"]

    def open(self, name: str) -> IO[bytes]:
        """Return a file to append to; what was written to it after the last step is gone."""
        file = (self.folder / name).open("ab", BUFFER_BYTES)
        file.truncate(self._lengths.get(name, 0))
        file.seek(0, os.SEEK_END)  # an appending file goes on telling its old end
        self._files[name] = file
        self.names.add(name)
        return file

    def step(self, state: Any) -> None:
        """Make all that was written up to now last, and ``state`` with it (JSON)."""
        for file in self._files.values():
            file.flush()
            sync(file)
        self.state = state
        lengths = {name: file.tell() for name, file in self._files.items()}
        write_json(self.folder / STATE, {"settings": self._settings, "lengths": lengths, "state": state})

    def forget(self) -> None:
        """Begin anew: no earlier step counts."""
        self.state, self._lengths = None, {}

    def take(self, name: str, out: Path) -> None:
        """Close one of the files and give it the name ``out``; no step counts any more."""
        with self._files.pop(name) as file:
            file.flush()
            sync(file)
        (self.folder / STATE).unlink(missing_ok=True)
        (self.folder / name).replace(out)

    def close(self) -> None:
        """Close all files, those after one that cannot be flushed too."""
        with ExitStack() as files:
            for file in self._files.values():
                files.callback(file.close)


@contextmanager
def resumable_writer(out: Path, settings: Any) -> Iterator[ResumableWriter]:
    """Yield what stands beside ``out`` of unfinished work with the same ``settings`` (JSON), or a fresh start.

    The folder is gone when the block has ended well, or badly before any step was made. Raises `OutputError` if
    another process is at it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = neighbor(out, ".", ".unfinished")
    folder.mkdir(exist_ok=True)
    lock, over = folder / "lock", False
    names = {path.name for path in folder.iterdir()}
    if names and names.isdisjoint({MARK, lock.name}):
        raise OutputError(f"{folder} would be used, and is no unfinished work of mamegpt; move it away")
    try:
        with held(lock):
            write_mark(folder, f"unfinished work of mamegpt on {shown(out.name)}")
            work = ResumableWriter(folder, settings)
            try:
                yield work
                over = True
            finally:
                over = over or work.state is None
                try:
                    work.close()  # on a full disk an error, too
                finally:
                    if over:
                        (folder / STATE).unlink(missing_ok=True)  # first, since it speaks of the others
                        for name in work.names:
                            (folder / name).unlink(missing_ok=True)
    except Timeout as error:
        raise OutputError(f"{out} is being written by another process; wait for it, or choose another name") from error
    finally:
        if over:
            with suppress(OSError):  # another process may have come
                lock.unlink(missing_ok=True)
                folder.rmdir()
