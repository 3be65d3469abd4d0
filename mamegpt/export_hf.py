"""A model as a folder that ``AutoModelForCausalLM.from_pretrained`` loads.

The folder is written under a hidden name, loaded again by a process that knows nothing of this package
(`verify_export`), compared with the model it came from, and only then takes its name. The weights are a copy, for
our names are the exported names. An architecture that transformers does not have brings its model file along: this
package's own, byte for byte. In what else the folders of architectures differ stands in `layouts`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mamegpt.config import ModelConfig
from mamegpt.errors import ExportError, ModelError, OutputError
from mamegpt.files import atomic_directory, write_json
from mamegpt.generation import stream_ids
from mamegpt.layouts import LAYOUTS, Layout
from mamegpt.models import LanguageModel, stored_tensors
from mamegpt.stories import stories
from mamegpt.tokenizer import Tokenizer
from mamegpt.tokenizer_hf import fast_tokenizer_json, tokenizer_config

__all__ = ["ExportReport", "export_hf"]

# Paths, not modules: an import of either would be one of transformers, two seconds before anything is said.
MODEL_CODE = Path(__file__).with_name("models") / "modeling_custom_gpt.py"
STRANGER = Path(__file__).with_name("verify_export.py")
LOGITS_TOLERANCE = 1e-4
"""Largest difference, beside the largest logit, that is rounding, not error: other kernels round differently."""
N_PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 3, 12, 16
N_STORIES = 200

NASTY_TEXTS = (
    "ﾌｧﾐｺﾝは1983年7月15日に発売された。",  # half-width kana, digits
    "か\u3099き\u3099く\u3099、が、ﾃﾞｰﾀ",  # kana with combining marks
    "大嘗宮の儀、𠮷野家、髙島屋",  # rare kanji, which need byte pieces
    "👨‍👩‍👧と🍣を食べた😀",  # joined emoji
    "一行目\n二行目\n\n\t四行目  空白が二つ　全角空白",
    "</s>と<unk>と<0xE3>はただの文字",
    "ＡＢＣ１２３ ～ Hello, world! naïve café",
    " 先頭と末尾の空白 ",
)


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and what the clean process found when it loaded it again."""

    out: Path
    files: list[str]
    logits_difference: float
    tokenizer_agreement: float
    n_texts: int
    checks: dict[str, str] = field(default_factory=dict)


def export_hf(
    out: Path,
    model: LanguageModel,
    sizes: ModelConfig,
    tokenizer: Tokenizer,
    architecture: str = "custom-gpt",
    *,
    spm_vocab: Path | None = None,
    fast: bool = True,
    card: str = "",
    overwrite: bool = False,
) -> ExportReport:
    """Write the folder ``out``, load it in a clean process and compare, before it gets its name.

    ``model`` is of that ``architecture`` and those ``sizes``; ``spm_vocab`` is copied beside the SentencePiece model
    (written from it if not given); ``card`` is the text of README.md; ``fast`` is kept in config.json, if it is the
    original format's.

    Raises `OutputError` if ``out`` exists and ``overwrite`` is false, `ModelError` if model and tokenizer do not
    belong together, `ExportError` if the reloaded folder behaves differently, and `OutputError` if the disk is full;
    then no folder is left.
    """
    if tokenizer.vocab_size != sizes.vocab_size:
        raise ModelError(
            f"{tokenizer.path} has {tokenizer.vocab_size} pieces, but the model {sizes.vocab_size}; "
            "give the tokenizer it was trained with"
        )
    layout = LAYOUTS[architecture]
    model.eval()
    with atomic_directory(out, overwrite=overwrite) as folder:
        try:
            _write_weights(folder, model, layout)
            write_json(folder / "config.json", _config(sizes, tokenizer, layout, fast))
            write_json(folder / "generation_config.json", _special_ids(tokenizer))
            if layout.remote_code:
                (folder / MODEL_CODE.name).write_bytes(MODEL_CODE.read_bytes())
            _write_tokenizer(folder, tokenizer, sizes.context_length, spm_vocab)
            (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{out} cannot be written ({reason}); free space or choose another place") from error
        report = _verify(folder, out, model, tokenizer, layout)
    return report


def _write_weights(folder: Path, model: LanguageModel, layout: Layout) -> None:
    """The tensors for those who load safely, and the same tensors again where the original format has them."""
    weights = {f"{layout.key_prefix}{name}": tensor for name, tensor in stored_tensors(model).items()}
    for name in layout.weight_files:
        if name.endswith(".safetensors"):
            save_file(weights, folder / name, metadata={"format": "pt"})
        else:
            with (folder / name).open("wb") as file:  # given a path, torch would report a full disk obscurely
                torch.save(weights, file)


def _config(sizes: ModelConfig, tokenizer: Tokenizer, layout: Layout, fast: bool) -> dict[str, Any]:
    return {
        **layout.config(sizes, fast),
        "dtype": "float32",  # transformers 5 would otherwise take whatever the weights have
        "use_cache": True,
        **_special_ids(tokenizer),
    }


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    return {name: token for name, token in ids.items() if token is not None}


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, context_length: int, spm_vocab: Path | None) -> None:
    """Hugging Face's files, and SentencePiece's beside them under their own names."""
    (folder / "tokenizer.json").write_text(fast_tokenizer_json(tokenizer), encoding="utf-8", newline="\n")
    write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer, context_length))
    (folder / tokenizer.path.name).write_bytes(tokenizer.path.read_bytes())
    if spm_vocab is not None:
        (folder / spm_vocab.name).write_bytes(spm_vocab.read_bytes())
    else:
        lines = (f"{piece.text}\t{piece.score:g}\n" for piece in tokenizer.pieces)
        (folder / tokenizer.path.with_suffix(".vocab").name).write_text("".join(lines), encoding="utf-8", newline="\n")


def _verify(folder: Path, out: Path, model: LanguageModel, tokenizer: Tokenizer, layout: Layout) -> ExportReport:
    """Compare what a clean process makes of the folder with what the model and the tokenizer say."""
    texts = [*NASTY_TEXTS, *(text for _, text in stories(seed=7, n=N_STORIES))]
    text_ids = tokenizer.encode_batch(texts)
    n_context = model.context_length
    n_new = max(1, min(NEW_TOKENS, n_context // 2))
    prompt_tokens = max(2, min(PROMPT_TOKENS, n_context - n_new))
    stream = [token for row in text_ids[len(NASTY_TEXTS) :] for token in row]
    rows = [stream[i * prompt_tokens : (i + 1) * prompt_tokens] for i in range(N_PROMPTS)]
    cases = {"ids": rows, "n_new_tokens": n_new, "texts": texts}
    how = {"weight_files": layout.weight_files, "trust_remote_code": layout.remote_code}
    found = _load_in_clean_process(folder, cases | how)

    device = model.out_head.weight.device
    ids = torch.tensor(rows, device=device)
    with torch.inference_mode():
        logits: Tensor = model.out_head(model.hidden(ids)).float().cpu()
    expected = [row + list(stream_ids(model, row, n_new, use_cache=False)) for row in rows]  # the model, and no more
    problems = []
    difference = 0.0
    tolerance = LOGITS_TOLERANCE * max(1.0, logits.abs().max().item())
    for name in layout.weight_files:
        if found[name]["odd_keys"]:
            problems.append(f"{name} has missing or unexpected keys: {', '.join(found[name]['odd_keys'][:3])}")
        difference = max(difference, (torch.tensor(found[name]["logits"]) - logits).abs().max().item())
    if not difference <= tolerance:
        problems.append(f"logits differ by {difference:.2g}, more than {tolerance:.2g}")
    if found["cached"] != expected:
        problems.append("greedy tokens differ")
    if not found["cache_difference"] <= tolerance:
        problems.append(f"logits with and without cache differ by {found['cache_difference']:.2g}")
    if not found["padding_difference"] <= tolerance:
        problems.append(f"logits of a left-padded row and of the row alone differ by {found['padding_difference']:.2g}")
    if not found["loss_difference"] <= tolerance:
        problems.append(f"the loss of labels is off by {found['loss_difference']:.2g}")
    same = [a == b for a, b in zip(found["text_ids"], text_ids, strict=True)]
    decoded = [a == tokenizer.decode(b) for a, b in zip(found["decoded"], text_ids, strict=True)]
    if tokenizer.settings.is_lossless and not (all(same) and all(decoded)):
        first = (same if not all(same) else decoded).index(False)
        problems.append(f"the fast tokenizer differs from SentencePiece on {texts[first][:30]!r}")
    if problems:
        raise ExportError(f"{out} was not written: loaded again, {'; '.join(problems)}")
    return ExportReport(
        out,
        sorted(path.name for path in folder.iterdir()),
        difference,
        sum(same) / len(same),
        len(texts),
        {
            "logits": f"largest difference {difference:.1e}, from {' and from '.join(layout.weight_files)}",
            "generate": f"{N_PROMPTS} x {n_new} greedy tokens equal, with and without cache, left-padded too",
            "labels": f"loss off by {found['loss_difference']:.1e}",
            "tokenizer": f"{sum(same)} of {len(texts)} texts give SentencePiece's ids "
            f"({sum(same) / len(texts):.1%}), {sum(decoded)} decode equally",
            "pipeline": f"text-generation wrote {found['pipeline']!r}",
        },
    )


def _load_in_clean_process(folder: Path, cases: dict[str, Any]) -> dict[str, Any]:
    """Run `verify_export` on a folder, away from this package, the network, and earlier copies of remote code."""
    with tempfile.TemporaryDirectory() as scratch:
        cases_file, found_file = Path(scratch) / "cases.json", Path(scratch) / "found.json"
        cases_file.write_text(json.dumps(cases), encoding="utf-8")
        environment = os.environ | {
            "HF_HOME": scratch, "HF_MODULES_CACHE": str(Path(scratch) / "modules"), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        arguments = [str(STRANGER), str(folder.resolve()), str(cases_file), str(found_file)]
        command = [sys.executable, "-X", "utf8", "-P", *arguments]
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", cwd=scratch,
            check=False,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise ExportError(f"the exported folder does not load in a clean process: {last}")
        found: dict[str, Any] = json.loads(found_file.read_text(encoding="utf-8"))
    return found
