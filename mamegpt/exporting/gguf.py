"""A model and its tokenizer as one GGUF file, the format of llama.cpp and programs built on it.

The layout of the file is described in the documentation of the ``gguf`` package. Names of tensors come from the
package's map of transformers' names; an architecture's `GGUFFormat` has the settings and all other differences. The
tokenizer is stored as llama.cpp's kind ``llama``, which merges tokens by score like SentencePiece's BPE and has byte
fallback. It does not normalize: texts must already be as `mamegpt.text.normalize.normalize` returns them (NFC, LF line
ends).
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mamegpt.config import ModelConfig
from mamegpt.errors import ConfigError, ExportError, require_packages
from mamegpt.exporting.checks import (
    EDGE_CASES,
    Cases,
    Check,
    answer_checks,
    chat_checks,
    chat_prompts,
    chats,
    greedy_check,
    last_logits,
    logits_check,
    rounding_check,
    text_checks,
    until_end,
)
from mamegpt.exporting.clean_process import run_in_clean_process
from mamegpt.exporting.gguf_types import (
    FILE_TYPES,
    MIXTURES,
    GgufType,
    fitting_type,
    is_in_blocks,
    k_quantizer,
    quantized,
    rounded,
    wanted_types,
)
from mamegpt.generation.stream import stream_ids
from mamegpt.messages import join, msg
from mamegpt.models.base import LanguageModel, cpu_state_dict
from mamegpt.models.gguf_format import GGUFFormat, Tensors
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.chat import TEMPLATE
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["check_gguf", "refuse_impossible", "replacements_check", "rounded_model", "write_gguf"]

VERIFIER = Path(__file__).with_name("verify_gguf.py")
TOLERANCE: dict[GgufType, float] = {
    "f32": 1e-3,
    "f16": 2e-3,
    "bf16": 2e-2,
    "q8_0": 2e-2,
    "q5_k_m": 3e-2,
    "q4_k_m": 3e-2,
}
"""Largest difference of log-probabilities, relative to the largest logit, that the data type explains; for f32,
llama.cpp's GELU explains it, which is a table in float16. With blocks, weights are the file's on both sides, and
llama.cpp rounds what they are multiplied with to 8 bits."""
MAX_BITS: dict[GgufType, float] = {"q8_0": 5e-2, "q5_k_m": 0.2, "q4_k_m": 0.5}
"""Largest mean divergence of a file's weights in blocks from the original ones, in bits per token."""
N_DECODED = len(EDGE_CASES) + 1000
N_LOGITS = 6

_PIECE_TYPES = {"normal": 1, "unknown": 2, "control": 3, "user_defined": 4, "unused": 5, "byte": 6}


def refuse_impossible(tokenizer: Tokenizer, model: LanguageModel, kind: GgufType) -> None:
    """Raise an error if an export to GGUF is impossible, before anything is computed.

    `ConfigError` if the packages of the extra ``export`` are not installed or cannot round to this type, `ExportError`
    for a tokenizer that llama.cpp does not support, or for a mixture whose blocks fit none of the model's matrices.
    """
    require_packages("--to gguf", ["gguf", "xllamacpp"], "export")
    if kind in MIXTURES:
        try:
            k_quantizer()
        except AttributeError:
            raise ConfigError(
                "--gguf-type {kind} calls llama.cpp's own code, which xllamacpp does not offer on this system; "
                "choose q8_0",
                kind=kind,
            ) from None
        lengths = sorted({weight.shape[1] for weight in model.parameters() if weight.ndim == 2})
        most = MIXTURES[kind]["most"]
        if not any(fitting_type(most, length) == most for length in lengths):
            raise ExportError(
                "--gguf-type {kind} has blocks of 256 numbers, which fit no matrix of this model (rows of {lengths}); "
                "choose q8_0",
                kind=kind,
                lengths=join(", ", map(str, lengths)),
            )
    if tokenizer.settings.model_type != "bpe":
        raise ExportError(
            "{path} is a {model_type} model; llama.cpp tokenizes like SentencePiece for bpe only, so "
            "it cannot be converted to GGUF",
            path=tokenizer.path,
            model_type=tokenizer.settings.model_type,
        )
    if not tokenizer.settings.byte_fallback:
        raise ExportError(
            "{path} has no byte fallback, and llama.cpp fails at a character outside the vocabulary; "
            "train a tokenizer with byte fallback, as mamegpt tokenizer does, or export with --to hf",
            path=tokenizer.path,
        )


def write_gguf(
    path: Path,
    model: LanguageModel,
    sizes: ModelConfig,
    tokenizer: Tokenizer,
    gguf_format: GGUFFormat,
    kind: GgufType,
    *,
    answers: bool = False,
) -> None:
    """Write weights and tokenizer; matrices in the data type ``kind``, vectors and positions in float32.

    A model that ``answers`` has a chat template, and its answers end with their turn.

    Matrices whose rows are not whole blocks of the type are written in another one (`fitting_type`).
    """
    import gguf

    file = gguf.GGUFWriter(path, gguf_format.name)
    file.add_context_length(sizes.context_length)
    file.add_embedding_length(sizes.emb_dim)
    file.add_block_count(sizes.n_layers)
    file.add_head_count(sizes.n_heads)
    gguf_format.write_settings(file, sizes)
    file.add_file_type(getattr(gguf.LlamaFileType, FILE_TYPES[kind]))
    if is_in_blocks(kind):
        file.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(file, tokenizer)
    if answers and tokenizer.turns:
        file.add_eot_token_id(tokenizer.turns.end)
        file.add_chat_template(TEMPLATE)
    for name, (tensor, _, type_name) in _stored(_own(model), sizes, gguf_format, kind).items():
        file.add_tensor(name, quantized(tensor, type_name), raw_dtype=gguf.GGMLQuantizationType[type_name])
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _own(model: LanguageModel) -> Tensors:
    return {name: tensor.numpy() for name, tensor in cpu_state_dict(model).items()}


class _Stored(NamedTuple):
    """A tensor of a file, the data type that it should have, and the one that fits its rows."""

    tensor: NDArray[np.float32]
    wanted: str
    type: str


def _stored(own: Tensors, sizes: ModelConfig, gguf_format: GGUFFormat, kind: GgufType) -> dict[str, _Stored]:
    """Return the tensors of a file by llama.cpp's names: those of ``own`` in their order, then those it lacks."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[gguf_format.name.upper()], sizes.n_layers)
    tensors = {}
    for theirs, tensor in gguf_format.to_file(own, sizes).items():
        name = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        assert name is not None, f"llama.cpp's {gguf_format.name} has no tensor {theirs}"
        tensors[name] = tensor
    wanted = wanted_types({name: tensor.ndim for name, tensor in tensors.items()}, kind, sizes.n_layers)
    return {
        name: _Stored(tensor, wanted[name], fitting_type(wanted[name], tensor.shape[-1]))
        for name, tensor in tensors.items()
    }


def rounded_model(model: LanguageModel, sizes: ModelConfig, gguf_format: GGUFFormat, kind: GgufType) -> LanguageModel:
    """Return a copy of the model with the weights that a file of that type has.

    The file may have the rows of a matrix in another order, which does not matter: a block is a part of one row.
    """
    own = _own(model)
    types = (one.type for one in _stored(own, sizes, gguf_format, kind).values())
    found = copy.deepcopy(model)
    found.load_state_dict(
        {name: torch.from_numpy(rounded(own[name], one)) for name, one in zip(own, types, strict=False)}
    )
    return found


def replacements_check(
    model: LanguageModel, sizes: ModelConfig, gguf_format: GGUFFormat, kind: GgufType
) -> list[Check]:
    """Return the line that names the matrices whose rows are not whole blocks, and their types; none if all are."""
    stored = _stored(_own(model), sizes, gguf_format, kind)
    parts = {f"{name.split('.')[-2]} {it.type.lower()}": it.wanted != it.type for name, it in stored.items()}
    if not any(parts.values()):
        return []
    replaced = join(", ", [part for part, is_replaced in parts.items() if is_replaced])
    return [
        Check(
            msg("data types"), True, msg("rows that are not whole blocks are in other types: {parts}", parts=replaced)
        )
    ]


def _add_tokenizer(file: Any, tokenizer: Tokenizer) -> None:
    """Add the vocabulary with scores and kinds; no token is added before or after a text."""
    pieces, settings = tokenizer.pieces, tokenizer.settings
    file.add_tokenizer_model("llama")
    file.add_token_list([piece.text for piece in pieces])
    file.add_token_scores([piece.score for piece in pieces])
    file.add_token_types([_PIECE_TYPES[piece.kind] for piece in pieces])
    file.add_unk_token_id(tokenizer.unk_id)
    # llama.cpp would take 1 and 2 if they were left out, and end texts there. With byte tokens, <unk> never occurs.
    file.add_bos_token_id(tokenizer.unk_id if tokenizer.start_id is None else tokenizer.start_id)
    file.add_eos_token_id(tokenizer.unk_id if tokenizer.eos_id is None else tokenizer.eos_id)
    if tokenizer.pad_id is not None:
        file.add_pad_token_id(tokenizer.pad_id)
    file.add_add_bos_token(False)
    file.add_add_eos_token(False)
    file.add_add_space_prefix(settings.add_dummy_prefix)
    file.add_remove_extra_whitespaces(settings.remove_extra_whitespaces)


def check_gguf(path: Path, cases: Cases, kind: GgufType, stored: LanguageModel) -> list[Check]:
    """Compare the outputs of llama.cpp, in a separate process, with those of the model and the tokenizer.

    Weights in blocks are the file's on both sides: ``stored`` is `rounded_model`, whose predictions are compared with
    the original ones. Log-probabilities are compared, since llama.cpp does not return logits; all of them, after texts
    of several lengths. Raises `ExportError` if the file does not load at all.
    """
    n_context = cases.model.context_length
    row = cases.rows[0]
    lengths = sorted({max(1, (len(row) - 1) * i // N_LOGITS) for i in range(1, N_LOGITS + 1)})
    # An id that no text has: a control token or, without one, <unk>, since unknown characters become bytes.
    controls = (token for token, piece in enumerate(cases.tokenizer.pieces) if piece.kind == "control")
    separator = next(controls, cases.tokenizer.unk_id)
    shown = next(token for token, piece in enumerate(cases.tokenizer.pieces) if piece.kind == "normal")
    asked = {
        "shown": shown,
        "prompts": cases.prompts,
        "n_new": cases.n_new,
        "beginnings": [row[:n] for n in lengths],
        "vocab_size": cases.tokenizer.vocab_size,
        "n_context": n_context,
        "texts": [normalize(text) for text in cases.texts],
        "decode": cases.text_ids[:N_DECODED],
        "separator": separator,
        "chats": chats(cases),
        "asked": chat_prompts(cases),
    }
    with tempfile.TemporaryDirectory() as scratch:
        found = run_in_clean_process(VERIFIER, path, asked, Path(scratch))
    checks = []
    tolerance = TOLERANCE[kind] * cases.scale
    if is_in_blocks(kind):
        with torch.inference_mode():
            logits = stored.out_head(stored.hidden(torch.tensor(cases.rows))).float()
        checks.append(rounding_check(cases.logits, logits, kind, MAX_BITS[kind]))
        greedy = [list(stream_ids(stored, prompt, cases.n_new)) for prompt in cases.prompts]
        cases = dataclasses.replace(cases, model=stored, logits=logits, greedy=greedy)
    own = np.stack([last_logits(cases.model, row[:n]).log_softmax(-1).numpy() for n in lengths])
    apart = float(np.abs(own - np.asarray(found["log_probabilities"], dtype=np.float64)).max())  # NaN stays NaN
    # llama.cpp ends where the text does.
    until = [until_end(row, cases.ends) for row in cases.greedy]
    # SentencePiece drops the space of a dummy prefix when it decodes; llama.cpp's server does not.
    prefix = " " if cases.tokenizer.settings.add_dummy_prefix else ""
    decoded = [text.removeprefix(prefix) for text in found["decoded"]]
    return [
        *checks,
        logits_check(
            apart,
            tolerance,
            msg("log-probabilities of {n} x {vocab_size:,} ids", n=len(lengths), vocab_size=cases.tokenizer.vocab_size),
        ),
        greedy_check(msg("greedy"), cases, until, found["greedy"], tolerance),
        greedy_check(msg("no cache"), cases, found["greedy"], found["uncached"], tolerance),
        *text_checks(cases, found["text_ids"], decoded, must_agree=True),
        *chat_checks(cases, found["chat_ids"]),
        *answer_checks(cases, found["answers"], tolerance),
    ]
