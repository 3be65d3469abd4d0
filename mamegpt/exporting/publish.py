"""Export from any source of a model: a run, a weights file, an exported folder, a repository on the Hub."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from mamegpt.arguments import AtLeast, checked
from mamegpt.config import TrainConfig, TuneConfig
from mamegpt.data.shards import is_shards
from mamegpt.data.sources import LICENSE, card_licenses, read_texts
from mamegpt.errors import ConfigError, ModelError
from mamegpt.exporting.checks import N_SENTENCES
from mamegpt.exporting.classifier import export_classifier
from mamegpt.exporting.evaluation_card import card_results, card_rows, confusion_rows, quality_results
from mamegpt.exporting.export import Exporting, ExportReport, Target, all_targets, export_model
from mamegpt.exporting.gguf_types import GgufType
from mamegpt.exporting.html import HtmlType
from mamegpt.exporting.model_card import Facts, public_names
from mamegpt.exporting.upload import Push, upload_folder
from mamegpt.generation.settings import Sampling
from mamegpt.models.base import LanguageModel
from mamegpt.models.classifier import Classifier
from mamegpt.models.custom_gpt.hf import CUSTOM_GPT, sizes_of
from mamegpt.models.registry import build_model
from mamegpt.models.weights import load_weights, read_weights
from mamegpt.pretrained import Pretrained, load_any
from mamegpt.run import checkpoint
from mamegpt.run.metrics import Quality
from mamegpt.run.run import Run
from mamegpt.system.files import is_here
from mamegpt.system.hub import is_cached, is_hub_name
from mamegpt.system.outputs import check_folder
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["export", "export_weights"]

SAMPLE_PROMPTS = ("日本の", "昔々、", "京都は、")
VALIDATION_TOKENS = 50_000
"""Length of the sample on which rounded weights are compared with the original ones."""
SAMPLING = Sampling(temperature=0.7, top_p=0.9)


@checked
def export(
    model: str | os.PathLike[str] | Pretrained | Classifier,
    out: str | Path,
    *,
    to: Target | Literal["all"] = "hf",
    gguf_type: GgufType = "f32",
    html_type: HtmlType = "q8_0",
    spm_file: str = "",
    name: str = "",
    data_license: str = "",
    push: str = "",
    private: bool | None = None,
    revision: str = "",
    create_pr: bool = False,
    dry_run: bool = False,
    n_sentences: Annotated[int, AtLeast(1)] = N_SENTENCES,
    overwrite: bool = False,
    on_event: Callable[[Exporting], None] = lambda _: None,
) -> ExportReport:
    """Write a model into the folder ``out`` in the format ``to``, load it again, and verify that both are equal.

    ``model`` is a run (its newest checkpoint), a checkpoint, an exported folder, a repository on the Hub, or the result
    of `load` or `load_classifier`. The folder appears when the verification has succeeded. ``to`` is "hf" (for
    transformers), "hf-native" (always without code), "gguf" (for llama.cpp), "html" (one page for any browser), "onnx"
    (for ONNX Runtime and transformers.js), or "all" (a folder of each of these names but "onnx" in ``out``); of a
    classifier only the first two, which are the same. The tokenizers of a run are compared on ``n_sentences`` of its
    training text, if that is still available. ``name`` is the name in the model card (default: ``push``, or the
    folder's name). ``data_license`` is the license of the training text, an identifier of the Hub (default: that of the
    dataset card next to that text).

    ``push`` is a repository on the Hub, ``owner/name``, to which the folder is uploaded: to its branch ``revision``
    (default: main; created if missing), or with ``create_pr`` as a pull request against main. A new repository is
    private unless ``private`` is False; an existing one keeps its visibility. With ``dry_run`` nothing is sent, and the
    report describes what would be.

    Raises what `load` and `export_model` raise, `DataError` if that text cannot be read, and `HubError` if the folder,
    which is complete by then, cannot be uploaded.
    """
    wanted = Push(push, private, revision, create_pr, dry_run)
    if push and to == "all":
        raise ConfigError("--push uploads one folder; choose hf, hf-native, gguf, html or onnx with --to")
    if data_license and not LICENSE.fullmatch(data_license):
        raise ConfigError(
            "--data-license must be an identifier of the Hub, such as cc-by-sa-4.0 (got "
            "{data_license!r}); see the Hub's list of licenses",
            data_license=data_license,
        )
    out = Path(out)
    if isinstance(model, Pretrained | Classifier):
        check_folder(out, [model.origin], overwrite=overwrite)
        loaded = _on_cpu(model)
    else:
        check_folder(out, [os.fspath(model)], overwrite=overwrite)
        loaded = load_any(model, "cpu", spm_file)
    if isinstance(loaded, Classifier):
        if to not in ("hf", "hf-native"):
            raise ConfigError("--to {to} is not for a model that classifies; use --to hf", to=to)
        report = export_classifier(
            out,
            loaded,
            name=name or push,
            facts=_classifier_facts(loaded, data_license),
            n_sentences=n_sentences,
            overwrite=overwrite,
            on_event=on_event,
        )
        return dataclasses.replace(report, upload=upload_folder(report.out, wanted)) if push else report
    targets = all_targets(loaded.architecture) if to == "all" else (to,)
    known: dict[str, Any] = {}
    if run := Run.of_checkpoint(loaded.origin):
        config = run.config
        known["facts"] = dataclasses.replace(_facts(run, loaded), licenses=card_licenses(config.data))
        if is_here(config.data) and not is_shards(config.data) and not isinstance(config, TuneConfig):
            known |= {"texts": read_texts(config.data, config.split, config.schema), "source": config.data}
        known["validate"] = _validation(run, loaded)
    if data_license:
        known["facts"] = dataclasses.replace(known.get("facts", Facts()), licenses=[data_license])
    report = export_model(
        out,
        loaded,
        targets,
        gguf_type=gguf_type,
        html_type=html_type,
        name=name or push,
        n_sentences=n_sentences,
        overwrite=overwrite,
        on_event=on_event,
        **known,
    )
    return dataclasses.replace(report, upload=upload_folder(report.out, wanted)) if push else report


def _validation(run: Run, loaded: Pretrained) -> Callable[[LanguageModel], Quality] | None:
    """Return the function that measures a model on a sample of the run's validation data; None if that is gone."""
    from mamegpt.distributed.processes import World
    from mamegpt.training.setup import validation

    tokens = run.tokens()
    if not tokens or "val" not in tokens[1]:
        return None
    val, world = tokens[1]["val"], World(0, 1, loaded.device)
    return lambda model: validation(run.config, val, run.tokenizer, model, world, None)(max_tokens=VALIDATION_TOKENS)


def _on_cpu(model: Pretrained | Classifier) -> Pretrained | Classifier:
    """Return the model, or a copy on the CPU if it is on another device."""
    if model.model.out_head.weight.device.type == "cpu":
        return model
    return dataclasses.replace(model, model=copy.deepcopy(model.model).cpu())


def _classifier_facts(loaded: Classifier, data_license: str) -> Facts:
    """Return the facts of the run of a classifier, as far as they are known."""
    if run := Run.of_checkpoint(loaded.origin):
        licenses = [data_license] if data_license else card_licenses(run.config.data)
        return dataclasses.replace(
            _facts(run, loaded), licenses=licenses, evaluation=confusion_rows(run, Path(loaded.origin))
        )
    return Facts(licenses=[data_license] if data_license else ())


def _facts(run: Run, loaded: Pretrained | Classifier) -> Facts:
    """Return the facts of a run, with samples from its model if that generates."""
    state = checkpoint.read_state(Path(loaded.origin))
    tokens = run.tokens()
    meta = tokens[0] if tokens else None
    validations = [quality for quality in run.validations if (quality.step or 0) <= state.step]
    new_tokens = min(60, max(1, run.config.context_length // 2))
    origins = meta.origins if meta else ()
    held_out = _held_out(run.config)
    results = card_results(run, Path(loaded.origin), held_out)
    samples: list[tuple[str, str]] = []
    if isinstance(loaded, Pretrained):
        # One by one, as the native engine generates: a batch waits for all threads at each layer.
        samples = [
            (prompt, loaded.generate(prompt, max_new_tokens=new_tokens, sampling=SAMPLING.of_text(i)))
            for i, prompt in enumerate(SAMPLE_PROMPTS)
        ]
    is_of_text = not isinstance(run.config, TuneConfig)  # bits on answers are no measure of a language model
    if not results and is_of_text and validations and validations[-1].step in (None, state.step):
        results = quality_results(validations[-1], held_out)
    return Facts(
        config=run.config,
        step=state.step,
        elapsed_s=state.elapsed_s,
        n_documents=meta.splits["train"].n_documents if meta else 0,
        n_characters=meta.splits["train"].n_characters if meta else 0,
        origins=origins,
        machine=str(run.machine.get("machine", "")),
        losses=[record["loss"] for record in run.steps if record["step"] <= state.step],
        quality=validations[-1] if validations else None,
        evaluation=card_rows(run, Path(loaded.origin)),
        results=results,
        datasets=_datasets(run.config.data, *(origin.source for origin in origins)),
        base_model=start if _is_known(start := run.config.init_from, "model") else "",
        sampling=SAMPLING,
        samples=samples,
    )


def _held_out(config: TrainConfig) -> dict[str, str]:
    """Return the names of the validation text of a run, as the Hub's index has them."""
    source, split, share = config.data, config.split, f" ({100 * config.val_fraction:g}% held out)"
    if is_shards(config.data):
        split, share = "val", ""
    elif config.val_data:
        source, split, share = config.val_data, config.val_split, ""
    known = _datasets(source)
    kind = known[0] if len(known) == 1 and "," not in source else "custom"
    return {"dataset_type": kind, "dataset_name": f"{public_names(source)}{share}", "dataset_split": split}


_HUB_SOURCE = re.compile(r"(?:hf://datasets/)?([^/@:\s]+/[^/@:\s]+)(?:[:/][^@]*)?(?:@\S*)?(?: \(.*\))?")
"""A dataset on the Hub in a list of sources, with a configuration, a revision, a path, a weight, a split."""


def _datasets(*sources: str) -> list[str]:
    """Return the datasets on the Hub in lists of sources; only names that are known to be datasets."""
    found = (_HUB_SOURCE.fullmatch(part.strip()) for source in sources for part in source.split(","))
    return list(dict.fromkeys(name[1] for name in found if name and _is_known(name[1], "dataset")))


def _is_known(name: str, repo_type: Literal["model", "dataset"]) -> bool:
    """Return whether a name is that of a repository on the Hub, not of a local folder that is or was there."""
    return is_hub_name(name) and not is_here(name) and is_cached(name, repo_type)


@checked
def export_weights(
    weights: str | Path,
    spm_model: str | Path,
    out: str | Path,
    *,
    spm_vocab: str | Path | None = None,
    fast: bool = True,
    n_sentences: Annotated[int, AtLeast(1)] = N_SENTENCES,
    overwrite: bool = False,
    on_event: Callable[[Exporting], None] = lambda _: None,
    **sizes: Any,
) -> ExportReport:
    """Export a weights file in the book's layout with its tokenizer into the folder ``out``.

    ``sizes`` are fields of `ModelConfig`; those that are None are read from the weights. ``fast`` is recorded in the
    model's config.json.

    Raises `ModelError` if a size contradicts the weights, and what `read_weights` and `export_model` raise.
    """
    out, weights = Path(out), Path(weights)
    spm_vocab = Path(spm_vocab) if spm_vocab else None
    check_folder(out, [weights, spm_model, *([spm_vocab] if spm_vocab else [])], overwrite=overwrite)
    if spm_vocab is not None and not spm_vocab.is_file():
        raise ModelError(
            "no vocabulary file {spm_vocab}; leave --spm-vocab out and it is written from the model",
            spm_vocab=spm_vocab,
        )
    tensors = read_weights(weights)
    implied = sizes_of(tensors, str(weights), **sizes)
    tokenizer = Tokenizer.load(spm_model)
    model = build_model(CUSTOM_GPT.architecture, implied)
    load_weights(model, tensors, str(weights))
    loaded = Pretrained(model, tokenizer, implied, CUSTOM_GPT.architecture, str(weights))
    return export_model(
        out,
        loaded,
        spm_vocab=spm_vocab,
        settings={"fast": fast},
        n_sentences=n_sentences,
        overwrite=overwrite,
        on_event=on_event,
    )
