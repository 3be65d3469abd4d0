"""Everything a training loop needs: the folder of its run, held against other processes, and what is made in it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from filelock import Timeout
from torch import nn
from torch.amp import GradScaler

from mamegpt.config import Logger, TrainConfig, TuneConfig
from mamegpt.data.conversation_order import Conversations, Questions
from mamegpt.data.provenance import read_provenance
from mamegpt.data.shards import Meta, Split, is_shards, open_shards, write_shards
from mamegpt.data.sources import find_files, noted_source, read_texts
from mamegpt.data.window_order import WindowOrder
from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.distributed.sharding import ShardedInit, init_device, parallelize
from mamegpt.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ModelError,
    OutputError,
    TokenizerError,
)
from mamegpt.messages import without_secrets
from mamegpt.models.base import LanguageModel, replace_head
from mamegpt.models.lora import add_adapters
from mamegpt.models.registry import architecture, build_model, init_weights, unsupported_fields
from mamegpt.native.library import Native
from mamegpt.run import checkpoint
from mamegpt.run.checkpoint import Saver, State
from mamegpt.run.metrics import Quality
from mamegpt.run.run import Checkpoint, Run, checkpoints
from mamegpt.system.files import (
    LOCK,
    atomic_write,
    gone_if_empty,
    held,
    make_folder,
    remove_leftovers,
    write_json,
)
from mamegpt.system.hardware import arithmetic, hardware, summary
from mamegpt.system.limits import keep_freed_memory
from mamegpt.system.outputs import refuse_inside_run, refuse_parent, refuse_unreadable
from mamegpt.system.run_files import (
    CHECKPOINTS,
    CONFIG_FILE,
    JOB_FILE,
    LABELS_FILE,
    MACHINE_FILE,
    METRICS_FILE,
    REFERENCE_FILE,
    REPORT_FILE,
    TOKENIZER_FILE,
    TOKENS,
)
from mamegpt.system.shell import command
from mamegpt.tokenizer.reserved import with_reserved
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.autotune import Kind, Probe, autotune, compiler_error, fit_micro_batch
from mamegpt.training.batches import Batches, ConversationBatches, WindowBatches
from mamegpt.training.bigram_init import can_fit_bigrams, fit_bigrams
from mamegpt.training.budget import StepBudget, extensions_of, is_finished
from mamegpt.training.conversations import (
    conversation_batches,
    mean_length,
    pairs_of,
    questions_of,
    validation_of,
    write_conversations,
)
from mamegpt.training.dpo import DPOLoss, evaluate_pairs, keep_reference, read_reference
from mamegpt.training.engine import choose_engine, engine_name, load_engine, same_bits
from mamegpt.training.events import (
    CompileFailed,
    Emit,
    FittingBigrams,
    MachineChanged,
    NgramsLeftOut,
    Quarantined,
    Saved,
    ThreadsRestored,
    Tokenized,
    Tokenizing,
    UnknownTokens,
)
from mamegpt.training.forward import SummedLoss, checkpoint_activations, micro_batch, refuse_wrong_results
from mamegpt.training.grpo import Answerer, GroupBatches, GRPOLoss, evaluate_rewards, reference_model
from mamegpt.training.init_from import load_initial_weights
from mamegpt.training.labelled import write_labelled_texts
from mamegpt.training.loss_scaling import loss_scaler, restore_scale
from mamegpt.training.metrics import Metrics
from mamegpt.training.ngram_targets import NgramTargets
from mamegpt.training.optim import OPTIMIZERS, Optimizer, build_optimizer, mark_fitted
from mamegpt.training.rewards import Reward, find_reward
from mamegpt.training.validation import evaluate

__all__ = ["Training", "as_begun", "is_of_this_job", "own_folder", "run_tokenizer", "run_tokens", "setup", "validation"]

BEFORE_A_CHECKPOINT = {
    CONFIG_FILE,
    TOKENIZER_FILE,
    MACHINE_FILE,
    METRICS_FILE,
    REPORT_FILE,
    JOB_FILE,
    LABELS_FILE,
    REFERENCE_FILE,
    TOKENS,
    CHECKPOINTS,
    *get_args(Logger),
}
"""What may be in the folder of a run before its first checkpoint."""
START = 0
"""The step of the checkpoint in which a run keeps the model that it starts from."""
REGULAR_TEXT_LOSS = 2.0
"""Nats per token of an n-gram model below which a text is so regular that counts hold a model back (docs/log.md)."""
PROBE_WINDOWS = 32
"""Windows of the validation text with which its time is measured."""
VALIDATION_SHARE = 0.1
"""Share of a run's minutes that its last validation may take."""
TOKENIZED_EVERY = 100
"""Documents between two `Tokenizing` events."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything the training loop needs.

    ``summed_loss`` computes the loss of ``model`` on all processes. ``batches`` says what a step learns from. ``state``
    is that of the checkpoint the run resumes from, or of its start. ``validate`` is
    `mamegpt.training.validation.evaluate` on the validation text, if there is any. After the last step it measures
    ``last_val_tokens`` (0: all) in float32, unless the sample that was measured while training is that already (None).
    ``started_s`` is when the run would have begun if it had never been interrupted, by
    `time.perf_counter`.
    """

    run: Path
    config: TrainConfig
    world: World
    tokenizer: Tokenizer
    n_val_tokens: int | None
    last_val_tokens: int | None
    batches: Batches
    ngram_targets: NgramTargets | None
    model: LanguageModel
    summed_loss: nn.Module
    optimizer: Optimizer
    scaler: GradScaler
    state: State
    started_s: float
    is_finished: bool
    metrics: Metrics
    validate: Callable[..., Quality] | None
    budget: StepBudget
    saver: Saver

    @property
    def n_parameters(self) -> int:
        """Parameters of the model; a tied one counts once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def elapsed_s(self) -> float:
        """Seconds that the run has taken, interruptions not counted."""
        return time.perf_counter() - self.started_s


def setup(
    run: Path,
    config: TrainConfig,
    kept: TrainConfig,
    world: World,
    emit: Emit,
    *,
    called_s: float,
    skip_damaged: bool = False,
    more_steps: int = 0,
    more_minutes: float = 0.0,
    own_reward: Reward | None = None,
) -> Training:
    """Make everything that a training needs, from the newest checkpoint in the folder of its run if there is one.

    ``kept`` are the settings in that folder; of ``config``, only what a resumed run may change counts beside them.
    ``called_s`` is when the time of this call began to count. For the rest see `mamegpt.training.trainer.train`.
    """
    refuse_wrong_results(kept, world.device)
    if world.device.type == "cpu":
        keep_freed_memory()
    reward = find_reward(kept.reward, own_reward) if isinstance(kept, TuneConfig) and kept.task == "grpo" else None
    tokenizer = run_tokenizer(config, run, world)
    meta, splits = run_tokens(config, tokenizer, run, world, emit)
    train, val = splits["train"], splits.get("val")
    batches, row_length = _batches(config, splits, tokenizer, world)
    n_labels = len(Run(run).labels) if config.task == "classify" else 0
    is_new = Run(run).latest() is None
    resolved, probe = _resolved(run, kept, row_length, n_labels or tokenizer.vocab_size, world, emit, is_new=is_new)
    native = probe.native
    config = dataclasses.replace(resolved, on_bad_loss=config.on_bad_loss)
    if config.micro_batch_size != kept.micro_batch_size:
        batches, _ = _batches(config, splits, tokenizer, world)

    compiled = config.compile == "true"
    if kept.compile == "true" and world.size == 1:  # else it was measured, or all processes would have to agree
        compiled = _compiles(config, probe, is_new, emit)
    starts_from_model = bool(config.init_from) and is_new
    ngram_targets = _ngram_targets(config, train.tokens, tokenizer, native, emit)
    fitted = ngram_targets is not None and can_fit_bigrams(config)
    counted = train.tokens if fitted and is_new else None
    model, summed_loss = _build_model(
        config, tokenizer, n_labels, starts_from_model, counted, native, compiled, world, emit
    )
    optimizer = build_optimizer(model, config, native)
    if fitted:
        mark_fitted(optimizer)
    state = State(0, 0.0, config.fingerprint(), meta.fingerprint(), tokenizer.fingerprint)
    checkpoint.refuse_other(run / CHECKPOINTS, settings=state.settings, tokens=state.tokens, tokenizer=state.tokenizer)
    processes.barrier(world)  # all have looked for a checkpoint
    saver = Saver(
        run / CHECKPOINTS,
        config.keep_checkpoints,
        config.sharding == "full",
        world,
        on_saved=lambda step, path: emit(Saved(step, path)),
    )
    validate = validation(config, val, tokenizer, model, world, native) if val else None
    if isinstance(config, TuneConfig) and config.task == "dpo":
        pairs = {name: pairs_of(split, tokenizer) for name, split in splits.items()}
        if starts_from_model:
            keep_reference(run, model, pairs, world, native)
        validate = _prepare_dpo(run, config, pairs, model, summed_loss, world, native)
    if isinstance(config, TuneConfig) and reward:
        start = reference_model(run, model, world, is_new=starts_from_model)
        questions = {name: questions_of(split, tokenizer) for name, split in splits.items()}
        answer = Answerer(model, tokenizer, reward, config.answer_tokens, config.seed)
        assert isinstance(batches, ConversationBatches), "they are of questions"
        batches = GroupBatches(
            questions["train"], batches.order, batches.n_rows, config.group_size, answer, world.host_group
        )
        validate = _prepare_grpo(config, questions, start, answer, summed_loss)
    if starts_from_model:
        try:
            saver.save(model, optimizer, state)  # so that the run can be resumed without that model
            saver.wait()
        except BaseException:  # Ctrl-C too: nothing may be written once the run's lock is released
            saver.close()
            raise
    elif skip_damaged and world.is_main:
        for problem in checkpoint.quarantine(run / CHECKPOINTS):
            emit(Quarantined(problem))
    processes.barrier(world)
    if not starts_from_model and (newest := Run(run).latest()):
        state = checkpoint.load(newest.path, model, optimizer)
    scaler = loss_scaler(config, world.device)
    restore_scale(scaler, state)
    if world.is_main and config != resolved:
        write_json(run / CONFIG_FILE, config.to_dict())  # only now is it sure that the run can go on with them

    now = {"engine": engine_name(native)}
    begun = {"engine": Run(run).machine.get("engine", now["engine"])}
    if state.step > 0 and not same_bits(begun["engine"], now["engine"], config.precision):
        emit(MachineChanged(begun, now))

    started_s = called_s - state.elapsed_s
    extensions = extensions_of(run, config, state, more_steps, more_minutes, world)
    finished = is_finished(config, state, extensions)
    metrics = Metrics(run, state.step, write=world.is_main, digest=state.metrics, may_skip=scaler.is_enabled())
    minutes = 0.0 if finished else extensions[-1].minutes if extensions else config.minutes
    reserve_s, step_s, last_val_tokens = 0.0, 0.0, None
    if val and validate:
        last_val_tokens, reserve_s = _last_validation(validate, config, len(val.tokens), minutes, world)
    if minutes:
        (step_s,) = probe.seconds_per_step([Kind(config.precision, compiled)])
    budget = StepBudget(
        config,
        state.step,
        time.perf_counter() - started_s,
        world,
        extensions=extensions,
        finished=finished,
        seconds_per_step=step_s,
        reserve_s=reserve_s,
    )
    if world.is_main and state.step == 0:
        facts = arithmetic(world.device, world.size) | now | dict(hardware())
        write_json(run / MACHINE_FILE, {"machine": summary(world.device)} | facts)
    return Training(
        run=run,
        config=config,
        world=world,
        tokenizer=tokenizer,
        n_val_tokens=len(val.tokens) if val else None,
        last_val_tokens=last_val_tokens,
        batches=batches,
        ngram_targets=ngram_targets,
        model=model,
        summed_loss=summed_loss,
        optimizer=optimizer,
        scaler=scaler,
        state=state,
        started_s=started_s,
        is_finished=finished,
        metrics=metrics,
        validate=validate,
        budget=budget,
        saver=saver,
    )


def _resolved(
    run: Path, kept: TrainConfig, row_length: int, n_outputs: int, world: World, emit: Emit, *, is_new: bool
) -> tuple[TrainConfig, Probe]:
    """Return the settings of a run with every "auto" decided, and what measured that.

    The folder of the run keeps them. The probe has the native engine if the run computes with it.
    """
    engine = processes.from_main(choose_engine(kept, world.device, emit) if world.is_main else kept.engine, world)
    must = is_new and engine == "native"
    native = load_engine(engine, world.device, emit, must=must, precision=kept.precision)
    measured = dataclasses.replace(kept, context_length=row_length)
    probe = Probe(measured, n_outputs, world.device, world.size, native=native)
    resolved = kept
    if world.is_main:
        sized = fit_micro_batch(kept, probe, emit) if is_new else kept
        resolved = autotune(dataclasses.replace(sized, engine=engine), probe.seconds_per_step, world, emit)
        if resolved != kept:
            write_json(run / CONFIG_FILE, resolved.to_dict())
    resolved = processes.from_main(resolved, world)
    if resolved.engine == "torch":
        probe.native = None
    return resolved, probe


def _prepare_dpo(
    run: Path,
    config: TuneConfig,
    pairs: dict[str, Conversations],
    model: LanguageModel,
    summed_loss: nn.Module,
    world: World,
    native: Native | None,
) -> Callable[..., Quality] | None:
    """Give the loss what the start model thinks of the answers; return the function that measures, if there is text."""
    reference = read_reference(run, pairs)
    for module in summed_loss.modules():
        if isinstance(module, DPOLoss):
            module.reference, module.beta = reference["train"].to(world.device), config.dpo_beta
    if "val" not in pairs:
        return None
    return functools.partial(
        evaluate_pairs,
        model,
        pairs["val"],
        reference=reference["val"],
        beta=config.dpo_beta,
        world=world,
        native=native,
    )


def _prepare_grpo(
    config: TuneConfig,
    questions: dict[str, Questions],
    start: LanguageModel,
    answer: Answerer,
    summed_loss: nn.Module,
) -> Callable[..., Quality] | None:
    """Give the loss the start model; return the function that measures, if there are questions for that."""
    for module in summed_loss.modules():
        if isinstance(module, GRPOLoss):
            module.reference, module.kl_beta = start, config.kl_beta
    if "val" not in questions:
        return None
    return functools.partial(evaluate_rewards, answer, questions["val"], reference=start, kl_beta=config.kl_beta)


def _batches(config: TrainConfig, splits: dict[str, Split], tokenizer: Tokenizer, world: World) -> tuple[Batches, int]:
    """Return what the steps of a run learn from, and the mean number of tokens in a row."""
    if isinstance(config, TuneConfig):
        found = conversation_batches(config, splits, tokenizer, world)
        return found, min(config.context_length, mean_length(found))
    tokens = splits["train"].tokens
    order = WindowOrder(len(tokens), config.context_length, config.batch_size, config.seed, config.samples_per_epoch)
    n_rows = config.batch_size // world.size
    n_passes = math.ceil(n_rows / micro_batch(config, n_rows, world.device))
    return WindowBatches(order, tokens, n_passes), config.context_length


def validation(
    config: TrainConfig, val: Split, tokenizer: Tokenizer, model: LanguageModel, world: World, native: Native | None
) -> Callable[..., Quality]:
    """Return the function that measures a model: on a text, on the answers of conversations, or on labels."""
    if isinstance(config, TuneConfig):
        return validation_of(config, val, tokenizer, model, world, native)
    return functools.partial(
        evaluate,
        model,
        val.tokens,
        n_characters=val.meta.n_characters,
        n_bytes=val.meta.n_bytes,
        start_id=tokenizer.start_id,
        context_length=config.context_length,
        world=world,
        native=native,
    )


def _ngram_targets(
    config: TrainConfig, tokens: npt.NDArray[Any], tokenizer: Tokenizer, native: Native | None, emit: Emit
) -> NgramTargets | None:
    """Return the n-gram counts of a text; None without --ngrams, or for a text that models soon predict better."""
    if not config.ngrams:
        return None
    found = NgramTargets(tokens, tokenizer.vocab_size, config.seed, native=native)
    if found.loss >= REGULAR_TEXT_LOSS:
        return found
    emit(NgramsLeftOut(found.loss))
    return None


def _build_model(
    config: TrainConfig,
    tokenizer: Tokenizer,
    n_labels: int,
    starts_from_model: bool,
    counted: npt.NDArray[Any] | None,
    native: Native | None,
    compiled: bool,
    world: World,
    emit: Emit,
) -> tuple[LanguageModel, nn.Module]:
    """Return the model of a run with its initial weights, and the loss of it that all processes compute together.

    A classifier has ``n_labels`` (else 0). With ``counted`` tokens, embedding and head begin as a fit to their bigrams.
    """
    torch.manual_seed(config.seed)
    with init_device(config.sharding, world) as place:
        model = build_model(config.architecture, config.model(tokenizer.vocab_size))
        if n_labels:
            replace_head(model, n_labels)
    if place.type != "meta":
        model.to(world.device)
    turns = tokenizer.turns if config.answers else None
    if config.lora:
        rows = [*turns.begin.values(), turns.end] if turns else []
        add_adapters(model, config.lora, learned_rows=rows, learns_head=n_labels > 0)
    if counted is not None:
        found = architecture(config.architecture)
        assert found.hidden_of_tokens and found.look_back, "asked in can_fit_bigrams"
        hidden = functools.partial(found.hidden_of_tokens, model)
        mean = fit_bigrams(model, hidden, counted, config.seed, on_progress=lambda share: emit(FittingBigrams(share)))
        found.look_back(model, mean)
    if config.activation_checkpointing:
        checkpoint_activations(model)
    kind = {"dpo": DPOLoss, "grpo": GRPOLoss}.get(config.task, SummedLoss)
    alone = kind(model, config.precision, compiled=compiled, native=native)
    summed_loss = parallelize(alone, model, config.sharding, world)
    with ShardedInit():  # type: ignore[no-untyped-call]
        if place.type == "meta":
            init_weights(config.architecture, model)
        if starts_from_model:
            load_initial_weights(model, config.init_from, turns, has_own_head=n_labels > 0)
    return model, summed_loss


def _compiles(config: TrainConfig, probe: Probe, is_new: bool, emit: Emit) -> bool:
    """Return whether compiled code runs here, as that of a run which was moved may not.

    It continues without, to other last bits, and that is said. Raises `ConfigError` in a new run.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        probe.seconds_per_step([Kind(config.precision, compiled=True)])
    except TorchDynamoException as error:
        if is_new:
            raise ConfigError(
                "--compile true does not work here ({reason}); leave it out", reason=compiler_error(error)
            ) from None
        emit(CompileFailed(compiler_error(error)))
        return False
    return True


def _last_validation(
    validate: Callable[..., Quality], config: TrainConfig, n_tokens: int, minutes: float, world: World
) -> tuple[int | None, float]:
    """Return what to measure after the last step, `Training.last_val_tokens`, and the seconds to keep for that.

    All ``n_tokens``; in a run of so many ``minutes`` (0: of steps) only as many as `VALIDATION_SHARE` of them has time
    for, at the speed that a part of them has now, and no fewer than the sample that is measured while training.
    """
    sample, last, token_s = min(config.val_tokens or n_tokens, n_tokens), n_tokens, 0.0
    if minutes:
        n = min(n_tokens, PROBE_WINDOWS * config.context_length)
        seconds = []
        for _ in range(2):  # the first one warms up
            begin = time.perf_counter()
            validate(max_tokens=n)
            seconds.append(time.perf_counter() - begin)
        token_s = processes.from_main(min(seconds) / n, world)
        last = min(n_tokens, max(sample, int(VALIDATION_SHARE * minutes * 60 / token_s) - sample))
    if last == sample and config.precision == "fp32":
        return None, token_s * sample
    return 0 if last == n_tokens else last, token_s * (sample + last)


def is_of_this_job(run: Path) -> bool:
    """Return whether a run was begun by the job that torchrun starts again now, and not by an earlier one."""
    file = run / JOB_FILE
    return Run(run).is_begun and file.is_file() and file.read_text(encoding="utf-8") == processes.job()


@contextlib.contextmanager
def own_folder(run: Path, config: TrainConfig, resume: bool, world: World) -> Iterator[TrainConfig]:
    """Create or reopen the folder of a run, and hold it against every other process until the end.

    Yields the settings in it. Only the main process touches the folder; the others wait until it has done so, and are
    yielded ``config``.
    """
    config.validate(world.size, architecture=unsupported_fields(), optimizer=OPTIMIZERS)
    if not world.is_main:
        processes.barrier(world)
        yield config
        return
    if not resume:
        _refuse_taken(run, config)  # without a trace, as a rule; what counts is the same question under the lock
    made = make_folder(run)
    try:
        with held(run / LOCK) as is_held, gone_if_empty(made):
            kept = config
            if resume:
                kept = Run(run).config
                if kept.fingerprint() != config.resolved(kept).fingerprint():
                    raise CheckpointError(
                        "{run} was made with other settings: compare its {config_file}",
                        run=run,
                        config_file=CONFIG_FILE,
                    )
            else:
                _refuse_taken(run, config, may_be_used_again=is_held)
                _empty(run)
                if processes.job():
                    with atomic_write(run / JOB_FILE) as file:
                        file.write(processes.job())
                write_json(run / CONFIG_FILE, config.to_dict())
            for folder in (run, run / CHECKPOINTS):
                remove_leftovers(folder)
            processes.barrier(world)
            try:
                yield kept
            except (ConfigError, DataError, ModelError, TokenizerError):
                if not resume and not (run / METRICS_FILE).exists():
                    _empty(run)  # so that the corrected command may use the same folder
                raise
    except Timeout:
        raise OutputError(
            "{run} is being trained by another process; wait for it, or choose another --out", run=run
        ) from None


@contextlib.contextmanager
def as_begun(run: Path, world: World, emit: Emit) -> Iterator[None]:
    """Compute on as many threads as the run began with; `MachineChanged` says what else is other here.

    Threads decide in what order sums are taken, and so the last bits of the weights. Raises `CheckpointError` if the
    file that says so is damaged.
    """
    begun, now, n_threads = Run(run).machine, arithmetic(world.device, world.size), torch.get_num_threads()
    then = {name: begun[name] for name in now if name in begun}  # runs of before 2026-11-30 lack some
    n_begun = then.pop("threads", n_threads)
    if other := [name for name in then if then[name] != now[name]]:
        emit(MachineChanged({name: then[name] for name in other}, {name: now[name] for name in other}))
    if n_begun != n_threads and world.device.type == "cpu":
        emit(ThreadsRestored(n_begun, n_threads))
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
    refuse_inside_run(run)
    if run.is_dir():
        names = {path.name for path in run.iterdir() if not path.name.startswith(".") or path.name == JOB_FILE}
        if not names:
            return
        if may_be_used_again and names <= BEFORE_A_CHECKPOINT and _had_no_checkpoint(run):
            refuse_parent(run, [config.data, config.val_data, config.tokenizer, config.init_from])
            return
    if Run.find(run):
        again = command("train", "--resume", run)
        raise OutputError("{run} already exists; choose another --out, or resume with: {again}", run=run, again=again)
    if run.exists():
        raise OutputError("{run} already exists; choose another --out", run=run)


def _had_no_checkpoint(run: Path) -> bool:
    """Return whether a folder is that of a run that ended before its first checkpoint.

    Its lock and its settings tell.
    """
    begun = Run(run)
    try:
        config = begun.config
        last = max((record["step"] for record in begun.metrics), default=0)
    except (CheckpointError, ConfigError):
        return False
    names = {path.name for path in (run / CHECKPOINTS).glob("[!.]*")} - {Checkpoint.at(run, START).path.name}
    tokens_are_ours = is_shards(run / TOKENS) or not (run / TOKENS).exists()
    first_save = min(config.save_every_steps, config.max_steps)
    return not names and tokens_are_ours and (run / LOCK).is_file() and last < first_save


def _empty(run: Path) -> None:
    """Remove what a run that had no checkpoint has left in its folder."""
    for name in (CONFIG_FILE, TOKENIZER_FILE, MACHINE_FILE, METRICS_FILE, JOB_FILE, LABELS_FILE, REFERENCE_FILE):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / TOKENS, ignore_errors=True)
    checkpoint.remove(path for step, path in checkpoints(run / CHECKPOINTS) if step == START)


def run_tokenizer(config: TrainConfig, run: Path, world: World) -> Tokenizer:
    """Return the run's own copy of the tokenizer, made at the first start."""
    if world.is_main and not (run / TOKENIZER_FILE).exists():
        path = Path(config.tokenizer)
        given = Tokenizer.load(path)  # complains if it is not one
        model = path.read_bytes()
        if config.answers:
            model = with_reserved(model)
            given = Tokenizer(model, path)
        checkpoint.refuse_other(run / CHECKPOINTS, tokenizer=given.fingerprint)
        with atomic_write(run / TOKENIZER_FILE, "wb") as file:
            file.write(model)
    processes.barrier(world)
    return Run(run).tokenizer


def run_tokens(
    config: TrainConfig, tokenizer: Tokenizer, run: Path, world: World, emit: Emit
) -> tuple[Meta, dict[str, Split]]:
    """Return the text as token shards: those given, or those in the run, made from the text at the first start."""
    is_tuning = isinstance(config, TuneConfig)
    folder = Path(config.data) if is_shards(config.data) and not is_tuning else run / TOKENS

    def check(meta: Meta) -> None:
        checkpoint.refuse_other(run / CHECKPOINTS, tokens=meta.fingerprint())

    if world.is_main and not folder.exists() and isinstance(config, TuneConfig):
        if config.task == "classify":
            write_labelled_texts(folder, run / LABELS_FILE, config, tokenizer, check, emit)
        else:
            write_conversations(folder, config, tokenizer, check, emit)
    elif world.is_main and not folder.exists():
        name = without_secrets(config.data)
        emit(Tokenizing(name, 0))
        begin = time.perf_counter()
        files = find_files(config.data, config.split, config.schema)
        texts = {part: read_texts(*source, config.schema) for part, source in config.sources.items()}
        texts["train"] = _counted(texts["train"], name, emit)
        made = write_shards(
            folder,
            texts,
            tokenizer,
            val_fraction=config.val_fraction,
            source=noted_source(files),
            origins=read_provenance(file.path for file in files),
            check=check,
        )
        train = made.splits["train"]
        emit(Tokenized(train.n_tokens, train.n_documents, train.n_characters, time.perf_counter() - begin))
    processes.barrier(world)
    meta, splits = open_shards(folder, tokenizer)
    if world.is_main:
        n_unknown = sum(int(np.count_nonzero(split.tokens == tokenizer.unk_id)) for split in splits.values())
        if n_unknown:
            emit(UnknownTokens(n_unknown / sum(len(split.tokens) for split in splits.values())))
    return meta, splits


def _counted(texts: Iterable[str], data: str, emit: Emit) -> Iterator[str]:
    """Yield texts as they come, with a `Tokenizing` event now and then."""
    for i, text in enumerate(texts):
        if i % TOKENIZED_EVERY == 0:
            emit(Tokenizing(data, i))
        yield text
