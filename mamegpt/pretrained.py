"""Load models from outside: a run, a weights file, an exported folder, a repository on the Hub.

No code that came with the weights is executed: PyTorch files are read with ``weights_only``, and a repository in a
known format (`hf_formats`, by its ``model_type``) is loaded by our own class.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, Unpack, cast

import torch
from torch import Tensor, nn

from mamegpt.arguments import AtLeast, checked
from mamegpt.config import ModelConfig
from mamegpt.errors import CheckpointError, ConfigError, ModelError, first_line, is_out_of_memory
from mamegpt.generation.batch import answer_many, generate_many
from mamegpt.generation.settings import Sampling, SamplingOptions
from mamegpt.generation.stream import Token, fitting, prompt_ids, stream_answer, stream_tokens
from mamegpt.messages import join, msg
from mamegpt.models.base import LanguageModel, replace_head, token_embedding, unique_state_dict
from mamegpt.models.classifier import Classifier
from mamegpt.models.hf_format import HEAD, LABEL_HEAD
from mamegpt.models.lora import merged
from mamegpt.models.registry import build_model, build_without_memory, hf_formats
from mamegpt.models.weights import check_memory, load_weights, memory_of, n_bytes, read_weights, refuse_not_finite
from mamegpt.run import checkpoint
from mamegpt.run.run import Run
from mamegpt.system.devices import choose_device
from mamegpt.system.hub import is_hub_name, snapshot
from mamegpt.system.shell import command
from mamegpt.system.validation import FromJSON, read_json
from mamegpt.tokenizer.chat import TEMPLATE, Message, chat_ids, order_problem
from mamegpt.tokenizer.reserved import Role
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = [
    "Pretrained",
    "TransformersModel",
    "has_chat_template",
    "is_classifier",
    "is_foreign",
    "load",
    "load_any",
    "load_classifier",
    "transformers_loads",
]

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights files, each one file or several parts (model-00001-of-00002.safetensors); the first that exists is
used."""

MAX_PADDING = 1023
"""Most rows of an embedding beyond the tokenizer's vocabulary; some trainers round the size up for accelerators."""


@dataclass(frozen=True)
class Pretrained:
    """A model and its tokenizer, ready to generate: the result of `load`."""

    model: LanguageModel
    """The network, a `torch.nn.Module` in evaluation mode: ``model(ids)`` turns ids (B, T) into logits (B, T, V)."""
    tokenizer: Tokenizer
    sizes: ModelConfig | None
    """The sizes of the model; None for another architecture, which transformers runs."""
    architecture: str
    origin: str
    """The path or name that was loaded; for a run, the folder of its checkpoint."""
    use_cache: bool = True
    """Whether generation uses a KV cache; False for models run by transformers, whose code may ignore it."""
    has_start: bool = False
    """Whether each text followed `Tokenizer.start_id` in training: true for a run, and for an exported folder that
    declares it by equal ``bos_token_id`` and ``eos_token_id``."""
    answers: bool = False
    """Whether the model was tuned on conversations: true for such a run, and for an exported folder with the chat
    template."""

    def __repr__(self) -> str:
        return (
            f"Pretrained({self.origin!r}, architecture={self.architecture!r}, n_parameters={self.n_parameters:_}, "
            f"vocab_size={self.tokenizer.vocab_size:_}, tokenizer={str(self.tokenizer.path)!r})"
        )

    @property
    def n_parameters(self) -> int:
        """Parameters of the model; a tied one counts once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.out_head.weight.device

    @checked
    def prompt_ids(self, prompt: str, *, at_start: bool | None = None) -> list[int]:
        """Return the ids that the model reads for ``prompt``, normalized as training text is; see `generate`."""
        return prompt_ids(self.tokenizer, prompt, at_start=self.has_start if at_start is None else at_start)

    @checked
    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: Annotated[int, AtLeast(1)] = 100,
        at_start: bool | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        **options: Unpack[SamplingOptions],
    ) -> str:
        """Return the continuation of ``prompt``, without the prompt, of at most ``max_new_tokens`` tokens.

        ``options`` are fields of `Sampling` (``temperature=0.7``) and override ``sampling``, which is greedy by
        default. Equal arguments give equal text; another ``seed`` gives another sample. ``at_start`` means that the
        prompt is the beginning of a text (default: `has_start`); an empty prompt always is one.

        Raises `ConfigError` for impossible settings, `TokenizerError` for a lone surrogate in the prompt, and
        `ModelError` if the model computes NaN or infinity.
        """
        return "".join(
            self.stream(prompt, max_new_tokens=max_new_tokens, at_start=at_start, sampling=sampling, **options)
        )

    @checked
    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: Annotated[int, AtLeast(1)] = 100,
        at_start: bool | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        **options: Unpack[SamplingOptions],
    ) -> Iterator[str]:
        """Yield the continuation of ``prompt`` in parts that contain only whole characters; otherwise as `generate`."""
        tokens = self.stream_tokens(
            prompt, max_new_tokens=max_new_tokens, at_start=at_start, sampling=sampling, **options
        )
        return (token.text for token in tokens if token.text)

    @checked
    def stream_tokens(
        self,
        prompt: str,
        *,
        max_new_tokens: Annotated[int, AtLeast(1)] = 100,
        n_alternatives: Annotated[int | None, AtLeast(0)] = None,
        at_start: bool | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        **options: Unpack[SamplingOptions],
    ) -> Iterator[Token]:
        """Yield each `Token` of the continuation of ``prompt``; otherwise as `generate`.

        With ``n_alternatives`` (0 or more), a token has its log-probability and that many of the most likely tokens.
        """
        return stream_tokens(
            self.model,
            self.tokenizer,
            prompt,
            max_new_tokens,
            dataclasses.replace(sampling, **options),
            at_start=self.has_start if at_start is None else at_start,
            n_alternatives=n_alternatives,
            use_cache=self.use_cache,
        )

    @checked
    def chat_ids(
        self, messages: Sequence[tuple[str, str]], *, max_new_tokens: Annotated[int, AtLeast(1)] = 100
    ) -> list[int]:
        """Return the ids that the model reads for a conversation, of which the oldest turns may not fit."""
        turns = self._turns(messages)
        return chat_ids(self.tokenizer, fitting(self.model, self.tokenizer, turns, max_new_tokens))

    def refuse_unless_it_answers(self) -> None:
        """Raise `ModelError` if the model was not tuned to answer."""
        if not self.answers:
            raise ModelError(
                "{origin} only continues text; let it learn to answer with mamegpt tune", origin=self.origin
            )

    @checked
    def stream_answer(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        max_new_tokens: Annotated[int, AtLeast(1)] = 100,
        n_alternatives: Annotated[int | None, AtLeast(0)] = None,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        **options: Unpack[SamplingOptions],
    ) -> Iterator[Token]:
        """Yield each `Token` of the answer to a conversation; otherwise as `stream_tokens`.

        ``messages`` are pairs of a role (system, user or assistant) and a text, the last one of the user. Raises
        `ModelError` if the model was not tuned to answer, and `ConfigError` for turns out of order.
        """
        return stream_answer(
            self.model,
            self.tokenizer,
            self._turns(messages),
            max_new_tokens,
            dataclasses.replace(sampling, **options),
            n_alternatives=n_alternatives,
            use_cache=self.use_cache,
        )

    @checked
    def answer(
        self,
        messages: str | Sequence[tuple[str, str]],
        *,
        max_new_tokens: Annotated[int, AtLeast(1)] = 100,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        **options: Unpack[SamplingOptions],
    ) -> str:
        """Return the answer to a question, or to a conversation as in `stream_answer`."""
        turns = [("user", messages)] if isinstance(messages, str) else messages
        tokens = self.stream_answer(turns, max_new_tokens=max_new_tokens, sampling=sampling, **options)
        return "".join(token.text for token in tokens)

    @checked
    def answer_many(
        self,
        conversations: Sequence[Sequence[tuple[str, str]]],
        *,
        max_new_tokens: Annotated[int, AtLeast(1)] = 100,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        **options: Unpack[SamplingOptions],
    ) -> Iterator[str]:
        """Yield the answer to each of ``conversations``, in their order; otherwise as `answer`.

        Several are computed in a batch, which is faster. The i-th, counted from 0, uses ``seed + i``.
        """
        return answer_many(
            self.model,
            self.tokenizer,
            [self._turns(messages) for messages in conversations],
            max_new_tokens,
            dataclasses.replace(sampling, **options),
            use_cache=self.use_cache,
        )

    def _turns(self, messages: Sequence[tuple[str, str]]) -> list[Message]:
        """Return a conversation that needs an answer. Raises as `stream_answer`."""
        self.refuse_unless_it_answers()
        turns = [Message(cast(Role, role), content) for role, content in messages]
        if order_problem(turns) or not turns or turns[-1].role != "user":
            raise ConfigError(
                "messages must be turns of user and assistant, after a system turn or none, and end with the user's"
            )
        return turns

    @checked
    def generate_many(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: Annotated[int, AtLeast(1)] = 100,
        at_start: bool | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        **options: Unpack[SamplingOptions],
    ) -> Iterator[str]:
        """Yield the continuation of each of ``prompts``, in their order; otherwise as `generate`.

        Several are computed in a batch, which is faster. The i-th prompt, counted from 0, uses ``seed + i``.
        """
        return generate_many(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens,
            dataclasses.replace(sampling, **options),
            at_start=self.has_start if at_start is None else at_start,
            use_cache=self.use_cache,
        )


@checked
def load(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    spm_file: str = "",
    trust_remote_code: bool = False,
) -> Pretrained:
    """Load a run's folder (its newest checkpoint), one checkpoint, an exported folder, or a repository on the Hub.

    ``device`` is a device of PyTorch, or its name, or "auto": the first that works of CUDA, XPU, MPS and CPU.
    ``spm_file`` names the SentencePiece model inside a folder or repository; empty: the only one there is.
    ``trust_remote_code`` lets transformers run Python code from a repository whose format mamegpt does not know.

    Raises `ModelError` if there is no such model, if it is a classifier (see `load_classifier`), or if loading it would
    run its own code and ``trust_remote_code`` is false; `HubError` if the Hub cannot be reached; `CheckpointError` if a
    run is damaged; `ConfigError` if there is no such device.
    """
    found = load_any(model, device, spm_file, trust_remote_code)
    if isinstance(found, Classifier):
        raise ModelError("{origin} classifies texts and generates none; use mamegpt classify", origin=found.origin)
    return found


@checked
def load_classifier(
    model: str | os.PathLike[str], *, device: str | torch.device = "auto", spm_file: str = ""
) -> Classifier:
    """Load a model that was tuned to classify: a run, a checkpoint, an exported folder, or a repository on the Hub.

    Raises `ModelError` for a model without labels; otherwise as `load`.
    """
    found = load_any(model, device, spm_file)
    if isinstance(found, Pretrained):
        raise ModelError(
            "{origin} has no labels; let it learn to classify with mamegpt tune --task classify", origin=found.origin
        )
    return found


def load_any(
    model: str | os.PathLike[str],
    device: str | torch.device = "auto",
    spm_file: str = "",
    trust_remote_code: bool = False,
) -> Pretrained | Classifier:
    """Load a model that generates or one that classifies. Raises as `load`."""
    if isinstance(device, str):
        device = choose_device(device).device
    if run := Run.find(model):
        newest = run.latest()
        found = _load_run(run, newest.path if newest else None, spm_file)
    elif run := Run.of_checkpoint(model):
        found = _load_run(run, Path(model), spm_file)
    else:
        found = _load_repository(os.fspath(model), spm_file, trust_remote_code)
    found.model.to(device).eval()
    return found


def is_foreign(where: str) -> bool:
    """Return whether only transformers can load a model: another architecture, or no SentencePiece model.

    Raises what `load` raises if there is no such folder or repository.
    """
    if Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        return False  # a checkpoint, or nothing at all
    folder = _folder(where, ["config.json", "*.model"])
    model_type = _read_config(folder / "config.json").get("model_type")
    return model_type is not None and (model_type not in hf_formats() or not any(folder.glob("*.model")))


def _load_run(run: Run, path: Path | None, spm_file: str) -> Pretrained | Classifier:
    config = run.config
    if spm_file:
        _spm_file(run.folder, str(run.folder), spm_file)  # a run has only its own tokenizer
    if path is None:
        _refuse_young(run)
    tokenizer = run.tokenizer
    sizes = config.model(tokenizer.vocab_size)
    labels = run.labels
    model = _filled(config.architecture, sizes, merged(checkpoint.read_model(path)), str(path), len(labels))
    if labels:
        return Classifier(model, tokenizer, sizes, config.architecture, str(path), labels)
    has_start = tokenizer.start_id is not None
    answers = config.answers
    return Pretrained(model, tokenizer, sizes, config.architecture, str(path), has_start=has_start, answers=answers)


def _refuse_young(run: Run) -> NoReturn:
    again = command("train", "--resume", run.folder)
    raise CheckpointError("{run} has no checkpoint yet; resume with: {again}", run=run.folder, again=again)


def _load_repository(where: str, spm_file: str, trust_remote_code: bool) -> Pretrained | Classifier:
    """Load a folder or Hub repository in a Hugging Face format."""
    folder = _folder(
        where, ["config.json", "tokenizer_config.json", "chat_template.jinja", "*.model", *_names(WEIGHTS[0])]
    )
    config = _read_config(folder / "config.json")
    if "model_type" not in config:
        _refuse_folder(folder, "model_type in its config.json")
    tokenizer = Tokenizer.load(_spm_file(folder, where, spm_file))
    model_type = str(config["model_type"])
    hf_format = hf_formats().get(model_type)
    if hf_format is None:
        return _load_foreign(where, model_type, tokenizer, trust_remote_code)
    files = _weight_files(where)
    file = files[0]
    weights = {name: tensor for part in files for name, tensor in read_weights(part).items()}
    labels = _labels(config, folder)
    sizes = hf_format.sizes(config, weights, file)
    if labels:
        sizes = dataclasses.replace(sizes, tie_embeddings=False)
        weights = {HEAD if name == LABEL_HEAD else name: tensor for name, tensor in weights.items() if name != HEAD}
    own = hf_format.from_file(weights, sizes)
    padding = sizes.vocab_size - tokenizer.vocab_size
    if not 0 <= padding <= min(MAX_PADDING, sizes.vocab_size // 8):
        raise ModelError(
            "{path} has vocabulary size {vocab_size}, but {file} has {vocab_size_2}; this is not the "
            "tokenizer the model was trained with",
            path=tokenizer.path,
            vocab_size=tokenizer.vocab_size,
            file=file,
            vocab_size_2=sizes.vocab_size,
        )
    if padding:
        sizes, own = _without_padding(hf_format.architecture, sizes, own, tokenizer.vocab_size)
    model = _filled(hf_format.architecture, sizes, own, str(file), len(labels))
    if labels:
        return Classifier(model, tokenizer, sizes, hf_format.architecture, where, labels)
    has_start = tokenizer.start_id is not None and config.get("bos_token_id") == tokenizer.start_id
    answers = tokenizer.turns is not None and has_chat_template(folder)
    return Pretrained(model, tokenizer, sizes, hf_format.architecture, where, has_start=has_start, answers=answers)


def has_chat_template(folder: Path) -> bool:
    """Return whether an exported folder declares our chat template, as those of models that answer do."""
    return _chat_template(folder) == TEMPLATE


def is_classifier(folder: Path) -> bool:
    """Return whether an exported folder has a model that gives labels; raises `ModelError` if it cannot be read."""
    return _classifies(_read_config(folder / "config.json"))


def _classifies(config: dict[str, Any]) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def _labels(config: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """Return the labels of a classifier from its ``config.json``; empty for another model.

    Raises `ModelError` for labels that cannot be read.
    """
    if not _classifies(config):
        return ()
    given = config.get("id2label")
    names = given if isinstance(given, dict) else {}
    numbers = [str(i) for i in range(len(names))]
    if len(names) < 2 or set(names) != set(numbers) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(
            "{path} is no configuration of a model: {reason}",
            path=folder / "config.json",
            reason=msg("id2label must name two labels or more by their numbers"),
        )
    return tuple(names[i] for i in numbers)


def _chat_template(folder: Path) -> str | None:
    """Return the chat template of a folder, where transformers has put it; None if there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    try:
        return read_json(folder / "tokenizer_config.json", _TokenizerConfig).chat_template
    except (FileNotFoundError, ValueError):  # several templates are a list
        return None


@dataclass(frozen=True)
class _TokenizerConfig(FromJSON, extra="ignore"):
    chat_template: str | None = None


def _filled(
    architecture: str, sizes: ModelConfig, weights: dict[str, Tensor], origin: str, n_labels: int
) -> LanguageModel:
    """Return a model with these sizes and weights; a classifier has ``n_labels`` (else 0).

    Untrusted sizes may be far beyond memory, so shapes are compared first.
    """
    shape = build_without_memory(architecture, sizes)
    if n_labels:
        replace_head(shape, n_labels)
    expected = unique_state_dict(shape)
    for name, tensor in expected.items():
        if name not in weights:
            raise ModelError("{origin} does not fit the model: {name} is missing", origin=origin, name=name)
        if weights[name].shape != tensor.shape:
            found, needed = tuple(weights[name].shape), tuple(tensor.shape)
            raise ModelError(
                "{origin} does not fit the model: {name} is {found}, where {needed} is needed",
                origin=origin,
                name=name,
                found=found,
                needed=needed,
            )
    check_memory(memory_of(shape), sum(map(n_bytes, weights.values())), origin)
    model = build_model(architecture, sizes)
    if n_labels:
        replace_head(model, n_labels)
    load_weights(model, weights, origin)
    return model


def _without_padding(
    architecture: str, sizes: ModelConfig, weights: dict[str, Tensor], n_pieces: int
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Remove the rows of embedding and head beyond the tokenizer's vocabulary, so that these are never generated."""
    model = build_without_memory(architecture, sizes)
    tables = {id(token_embedding(model).weight), id(model.out_head.weight)}
    names = {name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in tables}
    cut = {name: tensor[:n_pieces] if name in names else tensor for name, tensor in weights.items()}
    return dataclasses.replace(sizes, vocab_size=n_pieces), cut


def _names(name: str) -> list[str]:
    """Return the patterns for a weights file and for its parts."""
    stem, suffix = name.rsplit(".", 1)
    number = "[0-9]" * 5
    return [name, f"{stem}-{number}-of-{number}.{suffix}"]


def _weight_files(where: str) -> list[Path]:
    """Return the weights file of a folder, or all its parts.

    Raises `ModelError` if there is none, or a part is missing.
    """
    for name in WEIGHTS:
        patterns = _names(name)
        folder = _folder(where, patterns)
        if (folder / name).is_file():
            return [folder / name]
        if parts := sorted(folder.glob(patterns[1])):
            n = parts[0].stem.rpartition("-of-")[2]
            expected = [
                parts[0].with_name(re.sub(r"-\d+-of-", f"-{i:05}-of-", parts[0].name)) for i in range(1, int(n) + 1)
            ]
            if missing := [part.name for part in expected if part not in parts]:
                raise ModelError(
                    "{folder} has no {part}, a part of its weights; copy the whole folder again",
                    folder=folder,
                    part=missing[0],
                )
            return expected
    raise ModelError(
        "no weights file {names} in {folder}; copy the whole folder again", names=join(" or ", WEIGHTS), folder=folder
    )


def _folder(where: str, patterns: list[str]) -> Path:
    """Return a local folder as it is, or the wanted files of a Hub repository."""
    if Path(where).is_dir():
        return Path(where)
    if where.endswith(".gguf"):
        _refuse_gguf(where)
    if Path(where).is_file():
        raise ModelError("{where} is a file; give its folder, with the config.json", where=where)
    if not is_hub_name(where):
        raise ModelError(
            "no model {where}: it is neither a folder nor a Hub name (owner/name); check the spelling", where=where
        )
    return snapshot(where, patterns, repo_type="model")


def _spm_file(folder: Path, where: str, name: str) -> Path:
    """Return the SentencePiece model of that name, or the only one there is."""
    there = sorted(path.name for path in folder.glob("*.model"))
    if name in there:
        return folder / name
    if not name and len(there) == 1:
        return folder / there[0]
    if not there and (folder / "tokenizer.json").is_file():
        raise ModelError(
            "{where} has a tokenizer.json only, as save_pretrained leaves it; copy the SentencePiece "
            "model (tokenizer.model) of the model that it was made from into it",
            where=where,
        )
    if name:
        asked = msg("{where} has no {name}", where=where, name=name)
    else:
        asked = msg("{where} has several SentencePiece models", where=where)
    raise ModelError(
        "{asked}; choose with --spm-file from: {names}", asked=asked, names=", ".join(there) or msg("none there")
    )


def _load_foreign(where: str, model_type: str, tokenizer: Tokenizer, trust_remote_code: bool) -> Pretrained:
    """Load any other model with transformers, and with the repository's own code if it has some."""
    if not trust_remote_code:
        raise ModelError(
            "{where} is a {model_type!r} model, not ours. --trust-remote-code loads it through "
            "transformers, which may run Python code from the repository with your rights: say it "
            "only if you trust its author",
            where=where,
            model_type=model_type,
        )
    from transformers import AutoModelForCausalLM

    with transformers_loads(where):
        model = AutoModelForCausalLM.from_pretrained(where, trust_remote_code=True)
    refuse_not_finite(model, where)
    return Pretrained(TransformersModel(model), tokenizer, None, model_type, where, use_cache=False)


@contextmanager
def transformers_loads(where: str) -> Iterator[None]:
    """Turn any error of transformers, which may run code of others, into `ModelError`, except lack of memory."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ModelError) or is_out_of_memory(error):
            raise
        raise ModelError(
            "{where} cannot be loaded by transformers: {reason}", where=where, reason=first_line(error)
        ) from error


class TransformersModel(LanguageModel):
    """A causal model of transformers as a `LanguageModel`: its hidden states are its logits, which the head returns as
    they are.

    ``context_length`` is that of its configuration, or `POSITIONS` if it has none.
    """

    POSITIONS = 1024

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        names = ("context_length", "max_position_embeddings", "n_positions")
        sizes = (getattr(model.config, name, None) for name in names)
        self.context_length = next((size for size in sizes if size), self.POSITIONS)
        head = nn.Identity()
        head.weight = next(model.parameters())  # only its device and dtype are used
        self.out_head = cast(nn.Linear, head)

    def hidden(self, ids: Tensor, cache: object | None = None) -> Tensor:
        """Return the logits (B, T, V) of ids (B, T)."""
        assert cache is None, "transformers has caches of its own"
        logits: Tensor = self.model(input_ids=ids)["logits"]
        return logits

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits (B, T, V) of ids (B, T)."""
        return self.hidden(ids)


@dataclass(frozen=True)
class _Config(FromJSON, extra="ignore"):
    """The fields of every ``config.json`` that are read before its ``model_type`` is known."""

    model_type: str | None = None
    architectures: list[str] | None = None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        read_json(path, _Config)
        return read_json(path, dict[str, Any])
    except FileNotFoundError:
        _refuse_folder(path.parent, path.name)
    except ValueError as error:
        raise ModelError("{path} is no configuration of a model: {reason}", path=path, reason=error) from None


def _refuse_folder(folder: Path, missing: str) -> NoReturn:
    """Raise `ModelError` for a folder without a configuration, with what it is instead and what to do."""
    if (adapter := folder / "adapter_config.json").is_file():
        base = _read_config(adapter).get("base_model_name_or_path")
        raise ModelError(
            "{folder} holds a PEFT adapter for {base}, not a model; merge them (merge_and_unload, "
            "save_pretrained) into a folder, and copy the tokenizer.model of that model into it",
            folder=folder,
            base=base,
        )
    if found := sorted(folder.glob("checkpoint-*")):
        raise ModelError(
            "{folder} holds the checkpoints of a Trainer; give one of them, such as {example}",
            folder=folder,
            example=found[-1],
        )
    if found := sorted(folder.glob("*.gguf")):
        _refuse_gguf(str(found[0]))
    try:
        Run(folder).config  # noqa: B018
    except CheckpointError:
        raise ModelError(
            "{folder} is neither a run nor a model folder: it has no {missing}", folder=folder, missing=missing
        ) from None
    _refuse_young(Run(folder))


def _refuse_gguf(where: str) -> NoReturn:
    raise ModelError(
        "{where} is a GGUF file, which llama.cpp runs; give the run or folder that it was exported from", where=where
    )
