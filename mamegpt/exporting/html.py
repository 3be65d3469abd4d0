"""A model, its tokenizer and the playground's page as one HTML file, which any browser opens without a network.

The page is the playground's own, with another ``backend.js``: an engine in JavaScript (folder ``page``). Weights are in
gzip and base64, matrices in 8-bit blocks (the float16 scales of 32 numbers each, then the numbers as signed bytes) or
in float16. The file's content security policy allows its own script and style by their hashes, and no requests.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import gzip
import hashlib
import html
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mamegpt.errors import ExportError
from mamegpt.exporting.checks import (
    CHATS,
    Cases,
    Check,
    chat_checks,
    chat_prompts,
    fitting_chats,
    greedy_check,
    last_logits,
    logits_check,
    rounding_check,
    text_checks,
    until_end,
)
from mamegpt.exporting.clean_process import run_in_clean_process
from mamegpt.exporting.verify_html import find_browser
from mamegpt.generation.stream import stream_ids
from mamegpt.generation.whole_characters import WholeCharacters
from mamegpt.messages import msg
from mamegpt.models.base import LanguageModel, cpu_state_dict
from mamegpt.pages.render import render
from mamegpt.playground.words import words
from mamegpt.pretrained import Pretrained
from mamegpt.text.display import visible
from mamegpt.tokenizer.chat import Message
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["HtmlType", "check_html", "refuse_unsupported", "rounded_model", "write_html"]

HtmlType = Literal["q8_0", "f16"]

VERIFIER = Path(__file__).with_name("verify_html.py")
SCRIPTS = ("kernel.js", "tensors.js", "model.js", "tokenizer.js", "sampling.js", "backend.js")
# fmt: off
PAGE_SCRIPTS = (
    "common.js", "settings.js", "sheet.js", "generate.js", "history.js", "code.js", "continuation.js", "chat.js",
    "app.js",
)
# fmt: on
"""The modules of the engine, and those of the playground: each imports only from those before it."""
BLOCK = 32
ALIGN = 16
"""Bytes at whose multiples each tensor begins."""
MAX_BYTES = 350_000_000
"""Largest weights: in base64 they are one string, and those of Chromium have at most 536,870,888 characters."""
TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, that counts as rounding in float32."""
MAX_BITS: dict[HtmlType, float] = {"q8_0": 5e-2, "f16": 1e-3}
"""Largest mean divergence of the stored weights' predictions from the original ones', in bits per token."""
N_LOGITS = 6
N_DECODED = 1000
POLICY = (
    "default-src 'none'; script-src '{script}' 'wasm-unsafe-eval'; style-src '{style}'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_PIECE_LETTERS = {"normal": "n", "user_defined": "u", "byte": "b", "control": "c", "unknown": "x"}


def refuse_unsupported(tokenizer: Tokenizer, model: LanguageModel, kind: HtmlType) -> None:
    """Raise `ExportError` for a tokenizer that the page's engine does not have, or for too many weights."""
    settings = tokenizer.settings
    problems = {
        msg("is a {model_type} model", model_type=settings.model_type): settings.model_type != "bpe",
        msg("has a normalization table ({normalizer})", normalizer=settings.normalizer): bool(settings.charsmap),
        msg("removes extra spaces"): settings.remove_extra_whitespaces,
        msg("has unused tokens"): any(piece.kind == "unused" for piece in tokenizer.pieces),
    }
    for problem, is_so in problems.items():
        if is_so:
            raise ExportError(
                "{path} {problem}, which --to html does not support; use a tokenizer as mamegpt tokenizer makes "
                "it, or export with --to hf",
                path=tokenizer.path,
                problem=problem,
            )
    n_bytes = sum(parameter.numel() for parameter in model.parameters()) * (1 if kind == "q8_0" else 2)
    if n_bytes > MAX_BYTES:
        raise ExportError(
            "the weights have {n_mb:,.0f} MB, and a page holds at most {most_mb:,.0f} MB; export with --to hf",
            n_mb=n_bytes / 1e6,
            most_mb=MAX_BYTES / 1e6,
        )


@dataclass(frozen=True)
class _Stored:
    """One tensor as it is in the file: its data type, its bytes, and the values that these stand for."""

    type: str
    data: bytes
    values: NDArray[np.float32]


def _store(array: NDArray[np.float32], kind: HtmlType) -> _Stored:
    """Store a matrix as ``kind``, or in float16 if it is not whole blocks; a vector in float32."""
    if array.ndim == 1:
        return _Stored("f32", array.tobytes(), array)
    if kind == "f16" or array.size % BLOCK:
        half = array.astype(np.float16)
        return _Stored("f16", half.tobytes(), half.astype(np.float32))
    blocks = array.reshape(-1, BLOCK)
    scales = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16)  # (blocks, 1)
    divisors = np.where(scales == 0, 1, scales).astype(np.float32)
    numbers = np.clip(np.rint(blocks / divisors), -127, 127).astype(np.int8)
    values = (numbers * scales.astype(np.float32)).reshape(array.shape)
    return _Stored("q8_0", scales.tobytes() + numbers.tobytes(), values)


def _stored(model: LanguageModel, kind: HtmlType) -> dict[str, _Stored]:
    return {name: _store(tensor.float().numpy(), kind) for name, tensor in cpu_state_dict(model).items()}


def write_html(
    file: Path,
    loaded: Pretrained,
    name: str,
    rows: Sequence[tuple[str, str, str]],
    licenses: Sequence[str],
    kind: HtmlType,
) -> None:
    """Write the file; ``name`` is its title, ``rows`` and ``licenses`` are for the model card in it."""
    listed, weights = [], bytearray()
    for tensor, stored in _stored(loaded.model, kind).items():
        listed.append({"name": tensor, "type": stored.type, "shape": stored.values.shape, "offset": len(weights)})
        weights += stored.data + bytes(-len(stored.data) % ALIGN)
    assert loaded.sizes is not None, "checked by the caller"
    tokenizer = loaded.tokenizer
    header = {
        "name": visible(name),
        "architecture": loaded.architecture,
        "sizes": dataclasses.asdict(loaded.sizes),
        "hasStart": loaded.has_start,
        "chat": dataclasses.asdict(tokenizer.turns) if loaded.answers and tokenizer.turns else None,
        "tensors": listed,
        "tokenizer": {
            "pieces": [(piece.text, piece.score, _PIECE_LETTERS[piece.kind]) for piece in tokenizer.pieces],
            "eos": tokenizer.eos_id,
            "unknown": tokenizer.unk_id,
            "addDummyPrefix": tokenizer.settings.add_dummy_prefix,
        },
    }
    card = render("mamegpt.exporting", "card.html", rows=rows, licenses=licenses, answers=loaded.answers)
    text = _page(visible(name), header, card, weights)
    file.write_text(text, encoding="utf-8", newline="\n")


def _page(name: str, header: Mapping[str, Any], card: str, weights: bytes | bytearray) -> str:
    """Return the playground's page with everything that it refers to inside."""
    page, shared = (resources.files(package) / "static" for package in ("mamegpt.playground", "mamegpt.pages"))
    own = resources.files("mamegpt.exporting") / "page"
    style = "".join(
        path.read_text(encoding="utf-8") for path in (shared / "theme.css", page / "style.css", own / "page.css")
    )
    modules = [*(own / name for name in SCRIPTS), *(page / name for name in PAGE_SCRIPTS)]
    script = _joined([module.read_text(encoding="utf-8") for module in modules])
    icon = "data:image/svg+xml;base64," + base64.b64encode((page / "icon.svg").read_bytes()).decode()
    policy = POLICY.format(script=_hash(script), style=_hash(style))
    data = {"model-header": _json(header), "words": _json(words()), "model-weights": _packed(weights)}
    embedded = "".join(f'<script type="text/plain" id="{key}">{value}</script>\n' for key, value in data.items())
    title = html.escape(name)
    changes = {
        '<meta charset="utf-8">': (
            f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">'
        ),
        "<title>豆GPT</title>": f"<title>{title} · 豆GPT</title>",
        '<link rel="icon" href="icon.svg">': f'<link rel="icon" href="{icon}">',
        '<link rel="stylesheet" href="theme.css">\n': "",
        '<link rel="stylesheet" href="style.css">': f"<style>{style}</style>",
        '<script type="module" src="app.js"></script>\n': "",
        '<img src="icon.svg"': f'<img src="{icon}"',
        "豆GPT</h1>": f'豆GPT <span class="name">{title}</span></h1>',
        "</main>": f"{card}</main>",
        "</body>": f"{embedded}<script>{script}</script>\n</body>",
    }
    text = (page / "index.html").read_text(encoding="utf-8")
    parts = []
    for old, new in changes.items():  # in the order of the page, so that nothing is looked for in what was inserted
        before, found, text = text.partition(old)
        assert found, f"the page has no {old} after what precedes it"
        parts += [before, new]
    return "".join([*parts, text])


def _packed(weights: bytes | bytearray) -> str:
    """Return bytes for a script element: gzip without a time, so that equal models give equal files, and base64."""
    return base64.b64encode(gzip.compress(weights, mtime=0)).decode()


def _joined(modules: Sequence[str]) -> str:
    """Return one script made of modules, each of which imports only from those before it."""
    text = re.sub(r"^(import [^;]*;\n|export )", "", "".join(modules), flags=re.MULTILINE)
    return f'"use strict";\n{text}'


def _json(value: object) -> str:
    """Return JSON that can stand inside a script element: no text in it ends or nests one."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def rounded_model(model: LanguageModel, kind: HtmlType) -> LanguageModel:
    """Return a copy of a model with the weights that a file of it stores."""
    rounded = copy.deepcopy(model)
    rounded.load_state_dict({name: torch.from_numpy(one.values) for name, one in _stored(model, kind).items()})
    return rounded


def check_html(file: Path, cases: Cases, kind: HtmlType) -> list[Check]:
    """Open the file in a headless Chromium, and compare its outputs with those of the stored weights in PyTorch.

    Without a Chromium, only the stored weights are compared with the original ones, and a line says so. Raises
    `ExportError` if the page does not work at all.
    """
    model = rounded_model(cases.model, kind)
    row = cases.rows[0]
    with torch.inference_mode():
        logits = model.out_head(model.hidden(torch.tensor(cases.rows))).float()
    rounding = rounding_check(cases.logits, logits, kind, MAX_BITS[kind])
    browser = find_browser()
    if not browser:
        found = msg("not opened in a browser: no Chromium or Chrome was found")
        return [rounding, Check(msg("page"), True, found)]
    lengths = sorted({max(1, len(row) * i // N_LOGITS) for i in range(1, N_LOGITS + 1)})
    asked = {
        "browser": browser,
        "row": row,
        "lengths": lengths,
        "prompts": cases.prompts,
        "n_new": cases.n_new,
        "texts": cases.texts,
        "decode": cases.text_ids[:N_DECODED],
        "chats": _objects(CHATS if cases.answers else ()),
        "asked": _objects(fitting_chats(cases)),
    }
    with tempfile.TemporaryDirectory() as scratch:
        answers = run_in_clean_process(VERIFIER, file, asked, Path(scratch))
    rounded = dataclasses.replace(cases, model=model, logits=logits)
    tolerance = TOLERANCE * cases.scale
    own = np.stack([last_logits(model, row[:n]).numpy() for n in lengths])
    difference = float(np.abs(own - np.asarray(answers["logits"], dtype=np.float64)).max())  # NaN stays NaN
    greedy = [list(stream_ids(model, prompt, cases.n_new)) for prompt in cases.prompts]
    chats = chat_prompts(cases)
    characters = WholeCharacters.of(cases.tokenizer)
    own_answers = [
        until_end([*stream_ids(model, ids, cases.n_new, characters=characters)], cases.ends) for ids in chats
    ]
    complaints = answers["complaints"]
    return [
        rounding,
        Check(
            msg("page"),
            not complaints,
            msg("{problem}, in {browser}", problem=complaints[0], browser=answers["version"])
            if complaints
            else msg("opened from a file, without a request or an error, in {browser}", browser=answers["version"]),
        ),
        logits_check(difference, tolerance, msg("{n} texts, with the same {kind} weights", n=len(lengths), kind=kind)),
        greedy_check(msg("greedy"), rounded, greedy, answers["greedy"], tolerance),
        *text_checks(cases, answers["text_ids"], answers["decoded"], must_agree=True),
        *chat_checks(cases, answers["chat_ids"]),
        *([greedy_check(msg("answers"), rounded, own_answers, answers["answers"], tolerance, chats)] if chats else []),
    ]


def _objects(chats: Sequence[Sequence[Message]]) -> list[list[dict[str, str]]]:
    return [[{"role": role, "content": content} for role, content in messages] for messages in chats]
