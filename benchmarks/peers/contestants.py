"""Who takes part, a line each in `CONTESTANTS`, and the process in which one of them trains.

    python -m benchmarks.peers.contestants                       # prints names and projects as JSON
    python -m benchmarks.peers.contestants NAME TASK_JSON OUT

The second trains for ever and adds a line to ``OUT/metrics.jsonl`` after each step, with ``step``, ``loss`` and
``elapsed_s``, as `train` does by itself. Nothing else is asked of a contestant: the benchmark stops
and continues the process from outside (SIGSTOP, SIGCONT) and reads that file.

mamegpt's own recipe has two heads, of 64, where the others have four of 32: as many parameters and operations.

All train a model of the task's sizes on the same windows in the same order, with AdamW at 3e-4 (but mamegpt's own
recipes), so that their losses can be compared. Each peer runs its own model and its own way of training:

* litgpt: its ``GPT`` with a Pythia configuration (residuals one after the other, as in GPT-2: with parallel ones in
  true bf16, PyTorch 2.13.0 cannot compile the backward pass); Lightning Fabric, ``chunked_cross_entropy``, clipping
  at 1, as in its ``pretrain`` command. ``mixed`` (autocast) is its default precision, ``true`` its other one; ``whole``
  takes the loss of all logits at once instead of 128 tokens at a time (``chunk_size=0``).
* transformers: ``GPT2LMHeadModel`` in ``Trainer``; bf16 is its autocast, or a model converted beforehand (``true``).
* llms-from-scratch: ``GPTModel`` and ``GPTModelFast`` in the loop of chapter 5; bf16 is ``model.to(torch.bfloat16)``.

Where a setting is free, the fastest was taken: no dropout (the reference and mamegpt's seed recipe have 0.1), the fused
AdamW, a vocabulary without padding.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers import reference
from benchmarks.peers.task import Task
from mamegpt.config import TrainConfig
from mamegpt.presets import ORIGINAL

LR = reference.LR
FOR_EVER = 1_000_000


class Metrics:
    """Writes the file that the benchmark reads."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / "metrics.jsonl").open("w", buffering=1)
        self.step = 0

    def add(self, loss: float) -> None:
        """One step is done."""
        self.step += 1
        self.file.write(json.dumps({"step": self.step, "loss": loss, "elapsed_s": time.perf_counter()}) + "\n")


def train_reference(task: Task, out: Path) -> None:
    metrics = Metrics(out)
    for _, loss in reference.train(task):
        metrics.add(loss)


def train_mamegpt(task: Task, out: Path, **settings: Any) -> None:
    """`train` as a user calls it, with one line of log a step and nothing saved or validated."""
    from mamegpt.cli.progress import show_progress
    from mamegpt.training.trainer import train

    train(mamegpt_config(task, out, **settings), watchers=[show_progress()])


def mamegpt_config(task: Task, out: Path, **settings: Any) -> TrainConfig:
    """The task in mamegpt's words; ``settings`` go before what stands here."""
    here: dict[str, Any] = {
        "data": str(task.shards),
        "tokenizer": str(task.tokenizer),
        "out": str(out),
        "seed": task.seed,
        "batch_size": task.batch_size,
        "context_length": task.context_length,
        "emb_dim": task.emb_dim,
        "n_layers": task.n_layers,
        "n_heads": task.n_heads,
        "max_steps": 2000,
        "log_every_steps": 1,
        "eval_every_steps": FOR_EVER,
        "save_every_steps": FOR_EVER,
    }
    return TrainConfig(**{**here, **settings})


def train_litgpt(task: Task, out: Path, precision: Any, compiled: bool, chunk_size: int = 128) -> None:
    import lightning
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.pretrain import initialize_weights
    from litgpt.utils import chunked_cross_entropy

    config = Config.from_name(
        "pythia-14m",
        parallel_residual=False,
        block_size=task.context_length,
        n_layer=task.n_layers,
        n_embd=task.emb_dim,
        n_head=task.n_heads,
        intermediate_size=4 * task.emb_dim,
        vocab_size=task.vocab_size,
        padded_vocab_size=task.vocab_size,
    )
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    fabric.seed_everything(task.seed)
    with fabric.init_module(empty_init=True):
        model: Any = GPT(config)
    initialize_weights(fabric, model, n_layer=config.n_layer, n_embd=config.n_embd)
    if compiled:
        model = torch.compile(model)
    model = fabric.setup(model)
    optimizer: Any = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=LR, fused=True))
    metrics = Metrics(out)
    model.train()
    for x, y in task.batches():
        loss = chunked_cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y), chunk_size)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        metrics.add(loss.item())


class Windows(torch.utils.data.IterableDataset[dict[str, torch.Tensor]]):
    """The windows of a task, one by one, as transformers' Trainer wants them."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for x, y in self.task.batches():
            for ids, targets in zip(torch.from_numpy(x), torch.from_numpy(y), strict=True):
                # shift_labels: the targets as they are, so that a window has as many as with the others
                yield {"input_ids": ids, "labels": targets, "shift_labels": targets}


def gpt2(task: Task) -> Any:
    """transformers' model of the task's sizes and seed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(task.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=task.vocab_size,
            n_positions=task.context_length,
            n_embd=task.emb_dim,
            n_layer=task.n_layers,
            n_head=task.n_heads,
            tie_word_embeddings=False,
            use_cache=False,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def train_transformers(task: Task, out: Path, precision: Literal["fp32", "mixed", "true"], compiled: bool) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            metrics.add(rest["logs"]["loss"])

    model = gpt2(task)
    if precision == "true":
        model = model.to(torch.bfloat16)
    arguments = TrainingArguments(
        output_dir=str(out / "trainer"),
        use_cpu=True,
        bf16=precision == "mixed",
        torch_compile=compiled,
        max_steps=FOR_EVER,
        per_device_train_batch_size=task.batch_size,
        learning_rate=LR,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    metrics = Metrics(out)
    Trainer(model=model, args=arguments, train_dataset=Windows(task), callbacks=[Log()]).train()


def train_llms_from_scratch(task: Task, out: Path, kind: str, dtype: torch.dtype, compiled: bool) -> None:
    from llms_from_scratch import ch04

    torch.manual_seed(task.seed)
    sizes = {
        "vocab_size": task.vocab_size,
        "context_length": task.context_length,
        "emb_dim": task.emb_dim,
        "n_heads": task.n_heads,
        "n_layers": task.n_layers,
        "drop_rate": 0.0,
        "qkv_bias": False,
    }
    model: nn.Module = getattr(ch04, kind)(sizes).to(dtype)
    run: Any = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    metrics = Metrics(out)
    run.train()
    for x, y in task.batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(run(torch.from_numpy(x)).flatten(0, 1), torch.from_numpy(y).flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        metrics.add(loss.item())


@dataclass(frozen=True)
class Contestant:
    """``project`` groups the variants of one; ``train(task, out)`` never returns."""

    project: str
    train: Callable[[Task, Path], None]


SIZES = {field.name for field in dataclasses.fields(Task)}
SEED_RECIPE = {
    name: value
    for name, value in ORIGINAL.to_dict().items()
    if name not in SIZES and value != getattr(TrainConfig, name)
}
"""The recipe without its sizes, which are the task's."""

MAMEGPT: dict[str, dict[str, Any]] = {
    "mamegpt --recipe seed": SEED_RECIPE,
    "mamegpt": {"n_heads": 2, "compile": "false"},
    "mamegpt, compiled": {"n_heads": 2, "compile": "true"},
}
"""Settings of `TrainConfig` by contestant; what is not named has its default."""

REFERENCE = "original recipe"
BOOK, FAST = "GPTModel", "GPTModelFast"
FP32, BF16 = torch.float32, torch.bfloat16
EAGER, COMPILED, BOTH = (False,), (True,), (False, True)

CONTESTANTS: dict[str, Contestant] = {
    REFERENCE: Contestant(REFERENCE, train_reference),
    **{name: Contestant(name, partial(train_mamegpt, **settings)) for name, settings in MAMEGPT.items()},
    **{
        f"{project} {label}{', compiled' if compiled else ''}": Contestant(
            project, partial(train, **settings, compiled=compiled)
        )
        for project, label, train, settings, ways in (
            ("litgpt", "fp32", train_litgpt, {"precision": "32-true"}, BOTH),
            ("litgpt", "bf16 mixed", train_litgpt, {"precision": "bf16-mixed"}, BOTH),
            ("litgpt", "bf16 true", train_litgpt, {"precision": "bf16-true"}, BOTH),
            ("litgpt", "bf16 mixed whole", train_litgpt, {"precision": "bf16-mixed", "chunk_size": 0}, COMPILED),
            ("litgpt", "bf16 true whole", train_litgpt, {"precision": "bf16-true", "chunk_size": 0}, COMPILED),
            ("transformers", "fp32", train_transformers, {"precision": "fp32"}, BOTH),
            ("transformers", "bf16 mixed", train_transformers, {"precision": "mixed"}, BOTH),
            ("transformers", "bf16 true", train_transformers, {"precision": "true"}, BOTH),
            ("llms-from-scratch", "fp32", train_llms_from_scratch, {"kind": FAST, "dtype": FP32}, BOTH),
            ("llms-from-scratch", "bf16", train_llms_from_scratch, {"kind": FAST, "dtype": BF16}, BOTH),
            ("llms-from-scratch", "book fp32", train_llms_from_scratch, {"kind": BOOK, "dtype": FP32}, EAGER),
        )
        for compiled in ways
    },
}


def die_with_parent() -> None:
    """On Linux, let the kernel end this process when the benchmark ends, even if it is stopped at that moment."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        sys.exit("the benchmark is gone")


def main() -> None:
    if len(sys.argv) == 1:
        print(json.dumps({name: contestant.project for name, contestant in CONTESTANTS.items()}))
        return
    name, task, out = sys.argv[1:]
    die_with_parent()
    warnings.filterwarnings("ignore")
    CONTESTANTS[name].train(Task(**json.loads(task)), Path(out))


if __name__ == "__main__":
    main()
