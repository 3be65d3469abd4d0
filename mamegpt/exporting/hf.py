"""A model as a folder that ``AutoModelForCausalLM.from_pretrained`` loads, and its verification.

The folder of an architecture that transformers lacks contains this package's own model file, byte for byte. An
`HFFormat` describes all other differences of folders.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mamegpt.config import ModelConfig
from mamegpt.exporting.checks import (
    Cases,
    Check,
    answer_checks,
    chat_checks,
    chat_prompts,
    chats,
    greedy_check,
    logits_check,
    text_checks,
    text_prompt,
    until_end,
    whole_text,
)
from mamegpt.exporting.clean_process import run_in_clean_process
from mamegpt.generation.stream import prompt_ids, stream_ids
from mamegpt.messages import msg
from mamegpt.models.base import LanguageModel, cpu_state_dict
from mamegpt.models.hf_format import HEAD, LABEL_HEAD, HFFormat
from mamegpt.system.files import write_json
from mamegpt.tokenizer.hf import fast_tokenizer_json, tokenizer_config
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["TOLERANCE", "check_hf", "write_hf", "written_checks", "written_prompts"]

# A path, not a module: importing it would import transformers, which takes two seconds.
VERIFIER = Path(__file__).with_name("verify_hf.py")
PIPELINE_TOKENS = 8
TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, that counts as rounding: kernels differ."""


def write_hf(
    folder: Path,
    model: LanguageModel,
    sizes: ModelConfig,
    tokenizer: Tokenizer,
    hf_format: HFFormat,
    *,
    answers: bool = False,
    labels: Sequence[str] = (),
    spm_vocab: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, settings and tokenizer into the empty ``folder``.

    A model that ``answers`` has a chat template, and its generation ends with the turn, too. A classifier has
    ``labels``, and a format with a ``classifier``. ``spm_vocab`` is copied
    next to the SentencePiece model (default: written from it); ``settings`` override those in config.json.
    """
    _write_weights(folder, model, hf_format, {HEAD: LABEL_HEAD} if labels else {})
    of_labels = _label_settings(labels, tokenizer, hf_format) if labels else {}
    write_json(folder / "config.json", _config(sizes, tokenizer, hf_format) | of_labels | dict(settings or {}))
    ends = {"eos_token_id": [tokenizer.eos_id, tokenizer.turns.end]} if answers and tokenizer.turns else {}
    if not labels:
        write_json(folder / "generation_config.json", {**_special_ids(tokenizer), **ends})
    if hf_format.remote_code:
        (folder / hf_format.remote_code.name).write_bytes(hf_format.remote_code.read_bytes())
    pads_right = {"padding_side": "right", "pad_token": tokenizer.piece(_pad_id(tokenizer))} if labels else {}
    _write_tokenizer(folder, tokenizer, sizes.context_length, answers, spm_vocab, pads_right)


def _label_settings(labels: Sequence[str], tokenizer: Tokenizer, hf_format: HFFormat) -> dict[str, Any]:
    """Return what the ``config.json`` of a classifier has; the last token that is not padding is asked."""
    return {
        "architectures": [hf_format.classifier],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "pad_token_id": _pad_id(tokenizer),
    }


def _pad_id(tokenizer: Tokenizer) -> int:
    """Return the id of the padding in a batch of texts; none of them has the end-of-text token."""
    found = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
    assert found is not None, "a classifier was trained with an end-of-text token"
    return found


def _write_weights(folder: Path, model: LanguageModel, hf_format: HFFormat, renamed: Mapping[str, str]) -> None:
    """Write the tensors as safetensors, and again as a PyTorch file if the original format has one."""
    weights = {renamed.get(name, name): it for name, it in hf_format.to_file(cpu_state_dict(model)).items()}
    for name in hf_format.weight_files:
        if name.endswith(".safetensors"):
            save_file(weights, folder / name, metadata={"format": "pt"})
        else:
            with (folder / name).open("wb") as file:  # given a path, torch would report a full disk obscurely
                torch.save(weights, file)


def _config(sizes: ModelConfig, tokenizer: Tokenizer, hf_format: HFFormat) -> dict[str, Any]:
    return {
        **hf_format.config(sizes),
        "dtype": "float32",  # transformers 5 would otherwise take the dtype of the weights
        "use_cache": True,
        **_special_ids(tokenizer),
    }


def _special_ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """Return the special ids under transformers' names, null if missing: GPT-2 would have other defaults."""
    return {"bos_token_id": tokenizer.start_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}


def _write_tokenizer(
    folder: Path,
    tokenizer: Tokenizer,
    context_length: int,
    answers: bool,
    spm_vocab: Path | None,
    settings: Mapping[str, Any],
) -> None:
    """Write Hugging Face's tokenizer files, and SentencePiece's under their own names."""
    (folder / "tokenizer.json").write_text(fast_tokenizer_json(tokenizer), encoding="utf-8", newline="\n")
    config = tokenizer_config(tokenizer, context_length, answers=answers)
    write_json(folder / "tokenizer_config.json", {**config, **settings})
    (folder / tokenizer.path.name).write_bytes(tokenizer.path.read_bytes())
    if spm_vocab is not None:
        (folder / spm_vocab.name).write_bytes(spm_vocab.read_bytes())
    else:
        lines = (f"{piece.text}\t{piece.score:g}\n" for piece in tokenizer.pieces)
        (folder / tokenizer.path.with_suffix(".vocab").name).write_text("".join(lines), encoding="utf-8", newline="\n")


def check_hf(folder: Path, cases: Cases, hf_format: HFFormat) -> list[Check]:
    """Compare the outputs of a separate process that loaded the folder with those of the model and the tokenizer.

    Raises `ExportError` if the folder does not load at all.
    """
    tokenizer = cases.tokenizer
    asked_prompts = written_prompts(cases)
    asked = {
        "prompts": cases.prompts,
        "n_new": cases.n_new,
        "rows": cases.rows,
        "texts": cases.texts,
        "chats": chats(cases),
        "asked": chat_prompts(cases),
        "written": asked_prompts,
        "n_written": min(PIPELINE_TOKENS, cases.n_new),
        "weight_files": hf_format.weight_files,
        "trust_remote_code": hf_format.remote_code is not None,
    }
    with tempfile.TemporaryDirectory() as scratch:
        found = run_in_clean_process(VERIFIER, folder, asked, Path(scratch))
        logits = torch.load(Path(scratch) / "found.pt", weights_only=True)
    tolerance = TOLERANCE * cases.scale
    odd_keys = [f"{name}: {key}" for name, keys in found["odd_keys"].items() for key in keys]
    apart = torch.stack([(found_logits - cases.logits).abs().max() for found_logits in logits.values()]).max().item()
    names = ", ".join(hf_format.weight_files)

    def close(name: str, what: str) -> Check:
        apart = found[f"{name}_difference"]
        return Check(
            name,
            apart <= tolerance,
            msg(
                "{what}: max difference {apart:.1e} (tolerance {tolerance:.1e})",
                what=what,
                apart=apart,
                tolerance=tolerance,
            ),
        )

    return [
        Check(
            msg("weights"),
            not odd_keys,
            msg(
                "missing or unexpected keys: {keys}, in {names}",
                keys=", ".join(odd_keys[:3]) or msg("none"),
                names=names,
            ),
        ),
        logits_check(
            apart,
            tolerance,
            msg(
                "{n_rows} sequences x {n_tokens} tokens, from {names}",
                n_rows=len(cases.rows),
                n_tokens=len(cases.rows[0]),
                names=names,
            ),
        ),
        greedy_check(msg("greedy"), cases, cases.greedy, found["greedy"], tolerance),
        greedy_check(msg("no cache"), cases, found["greedy"], found["uncached"], tolerance),
        close(msg("cache"), msg("logits with and without cache")),
        close(msg("padding"), msg("logits of a left-padded row and of the row alone")),
        close(msg("loss"), msg("the loss of labels and its definition")),
        *text_checks(cases, found["text_ids"], found["decoded"], tokenizer.settings.is_lossless),
        *chat_checks(cases, found["chat_ids"]),
        *answer_checks(cases, found["answers"], tolerance),
        *written_checks(cases, asked_prompts, found["written_ids"], found["written"], tolerance),
    ]


def written_prompts(cases: Cases) -> list[str]:
    """Return texts for the pipeline to continue: the empty one, if texts have a start token, and one that fits the
    model.
    """
    prompts = [] if cases.tokenizer.start_id is None else [""]
    prompt = text_prompt(cases)
    return prompts if prompt is None else [*prompts, prompt]


def written_checks(
    cases: Cases, prompts: Sequence[str], found_ids: Sequence[list[int]], texts: Sequence[str], tolerance: float
) -> list[Check]:
    """Return the checks that a pipeline (text in, ids and text out) continues each prompt as ``generate`` does."""
    tokenizer = cases.tokenizer
    checks = []
    for prompt, row, text in zip(prompts, found_ids, texts, strict=True):
        ids = prompt_ids(tokenizer, prompt)
        own = list(stream_ids(cases.model, ids, min(PIPELINE_TOKENS, cases.n_new)))
        new = row[len(ids) :] if row[: len(ids)] == ids else []
        check = greedy_check(msg("pipeline"), cases, [until_end(own, cases.ends)], [new], tolerance, [ids])
        expected = whole_text(tokenizer, row)
        same = expected is None or text == expected
        # With a normalization table, the ids of a prompt may differ; another check reports that.
        only_stated = bool(prompt) and not tokenizer.settings.is_lossless
        passed = only_stated or (check.passed and same)
        checks.append(
            Check(
                msg("pipeline") if prompt else msg("empty prompt"),
                passed,
                msg("{found}; generated {text!r}", found=check.found, text=text),
            )
        )
    return checks
