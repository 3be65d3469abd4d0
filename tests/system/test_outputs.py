"""Nothing of the user's is destroyed: what a command may write to, and what of it is ever removed."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Mame
from little import Little
from training_helpers import TINY, environment, tiny

from mamegpt.cli.original import train_original
from mamegpt.config import TrainConfig
from mamegpt.data.clean.clean import clean
from mamegpt.data.extract.extract import extract
from mamegpt.errors import CheckpointError, MamegptWarning, OutputError
from mamegpt.exporting.publish import export
from mamegpt.run import checkpoint
from mamegpt.run.run import Run, checkpoints
from mamegpt.system import files
from mamegpt.system.files import (
    MARK,
    SCRATCH,
    atomic_directory,
    atomic_write,
    make_scratch,
    neighbor,
    remove_folder,
    remove_leftovers,
    write_json,
)
from mamegpt.system.outputs import check_folder, check_outputs, export_mark
from mamegpt.tokenizer.tokenizer import train_tokenizer
from mamegpt.training import setup
from mamegpt.training.events import Event, Started
from mamegpt.training.trainer import train

TEXT = "【犬】\n犬がいる。\n\n【猫】\n猫と犬がいる。\n\n"
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


def content(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder, with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


# What is removed


def test_hidden_names_that_look_like_leftovers_stay(little: Little, tmp_path: Path) -> None:
    for name in (".venv.old", ".config.old", ".mamegpt-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine", encoding="utf-8")
    for name in (".env.old", ".draft.partial", ".keep.txt"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
    before = content(tmp_path)
    for data in ("mistyped.txt", str(little.text)):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        config = tiny(Path(data), little.spm, tmp_path, max_steps=1)
        if data == "mistyped.txt":
            with pytest.raises(Exception, match="mistyped"):
                train(config, watchers=())
        else:
            train(config, watchers=())
        assert content(tmp_path).items() >= before.items()


def test_a_leftover_in_use_stays_until_its_process_is_gone(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("half", encoding="utf-8")
        remove_leftovers(tmp_path)
        assert (folder / "a.txt").is_file()
    (left := make_scratch(tmp_path, 5)).joinpath("model").mkdir()
    remove_leftovers(tmp_path)
    assert not left.exists() and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("written", [[], [".lock"], [".lock", MARK]])
def test_a_leftover_of_a_process_killed_before_its_first_file_is_removed(written: list[str], tmp_path: Path) -> None:
    (left := tmp_path / f"{SCRATCH}a").mkdir()
    for name in written:
        (left / name).touch()
    remove_leftovers(tmp_path)
    assert not left.exists()


def test_a_folder_that_was_being_replaced_stays(tmp_path: Path) -> None:
    """Its process was killed between two renames: the old version has no other place."""
    left = make_scratch(tmp_path, 5)
    for name in (".partial", ".old"):
        (left / name).mkdir()
    remove_leftovers(tmp_path)
    assert (left / ".old").is_dir()
    (left / ".partial").rmdir()  # as after the second rename
    remove_leftovers(tmp_path)
    assert not left.exists()


def test_a_link_named_like_a_leftover_stays(tmp_path: Path) -> None:
    target = make_scratch(tmp_path / "elsewhere", 5)
    (tmp_path / ".mamegpt-5").symlink_to(target)
    remove_leftovers(tmp_path)
    assert target.is_dir() and (tmp_path / ".mamegpt-5").is_symlink()


def test_a_checkpoint_that_somebody_put_a_file_into_is_kept(tmp_path: Path) -> None:
    for step in range(1, 5):
        (tmp_path / f"step-0000000{step}").mkdir()
        (tmp_path / f"step-0000000{step}" / "state.json").touch()
    (tmp_path / "step-00000001" / "notes.txt").write_text("the best", encoding="utf-8")
    checkpoint._rotate(tmp_path, 2, None)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["1", "3", "4"]


def test_a_checkpoint_to_be_removed_that_somebody_put_a_file_into_is_renamed(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"step-0000000{step}").mkdir()
        (tmp_path / f"step-0000000{step}" / "state.json").touch()
    (tmp_path / "step-00000002" / "notes.txt").write_text("the best", encoding="utf-8")
    checkpoint.remove(path for _, path in checkpoints(tmp_path))
    assert (tmp_path / "kept-step-00000002" / "notes.txt").read_text(encoding="utf-8") == "the best"
    assert [path.name for path in tmp_path.iterdir()] == ["kept-step-00000002"]


def test_without_locks_a_folder_with_a_run_in_it_is_not_used_again(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(little.text, little.spm, tmp_path / "run", max_steps=2)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", config.to_dict())  # what another process has just begun
    (tmp_path / "run" / ".lock").touch()

    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.FileLock, "acquire", no_locks)
    with pytest.raises(OutputError, match="already exists"), pytest.warns(MamegptWarning, match="a lock"):
        monkeypatch.setattr(files, "_warned", set())
        train(config, watchers=())
    assert (tmp_path / "run" / "config.json").is_file()


def test_another_file_with_the_name_of_the_note_on_the_origin_stays(corpus: Path, tmp_path: Path) -> None:
    note = tmp_path / "out.txt.origin.json"
    for theirs in ("mine", "[1]", '{"n_bytes": 1}'):
        note.write_text(theirs, encoding="utf-8")
        for write in (
            lambda out: extract(str(corpus), "犬", out),
            lambda out: clean(str(corpus), out, without=["short"]),
        ):
            with pytest.raises(OutputError, match="is not the provenance"):
                write(tmp_path / "out.txt")
        assert note.read_text(encoding="utf-8") == theirs and not (tmp_path / "out.txt").exists()
    note.unlink()
    for _ in range(2):  # a note of ours is replaced
        extract(str(corpus), "犬", tmp_path / "out.txt", overwrite=True)
    assert json.loads(note.read_text(encoding="utf-8"))["steps"]


# A folder that is replaced


def exported(folder: Path, **names: str) -> Path:
    """A folder as an export writes it."""
    folder.mkdir(parents=True)
    for name, text in (names or {"config_json": "{}", "model_safetensors": "weights"}).items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    card = "---\ntags:\n- mamegpt\n---\n"
    (folder / "README.md").write_text(card + export_mark(folder, card), encoding="utf-8")
    return folder


def test_what_an_export_wrote_is_replaced_and_all_else_is_not(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    with pytest.raises(OutputError, match="already exists"):
        check_folder(exported(tmp_path / "a"))
    check_folder(tmp_path / "a", overwrite=True)
    (tmp_path / "a" / ".DS_Store").touch()
    check_folder(tmp_path / "a", overwrite=True)
    changes: list[Callable[[Path], object]] = [
        lambda folder: (folder / "notes.txt").touch(),
        lambda folder: (folder / ".hidden").touch(),
        lambda folder: (folder / "sub").mkdir(),
        lambda folder: (folder / "sub" / "deep").mkdir(parents=True),
        lambda folder: (folder / "link").symlink_to(tmp_path),
        lambda folder: (folder / "config.json").write_text("{1}", encoding="utf-8"),
        lambda folder: (folder / "model.safetensors").write_text("tuned", encoding="utf-8"),
        lambda folder: (folder / "README.md").write_text("# my card\n", encoding="utf-8"),
        lambda folder: (folder / "README.md").write_text("- mamegpt\n", encoding="utf-8"),
    ]
    for number, change in enumerate(changes):
        change(folder := exported(tmp_path / f"b{number}"))
        before = content(folder)
        with pytest.raises(OutputError, match="not as an export wrote it"):
            check_folder(folder, overwrite=True)
        assert content(folder) == before


def test_folders_that_are_no_export_are_refused(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty", overwrite=True)
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "notes.txt").touch()
    exported(tmp_path / "many" / "hf")
    exported(tmp_path / "many" / "gguf", a_gguf="x")
    for name in ("mine", "many"):  # the second holds what two exports wrote, and none wrote it as a whole
        with pytest.raises(OutputError, match="not as an export wrote it"):
            check_folder(tmp_path / name, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        check_folder(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match=r"x would lie in the run"):
        check_folder(little.run / "x")
    with pytest.raises(OutputError, match=r"hf is in it"):
        check_folder(tmp_path / "many" / "hf", [tmp_path / "many" / "hf"], overwrite=True)
    with pytest.raises(OutputError, match=r"config\.json is in it"):
        check_folder(tmp_path / "many" / "hf", [str(tmp_path / "many" / "hf" / "config.json")], overwrite=True)
    monkeypatch.chdir(tmp_path / "many" / "hf")
    for name in (".", "../hf"):
        with pytest.raises(OutputError, match="the current folder is in it"):
            check_folder(Path(name), overwrite=True)


def test_an_older_export_is_known_by_its_card_and_the_names_of_its_files(tmp_path: Path) -> None:
    def old(folder: Path) -> Path:
        card = (exported(folder) / "README.md").read_text(encoding="utf-8")
        (folder / "README.md").write_text(card.partition("<!--")[0], encoding="utf-8")
        return folder

    check_folder(old(tmp_path / "a"), overwrite=True)
    for target in ("hf", "hf-native", "gguf"):
        old(tmp_path / "all" / target)
    check_folder(tmp_path / "all", overwrite=True)
    for name in ("notes.txt", "checkpoints", "trainer_state.json"):
        (old(tmp_path / name) / name).touch()
        with pytest.raises(OutputError, match="not as an export wrote it"):
            check_folder(tmp_path / name, overwrite=True)


def test_an_export_replaces_neither_its_run_nor_the_folder_of_runs(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "other"):
        shutil.copytree(little.run, tmp_path / "runs" / name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "mine")
    before, run = content(tmp_path), str(tmp_path / "runs" / "first")
    for out in (run, tmp_path / "runs", tmp_path / "runs" / "other", Path("../mine"), Path(f"{run}/tokens/hf")):
        with pytest.raises(OutputError):
            export(run, Path(out), overwrite=True)
    assert content(tmp_path) == before


# A file that is written


def test_no_output_is_an_input(corpus: Path, tmp_path: Path, mame: Mame) -> None:
    os.link(corpus, tmp_path / "hard.txt")
    (tmp_path / "soft.txt").symlink_to(corpus)
    (tmp_path / "up").symlink_to(tmp_path)
    for same in (corpus, tmp_path / "hard.txt", tmp_path / "soft.txt", tmp_path / "up" / "corpus.txt"):
        for words in (
            ["extract", "--dataset", corpus, "--keyword", "犬", "--out", same],
            ["clean", "--data", corpus, "--out", same, "--overwrite"],
            ["eval", "--model", "none", "--data", corpus, "--split", "train", "--out", same],
        ):
            code, _, error = mame(*words)
            assert code == 2 and "is also read; give another name" in error, words
    assert corpus.read_text(encoding="utf-8") == TEXT


def test_no_output_is_named_twice(tmp_path: Path) -> None:
    (tmp_path / "up").symlink_to(tmp_path)
    for twin in ("a.txt", "up/a.txt", "A.txt"):  # the last is one file where upper case is no other name
        with pytest.raises(OutputError, match="is named twice"):
            check_outputs([tmp_path / "a.txt", None, tmp_path / twin])
    check_outputs([tmp_path / "a.txt", tmp_path / "b.txt"])


# fmt: off
RUN_NAMES = [
    "config.json", "metrics.jsonl", "tokens/meta.json", "tokens/new.txt", "checkpoints/x", "evaluation.json",
    "extensions.json",
]
# fmt: on


@pytest.mark.parametrize("name", RUN_NAMES)
def test_no_output_is_a_file_of_a_run(little: Little, tmp_path: Path, mame: Mame, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(little.run, run)
    before = content(run)
    for words in (
        ["eval", "--model", run, "--out", run / name],
        ["eval", "--model", little.exported, "--out", run / name],
        ["report", run, "--out", run / name],
    ):
        code, _, error = mame(*words)
        assert code == 2 and error.count("\n") == 1 and "belongs to the run" in error, error
    with pytest.raises(OutputError, match="belongs to the run"):
        extract(str(little.text), "豆", run / name, overwrite=True)
    if name == "config.json":
        (run / "CONFIG.JSON").symlink_to("config.json")  # the same file, as where upper case is no other name
        with pytest.raises(OutputError, match="belongs to the run"):
            check_outputs([run / "CONFIG.JSON"])
        (run / "CONFIG.JSON").unlink()
    for free in ("report.html", "numbers.json"):
        (run / free).touch()
        check_outputs([run / free], [run])  # of an earlier call, and read by nobody
        (run / free).unlink()
    assert content(run) == before


def test_no_output_is_a_file_of_the_model(little: Little, tmp_path: Path) -> None:
    shutil.copytree(little.exported, tmp_path / "hf")
    os.link(tmp_path / "hf" / "config.json", tmp_path / "other.json")
    for same in ("hf/config.json", "other.json"):
        with pytest.raises(OutputError, match="is also read"):
            check_outputs([tmp_path / same], [tmp_path / "hf", "owner/name"])


def test_a_tokenizer_and_weights_are_not_written_over_what_is_read(little: Little, tmp_path: Path, mame: Mame) -> None:
    shutil.copy(little.text, tmp_path / "a.txt")
    os.link(tmp_path / "a.txt", tmp_path / "tok.vocab")
    code, _, error = mame("tokenizer", "--data", tmp_path / "a.txt", "--out", tmp_path / "tok", "--overwrite")
    assert code == 2 and "tok.vocab is also read" in error
    with pytest.raises(OutputError, match="is also read"):
        train_original(tmp_path / "a.txt", little.spm, tmp_path / "tok.vocab")


# Links, pipes, devices


def test_a_link_stays_and_its_target_is_written(corpus: Path, tmp_path: Path) -> None:
    for target in ("there.txt", "new.txt"):
        (tmp_path / f"to-{target}").symlink_to(target)
    (tmp_path / "there.txt").write_text("old", encoding="utf-8")
    for target in ("there.txt", "new.txt"):
        extract(str(corpus), "犬", tmp_path / f"to-{target}", overwrite=True)
        assert (tmp_path / f"to-{target}").is_symlink() and (tmp_path / target).read_text(encoding="utf-8") == TEXT
        write_json(tmp_path / f"to-{target}", [1])
        assert (tmp_path / f"to-{target}").is_symlink() and (tmp_path / target).read_text(
            encoding="utf-8"
        ) == "[\n  1\n]\n"
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    with atomic_directory(tmp_path / "folder", overwrite=True) as folder:
        (folder / "a").touch()
    assert (tmp_path / "folder").is_symlink() and (tmp_path / "real" / "a").is_file()


def read_meanwhile(pipe: Path, write: Callable[[], object]) -> bytes:
    """What a reader of a pipe gets while something is written."""
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write()
    reader.join()
    return got[0]


@posix
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_a_pipe_is_written_through(corpus: Path, tmp_path: Path, suffix: str) -> None:
    os.mkfifo(pipe := tmp_path / f"pipe{suffix}")
    for write in (
        lambda out: extract(str(corpus), "犬", out),
        lambda out: clean(str(corpus), out, without=["short"]),
    ):
        write(plain := tmp_path / "plain" / f"plain{suffix}")
        assert read_meanwhile(pipe, lambda write=write: write(pipe)) == plain.read_bytes()
        shutil.rmtree(plain.parent)
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", pipe.name]


@posix
def test_nothing_is_sent_to_a_pipe_if_the_work_fails(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ValueError), atomic_write(pipe) as file:
        file.write("half")
        raise ValueError
    assert os.read(handle, 9) == b""
    os.close(handle)


@posix
@pytest.mark.parametrize("redirection", [">", ">>"])
def test_standard_output_is_written_to_as_it_was_opened(corpus: Path, tmp_path: Path, redirection: str) -> None:
    log = tmp_path / "log.txt"
    log.write_text("before\n", encoding="utf-8")
    words = f"-m mamegpt extract --dataset {corpus} --keyword 犬 --out /dev/stdout {redirection} {log}"
    subprocess.run(f"{sys.executable} {words}", shell=True, check=True, cwd=tmp_path, env=environment())
    printed = log.read_text(encoding="utf-8")
    assert printed.startswith("before\n") == (redirection == ">>") and TEXT in printed and "next: " in printed


@posix
def test_devices_and_sockets_are_never_replaced(tmp_path: Path) -> None:
    device = Path(os.devnull).stat()
    write_json(Path(os.devnull), [1])
    with atomic_write(Path(os.devnull), "wb") as file:
        file.write(b"x")
    assert os.path.samestat(device, Path(os.devnull).stat())
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OutputError, match="is a socket or a disk"):
            write_json(tmp_path / "socket", [1])
    with pytest.raises(OutputError, match="is a folder"):
        write_json(tmp_path, [1])


# What is decided under the lock


def test_a_run_that_ended_meanwhile_is_not_touched(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    look = setup._refuse_taken

    def late(folder: Path, config: TrainConfig) -> None:
        look(folder, config)
        monkeypatch.setattr(setup, "_refuse_taken", look)
        train(tiny(little.text, little.spm, run), watchers=())  # another process, that looked before and is done
        late.before = content(run)  # type: ignore[attr-defined]

    monkeypatch.setattr(setup, "_refuse_taken", late)
    with pytest.raises(OutputError, match="already exists"):
        train(tiny(little.text, little.spm, run, seed=7), watchers=())
    assert content(run) == late.before  # type: ignore[attr-defined]


@pytest.mark.parametrize("gone", ["tokens", "tokenizer.model", ""])
def test_a_refused_resume_changes_nothing(little: Little, tmp_path: Path, gone: str) -> None:
    text, run = tmp_path / "a.txt", tmp_path / "run"
    shutil.copy(little.text, text)
    spm = train_tokenizer([text.read_text(encoding="utf-8")], tmp_path / "tok", vocab_size=800).path
    config = tiny(text, spm, run)
    train(config, watchers=())
    if gone == "tokens":
        shutil.rmtree(run / gone)
        text.write_text(text.read_text(encoding="utf-8") + TEXT, encoding="utf-8")
    elif gone:
        (run / gone).unlink()
        train_tokenizer([TEXT * 9, little.text.read_text(encoding="utf-8")], spm, vocab_size=790, overwrite=True)
    else:
        (run / "checkpoints" / "step-00000012" / "model.safetensors").unlink()
    before = content(run)
    with pytest.raises(CheckpointError, match=f"other {gone.partition('.')[0]} than" if gone else "missing or damaged"):
        train(dataclasses.replace(config, on_bad_loss="stop"), resume=True, watchers=())
    assert content(run) == before


def test_the_folder_of_a_run_without_a_checkpoint_is_used_again(little: Little, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tiny(little.text, little.spm, run, seed=1)

    def fails(event: Event) -> None:
        if isinstance(event, Started):
            raise MemoryError("as on a small machine")

    for times in range(2):
        with pytest.raises(MemoryError):
            train(tiny(little.text, little.spm, run, seed=times + 5), watchers=(fails,))
        assert (run / "tokens" / "meta.json").is_file() and not any((run / "checkpoints").glob("*"))
    train(config, watchers=())
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["seed"] == 1
    train(tiny(little.text, little.spm, tmp_path / "straight", seed=1), watchers=())
    step = "checkpoints/step-00000012/model.safetensors"
    assert (run / step).read_bytes() == (tmp_path / "straight" / step).read_bytes()


@pytest.mark.parametrize("name", ["tokens", "tokenizer.model", "checkpoints/step-00000000"])
def test_one_that_the_new_run_reads_is_not_used_again(little: Little, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    init_from = str(little.run) if "step" in name else ""
    started = dataclasses.replace(TrainConfig.load(little.run / "config.json"), out=str(run), init_from=init_from)

    def fails(event: Event) -> None:
        if isinstance(event, Started):
            raise MemoryError("as on a small machine")

    with pytest.raises(MemoryError):
        train(started, watchers=(fails,))
    before = content(run)
    setting = {"tokens": "data", "tokenizer.model": "tokenizer"}.get(name, "init_from")
    with pytest.raises(OutputError, match=f"{name} is in it; choose another name"):
        train(dataclasses.replace(started, **{setting: str(run / name)}), watchers=())
    assert content(run) == before


@pytest.mark.parametrize("name", ["notes.txt", "tokens/notes.txt", "evaluation.json"])
def test_with_a_file_of_another_it_is_not(little: Little, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").touch()
    write_json(run / "config.json", tiny(little.text, little.spm, run).to_dict())
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("mine", encoding="utf-8")
    before = content(run)
    with pytest.raises(OutputError, match="already exists"):
        train(tiny(little.text, little.spm, run), watchers=())
    assert content(run) == before


def test_a_finished_run_of_which_somebody_removed_the_checkpoints_is_not(little: Little, tmp_path: Path) -> None:
    config = tiny(little.text, little.spm, tmp_path / "run", max_steps=2, save_every_steps=250)
    train(config, watchers=())
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = content(tmp_path / "run")
    with pytest.raises(OutputError, match="already exists"):
        train(config, watchers=())
    assert content(tmp_path / "run") == before


def test_settings_alone_are_no_run_of_ours(little: Little, tmp_path: Path) -> None:
    shutil.copy(little.run / "config.json", tmp_path / "config.json")  # kept by somebody, so there is no lock
    with pytest.raises(OutputError, match="already exists"):
        train(tiny(little.text, little.spm, tmp_path), watchers=())


# File systems that cannot


CANNOT = [errno.EINVAL, errno.EPERM, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


@posix
@pytest.mark.parametrize("number", CANNOT)
def test_what_only_makes_safer_is_passed_over_with_one_warning(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def cannot(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_warned", set())
    monkeypatch.setattr(os, "fsync", cannot)
    monkeypatch.setattr(os, "chmod", cannot)
    monkeypatch.setattr(Path, "chmod", cannot)
    if number != errno.ENOSYS:  # for which filelock has an answer of its own
        monkeypatch.setattr(fcntl, "flock", cannot)
    with pytest.warns(MamegptWarning) as said:
        train(tiny(little.text, little.spm, tmp_path / "run", keep_checkpoints=1), watchers=())
    assert len(Run(tmp_path / "run").checkpoints()) == 1
    printed = "\n".join(str(warning.message) for warning in said)
    for what in ("fsync of a folder", "fsync", *(["a lock"] if number != errno.ENOSYS else [])):
        assert printed.count(f": {what} is not possible here") == 1, printed


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def broken(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_json(tmp_path / "a.json", [1])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOTEMPTY])
def test_a_checkpoint_that_cannot_be_removed_does_not_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def held(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for step in (1, 2):
        (tmp_path / f"step-{step}").mkdir()
        (tmp_path / f"step-{step}" / "state.json").touch()
    (tmp_path / "step-3").mkdir()
    for call in ((Path, "replace"), (shutil, "rmtree")):
        monkeypatch.setattr(files, "_warned", set())
        with monkeypatch.context() as patch, pytest.warns(MamegptWarning, match="to remove a folder is not possible"):
            patch.setattr(*call, held)
            checkpoint._rotate(tmp_path, 2 if call[0] is Path else 1, None)
        assert [path.name for _, path in checkpoints(tmp_path)] == (
            ["step-1", "step-2", "step-3"] if call[0] is Path else ["step-3"]
        )
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-3"]
    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(number)):
        patch.setattr(Path, "replace", held)
        remove_folder(tmp_path / "step-3")  # as a way back needs it


@posix
@pytest.mark.parametrize("length", [200, 240, 243, 250, 255])
def test_long_names(corpus: Path, tmp_path: Path, length: int) -> None:
    def name(suffix: str) -> Path:
        n_characters, n_bytes = divmod(length - len(suffix), 3)
        return tmp_path / f"{'豆' * n_characters}{'x' * n_bytes}{suffix}"

    assert len(os.fsencode(name(".jsonl").name)) == length
    extract(str(corpus), "犬", name(".jsonl"))
    clean(str(name(".jsonl")), name(".txt"), without=["short"], write_dropped=name("-d.jsonl"), report=name(".html"))
    write_json(name(".json"), [1])
    with atomic_directory(name("")) as folder:
        (folder / "a").touch()
    notes = [path for path in tmp_path.iterdir() if path.name.endswith(".origin.json")]
    assert len(notes) == 2 and all("extract" in note.read_text(encoding="utf-8") for note in notes)


def test_neighbors_of_short_names_have_them_and_of_long_ones_differ(tmp_path: Path) -> None:
    assert neighbor(tmp_path / "a.txt", ".", ".unfinished").name == ".a.txt.unfinished"
    ends = {neighbor(tmp_path / ("a" * 254 + end), "", ".origin.json").name for end in "bc"}
    assert len(ends) == 2 and {len(name) for name in ends} == {255}
    for n in (82, 83, 84):  # no half characters, which macOS and Windows do not take
        neighbor(tmp_path / ("豆" * n + "xx"), ".", ".unfinished").name.encode()


# Names that are not UTF-8


SJIS = os.fsdecode("犬".encode("cp932"))
"""As Python holds a name from an old archive: half surrogates."""


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A folder with such a name, if the file system has them."""
    try:
        (tmp_path / SJIS).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    return tmp_path / SJIS


def test_names_that_are_not_utf_8_are_names(little: Little, named: Path, tmp_path: Path, mame: Mame) -> None:
    text, spm, run = named / f"{SJIS}.txt", named / f"{SJIS}.model", tmp_path / "run"
    shutil.copy(little.text, text)
    code, _, error = mame("tokenizer", "--data", text, "--out", named / SJIS, "--vocab-size", 800)
    assert (code, error) == (0, "") and spm.is_file()
    config = tiny(text, spm, run, max_steps=2, eval_every_steps=2, save_every_steps=2)
    words = [
        word
        for item in config.to_dict().items()
        if item[0] in TINY
        for word in ("--" + item[0].replace("_", "-"), item[1])
    ]
    code, _, error = mame(
        "train", "--data", text, "--tokenizer", spm, "--out", run, *words, "--max-steps", 2, "--report"
    )
    assert code == 0, error
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["data"] == str(text)
    for command in (
        ["extract", "--dataset", text, "--keyword", "豆", "--out", named / f"{SJIS}.jsonl"],
        ["clean", "--data", text, "--out", named / "c.txt", "--report", named / "c.html"],
        ["eval", "--model", run, "--max-characters", 500, "--out", named / "e.json"],
        ["report", run, "--out", named / "r.html"],
        ["train", "--resume", run, "--json"],
    ):
        code, _, error = mame(*command)
        assert code == 0, error


def test_no_weights_are_written_where_they_cannot_be_read(little: Little, named: Path, mame: Mame) -> None:
    for words in (
        ["train", "--data", little.text, "--tokenizer", little.spm, "--out", named / "run"],
        ["export", "--model", little.run, "--out", named / "hf"],
    ):
        code, _, error = mame(*words)
        assert code == 2 and error.count("\n") == 1 and "weights in such a folder cannot be read" in error
    assert list(named.iterdir()) == []


def test_words_that_are_not_utf_8_are_refused_in_one_line(little: Little, tmp_path: Path, mame: Mame) -> None:
    for option in ("--keyword", "--exclude", "--regex"):
        words = ["--regex", "豆"] if option == "--exclude" else []
        code, _, error = mame("extract", "--dataset", little.text, *words, option, SJIS, "--out", tmp_path / "o.txt")
        assert code == 2 and error.count("\n") == 1 and r"'\udc8c\udca2' is not UTF-8" in error
    assert list(tmp_path.iterdir()) == []
