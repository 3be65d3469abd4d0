"""The commands for training: demo, doctor, plan, train."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from mamegpt import __version__
from mamegpt.cli.console import INTERRUPTED, answering, busy, table
from mamegpt.cli.language import translated
from mamegpt.cli.options import Flat, Given, refuse_idle
from mamegpt.cli.render.models import confusion_table
from mamegpt.cli.render.next_step import next_chat, next_step, next_text, next_training
from mamegpt.config import Logger, TrainConfig, TuneConfig, flag, read_settings
from mamegpt.data.schema import GUESS, SETTINGS, Schema
from mamegpt.errors import ConfigError
from mamegpt.messages import join, msg
from mamegpt.models.registry import unsupported_fields
from mamegpt.presets import ORIGINAL, Recipe, Shape, Size, preset
from mamegpt.run.run import Run
from mamegpt.system.run_files import REPORT_FILE
from mamegpt.system.shell import command
from mamegpt.text.display import sparkline

if TYPE_CHECKING:
    from mamegpt.evaluation.classification import Confusion
    from mamegpt.training.rewards import Reward
    from mamegpt.training.trainer import TrainResult

__all__ = ["chosen_settings", "demo_command", "doctor_command", "plan_command", "train_command", "tune_command"]


def demo_command(
    data: str = "",
    keyword: str = "",
    out: Path = Path("demo"),
    seconds: float = 70.0,
    vocab_size: int = 0,
    seed: int = 42,
    schema: Flat[Schema] = GUESS,
    given: Given = frozenset(),
) -> int:
    """Run the whole pipeline: text -> tokenizer -> training -> samples -> answers -> a folder and a page.

    Args:
        data: Training data (file, folder, Hub dataset or URL); if empty, the built-in stories 豆物語.
        keyword: With --data: train only on documents with this keyword.
        out: Output folder; a number is added if it exists.
        seconds: Seconds of training; without --data, a third of them are for learning to answer questions.
        vocab_size: Vocabulary size of the tokenizer (0: 2,000 for the stories, chosen for other text).
        seed: Random seed.
    """
    from mamegpt.cli.demo import demo

    refuse_idle(given, [(not data, SETTINGS, msg("without --data"))])
    return demo(data=data, keyword=keyword, out=out, seconds=seconds, vocab_size=vocab_size, seed=seed, schema=schema)


def doctor_command(json: bool = False) -> None:
    """Show this machine and the settings that mamegpt would choose.

    Args:
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.system.hardware import facts
    from mamegpt.training.engine import will_compute

    with answering(json, is_product=True) as answer:
        found = [*facts(Path()), (msg("will compute with"), will_compute())]
        answer(
            {"mamegpt": __version__, **dict(found)},
            msg("mamegpt {version}", version=__version__),
            table([(name, translated(value)) for name, value in found]),
            msg("next: {command}, or {command_2}", command=command("demo"), command_2=command("plan", "--minutes", 10)),
        )


def plan_command(
    minutes: float = 10.0,
    data: str = "",
    split: str = "train",
    tokenizer: str = "",
    vocab_size: int = 0,
    device: str = "auto",
    gpu: str = "",
    cluster: str = "",
    schema: Flat[Schema] = GUESS,
    json: bool = False,
    given: Given = frozenset(),
) -> None:
    """Estimate time, memory and quality of training on this machine, from a benchmark of some seconds.

    Args:
        minutes: Time there is for training.
        data: Training data (as for train), to show the time per epoch and the number of epochs.
        split: Split of the data.
        tokenizer: SentencePiece model for that text; without one, tokens are as long as in Wikipedia.
        vocab_size: Vocabulary size, if there is no tokenizer yet (0: chosen as mamegpt tokenizer does).
        device: Where to compute: auto (the first GPU that works, else the CPU), cpu, cuda, cuda:N, xpu, xpu:N or mps.
        gpu: Instead of measuring here, estimate for a GPU from its data sheet: t4, l4, a100, h100, h200, rtx3060,
            rtx3090, rtx4060, rtx4090, m1, m2, m3 or m4.
        cluster: Instead, estimate analytically for 8 to 1,024 GPUs: a100, h100, h200, or a TOML file of a cluster.
        json: Print one line of JSON instead of a table.
    """
    if cluster:
        from mamegpt.cli.render.planning import cluster_table
        from mamegpt.planning.cluster_cost import plan_cluster

        if given - {"cluster", "json"}:
            raise ConfigError(
                "--cluster is an analytical estimate and measures nothing here; combine it with --json only"
            )
        planned = plan_cluster(cluster)
        with answering(json, is_product=True) as answer:
            answer(planned.to_dict(), cluster_table(planned))
        return
    from mamegpt.cli.render.planning import plan_table
    from mamegpt.data.shards import is_shards
    from mamegpt.planning.plan import plan

    refuse_idle(
        given,
        [
            (not data, ("split", *SETTINGS), msg("without --data")),
            (bool(data) and is_shards(data), ("split", *SETTINGS), msg("with token shards as --data")),
            (bool(gpu), ("device",), msg("with --gpu")),
        ],
    )
    with answering(json, is_product=True) as answer:
        with busy(msg("measuring")):
            made = plan(
                minutes=minutes,
                data=data,
                split=split,
                tokenizer=tokenizer,
                vocab_size=vocab_size,
                device=device,
                gpu=gpu,
                schema=schema,
            )
        options = [*(["--split", split] if split != "train" else []), *schema.options()]
        training = ["--device", device] if device != "auto" else []
        answer(made.to_dict(), plan_table(made), next_training(made, data, tokenizer, options, training))


class _How(TypedDict, total=False):
    """Arguments of `train` that say how a run is resumed."""

    resume: bool
    skip_damaged: bool
    more_steps: int
    more_minutes: float
    reward: Reward | None


ORIGINAL_FIELDS = {name for name, value in ORIGINAL.to_dict().items() if value != getattr(TrainConfig, name)}
"""The settings that the original recipe determines."""
WITH_RESUME = {
    "resume",
    "resume_intact",
    "more_steps",
    "more_minutes",
    "reward",
    "on_bad_loss",
    "log",
    "report",
    "json",
}
"""Options that ``train --resume`` accepts: how to resume and what to print, not settings of the run."""


def train_command(
    settings: Flat[TrainConfig] = TrainConfig(),  # noqa: B008  (frozen)
    config: Path | None = None,
    size: Size = "5m",
    recipe: Recipe = "mame",
    resume: Path | None = None,
    resume_intact: bool = False,
    more_steps: int = 0,
    more_minutes: float = 0.0,
    reward: str = "",
    log: tuple[Logger, ...] = (),
    report: bool = False,
    json: bool = False,
    given: Given = frozenset(),
) -> int:
    """Train a model, or resume a run that was interrupted.

    Example: mamegpt train --data wiki.parquet --tokenizer jp.model --out runs/first --size 15m --minutes 60

    Example: mamegpt train --resume runs/first

    Args:
        config: Settings from a run's config.json (without --out) or TOML; they override presets, options override them.
        size: Preset of model size and learning rates (parameters at vocabulary size 16,000); other options override it.
        recipe: mame, or original (also called seed) for the model and the training of the original training.py.
        resume: Run folder to resume from its last checkpoint, with all its settings.
        resume_intact: With --resume: if the last checkpoint is damaged, set it aside and take the newest intact one.
        more_steps: With --resume: train a finished run for so many more steps; the learning rate rises and falls once
            more.
        more_minutes: Like --more-steps, for so many minutes.
        reward: With --resume of a run of tune --task grpo with Python code of yours: that code, FILE.py:FUNCTION.
        log: Write metrics to these loggers as well (in the run's folder; trackio has its own place).
        report: Keep report.html in the run's folder, a page that reloads itself during training.
        json: Print a line of JSON for every few steps, each validation and checkpoint, and the end.
    """
    settings, in_file = chosen_settings(settings, config, size, recipe, given)
    if "reward" in given and resume is None:
        raise ConfigError("--reward works only with --resume RUN, or in tune --task grpo")
    if "resume_intact" in given and resume is None:
        raise ConfigError("--resume-intact works only with --resume RUN; give both")
    if more := given & {"more_steps", "more_minutes"}:
        if resume is None:
            raise ConfigError("--more-steps and --more-minutes extend a finished run; give it with --resume RUN")
        if len(more) > 1:
            raise ConfigError("--more-steps and --more-minutes both set the length; give one of them")
        if "more_steps" in more and not more_steps:  # `train` refuses other impossible values
            raise ConfigError("--more-steps must be at least 1 (got {more_steps})", more_steps=more_steps)
        if "more_minutes" in more and not more_minutes:
            raise ConfigError("--more-minutes must be above 0 (got {more_minutes:g})", more_minutes=more_minutes)
    if resume is not None:
        if given - WITH_RESUME:
            raise ConfigError(
                "--resume takes every setting but --on-bad-loss from the run; leave the others out; to "
                "train a finished run for longer: --more-steps or --more-minutes; with other data or "
                "settings: --init-from"
            )
        kept = Run(resume).config
        on_bad_loss = settings.on_bad_loss if "on_bad_loss" in given else kept.on_bad_loss
        settings = dataclasses.replace(kept, out=str(resume), on_bad_loss=on_bad_loss)
    elif settings.init_from:
        from mamegpt.training.init_from import config_from_pretrained

        if "size" in given:
            raise ConfigError("--init-from brings its own shape; leave out --size {size}", size=size)
        settings = config_from_pretrained(settings, given | in_file, recipe)
    if resume is None:
        refuse_idle(
            given,
            [
                (in_file >= {*Shape._fields}, ("size",), msg("with the settings in {path}", path=config)),
                (in_file >= ORIGINAL_FIELDS, ("recipe",), msg("with the settings in {path}", path=config)),
                *_idle(settings),
            ],
        )
    with _naming_file(config, in_file - given):
        return _trained(
            settings,
            resume=resume is not None,
            skip_damaged=resume_intact,
            more_steps=more_steps,
            more_minutes=more_minutes,
            reward=_own_reward(reward),
            log=log,
            report=report,
            json=json,
        )


def _own_reward(name: str) -> Reward | None:
    """Return the reward that was typed, if any."""
    from mamegpt.training.rewards import load_reward

    return load_reward(name) if name else None


def _trained(settings: TrainConfig, *, log: Sequence[Logger], report: bool, json: bool, **how: Unpack[_How]) -> int:
    """Train, show the progress, and say what was made; returns an exit code."""
    from mamegpt.cli.progress import json_lines, show_progress
    from mamegpt.report.live import live_report
    from mamegpt.report.write import write_report
    from mamegpt.training.loggers import logger
    from mamegpt.training.trainer import train

    with answering(json) as answer:
        watchers = [json_lines(answer) if json else show_progress(), *map(logger, log)]
        if report:
            watchers.append(live_report())
        result = train(settings, watchers=watchers, **how)
        if not result.is_main:
            return INTERRUPTED if result.interrupted else 0
        facts = {
            "event": "interrupted" if result.interrupted else "done",
            "run": str(result.out),
            "step": result.step,
            "n_tokens": result.n_tokens,
            "n_parameters": result.n_parameters,
            "elapsed_s": result.elapsed_s,
        }
        if result.interrupted:
            answer(
                facts,
                msg(
                    "saved at step {step}; resume with: {command}",
                    step=result.step,
                    command=command("train", "--resume", result.out),
                ),
            )
            return INTERRUPTED
        if report:
            write_report([result.out], result.out / REPORT_FILE)
        confusion = _confusion(result.run) if settings.task == "classify" else None
        answer(
            {**facts, "confusion": confusion.to_dict()} if confusion else facts,
            *_curve(settings, result),
            msg(
                "{step:,} steps, {n_tokens:,} tokens, {elapsed_s:.0f} s",
                step=result.step,
                n_tokens=result.n_tokens,
                elapsed_s=result.elapsed_s,
            ),
            *([confusion_table(confusion)] if confusion else []),
            _next(settings, result.out),
        )
    return 0


def _curve(settings: TrainConfig, result: TrainResult) -> list[str]:
    """Return the line with the curve of a run: of its rewards or of its losses, if there are any."""
    if settings.task == "grpo":
        rewards = [step["reward"] for step in result.run.steps]
        return [msg("reward {curve} {reward:.3f}", curve=sparkline(rewards), reward=rewards[-1])] if rewards else []
    losses = result.losses
    return [msg("loss {curve} {loss:.4f}", curve=sparkline(losses), loss=losses[-1])] if losses else []


def _confusion(run: Run) -> Confusion | None:
    """Return how a classifier that was just trained does on its held-out texts; None if there are none."""
    from mamegpt.evaluation.classification import measure_held_out
    from mamegpt.pretrained import load_classifier

    return measure_held_out(load_classifier(run.folder), run)


def _next(settings: TrainConfig, run: Path) -> str:
    """Return the line that suggests what to do with a model that was trained."""
    if settings.task == "classify":
        return next_step("classify", "--model", run, "--text", "")
    return next_chat(run) if settings.answers else next_text(run)


def tune_command(
    model: str,
    settings: Flat[TuneConfig] = TuneConfig(),  # noqa: B008  (frozen)
    log: tuple[Logger, ...] = (),
    report: bool = False,
    json: bool = False,
    given: Given = frozenset(),
) -> int:
    """Tune a model on conversations, so that it answers, or on texts with labels, so that it classifies.

    With --task dpo, a model that answers learns from pairs of a better and a worse answer, and with --task grpo from
    rewards for its own answers. An interrupted run is resumed with train --resume.

    Example: mamegpt tune --model runs/first --data pairs.jsonl --out runs/tuned --minutes 2

    Example: mamegpt tune --task classify --model runs/first --data reviews.jsonl --out runs/reviews --minutes 1

    Example: mamegpt tune --task dpo --model runs/tuned --data preferences.jsonl --out runs/dpo --minutes 1

    Example: mamegpt tune --task grpo --model runs/tuned --data pairs.jsonl --out runs/grpo --reward right --minutes 1

    Args:
        model: Model to tune: a run, an exported folder, or a repository on the Hub.
        log: Write metrics to these loggers as well (in the run's folder; trackio has its own place).
        report: Keep report.html in the run's folder, a page that reloads itself during training.
        json: Print a line of JSON for every few steps, each validation and checkpoint, and the end.
    """
    from mamegpt.training.init_from import tuned_config

    refuse_idle(
        given,
        [
            (settings.task != "chat", ("text_data", "text_share"), msg("with --task {task}", task=settings.task)),
            (settings.task != "dpo", ("dpo_beta",), msg("without --task dpo")),
            (settings.task != "grpo", ("reward", "group_size", "answer_tokens", "kl_beta"), msg("without --task grpo")),
            (not settings.val_data, ("val_split",), msg("without --val-data")),
            (bool(settings.val_data), ("val_fraction",), msg("with --val-data")),
            (settings.minutes > 0, ("max_steps",), msg("with --minutes")),
            (settings.optimizer != "muon", ("emb_lr", "muon_lr"), f"with --optimizer {settings.optimizer}"),
            (
                not settings.val_data and not settings.val_fraction,
                ("eval_every_steps", "val_tokens", "patience"),
                msg("without validation data"),
            ),
        ],
    )
    config = tuned_config(dataclasses.replace(settings, init_from=model), given)
    return _trained(config, reward=_own_reward(config.reward), log=log, report=report, json=json)


@contextlib.contextmanager
def _naming_file(path: Path | None, keys: Set[str]) -> Iterator[None]:
    """Let a `ConfigError` about settings from a file name the file and its keys."""
    try:
        yield
    except ConfigError as error:
        named = [key for key in sorted(keys) if re.search(rf"{flag(key)}(?![\w-])", error.message)]
        if not named:
            raise
        origin = msg("set in {path}: {names}", path=path, names=", ".join(named))
        raise ConfigError(join("; ", [error.message, origin])) from None


def chosen_settings(
    settings: TrainConfig, config: Path | None, size: Size, recipe: Recipe, given: Set[str], **_others: object
) -> tuple[TrainConfig, Set[str]]:
    """Return the settings: typed options override those of the file, which override the preset's.

    The names of the settings in the file are returned too; the other arguments of ``train`` do not affect settings.
    """
    in_file = {} if config is None else read_settings(config)
    typed = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    typed = {name: value for name, value in typed.items() if name in given}
    for name, other in (("minutes", "max_steps"), ("max_steps", "minutes")):
        if name in typed:
            in_file.pop(other, None)  # of the two, the one that was typed says when to stop
    asked = size if recipe == "mame" or "size" in given else None
    return preset(asked, recipe, **{**in_file, **typed}), in_file.keys()


def _idle(config: TrainConfig) -> list[tuple[bool, Sequence[str], str]]:
    """Return the cases for `refuse_idle`: settings of a training that have no effect because of others."""
    from mamegpt.data.shards import is_shards, open_shards

    in_shards = bool(config.data) and is_shards(config.data)
    validates = (
        "val" in open_shards(Path(config.data), verify=False)[1]
        if in_shards
        else bool(config.val_data) or config.val_fraction > 0
    )
    return [
        (in_shards, ("split", "val_data", "val_split", "val_fraction", *SETTINGS), msg("with token shards as --data")),
        (not in_shards and not config.val_data, ("val_split",), msg("without --val-data")),
        (not in_shards and bool(config.val_data), ("val_fraction",), msg("with --val-data")),
        (not validates, ("eval_every_steps", "val_tokens"), msg("without validation text")),
        (config.minutes > 0, ("max_steps",), msg("with --minutes")),
        (config.optimizer != "muon", ("emb_lr", "muon_lr"), f"with --optimizer {config.optimizer}"),
        (config.optimizer == "muon" and config.tie_embeddings, ("emb_lr",), msg("with tied embeddings")),
        (True, [*unsupported_fields().get(config.architecture, ())], f"with --architecture {config.architecture}"),
    ]
