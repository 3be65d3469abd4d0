"""A classifier as a folder that ``AutoModelForSequenceClassification.from_pretrained`` loads, and its verification.

The folder needs no code of ours: transformers has such a class for each of our architectures. Only the name of the head
differs from that of a language model, and texts of a batch are padded on the right.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mamegpt.exporting.checks import EDGE_CASES, Cases, Check, example_texts, logits_check, text_checks
from mamegpt.exporting.clean_process import run_in_clean_process
from mamegpt.exporting.export import (
    Exporting,
    ExportReport,
    new_folder,
    refuse_failed,
    refuse_other_tokenizer,
    write_card,
    writing,
)
from mamegpt.exporting.hf import TOLERANCE, write_hf
from mamegpt.exporting.model_card import Facts, model_card
from mamegpt.messages import msg
from mamegpt.models.classifier import Classifier
from mamegpt.models.registry import architecture

__all__ = ["export_classifier"]

VERIFIER = Path(__file__).with_name("verify_classifier.py")
N_ROWS = 64


def export_classifier(
    out: Path,
    classifier: Classifier,
    *,
    name: str = "",
    facts: Facts = Facts(),  # noqa: B008  (frozen)
    n_sentences: int,
    overwrite: bool = False,
    on_event: Callable[[Exporting], None] = lambda _: None,
) -> ExportReport:
    """Write the folder ``out``, load it again in a separate process, and verify that both are equal.

    Arguments, events and errors are those of `mamegpt.exporting.export.export_model`.
    """
    tokenizer, sizes = classifier.tokenizer, classifier.sizes
    refuse_other_tokenizer(tokenizer, sizes)
    begin = time.perf_counter()
    hf_format = architecture(classifier.architecture).native_format
    with new_folder(out, overwrite=overwrite) as folder:
        on_event(Exporting("writing", "hf"))
        with writing(out):
            write_hf(folder, classifier.model.eval(), sizes, tokenizer, hf_format, labels=classifier.labels)
            card = model_card(
                name or out.name, sizes, classifier.n_parameters, tokenizer, hf_format, facts, labels=classifier.labels
            )
            write_card(folder, card, ["hf"])
        on_event(Exporting("comparing", "hf"))
        found = _checks(folder, classifier, n_sentences)
        on_event(Exporting("checked", "hf", found))
        refuse_failed(out, "hf", found)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return ExportReport(out, files, {"hf": found}, time.perf_counter() - begin)


def _checks(folder: Path, classifier: Classifier, n_sentences: int) -> list[Check]:
    """Compare the outputs of a separate process that loaded the folder with those of the classifier."""
    texts, source, text_ids = example_texts(classifier.tokenizer, None, "", n_sentences)
    sentences = texts[len(EDGE_CASES) :]  # a pipeline takes "</s>" in a text for the token, and keeps outer white space
    piped = [text for text in sentences if text and text == text.strip()][:N_ROWS]
    rows = [classifier.text_ids(text) for text in piped]
    logits = classifier.logits(rows)
    cases = Cases(classifier.model, classifier.tokenizer, [], [], rows, logits, texts, text_ids, source)
    with tempfile.TemporaryDirectory() as scratch:
        asked = {"rows": rows, "texts": texts, "piped": piped}
        found = run_in_clean_process(VERIFIER, folder, asked, Path(scratch))
        tensors = torch.load(Path(scratch) / "found.pt", weights_only=True)
    tolerance = TOLERANCE * cases.scale

    def close(kind: str, what: str) -> Check:
        return logits_check((tensors[kind] - logits).abs().max().item(), tolerance, what)

    own = logits.softmax(-1).tolist()
    scores = [[one.get(label, 2.0) for label in classifier.labels] for one in found["piped"]]
    apart = (torch.tensor(scores) - torch.tensor(own)).abs().max().item()
    is_stated = not classifier.tokenizer.settings.is_lossless  # ids may differ then; another check reports that
    return [
        Check(
            msg("weights"),
            not found["odd_keys"],
            msg(
                "missing or unexpected keys: {keys}, in {names}",
                keys=", ".join(found["odd_keys"][:3]) or msg("none"),
                names="model.safetensors",
            ),
        ),
        close("alone", msg("{n} texts, one by one", n=len(rows))),
        close("together", msg("{n} texts in one padded batch", n=len(rows))),
        Check(
            msg("pipeline"),
            apart <= tolerance or is_stated,
            msg(
                "probabilities of {n} texts: max difference {apart:.1e} (tolerance {tolerance:.1e})",
                n=len(piped),
                apart=apart,
                tolerance=tolerance,
            ),
        ),
        *text_checks(cases, found["text_ids"], found["decoded"], classifier.tokenizer.settings.is_lossless),
    ]
