"""How long until mamegpt is as good as the seed's recipe is after 2,000 steps?

    make bench-quality                             # and `bench_curves`; an hour and a half, most of it the reference
    python -m benchmarks.peers.bench_time_to_quality [--reference-steps 2000] [--schedules 60 80] [--contestant NAME]

1. The reference trains ``--reference-steps`` steps; its validation bits per character are the level to reach. The
   curve is kept in ``results/reference_curve.json`` and taken from there next time (``--again`` trains anew). Model,
   data, initial weights and optimizer are the reference's, but its forward pass is mamegpt's, which is three times as
   fast; the first ``--plain-steps`` steps are trained in the plain way too and stand beside it.
2. mamegpt trains whole schedules of different lengths with its own batch size, each from the beginning, shortest first,
   until one ends at the level or below. A number of steps thus always includes its own cool-down, and nothing is
   interpolated.
   (On a processor without bfloat16 the level is the same: the stored curve is used, or trained in float32.)
3. Both are timed in alternation, as in `bench_train`. The time of a curve is its steps times the median step; what
   comes before the first step (imports, compilation) is given besides. Validation is not counted, for either.

Bits per character are those of the whole validation split, by `mamegpt.training.validation` for both. The points of the
reference's curve before the last are of a sample of ``--val-tokens`` tokens. One seed each, unless --seeds says more.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import random
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import bench_train as bench
from benchmarks.peers.chart import STRONG, WEAK, svg_file
from benchmarks.peers.task import Task
from mamegpt.config import Precision, TrainConfig
from mamegpt.pages.chart import Curve, line_chart, short
from mamegpt.system.files import write_json

CURVE = "reference_curve.json"
SCHEDULES = (40, 60, 80, 100, 120, 160, 240)


Steps = Iterator[tuple[Any, float]]
"""The model and the loss, nats per token, after each step."""


def same_but_faster(task: Task, precision: Precision) -> Steps:
    """`reference.train` with another forward pass: bf16 products if there are any, logits in chunks, faster dropout."""
    import torch

    from benchmarks.peers import reference
    from mamegpt.training.forward import SummedLoss

    torch.manual_seed(task.seed)
    model: Any = reference.GPT(task).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=reference.LR)
    summed_loss = SummedLoss(model, precision)
    for x, y in task.batches():
        optimizer.zero_grad()
        total = 0.0
        for inputs, targets in zip(torch.from_numpy(x).chunk(2), torch.from_numpy(y).chunk(2), strict=True):
            loss = summed_loss(inputs, targets) / x.size
            loss.backward()
            total += loss.item()
        optimizer.step()
        yield model, total


def curve(
    task: Task, steps: Steps, n_steps: int, every: int, val_tokens: int, last_val_tokens: int
) -> Iterator[list[dict[str, Any]]]:
    """Go through ``steps``; yields the points at each validation, on a sample of the split's tokens (0: on all)."""
    import torch

    from mamegpt.data.shards import open_shards
    from mamegpt.distributed.processes import World
    from mamegpt.training.validation import evaluate

    val = open_shards(task.shards)[1]["val"]
    points: list[dict[str, Any]] = []
    for step, (model, loss) in enumerate(steps, start=1):
        is_last = step == n_steps
        if step % every and not is_last:
            continue
        quality = evaluate(
            model,
            val.tokens,
            n_characters=val.meta.n_characters,
            n_bytes=val.meta.n_bytes,
            start_id=val.eos_id,
            context_length=task.context_length,
            world=World(0, 1, torch.device("cpu")),
            max_tokens=last_val_tokens if is_last else val_tokens,
            step=step,
        )
        points.append({"step": step, "train_loss": loss, **dataclasses.asdict(quality)})
        print(f"reference step {step}: {quality.bits_per_character:.4f} bits/character", flush=True)
        yield points
        if is_last:
            return


def stored_reference(task: Task, args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The reference's curve and the beginning of its plain one; from the file if it was made of the same things."""
    from benchmarks.peers import reference
    from mamegpt.data.shards import open_shards

    path = args.out.parent / CURVE
    made_of = {
        "task": {**dataclasses.asdict(task), "text": open_shards(task.shards)[0].fingerprint()[:16]},
        "reference_steps": args.reference_steps,
        "plain_steps": args.plain_steps,
    }
    if path.is_file() and not args.again:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if stored.pop("made_of") == made_of and stored["points"][-1]["step"] == args.reference_steps:
            print(f"the reference's curve is taken from {path}")
            return stored
    path.parent.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[dict[str, Any]]] = {"plain": [], "points": []}
    ways = {
        "plain": (reference.train, args.plain_steps, args.val_tokens),
        "points": (
            functools.partial(same_but_faster, precision="bf16" if args.has_bf16 else "fp32"),
            args.reference_steps,
            0,
        ),
    }
    for name, (train, n_steps, last_val_tokens) in ways.items():
        for curves[name] in curve(task, train(task), n_steps, args.every, args.val_tokens, last_val_tokens):
            write_json(path, {"made_of": made_of, **curves})
    return curves


def schedule(task: Task, settings: dict[str, Any], n_steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train mamegpt for a whole schedule; how good it is at its end."""
    from benchmarks.peers.contestants import mamegpt_config
    from mamegpt.cli.progress import show_progress
    from mamegpt.training.trainer import train

    task = dataclasses.replace(task, seed=seed)
    config = mamegpt_config(task, folder, **{**settings, "max_steps": n_steps, "log_every_steps": 10})
    quality = train(config, watchers=[show_progress()]).quality
    assert quality is not None, "the last step is followed by a validation"
    return {"steps": n_steps, "seed": seed, **dataclasses.asdict(quality)}


def schedules(task: Task, level: float, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Schedules in rising order, up to the first that reaches the level with every seed."""
    from benchmarks.peers.contestants import MAMEGPT

    runs: list[dict[str, Any]] = []
    for n_steps in sorted(args.schedules):
        for seed in range(task.seed, task.seed + args.seeds):
            out = folder / f"schedule-{n_steps}-{seed}"
            runs.append(schedule(task, MAMEGPT[args.contestant], n_steps, seed, out))
            print(
                f"{args.contestant}, {n_steps} steps: {runs[-1]['bits_per_character']:.4f} bits/character", flush=True
            )
        if all(run["bits_per_character"] <= level for run in runs[-args.seeds :]) and not args.all_schedules:
            break
    return runs


def summary(points: list[dict[str, Any]], runs: list[dict[str, Any]], n_seeds: int) -> dict[str, Any]:
    """The level, and the first schedule that reaches it with every seed."""
    level = points[-1]["bits_per_character"]
    reached = None
    for n_steps in sorted({run["steps"] for run in runs}):
        qualities = [run["bits_per_character"] for run in runs if run["steps"] == n_steps]
        if len(qualities) == n_seeds and max(qualities) <= level:
            reached = n_steps
            break
    return {"level_bits_per_character": level, "reference_steps": points[-1]["step"], "steps": reached}


def draw(record: dict[str, Any]) -> str:
    """The chart: the reference's curve, and the ends of our schedules, each the mean of its seeds."""
    ends: dict[int, list[float]] = {}
    for run in record["runs"]:
        ends.setdefault(run["steps"], []).append(run["bits_per_character"])
    curve = [(point["step"] * record["reference_step_s"], point["bits_per_character"]) for point in record["reference"]]
    ours = [(n_steps * record["step_s"], statistics.fmean(bits)) for n_steps, bits in ends.items()]
    curves = [Curve(bench.REFERENCE, WEAK, curve, dots=True), Curve(record["contestant"], STRONG, ours, dots=True)]
    chart = line_chart(curves, lambda s: f"{short(s)} s", log_x=True, named=True, y_name="bits per character")
    return svg_file(chart)


def main() -> None:
    parser = bench.options(__doc__, "quality.json")
    parser.add_argument("--reference-steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100, help="steps between validations of the reference")
    parser.add_argument("--val-tokens", type=int, default=65536, help="tokens of those validations, but the last")
    parser.add_argument("--plain-steps", type=int, default=100, help="steps of the reference in the plain way")
    parser.add_argument("--again", action="store_true", help="train the reference even if its curve is there")
    parser.add_argument("--contestant", default="mamegpt", help="a line of benchmarks.peers.contestants.MAMEGPT")
    parser.add_argument("--schedules", type=int, nargs="+", default=SCHEDULES, help="lengths in steps")
    parser.add_argument("--all-schedules", action="store_true", help="do not stop at the first that is good enough")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each schedule")
    args = bench.parsed(parser, "quality.json")
    task = bench.task_of(args)

    curves = stored_reference(task, args)
    points = curves["points"]
    ours = dataclasses.replace(task, batch_size=TrainConfig.batch_size)
    with bench.scratch() as folder:
        runs = schedules(ours, points[-1]["bits_per_character"], args, folder)
        a = bench.Worker(bench.REFERENCE, task, folder / "reference", args.threads)
        try:
            b = bench.Worker(args.contestant, ours, folder / "contestant", args.threads)
            try:
                result = bench.race(a, b, args.rounds, args.steps, random.Random(args.seed))
            finally:
                b.close()
        finally:
            a.close()

    found = summary(points, runs, args.seeds)
    step_s = {name: result.step_s(name) for name in (a.name, b.name)}
    found |= {
        "contestant": b.name,
        "reference_step_s": step_s[a.name],
        "step_s": step_s[b.name],
        "reference_start_up_s": a.start_up_s,
        "start_up_s": b.start_up_s,
        "reference_s": found["reference_steps"] * step_s[a.name],
    }
    if found["steps"]:
        per_step = found["reference_steps"] / found["steps"]
        found |= {
            "s": found["steps"] * step_s[b.name],
            "speed_up": bench.spread([per_step * ratio for ratio in result.ratios()]),
            "speed_up_with_start_up": (found["reference_s"] + a.start_up_s)
            / (found["steps"] * step_s[b.name] + b.start_up_s),
        }
    machine = {**bench.machine(bench.limits()), "threads": args.threads, "elsewhere": result.elsewhere}
    sizes = {**dataclasses.asdict(task), "text": Path(task.text).name}
    made_with = {"task": sizes, "machine": machine, "versions": bench.versions()}
    record = {**made_with, **found, "reference": points, "plain": curves["plain"], "runs": runs}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    args.out.with_suffix(".svg").write_text(draw(record), encoding="utf-8")
    print(json.dumps(found, indent=1), f"wrote {args.out} and {args.out.with_suffix('.svg')}", sep="\n")


if __name__ == "__main__":
    main()
