"""How good is a model after so many minutes: mamegpt, the fastest other library, the original recipe, and counting.

    make bench-quality                                    # this, and `bench_time_to_quality`
    python -m benchmarks.peers.bench_curves [--minutes 1 3 8] [--seeds 1] [--rates 0.001 0.003]

Every point is a run of its own, as a user would start it: a process that has so many minutes, imports and first steps
included, and whose learning rate has fallen by their end. mamegpt keeps some of them for its last validation, of the
whole split, which is not counted: a point stands where the last step ended, and the peer gets as many seconds.

1. mamegpt: ``mamegpt train --data TEXT --minutes M`` with the tokenizer that ``mamegpt tokenizer --for-minutes M``
   trains (that time is not counted; the peer gets the same tokenizer).
2. The peer: transformers' ``GPT2LMHeadModel`` in ``Trainer``, as large; AdamW with warm-up and a linear decay, batches
   of 8 windows (mamegpt's), the best of ``--rates`` after the first ``--minutes``; compiled if ``--compiled``,
   its weights in bfloat16 if ``--bf16``.
3. The original recipe: its curve in ``results/reference_curve.json`` and its seconds a step in ``quality.json``, both
   by `bench_time_to_quality`; on another machine, give ``--original-step-s``.
4. n-gram models with modified Kneser-Ney smoothing of all training tokens (`mamegpt.evaluation.ngram`).

Runs follow one another, so the machine should be quiet: how many cores others used is written beside each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.peers import bench_train as bench
from benchmarks.peers.bench_time_to_quality import CURVE
from benchmarks.peers.chart import STRONG, WEAK, svg_file
from benchmarks.peers.task import ROOT, Task, load
from mamegpt.pages.chart import Curve, line_chart, short
from mamegpt.tokenizer.vocab_size import choose_vocab_size

OURS, PEER = "mamegpt", "transformers"
ORDERS = (2, 3, 4, 5)
DRAWN_ORDERS = ("2", "3", "5")
WARM_UP = 0.03
BATCH_SIZE = 8


def timed(command: list[str], threads: int) -> float:
    """Run a command of Python's to its end; returns how many cores other programs used meanwhile."""
    before, begin = psutil.cpu_times(), time.perf_counter()
    own = time.process_time()
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {status}")
    after, wall = psutil.cpu_times(), time.perf_counter() - begin
    busy = sum(after) - after.idle - after.iowait - (sum(before) - before.idle - before.iowait)
    return max(0.0, busy - usage.ru_utime - usage.ru_stime - (time.process_time() - own)) / wall


def ours(task: Task, minutes: float, seed: int, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """A run of mamegpt, told nothing but text, tokenizer and time; ``s`` are the seconds until its last step."""
    command = ["mamegpt", "train", "--data", str(task.shards), "--tokenizer", str(task.tokenizer)]
    command += ["--minutes", f"{minutes:g}", "--seed", str(seed), "--out", str(folder)]
    others = timed(command, args.threads)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = next(record for record in reversed(records) if "loss" in record)
    bits = records[-1]["quality"]["bits_per_character"]
    return {"bits_per_character": bits, "steps": last["step"], "s": args.import_s + last["elapsed_s"], "others": others}


def peer(task: Task, seconds: float, lr: float, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """A run of the peer, in a process of its own."""
    what = {"task": dataclasses.asdict(task), "seconds": seconds, "lr": lr}
    what |= {"compiled": args.compiled, "bf16": args.bf16}
    others = timed(["benchmarks.peers.bench_curves", "--one", json.dumps(what), str(folder)], args.threads)
    found: dict[str, Any] = json.loads(folder.with_suffix(".json").read_text(encoding="utf-8"))
    return {**found, "s": seconds, "lr": lr, "others": others}


def train_peer(task: Task, seconds: float, lr: float, compiled: bool, bf16: bool, folder: Path) -> dict[str, Any]:
    """transformers' GPT-2 in its Trainer until the time is over, with a rate that follows the clock."""
    import torch
    from torch import nn
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from benchmarks.peers.contestants import Windows, gpt2
    from mamegpt.data.shards import open_shards
    from mamegpt.distributed.processes import World
    from mamegpt.training.validation import evaluate

    begin = psutil.Process().create_time()

    def progress() -> float:
        return min(1.0, (time.time() - begin) / seconds)

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            control.should_training_stop = progress() >= 1

    model = gpt2(task)
    if bf16:
        model = model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: min(progress() / WARM_UP, 1 - progress()))
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        torch_compile=compiled,
        max_steps=1_000_000,
        save_strategy="no",
        per_device_train_batch_size=task.batch_size,
        logging_steps=50,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=Windows(task), callbacks=[Clock()], optimizers=(optimizer, schedule)
    )
    trainer.train()

    class AsOurs(nn.Module):
        out_head = model.lm_head

        def hidden(self, ids: torch.Tensor, cache: None = None) -> torch.Tensor:
            hidden: torch.Tensor = model.transformer(input_ids=ids).last_hidden_state
            return hidden

    val = open_shards(task.shards)[1]["val"]
    model.float().eval()
    quality = evaluate(
        AsOurs(),
        val.tokens,
        n_characters=val.meta.n_characters,
        n_bytes=val.meta.n_bytes,
        start_id=val.eos_id,
        context_length=task.context_length,
        world=World(0, 1, torch.device("cpu")),
    )  # type: ignore[arg-type]
    return {"bits_per_character": quality.bits_per_character, "steps": trainer.state.global_step}


def ngrams(task: Task) -> dict[str, float]:
    """Bits per character of n-gram models of all training tokens, by order."""
    from mamegpt.data.shards import open_shards
    from mamegpt.evaluation.ngram import KneserNey

    splits = open_shards(task.shards)[1]
    train, val = (splits[name].tokens.astype(np.int64) for name in ("train", "val"))
    n_characters = splits["val"].meta.n_characters
    found = {}
    for order in ORDERS:
        probabilities = KneserNey(train, task.vocab_size, order).probabilities(val)[1:]
        found[str(order)] = float(-np.log2(probabilities).sum() / n_characters)
        print(f"{order}-gram model: {found[str(order)]:.4f} bits per character", flush=True)
    return found


def original(results: Path, step_s: float) -> list[dict[str, float]]:
    """The curve of the original recipe, in seconds, if it is there; 0: those of a step in `bench_time_to_quality`."""
    curve, race = results / CURVE, results / "quality.json"
    if not (curve.is_file() and race.is_file()):
        return []
    step_s = step_s or json.loads(race.read_text(encoding="utf-8"))["reference_step_s"]
    points = json.loads(curve.read_text(encoding="utf-8"))["points"]
    return [{"s": it["step"] * step_s, "bits_per_character": it["bits_per_character"]} for it in points]


def draw(record: dict[str, Any]) -> str:
    """The chart: a curve each for us, the peer and the original recipe, and a level line for each n-gram model."""

    def ends(name: str) -> list[tuple[float, float]]:
        runs = [[it for it in record["runs"][name] if it["minutes"] == m] for m in record["minutes"]]
        return [tuple(statistics.fmean(it[of] for it in some) for of in ("s", "bits_per_character")) for some in runs]

    theirs = [(it["s"], it["bits_per_character"]) for it in record["original"]]
    curves = [Curve(OURS, STRONG, ends(OURS), dots=True), Curve(PEER, "c2", ends(PEER), dots=True)]
    if theirs:
        curves.append(Curve(bench.REFERENCE, WEAK, theirs))
    first = min(x for curve in curves for x, _ in curve.points)
    last = max(x for curve in curves for x, _ in curve.points)
    for order in DRAWN_ORDERS:
        level = record["ngrams"][order]
        curves.append(Curve(f"{order}-gram", WEAK, [(first, level), (last, level)], faint=True))
    chart = line_chart(curves, lambda s: f"{short(s)} s", log_x=True, named=True, y_name="bits per character")
    return svg_file(chart)


def main() -> None:
    parser = bench.options(__doc__, "curves.json")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 8])
    parser.add_argument("--seeds", type=int, default=1, help="runs of mamegpt for each time")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 6e-3], help="learning rates of the peer")
    parser.add_argument("--ours-only", action="store_true", help="keep what --out has of the peer and of n-gram models")
    parser.add_argument("--bf16", action="store_true", help="convert the peer's model to bfloat16")
    parser.add_argument("--compiled", action="store_true", help="compile the peer's model")
    parser.add_argument("--original-step-s", type=float, default=0, help="seconds of a step of the original recipe")
    parser.add_argument("--one", nargs=2, metavar=("TASK", "FOLDER"), help=argparse.SUPPRESS)
    args = bench.parsed(parser, "curves.json")
    if args.one:
        what = json.loads(args.one[0])
        folder = Path(args.one[1])
        found = train_peer(Task(**what.pop("task")), **what, folder=folder)
        folder.with_suffix(".json").write_text(json.dumps(found), encoding="utf-8")
        return
    args.minutes.sort()
    machine = {**bench.machine(bench.limits()), "threads": args.threads}
    text = args.data.name if args.data else "stories"
    if args.ours_only and not args.out.is_file():
        sys.exit(f"{args.out} is not there; leave out --ours-only")
    kept: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.ours_only else {}
    if kept and (kept["machine"], kept["minutes"], kept.get("text")) != (machine, args.minutes, text):
        sys.exit(f"{args.out} is of another machine, of other minutes or another text; leave out --ours-only")
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mamegpt.training.trainer"], cwd=ROOT, check=True)
    args.import_s = time.perf_counter() - begin
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], PEER: []}
    lines: dict[str, float] = {}
    best = 0.0
    with bench.scratch() as folder:
        for minutes in args.minutes:
            task = load(args.data, choose_vocab_size(minutes), batch_size=BATCH_SIZE)
            made = {"minutes": minutes, "vocab_size": task.vocab_size}
            some = [
                ours(task, minutes, seed, folder / f"{OURS}-{minutes}-{seed}", args)
                for seed in range(task.seed, task.seed + args.seeds)
            ]
            runs[OURS] += [{**made, **found} for found in some]
            print(OURS, some, flush=True)
            if kept:
                continue
            seconds = statistics.fmean(found["s"] for found in some)
            if args.compiled:  # one step, so that the runs find the compiler's cache filled
                peer(task, 1, args.rates[0], folder / f"{PEER}-{minutes}-first", args)
            for lr in [best] if best else args.rates:
                runs[PEER].append({**made, **peer(task, seconds, lr, folder / f"{PEER}-{minutes}-{lr}", args)})
                print(PEER, runs[PEER][-1], flush=True)
            best = best or min(runs[PEER], key=lambda it: it["bits_per_character"])["lr"]
        lines = kept["ngrams"] if kept else ngrams(load(args.data, 8_000))
    runs[PEER] = kept["runs"][PEER] if kept else [it for it in runs[PEER] if it["lr"] == best]
    record = {
        "machine": machine,
        "versions": bench.versions(),
        "minutes": args.minutes,
        "text": text,
        "peer": kept["peer"] if kept else {"bf16": args.bf16, "compiled": args.compiled},
        "ngrams": lines,
        "runs": runs,
        "original": kept["original"] if kept else original(args.out.parent, args.original_step_s),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    args.out.with_suffix(".svg").write_text(draw(record), encoding="utf-8")
    print(f"wrote {args.out} and {args.out.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
