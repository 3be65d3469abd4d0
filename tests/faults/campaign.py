"""What is lost when a training run meets bad luck? Nothing may be.

    make faults                                           # 200 kills, some minutes
    python -m tests.faults.campaign [--kills 200] [--flips 20] [--disks 12] [--seed 0] [--out FILE]

A tiny model is trained, and the run is

- killed (SIGKILL, by itself) at random moments, half of them moments on the clock, half at a random file operation
  (so also between two renames), and gone on with each time. After every death the newest checkpoint must be intact and
  no older than the last one that was reported saved; at its end a run must equal, byte for byte, one never killed;
- given a run folder in which one bit of one file is flipped, or one file is gone: it must refuse in one line, or end
  as if nothing had happened;
- given a disk that becomes full, and then larger again, or read-only (a tmpfs; needs root);
- started twice in one folder, and under a clock that goes back.

Every life is a fork of one process that has loaded the libraries, so that a life takes a fraction of a second. A killed
process loses nothing that the kernel has; that data survives a power cut rests on fsync, which is called but not
tested here. Results go to ``tests/faults/results.json``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from mamegpt.config import TrainConfig
from mamegpt.data.shards import write_shards
from mamegpt.data.stories import stories
from mamegpt.errors import MamegptError
from mamegpt.run import checkpoint
from mamegpt.run.run import Run
from mamegpt.system.files import write_json
from mamegpt.system.run_files import CONFIG_FILE, METRICS_FILE
from mamegpt.text.articles import format_article
from mamegpt.tokenizer.tokenizer import train_tokenizer
from mamegpt.training import setup, trainer, validation
from mamegpt.training.metrics import Metrics

RESULTS = Path(__file__).with_name("results.json")
REFUSED, CRASHED, KILLED = 2, 3, -signal.SIGKILL
LONGEST_LIFE_S = 1.5
MOST_EVENTS = 250
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree"}
PLACES: tuple[tuple[Callable[..., Any], str], ...] = (
    (validation.evaluate, "evaluation"),
    (shutil.rmtree, "rotation, clean-up"),
    (Path.replace, "rename"),
    (Path.rename, "rename"),
    (checkpoint._write, "save"),
    (checkpoint.Saver.save, "save"),
    (Metrics.flush, "metrics"),
    (write_shards, "tokenizing"),
    (checkpoint.load, "loading"),
    (trainer._train, "step, start"),
)
"""Functions, and what a run does in them; the first that is found on the stack says where a life ended."""

Dice = random.Random
Before = Callable[[int], None]


@dataclasses.dataclass
class Life:
    """How one process ended: its exit code, the last step it reported saved, where it was killed, what it said."""

    code: int
    saved: int = 0
    where: str = ""
    message: str = ""


def live(config: TrainConfig, before: Before | None = None) -> Life:
    """Train, or go on, in a process of its own; ``before`` is called there first, with a pipe to report to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(_train(config, before, writer))
    os.close(writer)
    life = Life(0)
    with os.fdopen(reader, encoding="utf-8") as reports:
        for line in reports:
            for name, value in json.loads(line).items():
                setattr(life, name, value)
    _, status = os.waitpid(child, 0)
    life.code = os.waitstatus_to_exitcode(status)
    return life


def _train(config: TrainConfig, before: Before | None, writer: int) -> int:
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        write = checkpoint._write

        def reported(*arguments: Any) -> Path:
            path = write(*arguments)
            report(writer, saved=arguments[3].step)
            return path

        checkpoint._write = reported
        if before is not None:
            before(writer)
        trainer.train(config, resume=(Path(config.out) / CONFIG_FILE).exists())
    except (MamegptError, OSError) as error:
        report(writer, message=f"{type(error).__name__}: {error}")
        return REFUSED
    except BaseException:
        report(writer, message=traceback.format_exc())
        return CRASHED
    return 0


def report(writer: int, **facts: Any) -> None:
    os.write(writer, (json.dumps(facts) + "\n").encode())


# ---------------------------------------------------------------- kill -9


def killed_at_a_moment(delay_s: float) -> Before:
    """Die ``delay_s`` after the start."""

    def before(writer: int) -> None:
        def die() -> None:
            time.sleep(delay_s)
            others = [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]
            die_here(writer, *others)

        sys.setswitchinterval(1e-5)
        threading.Thread(target=die, daemon=True).start()

    return before


def killed_at_an_event(number: int) -> Before:
    """Die just before the ``number``-th operation on files."""

    def before(writer: int) -> None:
        left = number

        def hook(event: str, _arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in FILE_EVENTS:
                left -= 1
                if left == 0:
                    die_here(writer, sys._getframe())

        sys.addaudithook(hook)

    return before


def die_here(writer: int, *frames: FrameType) -> None:
    codes = {one.f_code for frame in frames for one, _ in traceback.walk_stack(frame)}
    report(writer, where=next((place for function, place in PLACES if function.__code__ in codes), "start"))
    os.kill(os.getpid(), signal.SIGKILL)


def kill_campaign(config: TrainConfig, straight: Path, n_kills: int, dice: Dice, folder: Path) -> dict[str, Any]:
    """Kill runs until there were ``n_kills``, each run let go on until it is done."""
    places: collections.Counter[str] = collections.Counter()
    n_runs = n_equal = 0
    faults: list[str] = []
    while places.total() < n_kills or n_runs == 0:
        run = folder / f"killed-{n_runs}"
        saved, code = 0, KILLED
        while code == KILLED:
            before = None
            if places.total() < n_kills:
                if dice.random() < 0.5:
                    before = killed_at_a_moment(dice.uniform(0, LONGEST_LIFE_S))
                else:
                    before = killed_at_an_event(dice.randint(1, MOST_EVENTS))
            life = live(dataclasses.replace(config, out=str(run)), before)
            code, saved = life.code, max(saved, life.saved)
            if code == KILLED:
                places[life.where] += 1
                faults += lost(run, saved)
            elif code:
                faults.append(life.message)
        n_runs += 1
        n_equal += (equal := same(run, straight))
        if not equal:
            faults.append(f"{run.name} ended otherwise than the run that was not killed")
        shutil.rmtree(run)
    return {
        "kills": places.total(),
        "where": dict(places.most_common()),
        "runs": n_runs,
        "runs equal": n_equal,
        "faults": faults,
    }


def lost(run: Path, saved: int) -> list[str]:
    """What is wrong with the checkpoints of a run that has just been killed, after ``saved`` was reported saved."""
    if not Run(run).is_begun and not saved:
        return []  # killed before there was a run
    try:
        steps = [checkpoint.verify(path).step for _, path in Run(run).checkpoints()]
    except MamegptError as error:
        return [f"damaged by a kill: {error}"]
    newest = max(steps, default=0)
    return [f"step {saved} was reported saved, but {newest} is the newest"] if newest < saved else []


def same(run: Path, straight: Path) -> bool:
    """Whether two finished runs have the same bytes of weights and optimizer, and the same losses and validations."""
    newest, expected = Run(run).latest(), Run(straight).latest()
    if not newest or not expected or newest.step != expected.step:
        return False
    files = (checkpoint.MODEL_FILE, checkpoint.OPTIMIZER_FILE)
    if any((newest.path / name).read_bytes() != (expected.path / name).read_bytes() for name in files):
        return False
    mine, its = told(run), told(straight)
    return len(mine) > 0 and mine == its[-len(mine) :]  # it begins later if the file was removed


def told(run: Path) -> list[dict[str, Any]]:
    """Losses and validations of a run, in order."""
    lines = [json.loads(line) for line in (run / METRICS_FILE).read_text(encoding="utf-8").splitlines()]
    times = {"elapsed_s", "save_blocked_s"}
    return [{name: value for name, value in line.items() if name not in times} for line in lines]


# ---------------------------------------------------------------- damage


def damage_campaign(half: Path, straight: Path, n_flips: int, dice: Dice, folder: Path) -> dict[str, Any]:
    """Flip ``n_flips`` single bits in each file of a run that is half done, and remove each file once."""
    table: dict[str, dict[str, int]] = {}
    faults: list[str] = []
    newest = Run(half).latest()
    assert newest is not None
    files = [path for path in half.rglob("*") if path.is_file() and path.stat().st_size]  # the lock is empty
    for path in sorted(path for path in files if path.parent in (half, half / "tokens", newest.path)):
        name = str(path.relative_to(half))
        counts: collections.Counter[str] = collections.Counter()
        for i in range(n_flips + 1):
            run = shutil.copytree(half, folder / "damaged")
            target = run / name
            what = f"{name} removed"
            if i < n_flips:
                data = bytearray(target.read_bytes())
                at = dice.randrange(8 * len(data))
                data[at // 8] ^= 1 << at % 8
                target.write_bytes(data)
                what = f"{name}, bit {at}"
            else:
                target.unlink()
            config = _config_of(half, run)
            life = live(config) if name != CONFIG_FILE else _live_from_folder(run)
            kind = "removed: " if i == n_flips else ""
            if life.code == REFUSED and "\n" not in life.message.strip():
                counts[f"{kind}refused"] += 1
            elif life.code == 0 and same(run, straight):
                counts[f"{kind}no harm"] += 1
            else:
                counts[f"{kind}FAULT"] += 1
                faults.append(f"{what}: code {life.code}, {life.message or 'it ended otherwise'}")
            shutil.rmtree(run)
        table[name] = dict(counts)
    return {"files": table, "faults": faults}


def _config_of(half: Path, run: Path) -> TrainConfig:
    return dataclasses.replace(TrainConfig.load(half / CONFIG_FILE), out=str(run))


def _live_from_folder(run: Path) -> Life:
    """Go on with nothing but what the folder says, as ``mamegpt train --resume`` does."""
    try:
        config = dataclasses.replace(TrainConfig.load(run / CONFIG_FILE), out=str(run))
    except MamegptError as error:
        return Life(REFUSED, message=str(error))
    return live(config)


# ---------------------------------------------------------------- disks, doubles and clocks


@contextlib.contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[Callable[[str], None]]:
    """A file system in memory at ``folder``; what it yields mounts it again with other options."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", folder], check=True)
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True) and None
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def disk_campaign(config: TrainConfig, straight: Path, n_disks: int, folder: Path) -> dict[str, Any]:
    """Runs on disks of rising size, all too small; then there is room and they go on. And one that is read-only."""
    if os.geteuid() != 0:
        return {"disks": 0, "not run": "mounting a tmpfs needs root", "faults": []}
    need = sum(path.stat().st_size for path in straight.rglob("*") if path.is_file())
    n_full = 0
    messages: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    for i in range(n_disks):
        disk, run = folder / "disk", folder / "disk" / "run"
        with small_disk(disk, need * (i + 1) // (n_disks + 1)) as remount:
            here = dataclasses.replace(config, out=str(run))
            life = live(here)
            if life.code == REFUSED and "\n" not in life.message.strip():
                n_full += 1
                messages[life.message.partition(":")[0]] += 1
                faults += lost(run, life.saved)
            elif life.code:
                faults.append(f"disk {i}: {life.message}")
            remount(f"size={64 << 20}")
            life = live(here)
            if life.code or not same(run, straight):
                faults.append(f"disk {i} with room again: code {life.code}, {life.message or 'it ended otherwise'}")
            if i == n_disks - 1:
                newest = Run(run).latest()
                assert newest is not None
                shutil.rmtree(newest.path)
                remount("ro")
                life = live(here)
                if life.code != REFUSED or "Read-only" not in life.message:
                    faults.append(f"read-only: code {life.code}, {life.message}")
                remount("rw")
    return {"disks": n_disks, "full": n_full, "said": dict(messages), "faults": faults}


def double_campaign(config: TrainConfig, straight: Path, folder: Path) -> dict[str, Any]:
    """A second process in the folder of a run that is being trained; and a clock that goes back by hours."""
    faults: list[str] = []
    run = folder / "twice"
    here = dataclasses.replace(config, out=str(run))
    refusals: list[Life] = []

    def meet(_writer: int) -> None:
        whole = setup.run_tokens

        def both(*arguments: Any) -> Any:
            found = whole(*arguments)
            second = live(here)
            report(_writer, where=f"{second.code} {second.message}")
            return found

        setup.run_tokens = both  # type: ignore[assignment]

    life = live(here, meet)
    refusals.append(life)
    if life.code or not life.where.startswith(f"{REFUSED} ") or "is being trained by another" not in life.where:
        faults.append(f"two at once: {life}")
    if not same(run, straight):
        faults.append("two at once: the first one was disturbed")

    def back(_writer: int) -> None:
        plain, calls = time.time, iter(range(10**9))
        time.time = lambda: plain() - 3600.0 * next(calls)

    clock = folder / "clock"
    first = dataclasses.replace(config, out=str(clock))
    for before in (killed_at_a_moment(LONGEST_LIFE_S / 2), back):
        live(first, before)
        for path in clock.rglob("*"):
            os.utime(path, (0, 0) if before is back else (4e9, 4e9))  # 2096, then 1970
    life = live(first, back)
    if life.code or not same(clock, straight):
        faults.append(f"clock going back: {life.message or 'it ended otherwise'}")
    return {"two in one folder": "refused" if not faults else "FAULT", "faults": faults}


def prepare(folder: Path, n_steps: int) -> tuple[TrainConfig, Path, Path]:
    """Text, tokenizer, a run that was never disturbed, and one of the same settings that is half done."""
    articles = [format_article(*story) for story in stories(seed=1, n=150)]
    text = folder / "stories.txt"
    text.write_text("".join(articles), encoding="utf-8", newline="")
    tokenizer = train_tokenizer(articles, folder / "tokenizer", vocab_size=800).path
    config = TrainConfig(
        data=str(text),
        tokenizer=str(tokenizer),
        out=str(folder / "straight"),
        context_length=16,
        emb_dim=16,
        n_layers=1,
        n_heads=2,
        batch_size=4,
        max_steps=n_steps,
        save_every_steps=2,
        eval_every_steps=3,
        log_every_steps=4,
        val_fraction=0.05,
        val_tokens=500,
        precision="fp32",
        engine="torch",
        compile="false",
        device="cpu",
    )
    straight = Path(config.out)
    life = live(config)
    assert life.code == 0, life.message
    half = folder / "half"

    def stop(_writer: int) -> None:
        saved = checkpoint._write

        def last(*arguments: Any) -> Path:
            path = saved(*arguments)
            if arguments[3].step >= n_steps // 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return path

        checkpoint._write = last

    assert live(dataclasses.replace(config, out=str(half)), stop).code == KILLED
    return config, straight, half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=20, help="bits flipped in each file")
    parser.add_argument("--disks", type=int, default=12)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork, and tiny tensors only lose by them
    dice = Dice(options.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        config, straight, half = prepare(folder, options.steps)
        results = {
            "kill -9": kill_campaign(config, straight, options.kills, dice, folder),
            "flipped bits and files gone": damage_campaign(half, straight, options.flips, dice, folder),
            "full and read-only disks": disk_campaign(config, straight, options.disks, folder),
            "two runs, clock going back": double_campaign(config, straight, folder),
        }
    write_json(options.out, {"options": {**vars(options), "out": ""}, **results})
    for title, result in results.items():
        print(title, *(f"  {name}: {value}" for name, value in result.items()), sep="\n")
    sys.exit(any(result["faults"] for result in results.values()))


if __name__ == "__main__":
    main()
