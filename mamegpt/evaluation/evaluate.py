"""Evaluate models with measures that are meaningful for small ones, and compare them with an n-gram baseline.

All measures are based on characters, so models with different tokenizers can be compared: bits per character and byte
of held-out text, minimal pairs, cloze tests, and memorization, the share of generated text that is in the training
text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from mamegpt import __version__
from mamegpt.arguments import AtLeast, checked
from mamegpt.data.schema import GUESS, Schema
from mamegpt.errors import ConfigError
from mamegpt.evaluation.cloze import Gap, cloze, make_gaps
from mamegpt.evaluation.memorization import continuations, verbatim_overlap
from mamegpt.evaluation.minimal_pairs import PairScores, minimal_pairs
from mamegpt.evaluation.ngram import NgramScorer
from mamegpt.evaluation.proportion import Proportion
from mamegpt.evaluation.scorer import Scorer, open_model, stream_of, text_quality
from mamegpt.evaluation.tasks import answered_rightly
from mamegpt.evaluation.texts import TextSample, named_texts, run_texts
from mamegpt.messages import msg, without_secrets
from mamegpt.pretrained import Pretrained
from mamegpt.run.metrics import Quality
from mamegpt.run.run import Run
from mamegpt.system.devices import choose_device
from mamegpt.system.files import write_json
from mamegpt.system.run_files import EVALUATION_FILE
from mamegpt.system.validation import FromJSON, Lax, Number

__all__ = ["Evaluation", "KeptEvaluation", "KeptResult", "Measuring", "Result", "evaluate"]

ORDER = 3
"""Order of the n-gram model; one more gains little and takes half as long again (docs/log.md)."""
NGRAM_CHARACTERS = 30_000_000
"""Most characters of training text for the n-gram model, which takes some 50 bytes per character; more are sampled."""


@dataclass(frozen=True, kw_only=True)
class Result(FromJSON, extra="ignore"):
    """Results of one model. ``text`` is by held-out text; a measure that could not be taken is None.

    ``model`` is the name as given, ``origin`` what was loaded (for a run, the folder of its checkpoint). ``recited`` is
    the memorization: the share of 20-character strings in generated text that occur in the training text.
    """

    name: str
    model: str = ""
    origin: str = ""
    text: dict[str, Quality]
    pairs: PairScores
    cloze: Proportion | None
    recited: Number | None = None
    answers: dict[str, dict[str, Proportion]] = field(default_factory=dict)
    """The shares of 豆対話's questions that were answered rightly, by split and kind."""


@dataclass(frozen=True)
class Evaluation:
    """Results of models and of the n-gram ``baseline``; ``heldout_recited`` is `Result.recited` for held-out text.

    ``heldout_trained_on`` is the share of held-out documents that are also in the training text. ``run`` is the run
    whose own texts were used; empty if the texts were given.
    """

    models: list[Result]
    baseline: Result | None = None
    heldout_recited: float | None = None
    run: str = ""
    heldout_trained_on: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {"mamegpt": __version__, **asdict(self)}

    def keep(self) -> None:
        """Write `EVALUATION_FILE` into the run: its own result, and those to compare it with."""
        if self.run:
            own = [result for result in self.models if result.model == self.run]
            write_json(Path(self.run) / EVALUATION_FILE, replace(self, models=own).to_dict())


@dataclass(frozen=True, kw_only=True)
class KeptResult(Result, extra="ignore"):
    """The result of a run's own model."""

    origin: str = field()
    recited: Number | None = field()


@dataclass(frozen=True)
class KeptEvaluation(FromJSON, extra="ignore"):
    """Content of the file that `Evaluation.keep` writes into a run, for `Run.read_evaluation`."""

    models: Annotated[tuple[KeptResult], Lax()]
    baseline: Result
    heldout_recited: Number | None

    def __post_init__(self) -> None:
        (model,) = self.models
        if model.text.keys() != self.baseline.text.keys() or (model.cloze and not self.baseline.cloze):
            raise ValueError(msg("model and baseline were not asked the same"))


@dataclass(frozen=True)
class Measuring:
    """The next part of an evaluation: likelihoods under a model, continuations or answers by it, or the n-gram model
    (no model).
    """

    what: Literal["likelihoods", "continuations", "answers", "baseline"]
    model: str = ""


@checked
def evaluate(
    models: str | os.PathLike[str] | Pretrained | Sequence[str | os.PathLike[str] | Pretrained],
    data: str | Path | Sequence[str | Path] = (),
    *,
    split: str = "validation",
    train_data: str | Path = "",
    train_split: str = "train",
    max_characters: Annotated[int, AtLeast(0)] = 1_000_000,
    tasks: bool = False,
    schema: Schema = GUESS,
    spm_file: str = "",
    device: str = "auto",
    on_event: Callable[[Measuring], None] = lambda _: None,
) -> Evaluation:
    """Measure a model, or compare several, with all measures that the given texts allow.

    A model is a run, an exported folder, a repository on the Hub (any causal model of transformers), or the result of
    `load`. Held-out texts are ``data`` (text, or token shards of the first mamegpt model), else the validation text of
    the first run among the models, or of the run of a checkpoint; from each, a sample of documents with at most
    ``max_characters`` is used (0: all). The training text is ``train_data``, else that run's. Without held-out text,
    only minimal pairs are measured; without training text, there is no baseline and no memorization. With ``tasks``,
    models that were tuned to answer are asked questions of 豆対話. ``on_event`` is called with `Measuring` before each
    part.

    Raises `ConfigError` if no model is given or one is named twice, and whatever loading models and texts raises.
    """
    models = [models] if isinstance(models, str | os.PathLike | Pretrained) else models
    named = list(map(_named, models))
    places = [str(data)] if isinstance(data, str | Path) else list(map(str, data))
    if not models:
        raise ConfigError("name at least one model, such as: mamegpt eval --model runs/first")
    if len(set(named)) < len(named):
        raise ConfigError("a model is named twice; name each once")
    chosen = choose_device(device).device
    opened = [open_model(model, spm_file=spm_file) for model in models]
    tokenizer = next((model.tokenizer for model in opened if model.tokenizer), None)
    runs = [
        (where if Run.find(where) else "", run, model)  # results of an earlier checkpoint are not the run's
        for where, model in zip(named, opened, strict=True)
        if (run := Run.find(where) or Run.of_checkpoint(where))
    ]
    own, run, run_model = runs[0] if runs else ("", None, None)
    known = run_texts(run) if run else {}
    texts = {"validation": known["val"]} if "val" in known else {}
    if places:
        texts = {
            name: named_texts(place, split, tokenizer, schema)
            for name, place in zip(_short([without_secrets(place) for place in places]), places, strict=True)
        }
    held_out = {name: text.sample(max_characters or None) for name, text in texts.items()}
    main = next((sample.texts for sample in held_out.values()), [])
    training = named_texts(str(train_data), train_split, tokenizer, schema) if train_data else known.get("train")
    gaps = make_gaps(main)

    results: list[Result] = []
    written = {"": main}
    for where, name, model in zip(named, _short(named), opened, strict=True):
        on_event(Measuring("likelihoods", name))
        model.move(chosen)
        result = _likelihoods(name, model, held_out, gaps)
        results.append(replace(result, model=where, origin=model.origin))
        if tasks and isinstance(loaded := getattr(model, "loaded", None), Pretrained):
            on_event(Measuring("answers", name))
            results[-1] = replace(results[-1], answers=answered_rightly(loaded))
        if training:
            on_event(Measuring("continuations", name))
            written[name] = continuations(model, main)
        model.move(torch.device("cpu"))  # the next one has all memory of the device
    if training is None:
        return Evaluation(results)
    on_event(Measuring("baseline"))
    trained_on = set[str]()
    shares = verbatim_overlap(written, _noting(training, set(main), trained_on))
    like = run_model or opened[0]
    baseline = NgramScorer(like, stream_of(like, training.sample(NGRAM_CHARACTERS)), ORDER)
    return Evaluation(
        [replace(result, recited=shares[result.name]) for result in results],
        _likelihoods(f"{ORDER}-gram", baseline, held_out, gaps),
        shares[""],
        "" if places or train_data else own,
        sum(text in trained_on for text in main) / max(1, len(main)),
    )


def _named(model: str | os.PathLike[str] | Pretrained) -> str:
    """Return the name of a model; for a loaded run, its folder."""
    if not isinstance(model, Pretrained):
        return os.fspath(model)
    run = Run.of_checkpoint(model.origin)
    return str(run.folder) if run else model.origin


def _noting(documents: Iterable[str], wanted: set[str], seen: set[str]) -> Iterator[str]:
    """Yield documents, and add those that are ``wanted`` to ``seen``."""
    for document in documents:
        if document in wanted:
            seen.add(document)
        yield document


def _likelihoods(name: str, scorer: Scorer, held_out: dict[str, TextSample], gaps: Sequence[Gap]) -> Result:
    return Result(
        name=name,
        text={of: text_quality(scorer, sample) for of, sample in held_out.items()},
        pairs=minimal_pairs(scorer),
        cloze=cloze(scorer, gaps),
    )


def _short(names: Sequence[str]) -> list[str]:
    """Return the last parts of paths, if these still differ."""
    last = [Path(name).name or name for name in names]
    return last if len(set(last)) == len(names) else list(names)
