"""How well does a small model answer after the same seconds of tuning by mamegpt and by TRL, and without tuning?

    pip install -r benchmarks/peers/requirements-tuning.txt
    python -m benchmarks.peers.bench_tuning RUN [--seconds 120] [--seeds 42 43] [--rates 2e-5 1e-3 3e-3]

RUN is a run that has not learned to answer, such as ``demo/run`` of `mamegpt demo`. The data are 20,000 conversations
of 豆対話, what counts is the share of its held-out questions that is answered rightly (`mamegpt eval --tasks`):

* ``few-shot``: the base model itself continues three questions of the same kind with their answers, and the question;
* ``mamegpt``: ``mamegpt tune`` with its defaults;
* ``TRL``: `SFTTrainer` on the exported folder, loss on answers alone, 32 conversations a step, AdamW with its linear
  schedule at each of some learning rates (2e-5 is TRL's default), in float32 or under bfloat16's autocast, whichever
  is faster here.

The seconds are those of a processor, on one thread, so that other programs on the machine count for nothing. How many
steps fit into them is measured first, for each contestant; start-up, tokenizing and validation are not counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mamegpt.data.dialogues import KINDS, Dialogue, DialogueSplit, dialogues, is_right, write_dialogues
from mamegpt.evaluation.tasks import ALL, MAX_TOKENS, N_QUESTIONS, SEED, SPLITS, answered_rightly
from mamegpt.exporting.hf import write_hf
from mamegpt.models.registry import hf_formats
from mamegpt.pretrained import Pretrained, load
from mamegpt.tokenizer.chat import TEMPLATE, Message, chat_ids
from mamegpt.training.events import Event, StepEvent
from mamegpt.training.tune import tune

CONTESTANTS = ("few-shot", "mamegpt", "trl")
N_DIALOGUES, BATCH_SIZE, N_SHOTS, N_TIMED = 20_000, 32, 3, 15
END = "message['content'] + '<|end|>' }}{% endfor %}"
TRAINING_TEMPLATE = TEMPLATE.replace(
    "'<|' + message['role'] + '|>' + " + END,
    "'<|' + message['role'] + '|>' }}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + "
    "'<|end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}",
)
"""The chat template, with the marks by which TRL finds the tokens to learn."""

Shares = dict[str, dict[str, float]]
"""The share of right answers by split and kind."""


def few_shot(base: Pretrained) -> Shares:
    """Ask a model that only continues, each question after others of its kind from the training data."""
    examples: dict[str, list[str]] = defaultdict(list)
    for kinds, (question, answer) in itertools.islice(one_turn("train"), 40 * len(KINDS)):
        examples[kinds[0]].append(f"問い:{question.content}\n答え:{answer.content}\n")
    found: Shares = {}
    for split in SPLITS:
        asked = [*itertools.islice(one_turn(split), N_QUESTIONS)]
        prompts = [
            "".join(examples[kinds[0]][i % 10 : i % 10 + N_SHOTS]) + f"問い:{question.content}\n答え:"
            for i, (kinds, (question, _)) in enumerate(asked)
        ]
        right: dict[str, list[bool]] = defaultdict(list)
        answers = base.generate_many(prompts, max_new_tokens=MAX_TOKENS)
        for (kinds, (question, expected)), said in zip(asked, answers, strict=True):
            for name in (ALL, kinds[0]):
                right[name].append(is_right(question.content, expected.content, said.partition("\n")[0]))
        found[str(split)] = {name: sum(some) / len(some) for name, some in right.items()}
    return found


def one_turn(split: DialogueSplit) -> Iterator[Dialogue]:
    """Yield conversations of one question: those of `answered_rightly`, if the split is held out."""
    return (Dialogue(kinds[:1], messages[:2]) for kinds, messages in dialogues(SEED, None, split))


def shares(model: Path) -> Shares:
    """Ask a model that was tuned."""
    found = answered_rightly(load(model, device="cpu"))
    return {split: {kind: one.share for kind, one in kinds.items()} for split, kinds in found.items()}


def trl(base: Path, data: Path, out: Path, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """Tune an exported folder with TRL; returns what it took."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TRAINING_TEMPLATE
    rows = load_dataset("json", data_files=str(data), split="train").select_columns("messages")
    own = load(base, device="cpu").tokenizer
    for row in rows.select(range(100)):
        turns = [Message(it["role"], it["content"]) for it in row["messages"]]
        expected = chat_ids(own, turns)[:-1]  # without the beginning of one more answer
        assert tokenizer.apply_chat_template(row["messages"], return_dict=False) == expected, "the tokens of mamegpt"

    def trained(n_steps: int, is_bf16: bool) -> tuple[Any, float]:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        config = SFTConfig(
            str(out / "trainer"),
            max_steps=n_steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=rate,
            assistant_only_loss=True,
            gradient_checkpointing=False,
            bf16=is_bf16,
            use_cpu=True,
            seed=seed,
            report_to=[],
            save_strategy="no",
            logging_steps=50,
            disable_tqdm=True,
        )
        clock = Clock()
        trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer, callbacks=[clock])
        trainer.train()
        return trainer.model, clock.step_s

    class Clock(TrainerCallback):
        """Measures the processor seconds of a step."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends = [time.process_time()]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.process_time())

        @property
        def step_s(self) -> float:
            return statistics.median(b - a for a, b in itertools.pairwise(self.ends[1:]))

    timed = {is_bf16: trained(N_TIMED, is_bf16)[1] for is_bf16 in (False, True)}
    is_bf16 = timed[True] < timed[False]
    n_steps = int(seconds / timed[is_bf16])
    model, step_s = trained(n_steps, is_bf16)
    tuned = out / "tuned"
    shutil.copytree(base, tuned)
    model.save_pretrained(tuned)
    return {"shares": shares(tuned), "steps": n_steps, "step_s": step_s, "precision": "bf16" if is_bf16 else "fp32"}


def mame(run: Path, data: Path, out: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Tune a run with mamegpt; returns what it took."""

    def trained(name: str, n_steps: int) -> float:
        ends: list[float] = []

        def watch(event: Event) -> None:
            if isinstance(event, StepEvent):
                ends.append(time.process_time())

        tune(
            run,
            data,
            out / name,
            max_steps=n_steps,
            seed=seed,
            log_every_steps=1,
            eval_every_steps=10 * n_steps,
            watchers=[watch],
        )
        return statistics.median(b - a for a, b in itertools.pairwise(ends))

    n_steps = int(seconds / trained("timed", N_TIMED))
    step_s = trained("tuned", n_steps)
    return {"shares": shares(out / "tuned"), "steps": n_steps, "step_s": step_s}


def row(name: str, result: Mapping[str, Any]) -> str:
    """Return a line of the table: the shares of all and of each kind, held-out questions / new words."""
    test, new = (result["shares"][split] for split in SPLITS)
    cells = [f"{test[kind]:.0%} / {new[kind]:.0%}" if kind in new else f"{test[kind]:.0%}" for kind in (ALL, *KINDS)]
    return f"| {name} | {result.get('steps', 0):,} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that only continues text")
    parser.add_argument("--seconds", type=float, default=120, help="processor seconds of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43])
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-5, 1e-3, 3e-3], help="TRL's learning rates")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--out", type=Path, help="write all figures here, as JSON")
    args = parser.parse_args()

    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data, exported = folder / "pairs.jsonl", folder / "hf"
        write_dialogues(data, N_DIALOGUES)
        base = load(args.run, device="cpu")
        assert base.sizes is not None
        exported.mkdir()
        hf_format = hf_formats()[base.architecture]
        write_hf(exported, base.model, base.sizes, base.tokenizer, hf_format, answers=True)

        def show(name: str, result: dict[str, Any]) -> None:
            results[name] = result
            print(row(name, result), flush=True)
            if args.out:
                args.out.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

        print(f"| contestant | steps | {' | '.join((ALL, *KINDS))} |\n|{' --- |' * (len(KINDS) + 3)}")
        if "few-shot" in args.only:
            show("few-shot", {"shares": few_shot(base)})
        for seed in args.seeds:
            out = folder / f"{seed}"
            if "mamegpt" in args.only:
                show(f"mamegpt, seed {seed}", mame(args.run, data, out, args.seconds, seed))
            for rate in args.rates if "trl" in args.only else ():
                out = folder / f"{seed}-{rate}"
                show(f"TRL, {rate:g}, seed {seed}", trl(exported, data, out, rate, args.seconds, seed))


if __name__ == "__main__":
    main()
