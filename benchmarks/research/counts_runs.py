"""Does learning from n-gram counts pay: whole schedules of one length, with counts and without, in bits per character.

    python -m benchmarks.research.counts_runs --steps 160 480 1600 --seeds 42 43 44 [--data TEXT] [--vocab-size 8000]

How far a run comes depends on its steps, not on who else computes, so it may take as long as it likes. Without counts a
step has twice the tokens (the recipe's batches are larger), so such a run gets ``--share`` times as many steps, which
take the same seconds; each run prints its seconds a step.
A line is added to the results for each run; those that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.task import ROOT, Task, load

RESULTS = ROOT / "benchmarks" / "results" / "counts.jsonl"


def run(task: Task, steps: int, seed: int, with_counts: bool, size: str, folder: Path, threads: int) -> dict[str, Any]:
    """Train once; returns bits per character of the whole validation split, and seconds a step."""
    command = [sys.executable, "-m", "mamegpt", "train", "--data", str(task.shards), "--tokenizer", str(task.tokenizer)]
    command += ["--size", size, "--max-steps", str(steps), "--seed", str(seed), "--out", str(folder)]
    command += [] if with_counts else ["--ngrams", "false"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, check=True)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [record for record in records if "loss" in record]
    middle, last = logged[len(logged) // 2], logged[-1]
    step_s = (last["elapsed_s"] - middle["elapsed_s"]) / max(1, last["step"] - middle["step"])
    bits = records[-1]["quality"]["bits_per_character"]
    return {"bits_per_character": bits, "tokens": last["tokens"], "step_s": round(step_s, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", required=True, help="steps of runs with counts")
    parser.add_argument("--share", type=float, default=0.63, help="steps without counts for one with them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--data", type=Path, help="as `peers.task` has it; default: the built-in stories")
    parser.add_argument("--vocab-size", type=int, default=8_000)
    parser.add_argument("--size", default="5m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs" / "counts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    task = load(args.data, args.vocab_size)
    done = [json.loads(line) for line in args.out.read_text(encoding="utf-8").splitlines()] if args.out.exists() else []
    text = args.data.name if args.data else "stories"
    for steps in args.steps:
        for seed in args.seeds:
            for with_counts in (True, False):
                what = {"text": text, "size": args.size, "vocab_size": args.vocab_size, "counts": with_counts}
                what |= {"steps": steps if with_counts else round(steps * args.share), "of": steps, "seed": seed}
                if any(what.items() <= one.items() for one in done):
                    continue
                folder = args.scratch / "-".join(map(str, what.values()))
                found = run(task, what["steps"], seed, with_counts, args.size, folder, args.threads)
                print({**what, **found}, flush=True)
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**what, **found}) + "\n")


if __name__ == "__main__":
    main()
