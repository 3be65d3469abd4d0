"""Files and folders appear whole or not at all, whatever interrupts them."""

import errno
import hashlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from training_helpers import start

from mamegpt.errors import OutputError
from mamegpt.system import files
from mamegpt.system.files import atomic_directory, atomic_write, refuse_existing, sha256_file, sync, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_text_is_written_as_utf8_with_the_line_ends_given(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "new" / "a.txt") as file:
        file.write("豆\r\n豆\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "豆\r\n豆\n".encode()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised, atomic_write(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(tmp_path / "a.txt")
    assert names(tmp_path) == []


def test_bytes_are_written_as_given(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.bin", "wb") as file:
        file.write(b"\x00\r\n\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n\xff"


def test_the_old_file_stands_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(error), atomic_write(path) as file:
        file.write("new")
        raise error
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text("豆", encoding="utf-8")
        assert not (tmp_path / "out").exists()
        assert folder.name.startswith(".")
    assert names(tmp_path) == ["out", "out/deep", "out/deep/a.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException], overwrite: bool
) -> None:
    if overwrite:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old.txt").write_text("old", encoding="utf-8")
    before = names(tmp_path)
    with pytest.raises(error), atomic_directory(tmp_path / "out", overwrite) as folder:
        (folder / "a.txt").write_text("new", encoding="utf-8")
        raise error
    assert names(tmp_path) == before


def test_an_existing_folder_is_refused_and_replaced_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"), atomic_directory(tmp_path / "out"):
        raise AssertionError("the block must not run")
    with atomic_directory(tmp_path / "out", overwrite=True) as folder:
        (folder / "new.txt").write_text("new", encoding="utf-8")
        assert names(tmp_path / "out") == ["old.txt"]
    assert names(tmp_path) == ["out", "out/new.txt"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old", encoding="utf-8")
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise PermissionError("another program holds it")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(PermissionError), atomic_directory(tmp_path / "out", overwrite=True) as folder:
        (folder / "new.txt").write_text("new", encoding="utf-8")
    assert names(tmp_path) == ["out", "out/old.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")
def test_on_a_mac_files_are_flushed_out_of_the_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    asked = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda handle, what: asked.append(what))
    with (tmp_path / "a.txt").open("w") as file:
        sync(file)
    assert asked == [51]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_what_appears_has_the_permissions_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain.txt").touch()
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("豆")
    with atomic_directory(tmp_path / "out") as folder:
        (folder / "b.txt").touch(mode=0o600)
    for mine, other in (("a.txt", "plain.txt"), ("out", "plain"), ("out/b.txt", "plain.txt")):
        assert stat.S_IMODE((tmp_path / mine).stat().st_mode) == stat.S_IMODE((tmp_path / other).stat().st_mode)


KILLED = """
import time
from pathlib import Path
from mamegpt.system.files import atomic_directory, atomic_write
with atomic_write(Path("a.txt")) as file, atomic_directory(Path("out")) as folder:
    (folder / "b.txt").write_text("half")
    file.write("half")
    file.flush()
    print("now", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_nothing_but_hidden_leftovers(tmp_path: Path) -> None:
    process = start("-c", KILLED, cwd=tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    process.kill()
    process.communicate()
    assert names(tmp_path) and all(name.startswith(".") for name in names(tmp_path))


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_json_is_readable_and_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"名": "豆", "n": [1, 0.1]})
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert "豆" in text and text.endswith("}\n") and "\r" not in text
    assert json.loads(text) == {"名": "豆", "n": [1, 0.1]}


def test_whatever_is_there_is_refused(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "nothing")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(OutputError, match="overwrite"):
            refuse_existing(path)


@pytest.mark.parametrize("winerror", [5, 32])
@pytest.mark.parametrize("write", [atomic_write, lambda path: atomic_directory(path, overwrite=True)])
def test_what_another_program_has_open_for_a_moment_is_replaced_after_it(
    write: Any, winerror: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows answers while a scanner or OneDrive reads a file."""
    replace, failures = Path.replace, [2]

    def held(self: Path, target: Path) -> Path:
        if failures[0]:
            failures[0] -= 1
            error = PermissionError(13, "Access is denied", str(self))
            error.winerror = winerror  # type: ignore[attr-defined,unused-ignore]
            raise error
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", held)
    monkeypatch.setattr(files, "WAITS_S", (0.0, 0.0))
    with write(tmp_path / "one"):
        pass
    assert failures == [0] and (tmp_path / "one").exists()

    failures[0] = 3
    with (
        pytest.raises(OutputError, match=r"two cannot be replaced: another program has it open"),
        write(tmp_path / "two"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_place_that_may_not_be_written_is_not_tried_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def refused(self: Path, target: Path) -> Path:
        tries.append(target)
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(PermissionError), atomic_write(tmp_path / "one"):
        pass
    assert tries == [tmp_path / "one"]
