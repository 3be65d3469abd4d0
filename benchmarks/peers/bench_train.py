"""How fast does everyone train the same small model on this machine?

    make bench                                                    # all of it; about half an hour
    python -m benchmarks.peers.bench_train [--only NAME ...] [--rounds 5] [--steps 3] [--data FOLDER] [--out FILE]
    python -m benchmarks.peers.bench_train --without-bf16         # as on a processor without bfloat16 instructions

On such a processor the contestants that compute in bf16 do not take part, and results have a file of their own.

**Alternating pairs.** A machine that other people use changes its speed by the minute, so no contestant is timed
alone: it is started beside the reference (the seed's recipe, see `reference`), both warm up (compile), and then they
take turns, a round of a few steps each, in random order within a round. A result is the median of the rounds' ratios,
with the smallest and the largest. At the end the fastest variant of each peer races mamegpt in the same way, directly.

**One process each.** A contestant is a process that trains for ever and logs a line a step (see `contestants`); only
one is running at any moment, the other is stopped by SIGSTOP. The step during which it was stopped is not counted; it
also brings its data back into the caches. So mamegpt runs its real, unmodified `train()`, and nobody can be
favoured by the way its loop is called. (POSIX only.) The peak memory is what the kernel says when the process is gone.
How many cores other programs use is measured during each turn; a round with more than a tenth of a core is run again,
up to three times as many in all, and the least disturbed rounds count. Trust results where that number is near zero.

Results go to ``benchmarks/results/train.json`` (``train-no-bf16.json``), and a chart beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.chart import STRONG, WEAK, svg_file
from benchmarks.peers.task import DATA, ROOT, Task, load
from benchmarks.peers.without_bf16 import add_option, imitate, is_imitated, results_file
from mamegpt.pages.chart import Bars, bar_chart

RESULTS = ROOT / "benchmarks" / "results"
REFERENCE = "original recipe"
PACKAGES = ("torch", "litgpt", "lightning", "transformers", "accelerate", "llms-from-scratch", "numpy")
SIZES = ("context_length", "batch_size", "n_layers", "emb_dim", "n_heads")
WARM_UP_STEPS = 3
LOSS_AT_STEP = 20
START_UP_LIMIT_S = 900
STEP_LIMIT_S = 300
POLL_S = 0.02
QUIET_CORES = 0.1


class Worker:
    """One contestant's process. It is stopped whenever none of these methods is running."""

    def __init__(self, name: str, task: Task, folder: Path, threads: int) -> None:
        self.name, self.log = name, folder.with_suffix(".log")
        self.metrics = folder / "metrics.jsonl"
        self.records: list[dict[str, float]] = []
        self._offset = 0
        command = [sys.executable, "-m", "benchmarks.peers.contestants", name, json.dumps(asdict(task)), str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        begin = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_for(1, START_UP_LIMIT_S)
            self.start_up_s = time.perf_counter() - begin  # imports, data, compilation and the first step
            self._wait_for(WARM_UP_STEPS, START_UP_LIMIT_S)
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def steps(self, n: int) -> tuple[list[float], float]:
        """Let it run for ``n`` whole steps; their seconds, and how many cores were busy with something else."""
        self._read()
        first = len(self.records)  # the index of the step that was interrupted
        before = self._busy()
        self._signal(signal.SIGCONT)
        self._wait_for(first + 1 + n, STEP_LIMIT_S)
        self._signal(signal.SIGSTOP)
        everyone, own, wall = (after - start for after, start in zip(self._busy(), before, strict=True))
        elapsed_s = [record["elapsed_s"] for record in self.records[first : first + 1 + n]]
        return [end - begin for begin, end in itertools.pairwise(elapsed_s)], max(0.0, everyone - own) / wall

    def _busy(self) -> tuple[float, float, float]:
        """Processor seconds of the whole machine and of this process so far, and the time."""
        times, own = psutil.cpu_times(), psutil.Process(self.process.pid).cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return sum(times) - idle - getattr(times, "guest", 0.0), own.user + own.system, time.perf_counter()

    def reach(self, step: int) -> None:
        """Let it run, untimed, until it has done that many steps."""
        if len(self.records) < step:
            self._signal(signal.SIGCONT)
            self._wait_for(step, STEP_LIMIT_S)
            self._signal(signal.SIGSTOP)

    def close(self) -> int:
        """End the process; returns its peak resident memory in bytes."""
        if self.process.returncode is not None:
            return 0
        self.process.kill()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def _signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def _wait_for(self, n_records: int, limit_s: float) -> None:
        deadline = time.perf_counter() + limit_s * max(1, n_records - len(self.records))
        while True:
            self._read()
            if len(self.records) >= n_records:
                return
            if self.process.poll() is not None:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
                raise RuntimeError(f"{self.name} ended with exit code {self.process.returncode}:\n{tail}")
            if time.perf_counter() > deadline:
                raise RuntimeError(f"{self.name} took too long; see {self.log}")
            time.sleep(POLL_S)

    def _read(self) -> None:
        """Take in the lines that have been added to the metrics."""
        if not self.metrics.exists():
            return
        with self.metrics.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        records = [json.loads(line) for line in whole.splitlines()]
        self.records += [record for record in records if "loss" in record]


@dataclass(frozen=True)
class Race:
    """What two workers did in turn. ``times`` has, by contestant, a list of step seconds for each round that counts."""

    a: str
    b: str
    times: dict[str, list[list[float]]]
    elsewhere: float  # cores that others used in these rounds, on average
    n_disturbed: int  # rounds left out because others used more

    def ratios(self) -> list[float]:
        """How many times as fast b was as a, by round."""
        pairs = zip(self.times[self.a], self.times[self.b], strict=True)
        return [statistics.median(a) / statistics.median(b) for a, b in pairs]

    def step_s(self, name: str) -> float:
        """The median step of one of them."""
        return statistics.median(s for times in self.times[name] for s in times)


def race(a: Worker, b: Worker, rounds: int, steps: int, dice: random.Random) -> Race:
    """Let two workers take turns until ``rounds`` were undisturbed, or three times as many are over."""
    done: list[tuple[float, dict[str, list[float]]]] = []  # cores used elsewhere, step seconds of each
    while sum(others <= QUIET_CORES for others, _ in done) < rounds and len(done) < 3 * rounds:
        turns = {worker.name: worker.steps(steps) for worker in dice.sample((a, b), 2)}
        done.append((max(others for _, others in turns.values()), {name: turn[0] for name, turn in turns.items()}))
    chosen = sorted(done, key=lambda item: item[0])[:rounds]  # the choice never looks at the times
    times = {worker.name: [seconds[worker.name] for _, seconds in chosen] for worker in (a, b)}
    return Race(a.name, b.name, times, statistics.fmean(others for others, _ in chosen), len(done) - len(chosen))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the runs."""
    with tempfile.TemporaryDirectory(prefix="mamegpt-bench-") as folder:
        yield Path(folder)


def limits() -> dict[str, float]:
    """What the machine can do at this moment."""
    command = [sys.executable, "-m", "benchmarks.peers.limits"]
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(out)
    return found


def contestants() -> dict[str, str]:
    """Names and projects. Asked for in another process, because a small parent keeps the peak memories true."""
    command = [sys.executable, "-m", "benchmarks.peers.contestants"]
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, str] = json.loads(out)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def is_sane(losses: Sequence[float], vocab_size: int) -> bool:
    """A loss that starts near or above that of guessing, falls, and stays a number."""
    return all(map(math.isfinite, losses)) and losses[0] > 0.9 * math.log(vocab_size) and losses[-1] < losses[0]


def run(task: Task, projects: dict[str, str], args: argparse.Namespace) -> dict[str, Any]:
    """Everybody against the reference, then the best against each other; returns what goes into the file."""
    dice = random.Random(args.seed)
    rows: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    reference_steps: list[float] = []
    peaks: list[dict[str, float]] = []
    with scratch() as folder:
        reference = Worker(REFERENCE, task, folder / "reference", args.threads)
        try:
            for n, name in enumerate(n for n in projects if n != REFERENCE):
                peaks.append(limits())
                try:
                    worker = Worker(name, task, folder / f"worker-{n}", args.threads)
                except RuntimeError as error:
                    failed[name] = str(error)
                    print(f"{name:36} failed: {error}", flush=True)
                    continue
                try:
                    result = race(reference, worker, args.rounds, args.steps, dice)
                    worker.reach(LOSS_AT_STEP)
                finally:
                    peak_bytes = worker.close()
                reference_steps += [s for times in result.times[REFERENCE] for s in times]
                rows[name] = row(task, projects[name], worker, result.times[name], result.ratios(), peak_bytes)
                rows[name] |= {"elsewhere": result.elsewhere, "n_disturbed": result.n_disturbed}
                report(name, rows[name])
            reference.reach(LOSS_AT_STEP)
        finally:
            peak_bytes = reference.close()
        rows[REFERENCE] = row(task, REFERENCE, reference, [reference_steps], [1.0], peak_bytes)
        report(REFERENCE, rows[REFERENCE])
        finals = [] if args.no_finals else run_finals(task, rows, folder, args, dice)
    best = {name: max(peak[name] for peak in peaks) for name in peaks[0]} if peaks else limits()
    for values in rows.values():
        reached = task.flops_per_token * values["tokens_per_s"]["median"] / 1e9
        values["gflops"], values["share_of_peak"] = reached, reached / (best["bf16_gflops"] or best["fp32_gflops"])
    return {
        "task": {**asdict(task), "text": Path(task.text).name, "flops_per_token": task.flops_per_token},
        "rounds": args.rounds,
        "steps_per_round": args.steps,
        "threads": args.threads,
        "machine": machine(best),
        "versions": versions(),
        "limits": best,
        "limits_all": peaks,
        "contestants": rows,
        "finals": finals,
        "failed": failed,
    }


def row(
    task: Task, project: str, worker: Worker, times: list[list[float]], ratios: list[float], peak_bytes: int
) -> dict[str, Any]:
    """One contestant's figures."""
    steps = [s for round_times in times for s in round_times]
    losses = [record["loss"] for record in worker.records[:LOSS_AT_STEP]]
    return {
        "project": project,
        "speed_up": spread(ratios),
        "step_s": spread(steps),
        "tokens_per_s": spread([task.tokens_per_step / s for s in steps]),
        "peak_bytes": peak_bytes,
        "start_up_s": worker.start_up_s,
        "first_loss": losses[0],
        f"loss_at_step_{LOSS_AT_STEP}": losses[-1],
        "loss_is_sane": is_sane(losses, task.vocab_size),
        "ratios": ratios,
        "times": times,
    }


def run_finals(
    task: Task, rows: dict[str, dict[str, Any]], folder: Path, args: argparse.Namespace, dice: random.Random
) -> list[dict[str, Any]]:
    """mamegpt, at its default recipe, against the fastest variant of each peer."""
    ours = "mamegpt"
    champions = {p: name for p, name in fastest_of_each(rows).items() if p != REFERENCE and not p.startswith(ours)}
    finals: list[dict[str, Any]] = []
    if ours not in rows or not champions:
        return finals
    worker = Worker(ours, task, folder / "final", args.threads)
    try:
        for n, peer in enumerate(champions.values()):
            other = Worker(peer, task, folder / f"final-{n}", args.threads)
            try:
                result = race(other, worker, args.rounds, args.steps, dice)
            finally:
                other.close()
            s = spread(result.ratios())
            others = {"elsewhere": result.elsewhere, "n_disturbed": result.n_disturbed}
            finals.append({"a": peer, "b": ours, "b_over_a": s, **others, "times": result.times})
            print(f"{ours} is {s['median']:.2f} ({s['min']:.2f} to {s['max']:.2f}) times as fast as {peer}", flush=True)
    finally:
        worker.close()
    return finals


def fastest_of_each(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The name of each project's fastest contestant."""
    best: dict[str, str] = {}
    for name, values in rows.items():
        rival = best.setdefault(values["project"], name)
        if values["speed_up"]["median"] > rows[rival]["speed_up"]["median"]:
            best[values["project"]] = name
    return best


def report(name: str, values: dict[str, Any]) -> None:
    """One line on the screen."""
    s, t, loss = values["speed_up"], values["tokens_per_s"]["median"], values[f"loss_at_step_{LOSS_AT_STEP}"]
    print(
        f"{name:36} {s['median']:6.2f} x ({s['min']:.2f} to {s['max']:.2f}) {t:8,.0f} tokens/s "
        f"{values['peak_bytes'] / 1e9:6.2f} GB, start {values['start_up_s']:5.1f} s, "
        f"loss {values['first_loss']:.2f} -> {loss:.2f}{'' if values['loss_is_sane'] else ' NOT SANE'}, "
        f"others {values.get('elsewhere', 0):.2f} cores",
        flush=True,
    )


def machine(limits: dict[str, float]) -> dict[str, Any]:
    """What a result says of its machine."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "bf16": limits["bf16_gflops"] > 0,
        "imitates_avx2": is_imitated(),
    }


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def draw(results: dict[str, Any]) -> str:
    """The chart: the fastest of each project, times the reference, with its own tokens per second."""
    rows = results["contestants"]
    names = sorted(fastest_of_each(rows).values(), key=lambda name: -rows[name]["speed_up"]["median"])
    medians = [(name, rows[name]["speed_up"]["median"], rows[name]["tokens_per_s"]["median"]) for name in names]
    bars = [
        Bars(name, [(s, STRONG if name == "mamegpt" else WEAK)], f"×{s:.1f}, {rate:,.0f} tokens/s")
        for name, s, rate in medians
    ]
    return svg_file(bar_chart(bars))


def options(description: str | None, name: str) -> argparse.ArgumentParser:
    """What this benchmark and `bench_time_to_quality` have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA if DATA.is_dir() else None, help="file or folder of text")
    parser.add_argument("--out", type=Path, help=f"JSON file to write, the chart goes beside it (default: {name})")
    add_option(parser)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each in a race")
    parser.add_argument("--steps", type=int, default=3, help="steps in a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0, help="of who goes first in a round")
    parser.add_argument("--vocab-size", type=int, default=16_000)
    for name in SIZES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="another size, to try the program")
    return parser


def parsed(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """Read the command line; if no ``out`` is given, the file of machines that have, or lack, bfloat16 as this one."""
    args = parser.parse_args()
    imitate(args)
    args.has_bf16 = limits()["bf16_gflops"] > 0
    args.out = args.out or results_file(RESULTS / name, args.has_bf16)
    return args


def task_of(args: argparse.Namespace) -> Task:
    """The task that the options ask for."""
    return load(args.data, args.vocab_size, **{n: getattr(args, n) for n in SIZES if getattr(args, n)})


def main() -> None:
    parser = options(__doc__, "train.json")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants or projects to time (default: all)")
    parser.add_argument("--list", action="store_true", help="show the contestants and stop")
    parser.add_argument("--no-finals", action="store_true", help="do not race mamegpt against the peers directly")
    args = parsed(parser, "train.json")
    projects = contestants()
    if not args.has_bf16:
        projects = {name: project for name, project in projects.items() if "bf16" not in name}
    if args.list:
        print("\n".join(projects))
        return
    if args.only:
        if unknown := set(args.only) - set(projects) - set(projects.values()):
            sys.exit(f"not known: {', '.join(sorted(unknown))}; see --list")
        projects = {n: p for n, p in projects.items() if {n, p} & {*args.only, REFERENCE}}
    results = run(task_of(args), projects, args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    chart = args.out.with_suffix(".svg")
    chart.write_text(draw(results), encoding="utf-8")
    print(json.dumps(results["limits"]), f"wrote {args.out} and {chart}", sep="\n")


if __name__ == "__main__":
    main()
