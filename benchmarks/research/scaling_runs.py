"""Train the runs from which `mamegpt plan` knows how good a model will be.

    python -m benchmarks.research.scaling_runs [--size 5m ...] [--steps 80 ...] [--seed 42] [--held-out]

Whole schedules of the default recipe on the text of `benchmarks.peers.task` (../shared/data/wiki_ja, else the
stories), one for each size and number of steps; a line is added to ``mamegpt/planning/scaling_runs.json`` for each.
What is there already is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import tempfile
from pathlib import Path

from benchmarks.peers.task import DATA, ROOT, Task, load
from mamegpt.cli.progress import show_progress
from mamegpt.planning.scaling_law import RUNS_FILE, ScalingRun
from mamegpt.presets import SIZES, Size, preset
from mamegpt.system.files import write_json
from mamegpt.training.trainer import train

RUNS = ROOT / "mamegpt" / "planning" / RUNS_FILE


def trained(task: Task, size: Size, n_steps: int, seed: int, held_out: bool) -> ScalingRun:
    """One schedule, from the beginning to its end."""
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            preset(size, ngrams=False),
            data=str(task.shards),
            tokenizer=str(task.tokenizer),
            out=f"{folder}/run",
            max_steps=n_steps,
            seed=seed,
            eval_every_steps=n_steps,
            save_every_steps=n_steps,
        )
        result = train(config, watchers=[show_progress()])
    assert result.quality is not None, "the last step is followed by a validation"
    return ScalingRun(
        size, result.n_parameters, result.n_tokens, seed, round(result.quality.bits_per_character, 4), held_out
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA if DATA.is_dir() else None)
    parser.add_argument("--vocab-size", type=int, default=16_000)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["1m", "5m", "15m"])
    parser.add_argument("--steps", type=int, nargs="+", default=[80, 160, 320, 640])
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--held-out", action="store_true", help="keep these out of the fit: they check it")
    args = parser.parse_args()
    task = load(args.data, args.vocab_size)
    for size, n_steps in itertools.product(args.size, args.steps):
        config = preset(size, ngrams=False)
        made = json.loads(RUNS.read_text(encoding="utf-8")) if RUNS.exists() else []
        n_tokens = n_steps * config.batch_size * config.context_length
        if (size, n_tokens, args.seed) in {(run["size"], run["n_tokens"], run["seed"]) for run in made}:
            continue
        run = trained(task, size, n_steps, args.seed, args.held_out)
        print(run, flush=True)
        write_json(RUNS, [*made, dataclasses.asdict(run)])


if __name__ == "__main__":
    main()
