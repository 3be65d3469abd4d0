"""Every setting of a model and of a run. The sentence that documents a field is also its command-line help."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from mamegpt.data.schema import GUESS, Schema
from mamegpt.errors import CheckpointError, ConfigError, first_line
from mamegpt.messages import Message, join, msg, without_secrets
from mamegpt.system.device_names import DEVICE_NAMES, is_device_name
from mamegpt.system.parse import parse_json, parse_toml
from mamegpt.system.run_files import CONFIG_FILE, is_run
from mamegpt.system.validation import FromJSON, problems

__all__ = ["SHAPE", "Engine", "Logger", "ModelConfig", "Precision", "TrainConfig", "TuneConfig", "read_settings"]

Precision = Literal["auto", "bf16", "fp16", "fp32"]
Engine = Literal["auto", "native", "torch"]
Logger = Literal["tensorboard", "trackio", "wandb"]

LARGEST = {
    "vocab_size": 1 << 24,
    "context_length": 1 << 20,
    "emb_dim": 1 << 17,
    "n_layers": 1 << 10,
    "n_heads": 1 << 12,
    "ffn_dim": 1 << 20,
    "n_kv_heads": 1 << 12,
    "head_dim": 1 << 12,
}
"""Limits far above any real model; larger sizes are from a damaged or hostile file."""


RANGES: tuple[tuple[Message, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        msg("{option} must be at least 1 (got {value})"),
        lambda value: value >= 1,
        ("batch_size", "max_steps", "eval_every_steps", "save_every_steps", "log_every_steps", "keep_checkpoints"),
    ),
    (
        msg("{option} must be at least 0 (got {value})"),
        lambda value: value >= 0,
        ("micro_batch_size", "samples_per_epoch", "grad_clip", "weight_decay", "seed", "val_tokens", "minutes"),
    ),
    (msg("{option} must be above 0 (got {value})"), lambda value: value > 0, ("lr", "emb_lr", "muon_lr")),
    (
        msg("{option} must be between 0 and 1 (got {value})"),
        lambda value: 0 <= value <= 1,
        ("warmup_fraction", "cooldown_fraction"),
    ),
    (
        msg("{option} must be at least 0 and below 1 (got {value})"),
        lambda value: 0 <= value < 1,
        ("val_fraction", "beta2"),
    ),
)
"""What numbers of `TrainConfig` must be: the message if it does not hold, the condition, and the names."""


def flag(name: str) -> str:
    """Return the command-line spelling of a field's name."""
    return "--" + name.replace("_", "-")


SHAPE = (
    "context_length",
    "emb_dim",
    "n_layers",
    "n_heads",
    "qkv_bias",
    "ffn_dim",
    "n_kv_heads",
    "head_dim",
    "rope_theta",
    "norm_eps",
    "tie_embeddings",
)
"""Settings of `ModelConfig` that a model's weights have decided."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes of a model. Names are the book's, if it has one; with 0 the architecture decides.

    There are no defaults here: `TrainConfig` has those of a run, and `TrainConfig.model` makes the sizes of its model.
    """

    vocab_size: int
    context_length: int
    emb_dim: int
    n_layers: int
    n_heads: int
    drop_rate: float
    qkv_bias: bool
    ffn_dim: int
    n_kv_heads: int
    head_dim: int
    rope_theta: float
    norm_eps: float
    tie_embeddings: bool

    def problems(self, architecture: str, unsupported: Mapping[str, Any] | None) -> list[str]:
        """Return the problems of these sizes for an architecture, one message each.

        ``unsupported`` are the fields that the architecture does not have, with the values that they must keep; None
        for an unknown architecture, for which only general problems are reported.
        """
        if changed := {name: value for name, value in (unsupported or {}).items() if getattr(self, name) != value}:
            refused: list[str] = [
                msg(
                    "{option} is nothing that {architecture} has; leave it out",
                    option=flag(name),
                    architecture=architecture,
                )
                for name in changed
            ]
            return refused + dataclasses.replace(self, **changed).problems(architecture, unsupported)
        found: list[str] = [
            msg("{option} must be at least 1 (got {value})", option=flag(name), value=getattr(self, name))
            for name in ("vocab_size", "context_length", "emb_dim", "n_layers", "n_heads")
            if getattr(self, name) < 1
        ]
        too_large = [name for name, most in LARGEST.items() if getattr(self, name) > most]
        for name in too_large:
            found.append(
                msg(
                    "{option} must be at most {most} (got {value})",
                    option=flag(name),
                    most=LARGEST[name],
                    value=getattr(self, name),
                )
            )
        if too_large:
            return found  # the checks below count up to the sizes
        if not 0 <= self.drop_rate < 1:
            found.append(msg("--drop-rate must be at least 0 and below 1 (got {drop_rate})", drop_rate=self.drop_rate))
        for name in ("ffn_dim", "n_kv_heads", "head_dim"):
            if getattr(self, name) < 0:
                found.append(
                    msg("{option} must be at least 0 (got {value})", option=flag(name), value=getattr(self, name))
                )
        for name in ("rope_theta", "norm_eps"):
            if not 0 < getattr(self, name) < math.inf:
                found.append(
                    msg(
                        "{option} must be above 0 and finite (got {value})",
                        option=flag(name),
                        value=getattr(self, name),
                    )
                )
        if self.n_heads >= 1 and self.n_kv_heads >= 1 and self.n_heads % self.n_kv_heads:
            use = ", ".join(str(n) for n in range(1, self.n_heads + 1) if self.n_heads % n == 0)
            found.append(
                msg(
                    "--n-kv-heads {n_kv_heads} does not divide --n-heads {n_heads}; use one of {use}",
                    n_kv_heads=self.n_kv_heads,
                    n_heads=self.n_heads,
                    use=use,
                )
            )
        if self.n_heads >= 1 and self.emb_dim >= 1 and not self.head_dim:
            # RoPE rotates pairs of dimensions, so the width of a head must be even.
            is_rotary = unsupported is not None and "rope_theta" not in unsupported
            unit = self.n_heads * (2 if is_rotary else 1)
            below = self.emb_dim // unit * unit
            if below != self.emb_dim:
                by = f"--n-heads {self.n_heads}"
                by = msg("{by} into even widths", by=by) if is_rotary else by
                use = join(" or ", [str(n) for n in (below, below + unit) if n])
                found.append(
                    msg("--emb-dim {emb_dim} is not divisible by {by}; use {use}", emb_dim=self.emb_dim, by=by, use=use)
                )
        if self.head_dim % 2:
            found.append(
                msg(
                    "--head-dim must be even (got {head_dim}), since RoPE rotates pairs of dimensions",
                    head_dim=self.head_dim,
                )
            )
        return found

    def validate(self, architecture: str, unsupported: Mapping[str, Any]) -> None:
        """Raise `ConfigError` with every problem in one line."""
        if found := self.problems(architecture, unsupported):
            raise ConfigError(join("; ", found))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(FromJSON):
    """All settings of a training run. Equal settings give bitwise equal weights on equal machines."""

    task = "continue"
    """What the model learns: to continue text; see `TuneConfig`."""
    lora = 0
    """The rank of adapters: none; see `TuneConfig`."""

    @property
    def answers(self) -> bool:
        """Whether the model learns to answer."""
        return self.task in ("chat", "dpo", "grpo")

    # With as many processes and threads, and if nothing remains to be measured (auto, --minutes).

    data: str = ""
    """Training data: file, folder, Hub dataset or URL (parquet, jsonl, csv, txt), or a folder of token shards."""
    tokenizer: str = ""
    """SentencePiece model file."""
    out: str = ""
    """Folder of the run: settings, metrics, tokens and checkpoints; it must not exist yet."""
    split: str = "train"
    """Split of the data to train on."""
    text_column: str = ""
    """Column or key of the text (default: text, or the only one that holds strings)."""
    title_column: str = ""
    """Column or key of the title (default: title)."""
    txt_layout: Literal["auto", "file", "line", "block"] = "auto"
    """One document of a txt file; auto: articles headed 【title】, else pieces of plain text."""
    encoding: str = "utf-8"
    """Encoding of all text files but parquet, such as cp932, euc-jp or utf-16."""
    init_from: str = ""
    """Model to continue from (a run, exported folder or repository), with its model size; lower the learning rates."""
    val_data: str = ""
    """Validation data; if empty, a share of the training documents is held out instead."""
    val_split: str = "validation"
    """Split of --val-data to validate on."""
    val_fraction: float = 0.02
    """Share of documents held out for validation when there is no --val-data (0: validate on nothing)."""

    architecture: str = "qwen3"
    """Kind of model, a name in the registry mamegpt.models.registry.ARCHITECTURES."""
    context_length: int = 256
    """Context length in tokens."""
    emb_dim: int = 128
    """Hidden size (embedding dimension)."""
    n_layers: int = 4
    """Transformer blocks."""
    n_heads: int = 2
    """Attention heads in a block."""
    drop_rate: float = 0.0
    """Dropout rate."""
    qkv_bias: bool = False
    """Give the query, key and value projections a bias (custom-gpt only)."""
    ffn_dim: int = 0
    """FFN intermediate size (not custom-gpt; 0: 8/3 of --emb-dim, rounded up to a multiple of 8)."""
    n_kv_heads: int = 0
    """KV heads, shared by the attention heads as in GQA (not custom-gpt; 0: as many as --n-heads)."""
    head_dim: int = 0
    """Width of an attention head (not custom-gpt; 0: --emb-dim / --n-heads)."""
    rope_theta: float = 10000.0
    """RoPE base (theta); larger for a longer context (not custom-gpt)."""
    norm_eps: float = 1e-6
    """Epsilon of the norms, which keeps them from dividing by zero (not custom-gpt)."""
    tie_embeddings: bool = False
    """Tie the output head to the token embedding: fewer parameters (not custom-gpt)."""

    batch_size: int = 16
    """Global batch size: sequences of --context-length tokens per step, over all processes."""
    micro_batch_size: int = 0
    """Sequences in one forward pass of one process; fewer need less memory (0: 4096 tokens on a CPU, else all)."""
    max_steps: int = 2000
    """Training steps."""
    minutes: float = 0.0
    """Wall-clock budget instead of --max-steps, tokenizing and validation included, on any machine (0: none)."""
    samples_per_epoch: int = 0
    """Sequences per epoch; after each, the data is reshuffled and a mean loss is reported (0: all of the data)."""

    ngrams: bool = False
    """Also learn from n-gram counts: soft targets, and initial weights (which then learn at lower rates)."""

    optimizer: str = "muon"
    """Optimizer, a name in the registry mamegpt.training.optim.OPTIMIZERS."""
    lr: float = 3e-2
    """Peak learning rate of AdamW (with muon: of head and vectors)."""
    emb_lr: float = 0.25
    """Peak learning rate of the token embedding (with muon, and an embedding that is not the head)."""
    muon_lr: float = 2e-2
    """Peak learning rate of Muon, for the matrices inside the blocks."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices (with muon: of those inside the blocks); vectors have none."""
    beta2: float = 0.95
    """Decay of the second moment of the gradient."""
    warmup_fraction: float = 0.02
    """Warmup: share of the steps in which the learning rate rises linearly to its peak."""
    cooldown_fraction: float = 0.6
    """Cooldown: share of the steps, at the end, in which it falls linearly to 1/100 of the peak."""
    grad_clip: float = 1.0
    """Gradient clipping: maximum norm of the gradient (0: no clipping)."""

    seed: int = 42
    """Random seed of initial weights, data order and dropout."""
    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] | str = "auto"
    """Where to compute: auto (the first GPU that works, else the CPU), cpu, cuda, cuda:N, xpu, xpu:N or mps."""
    precision: Precision = "auto"
    """Precision of matrix products; auto measures fp32 and the device's 16-bit format (bf16, else fp16) at first."""
    compile: Literal["auto", "true", "false"] = "auto"
    """Compile the model; auto does so where a compiler is, for runs of 10 minutes and more, if it measures a gain."""
    engine: Engine = "auto"
    """Compute attention, head and loss with PyTorch or with mamegpt's own C++ (native); auto takes the faster one."""
    log_every_steps: int = 10
    """Steps between lines of progress in a log that is not a terminal."""
    eval_every_steps: int = 250
    """Steps between validations; the last step is always followed by one."""
    val_tokens: int = 65536
    """Validation tokens measured while training, a sample of all (0: all); the last step measures all, with
    --minutes as many as a tenth of the time allows."""
    save_every_steps: int = 250
    """Steps between checkpoints; the last step is always followed by one."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep; of older ones only the newest that later losses proved to be good is kept."""
    sharding: Literal["none", "full"] = "none"
    """On several processes: each holds a whole model, or (full) its share of weights, gradients and optimizer state."""
    activation_checkpointing: bool = False
    """Activation checkpointing: recompute activations in the backward pass; less memory, a third more arithmetic."""
    on_bad_loss: Literal["stop", "rollback"] = "stop"
    """If the loss is NaN/Inf or spikes: stop, or roll back to the last good checkpoint and skip the data since."""

    SECTIONS = MappingProxyType(
        {"data": "text", "architecture": "model", "batch_size": "training", "optimizer": "optimizer", "seed": "running"}
    )
    """The sections of the help, by their first setting."""

    def __post_init__(self) -> None:
        for name in ("data", "tokenizer", "out", "init_from", "val_data", "text_data"):
            if isinstance(path := getattr(self, name, ""), Path):
                object.__setattr__(self, name, str(path))

    def model(self, vocab_size: int) -> ModelConfig:
        """Return the sizes of the model that this run trains, for a tokenizer with ``vocab_size`` tokens."""
        names = {field.name for field in dataclasses.fields(ModelConfig)} - {"vocab_size"}
        return ModelConfig(vocab_size=vocab_size, **{name: getattr(self, name) for name in names})

    def validate(
        self,
        n_processes: int = 1,
        *,
        architecture: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        optimizer: Collection[str] = (),
    ) -> None:
        """Raise `ConfigError` with every problem in one line.

        ``architecture`` and ``optimizer`` contain the valid names (empty: any); for each architecture, the fields of
        `ModelConfig` that it does not have.
        """
        self.check_types()  # the other checks need the right types
        found: list[str] = [
            msg("{option} is needed", option=flag(name))
            for name in ("data", "tokenizer", "out")
            if not getattr(self, name)
        ]
        for name, names in (("architecture", architecture), ("optimizer", optimizer)):
            if names and getattr(self, name) not in names:
                found.append(
                    msg(
                        "{option} must be one of {names} (got {value})",
                        option=flag(name),
                        value=getattr(self, name),
                        names=", ".join(names),
                    )
                )
        lacks = architecture.get(self.architecture) if architecture else {}
        found += self.model(vocab_size=1).problems(self.architecture, lacks)
        found += [
            msg(template, option=flag(name), value=value)
            for template, holds, names in RANGES
            for name in names
            if not holds(value := getattr(self, name))
        ]
        if self.seed >= 1 << 63:
            found.append(msg("--seed must be below 2**63 (got {seed})", seed=self.seed))
        if self.minutes > 0 and self.max_steps != type(self).max_steps:
            found.append(msg("--minutes and --max-steps both set the length; give one of them"))
        if self.compile == "true" and self.drop_rate > 0 and self.device in ("auto", "cpu"):
            found.append(
                msg(
                    "--compile true does not work with --drop-rate: dropout on a CPU cannot be compiled; "
                    "leave one of them out"
                )
            )
        if self.engine == "native":
            if self.precision == "fp16" or self.device not in ("auto", "cpu") or self.sharding == "full":
                found.append(
                    msg(
                        "--engine native computes in fp32 or bf16 on a CPU, with whole weights; it does not work with "
                        "--precision fp16, a --device that is not the CPU, or --sharding full"
                    )
                )
            unit = 32 if self.precision == "bf16" else 16
            if self.emb_dim % unit:
                found.append(
                    msg(
                        "--engine native needs a multiple of {unit} as --emb-dim (got {emb_dim})",
                        unit=unit,
                        emb_dim=self.emb_dim,
                    )
                )
        if self.sharding == "full" and (
            self.precision in ("auto", "fp16") or self.minutes > 0 or self.compile == "true"
        ):
            found.append(
                msg(
                    "--sharding full does not work with --precision auto or fp16, --minutes or --compile true, "
                    "which need the whole model in one process; use --precision bf16 or fp32, and --max-steps"
                )
            )
        if self.warmup_fraction + self.cooldown_fraction > 1:
            found.append(msg("--warmup-fraction and --cooldown-fraction together must not pass 1"))
        found += self._further_problems()
        share = self.micro_batch_size or 1
        if self.batch_size >= 1 and share >= 1 and self.batch_size % (n_processes * share):
            found.append(
                msg(
                    "--batch-size {batch_size} is not divisible by {n_processes} processes x "
                    "--micro-batch-size {share}; use {use}",
                    batch_size=self.batch_size,
                    n_processes=n_processes,
                    share=share,
                    use=-(-self.batch_size // (n_processes * share)) * n_processes * share,
                )
            )
        if found:
            raise ConfigError(join("; ", found))

    def _further_problems(self) -> list[str]:
        """Return the problems of the settings that only a subclass has."""
        return []

    def check_types(self) -> None:
        """Raise `ConfigError` for values that no setting can have."""
        if found := _misfits(type(self), self.to_dict(), flag):
            raise ConfigError(join("; ", found))

    @property
    def sources(self) -> dict[str, tuple[str, str]]:
        """Where the training data (``train``) and the validation data (``val``, if given) are: source and split."""
        found = {"train": (self.data, self.split), "val": (self.val_data, self.val_split)}
        return {name: (source, split) for name, (source, split) in found.items() if source}

    @property
    def schema(self) -> Schema:
        """How to find the documents of the text in its files."""
        return Schema(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Schema)})

    def resolved(self, found: TrainConfig) -> TrainConfig:
        """Return these settings with "auto" replaced by the values in ``found`` (`mamegpt.training.autotune`)."""
        return dataclasses.replace(
            self,
            precision=found.precision if self.precision == "auto" else self.precision,
            compile=found.compile if self.compile == "auto" else self.compile,
            engine=found.engine if self.engine == "auto" else self.engine,
            micro_batch_size=self.micro_batch_size or found.micro_batch_size,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for ``config.json``, without secrets in URLs."""
        addresses = ("data", "val_data", "text_data")
        hidden = {name: without_secrets(getattr(self, name)) for name in addresses if hasattr(self, name)}
        return dataclasses.asdict(self) | hidden

    def fingerprint(self) -> str:
        """Return eight hexadecimal digits that change with any setting except ``out`` and ``on_bad_loss``.

        Checkpoints record the effect of rollbacks.
        """
        # A run that does not use these later settings keeps the fingerprint of older versions.
        later = {
            "init_from": "",
            "sharding": "none",
            "activation_checkpointing": False,
            "head_dim": 0,
            "ngrams": False,
            "norm_eps": TrainConfig.norm_eps,
            "task": "chat",
            "lora": 0,
            "dpo_beta": 0.1,
            "reward": "",
            "group_size": 8,
            "answer_tokens": 32,
            "kl_beta": 0.0,
            **dataclasses.asdict(GUESS),
        }
        settings = {name: value for name, value in self.to_dict().items() if later.get(name) != value}
        del settings["on_bad_loss"]
        if self.engine in ("auto", "torch"):  # that of older versions, or not known before the run begins
            del settings["engine"]
        return hashlib.sha256(json.dumps({**settings, "out": ""}, sort_keys=True).encode()).hexdigest()[:8]

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a run's ``config.json``. Raises `CheckpointError` if it is missing or contains anything else."""
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
            if _is_exported(values):
                raise CheckpointError("{parent} is an exported model; give the folder of a run", parent=path.parent)
            if isinstance(values, dict):
                values.setdefault("engine", "torch")  # runs of before 2026-11-30 had no other
            return _made_of(values)  # as written: fingerprints of 1 and 1.0 differ
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError("no run in {parent}: it has no {name}", parent=path.parent, name=path.name) from None
        except ValueError as error:
            raise CheckpointError(
                "{path} does not hold the settings of a run: {reason}", path=path, reason=error
            ) from None


@dataclass(frozen=True, kw_only=True)
class TuneConfig(TrainConfig):
    """All settings of a run that tunes a model: on conversations, so that it answers, or on texts with labels."""

    task: Literal["chat", "classify", "dpo", "grpo"] = "chat"
    """What to learn: chat (answering, from conversations), classify (the label of a text, by a classification head on
    its last token), dpo (answering, from pairs of a better and a worse answer) or grpo (answering, from rewards for
    answers that the model samples)."""
    data: str = ""
    """File, folder, Hub dataset or URL (jsonl, parquet): conversations with the columns messages, or prompt and
    response, or instruction, input and output; for classify the columns text and label; for dpo prompt, chosen and
    rejected; for grpo those of conversations, or prompt alone."""
    val_fraction: float = 0.02
    """Share of conversations held out for validation when there is no --val-data (0: validate on nothing; classify:
    0.1 of the texts, unless it is given)."""
    text_data: str = ""
    """Text that is read beside the conversations, so that it is not forgotten (default: what the tuned run read)."""
    text_share: float = 0.1
    """Share of that text in the loss, and in the tokens of a step, which reads a context of it at least (0: none; only
    chat reads some)."""
    dpo_beta: float = 0.1
    """DPO: how strongly the model is held near the one it starts from (beta)."""
    reward: str = ""
    """GRPO: how answers are rewarded: right (1 for the answer in the data), hiragana (share of hiragana), haiku (5-7-5
    morae), desu (1 for an end in です), or FILE.py:FUNCTION, Python code of yours that is run."""
    group_size: int = 8
    """GRPO: answers that are sampled to each question and compared with each other."""
    answer_tokens: int = 32
    """GRPO: length of a sampled answer in tokens, at most."""
    kl_beta: float = 0.0
    """GRPO: weight of the divergence from the start model in the loss (0: none)."""
    lora: int = 0
    """LoRA: learn adapters of this rank beside the linear layers, whose own weights stay as they are (0: learn all
    weights)."""
    patience: int = 10
    """Stop after so many validations in a row without a better one, and keep the best model (0: never)."""
    batch_size: int = 32
    """Global batch size: conversations, texts, pairs of answers or questions per step, over all processes."""
    micro_batch_size: int = 0
    """Conversations, texts, pairs of answers or sampled answers in one forward pass of one process; fewer need less
    memory (0: 4096 tokens on a CPU, else all)."""
    max_steps: int = 1000
    """Training steps."""
    lr: float = 1e-2
    emb_lr: float = 8e-2
    muon_lr: float = 6e-3
    compile: Literal["auto", "true", "false"] = "false"
    """Rows differ in length, for each of which the model would be compiled."""
    eval_every_steps: int = 100
    """Steps between validations; the last step is always followed by one."""

    HIDDEN = (
        "tokenizer",
        "split",
        "text_column",
        "title_column",
        "txt_layout",
        "init_from",
        "architecture",
        *SHAPE,
        "samples_per_epoch",
        "ngrams",
        "compile",
        "sharding",
    )
    """Settings that come from the model, or that tuning has no use for; they are no options."""
    SECTIONS = MappingProxyType(
        {"data": "text", "drop_rate": "training", "optimizer": "optimizer", "seed": "running", "task": "tuning"}
    )
    """The sections of the help, by their first setting."""

    def _further_problems(self) -> list[str]:
        found: list[str] = []
        if not 0 <= self.text_share < 1:
            found.append(msg("--text-share must be at least 0 and below 1 (got {value})", value=self.text_share))
        if self.text_share > 0 and self.task != "chat":
            found.append(
                msg("--text-share must be 0 with --task {task} (got {value})", task=self.task, value=self.text_share)
            )
        elif self.text_share > 0 and not self.text_data:
            found.append(msg("--text-share needs a text; give --text-data, or --text-share 0"))
        if not self.dpo_beta > 0:
            found.append(msg("{option} must be above 0 (got {value})", option="--dpo-beta", value=self.dpo_beta))
        if self.task == "grpo":
            found += self._problems_of_rewards()
        for name in ("lora", "patience"):
            if getattr(self, name) < 0:
                found.append(
                    msg("{option} must be at least 0 (got {value})", option=flag(name), value=getattr(self, name))
                )
        idle = {"ngrams": False, "compile": "false", "sharding": "none", "samples_per_epoch": 0}
        if wrong := [flag(name) for name, value in idle.items() if getattr(self, name) != value]:
            found.append(msg("{names} cannot be used when a model is tuned; leave it out", names=", ".join(wrong)))
        return found

    def _problems_of_rewards(self) -> list[str]:
        found: list[str] = []
        if not self.reward:
            found.append(msg("--task grpo needs a reward; give --reward"))
        if self.group_size < 2:
            found.append(msg("--group-size must be at least 2 (got {value})", value=self.group_size))
        if not 1 <= self.answer_tokens < self.context_length:
            found.append(
                msg(
                    "--answer-tokens must be at least 1 and below the context length {context_length} (got {value})",
                    context_length=self.context_length,
                    value=self.answer_tokens,
                )
            )
        if not 0 <= self.kl_beta < math.inf:
            found.append(msg("{option} must be at least 0 (got {value})", option="--kl-beta", value=self.kl_beta))
        return found


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings by name from a TOML or JSON file, such as a run's ``config.json``.

    The ``out`` of a run's own file is left out, since a new run needs another folder. Raises `ConfigError` with the
    file and the problem if it cannot be read or contains anything else.
    """
    is_toml = path.suffix.lower() == ".toml"
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = parse_toml(text) if is_toml else parse_json(text)
    except OSError as error:
        raise ConfigError(
            "{path} cannot be read ({reason}); give a run's config.json or a TOML file",
            path=path,
            reason=first_line(error),
        ) from None
    except ValueError as error:
        kind = "TOML" if is_toml else "JSON"
        raise ConfigError(
            "{path} is not {kind} ({reason}); give a run's config.json or a TOML file (NAME.toml)",
            path=path,
            kind=kind,
            reason=first_line(error),
        ) from None
    is_of_run = path.name == CONFIG_FILE and is_run(path.parent)
    try:
        if _is_exported(values):
            raise ValueError(msg("it is of an exported model"))
        found = _made_of(values)
        if isinstance(found, TuneConfig):
            raise ValueError(msg("it is of a tuned model"))
        if is_of_run:
            values.setdefault("ngrams", False)  # runs of before 2026-11-30 did not know of them
    except ValueError as error:
        raise ConfigError("{path} does not hold settings: {reason}", path=path, reason=error) from None
    kinds = {name: type(getattr(TrainConfig, name)) for name in values}
    return {name: kinds[name](getattr(found, name)) for name in values if name != "out" or not is_of_run}


def _is_exported(values: object) -> bool:
    return isinstance(values, dict) and "model_type" in values  # transformers' key for the architecture


def _made_of(values: object) -> TrainConfig:
    """Return the settings in a file. Raises `ValueError` for an unknown name or a value of another type."""
    kind = TuneConfig if isinstance(values, dict) and "text_share" in values else TrainConfig
    if found := _misfits(kind, values, str):
        raise ValueError(join("; ", found))
    return kind(**cast(dict[str, Any], values))


def _misfits(kind: type[TrainConfig], values: object, named: Callable[[str], str]) -> list[str]:
    """Return the problems of settings: unknown names, values of another type, invalid choices, numbers far too
    large.
    """
    if found := problems(kind, values, named):
        return found
    numbers = {name: value for name, value in cast(dict[str, Any], values).items() if type(value) in (int, float)}
    found = [
        msg("{option} must be a finite number", option=named(name))
        for name, value in numbers.items()
        if abs(value) >= 1e300
    ]
    device = cast(dict[str, Any], values).get("device", "auto")
    if not is_device_name(device):
        names = ", ".join(DEVICE_NAMES)
        found.append(
            msg("{option} must be one of {names} (got {value})", option=named("device"), names=names, value=device)
        )
    return found
