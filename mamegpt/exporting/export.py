"""Export a model in every requested format, and verify each before it gets its name.

Everything is written under a hidden name, loaded again by processes without this package, and compared with the
original model (`checks`). The folder appears only if all checks pass.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from mamegpt.config import ModelConfig
from mamegpt.errors import ExportError, ModelError, OutputError, first_line
from mamegpt.exporting.checks import N_SENTENCES, Check, make_cases
from mamegpt.exporting.gguf import check_gguf, refuse_impossible, replacements_check, rounded_model, write_gguf
from mamegpt.exporting.gguf_types import GgufType, is_in_blocks
from mamegpt.exporting.hf import check_hf, write_hf
from mamegpt.exporting.html import HtmlType, check_html, refuse_unsupported, write_html
from mamegpt.exporting.model_card import Facts, card_rows, model_card
from mamegpt.exporting.onnx import check_onnx, convert_to_onnx, refuse_without_packages
from mamegpt.exporting.upload import Upload
from mamegpt.messages import join, msg
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import architecture, hf_formats
from mamegpt.pretrained import Pretrained
from mamegpt.run.metrics import Quality
from mamegpt.system.files import atomic_directory, remove_leftovers, shown
from mamegpt.system.outputs import CARD, check_folder, export_mark
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = [
    "ExportReport",
    "Exporting",
    "Target",
    "all_targets",
    "export_model",
    "new_folder",
    "refuse_failed",
    "refuse_other_tokenizer",
    "write_card",
    "writing",
]

Target = Literal["hf", "hf-native", "gguf", "html", "onnx"]
"""``hf``: the format of the original scripts, or transformers' own if it has the architecture; ``hf-native``: always a
format without code; ``gguf``: one file for llama.cpp; ``html``: one file for any browser; ``onnx``: a graph for ONNX
Runtime and transformers.js."""


@dataclass(frozen=True)
class ExportReport:
    """Result of an export: the files, the checks it passed, by target, and what was uploaded or would be."""

    out: Path
    files: list[str]
    checks: dict[Target, list[Check]]
    elapsed_s: float
    upload: Upload | None = None


@dataclass(frozen=True)
class Exporting:
    """Progress of an export: "asking" the original model, "writing" a target, "comparing" the reloaded target with it.

    Or "checked": the outcomes of a target's checks. If one failed, the export ends.
    """

    what: Literal["asking", "writing", "comparing", "checked"]
    target: Target | None = None
    checks: Sequence[Check] = ()


def all_targets(name: str) -> tuple[Target, ...]:
    """Return the distinct targets of an architecture; if its ``hf`` needs no code, it equals ``hf-native``.

    ``onnx`` is not among them: it takes the longest, and needs packages of its own.
    """
    native: tuple[Target, ...] = ("hf-native",) if architecture(name).hf_formats[0].remote_code else ()
    return ("hf", *native, "gguf", "html")


def export_model(
    out: Path,
    loaded: Pretrained,
    targets: Sequence[Target] = ("hf",),
    *,
    gguf_type: GgufType = "f32",
    html_type: HtmlType = "q8_0",
    name: str = "",
    facts: Facts = Facts(),  # noqa: B008  (frozen)
    texts: Iterable[str] | None = None,
    source: str = "",
    n_sentences: int = N_SENTENCES,
    spm_vocab: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    validate: Callable[[LanguageModel], Quality] | None = None,
    overwrite: bool = False,
    on_event: Callable[[Exporting], None] = lambda _: None,
) -> ExportReport:
    """Write the folder ``out``, or for several ``targets`` one folder in it for each.

    ``name`` (default: the folder's) and ``facts`` are for the model cards. Tokenizers are compared on the first
    ``n_sentences`` of ``texts``, named ``source`` (default: 豆物語). ``spm_vocab`` and ``settings`` are as in
    `write_hf`. ``validate`` measures a model on held-out text, for the card of a file with rounded weights.
    ``on_event`` is called with `Exporting`.

    Raises `OutputError` if ``out`` exists and ``overwrite`` is false, or if the disk is full; `ModelError` if model and
    tokenizer do not belong together, or the architecture is unknown; `ConfigError` if a package is missing;
    `ExportError` if a check fails. After an error no new folder is left, and an existing one stays.
    """
    if loaded.sizes is None:
        known = ", ".join(hf_formats())
        raise ModelError(
            "{origin} is a {architecture} model; only {known} can be exported",
            origin=loaded.origin,
            architecture=loaded.architecture,
            known=known,
        )
    refuse_other_tokenizer(loaded.tokenizer, loaded.sizes)
    if "gguf" in targets:
        refuse_impossible(loaded.tokenizer, loaded.model, gguf_type)
    if "onnx" in targets:
        refuse_without_packages()
    if "html" in targets:
        refuse_unsupported(loaded.tokenizer, loaded.model, html_type)
    begin = time.perf_counter()
    model, parts = loaded.model.eval(), architecture(loaded.architecture)
    checks: dict[Target, list[Check]] = {}
    with new_folder(out, overwrite=overwrite) as whole:
        on_event(Exporting("asking"))
        cases = make_cases(model, loaded.tokenizer, texts, source, n_sentences, answers=loaded.answers)
        for target in targets:
            on_event(Exporting("writing", target))
            folder = whole if len(targets) == 1 else whole / target
            card_name = name or (out.name if len(targets) == 1 else f"{out.name}/{target}")
            folder.mkdir(exist_ok=True)
            # For gguf and html it is only for the card.
            hf_format = parts.hf_formats[0] if target in ("hf", "html") else parts.native_format
            gguf_file, html_file = folder / f"{out.name}-{gguf_type}.gguf", folder / f"{out.name}.html"
            stored, stated = model, facts
            if target == "gguf" and is_in_blocks(gguf_type):
                stored = rounded_model(model, loaded.sizes, parts.gguf_format, gguf_type)
                if validate:
                    stated = _with_rounded(facts, gguf_type, validate(stored), validate(model))
            with writing(out):
                if target == "gguf":
                    write_gguf(
                        gguf_file,
                        model,
                        loaded.sizes,
                        loaded.tokenizer,
                        parts.gguf_format,
                        gguf_type,
                        answers=loaded.answers,
                    )
                elif target == "html":
                    rows = card_rows(loaded.sizes, loaded.n_parameters, loaded.tokenizer, hf_format, facts)
                    write_html(html_file, loaded, card_name, rows, facts.licenses, html_type)
                else:
                    write_hf(
                        folder,
                        model,
                        loaded.sizes,
                        loaded.tokenizer,
                        hf_format,
                        answers=loaded.answers,
                        spm_vocab=spm_vocab,
                        settings=settings,
                    )
                    if target == "onnx":
                        convert_to_onnx(folder, hf_format)
                card = model_card(
                    card_name,
                    loaded.sizes,
                    loaded.n_parameters,
                    loaded.tokenizer,
                    hf_format,
                    stated,
                    gguf_file=gguf_file.name if target == "gguf" else "",
                    html_file=html_file.name if target == "html" else "",
                    is_onnx=target == "onnx",
                    answers=loaded.answers,
                )
                write_card(folder, card, targets)
            on_event(Exporting("comparing", target))
            if target == "gguf":
                found = [
                    *check_gguf(gguf_file, cases, gguf_type, stored),
                    *replacements_check(model, loaded.sizes, parts.gguf_format, gguf_type),
                ]
            elif target == "html":
                found = check_html(html_file, cases, html_type)
            elif target == "onnx":
                found = check_onnx(folder, cases)
            else:
                found = check_hf(folder, cases, hf_format)
            checks[target] = found
            on_event(Exporting("checked", target, found))
            refuse_failed(out, target, found)
        files = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file())
    return ExportReport(out, files, checks, time.perf_counter() - begin)


def refuse_other_tokenizer(tokenizer: Tokenizer, sizes: ModelConfig) -> None:
    """Raise `ModelError` for a tokenizer that is not the model's."""
    if tokenizer.vocab_size != sizes.vocab_size:
        raise ModelError(
            "{path} has vocabulary size {vocab_size}, but the model {vocab_size_2}; give the "
            "tokenizer it was trained with",
            path=tokenizer.path,
            vocab_size=tokenizer.vocab_size,
            vocab_size_2=sizes.vocab_size,
        )


@contextmanager
def new_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder that becomes ``out`` at the end, and remove those of exports that were killed.

    Raises `OutputError` if ``out`` exists and ``overwrite`` is false, at first and at the end.
    """
    remove_leftovers(Path(os.path.realpath(out)).parent)
    with atomic_directory(out, overwrite=overwrite) as folder:
        yield folder
        check_folder(out, overwrite=overwrite)  # again: much time has passed


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise `OutputError` for a file that cannot be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OutputError(
            "{out} cannot be written ({reason}); free space or choose another place",
            out=out,
            reason=first_line(error),
        ) from error


def write_card(folder: Path, card: str, targets: Sequence[Target]) -> None:
    """Write a model card, with the mark that tells what an export wrote."""
    card = shown(card)  # a file name in it may not be UTF-8
    card += export_mark(folder, card, targets)
    (folder / CARD).write_text(card, encoding="utf-8", newline="\n")


def refuse_failed(out: Path, target: Target, checks: Sequence[Check]) -> None:
    """Raise `ExportError` if a check failed."""
    if failed := [check for check in checks if not check.passed]:
        what = join("; ", [msg("{name}: {found}", name=check.name, found=check.found) for check in failed])
        raise ExportError(
            "{out} was not written: as {target} it differs from the model: {what}", out=out, target=target, what=what
        )


def _with_rounded(facts: Facts, kind: GgufType, rounded: Quality, original: Quality) -> Facts:
    """Return facts with what the rounding of the weights costs."""
    share = "のサンプル" if rounded.of_n_characters > rounded.n_characters else ""
    value = (
        f"{kind}: {rounded.bits_per_character:.3f} ビット/文字、元の重み: {original.bits_per_character:.3f}"
        f"(検証データ {rounded.n_characters:,} 文字{share})"
    )
    return dataclasses.replace(facts, evaluation=[*facts.evaluation, ("重みの丸め", "rounded weights", value)])
