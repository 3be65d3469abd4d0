"""The folder of a run: made or reopened, held against every other process, and filled with what a training needs."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from filelock import Timeout

from mamegpt.config import Logger, TrainConfig
from mamegpt.data.provenance import read_provenance
from mamegpt.data.shards import Meta, Split, is_shards, open_shards, write_shards
from mamegpt.data.sources import find_files, read_texts
from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.errors import CheckpointError, ConfigError, DataError, ModelError, OutputError, TokenizerError
from mamegpt.models.registry import unsupported_fields
from mamegpt.run import checkpoint
from mamegpt.run.metrics import read_metrics
from mamegpt.run.run import Checkpoint, Run
from mamegpt.system.console import busy, counted, say
from mamegpt.system.files import (
    LOCK,
    atomic_write,
    gone_if_empty,
    held,
    make_folder,
    remove_leftovers,
    write_json,
)
from mamegpt.system.hardware import arithmetic
from mamegpt.system.outputs import refuse_parent, refuse_unreadable
from mamegpt.system.run_files import (
    CHECKPOINTS,
    CONFIG_FILE,
    JOB_FILE,
    MACHINE_FILE,
    METRICS_FILE,
    REPORT_FILE,
    TOKENIZER_FILE,
    TOKENS,
)
from mamegpt.system.shell import command
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.autotune import measured
from mamegpt.training.optim import OPTIMIZERS

__all__ = ["as_begun", "is_of_this_job", "keep_settings", "own_folder", "run_tokenizer", "run_tokens", "settled"]

BEFORE_A_CHECKPOINT = {
    CONFIG_FILE, TOKENIZER_FILE, MACHINE_FILE, METRICS_FILE, REPORT_FILE, JOB_FILE, TOKENS, CHECKPOINTS,
    *get_args(Logger),
}  # fmt: skip
"""What may be in the folder of a run before its first checkpoint."""
START = 0
"""The step of the checkpoint in which a run keeps the model that it starts from."""


def is_of_this_job(run: Path) -> bool:
    """Whether a run was begun by the job that torchrun now starts again, and not by an earlier one of its own."""
    file = run / JOB_FILE
    return Run(run).is_begun and file.is_file() and file.read_text(encoding="utf-8") == processes.job()


@contextlib.contextmanager
def own_folder(config: TrainConfig, resume: bool, world: World) -> Iterator[Path]:
    """Create or reopen the folder of a run, and hold it against every other process until the end.

    Only the main process touches the folder; the others wait until it has done so.
    """
    config.validate(world.size, architecture=unsupported_fields(), optimizer=OPTIMIZERS)
    run = Path(config.out)
    if not world.is_main:
        processes.barrier()
        yield run
        return
    if not resume:
        _refuse_taken(run, config)  # without a trace, as a rule; what counts is the same question under the lock
    made = make_folder(run)
    try:
        with held(run / LOCK) as is_held, gone_if_empty(made):
            if resume:
                settings = TrainConfig.load(run / CONFIG_FILE)
                if settings.fingerprint() != config.settled(settings).fingerprint():
                    raise CheckpointError(f"{run} was made with other settings: compare its {CONFIG_FILE}")
            else:
                _refuse_taken(run, config, may_be_used_again=is_held)
                _empty(run)
                if processes.job():
                    with atomic_write(run / JOB_FILE) as file:
                        file.write(processes.job())
                write_json(run / CONFIG_FILE, config.to_dict())
            for folder in (run, run / CHECKPOINTS):
                remove_leftovers(folder)
            processes.barrier()
            try:
                yield run
            except (ConfigError, DataError, ModelError, TokenizerError):
                if not resume and not (run / METRICS_FILE).exists():
                    _empty(run)  # so that the corrected command may use the same folder
                raise
    except Timeout:
        raise OutputError(f"{run} is being trained by another process; wait for it, or choose another --out") from None


@contextlib.contextmanager
def as_begun(run: Path, world: World) -> Iterator[None]:
    """Compute on as many threads as the run began with, and say what else is other here.

    Threads decide in what order sums are taken, and so the last bits of the weights. Raises `CheckpointError` if the
    file that says so is damaged.
    """
    begun, now, n_threads = Run(run).machine, arithmetic(world.device, world.size), torch.get_num_threads()
    then = {name: begun[name] for name in now if name in begun}  # runs of before 2026-11-30 lack some
    n_begun = then.pop("threads", n_threads)
    other = [name for name in then if then[name] != now[name]]
    if world.is_main and other:
        was, is_ = (", ".join(f"{name} {facts[name]}" for name in other) for facts in (then, now))
        say(f"warning: the run began with {was} and continues with {is_}: its weights will differ in the last bits")
    if world.is_main and n_begun != n_threads and world.device.type == "cpu":
        say(f"threads: {n_begun}, with which the run began, instead of {n_threads}, so that its weights stay the same")
    torch.set_num_threads(n_begun)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _refuse_taken(run: Path, config: TrainConfig, may_be_used_again: bool = True) -> None:
    """Raise `OutputError` unless a new run may have this folder.

    It may if nothing is there but hidden files of others, or only what a run left that never came to a checkpoint, and
    the new one reads nothing of that (and, without a lock, not even that: another process may be at work there).
    """
    refuse_unreadable(run)
    if run.is_dir():
        names = {path.name for path in run.iterdir() if not path.name.startswith(".") or path.name == JOB_FILE}
        if not names:
            return
        if may_be_used_again and names <= BEFORE_A_CHECKPOINT and _had_no_checkpoint(run):
            refuse_parent(run, [config.data, config.val_data, config.tokenizer, config.init_from])
            return
    if run.exists():
        again = command("train", "--resume", run)
        raise OutputError(f"{run} already exists; choose another --out, or go on with: {again}")


def _had_no_checkpoint(run: Path) -> bool:
    """Whether a folder is that of a run that ended before its first checkpoint; its lock and its settings tell."""
    try:
        config = TrainConfig.load(run / CONFIG_FILE)
        last = max((record["step"] for record in read_metrics(run)), default=0)
    except (CheckpointError, ConfigError):
        return False
    names = {path.name for path in (run / CHECKPOINTS).glob("[!.]*")} - {Checkpoint.at(run, START).path.name}
    tokens_are_ours = is_shards(run / TOKENS) or not (run / TOKENS).exists()
    first_save = min(config.save_every_steps, config.max_steps)
    return not names and tokens_are_ours and (run / LOCK).is_file() and last < first_save


def _empty(run: Path) -> None:
    """Remove what a run that had no checkpoint has left in its folder."""
    for name in (CONFIG_FILE, TOKENIZER_FILE, MACHINE_FILE, METRICS_FILE, JOB_FILE):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / TOKENS, ignore_errors=True)
    checkpoint.remove(path for step, path in Run(run).checkpoints() if step == START)


def run_tokenizer(config: TrainConfig, run: Path, world: World) -> Tokenizer:
    """The run's own copy of the tokenizer, made at the first start."""
    if world.is_main and not (run / TOKENIZER_FILE).exists():
        given = Tokenizer.load(Path(config.tokenizer))  # complains if it is not one
        checkpoint.refuse_other(run / CHECKPOINTS, tokenizer=given.fingerprint)
        with atomic_write(run / TOKENIZER_FILE, "wb") as file:
            file.write(Path(config.tokenizer).read_bytes())
    processes.barrier()
    return Tokenizer.load(run / TOKENIZER_FILE)


def settled(config: TrainConfig, run: Path, vocab_size: int, world: World) -> TrainConfig:
    """Return the run's settings, with what was left to "auto" measured at its first start and kept from then on.

    What a resumed run may change is as in ``config``; `keep_settings` writes it.
    """
    if world.is_main:
        kept = TrainConfig.load(run / CONFIG_FILE)
        if not kept.is_settled:
            write_json(run / CONFIG_FILE, measured(kept, vocab_size, world).to_dict())
    processes.barrier()
    return dataclasses.replace(TrainConfig.load(run / CONFIG_FILE), on_bad_loss=config.on_bad_loss)


def keep_settings(config: TrainConfig, run: Path, world: World) -> None:
    """Write the settings of a resumed run, once it is sure that it can go on with them."""
    if world.is_main and TrainConfig.load(run / CONFIG_FILE) != config:
        write_json(run / CONFIG_FILE, config.to_dict())


def run_tokens(config: TrainConfig, tokenizer: Tokenizer, run: Path, world: World) -> tuple[Meta, dict[str, Split]]:
    """The text as token shards: those given, or those in the run, made from the text at the first start."""
    if is_shards(config.data):
        return _opened(Path(config.data), tokenizer, world)
    if world.is_main and not (run / TOKENS).exists():
        say(f"tokenizing {config.data} ...")
        begin = time.perf_counter()
        with busy("tokenizing") as show:
            texts = {"train": counted(read_texts(config.data, config.split, config.schema), show)}
            if config.val_data:
                texts["val"] = read_texts(config.val_data, config.val_split, config.schema)
            meta = write_shards(
                run / TOKENS,
                texts,
                tokenizer,
                val_fraction=config.val_fraction,
                source=config.data,
                origins=read_provenance(file.path for file in find_files(config.data, config.split, config.schema)),
                check=lambda meta: checkpoint.refuse_other(run / CHECKPOINTS, tokens=meta.fingerprint()),
            )
        train = meta.splits["train"]
        say(
            f"{train.n_tokens:,} tokens of {train.n_documents:,} documents, "
            f"{train.n_characters / train.n_tokens:.3f} characters each, in {time.perf_counter() - begin:.1f} s"
        )
    processes.barrier()
    return _opened(run / TOKENS, tokenizer, world)


def _opened(folder: Path, tokenizer: Tokenizer, world: World) -> tuple[Meta, dict[str, Split]]:
    """Token shards; the main process warns of those that stand for characters the tokenizer lacks."""
    meta, splits = open_shards(folder, tokenizer)
    if world.is_main:
        n_unknown = sum(int(np.count_nonzero(split.tokens == tokenizer.unk_id)) for split in splits.values())
        if n_unknown:
            say(
                f"warning: {n_unknown / sum(len(split.tokens) for split in splits.values()):.2%} of the tokens are "
                "unknown characters, which the model cannot write, and its bits per character look better than they "
                "are; a tokenizer made with mamegpt tokenizer has no unknown characters"
            )
    return meta, splits
