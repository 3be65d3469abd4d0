"""A model and its tokenizer as one GGUF file, the format of llama.cpp and programs built on it.

The layout of the file is described in the documentation of the ``gguf`` package. Names of tensors come from the
package's map of transformers' names; an architecture's `GGUFFormat` has the settings and all other differences. The
tokenizer is stored as llama.cpp's kind ``llama``, which merges tokens by score like SentencePiece's BPE and has byte
fallback. It does not normalize: texts must already be as `mamegpt.text.normalize.normalize` returns them (NFC, LF line
ends).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mamegpt.config import ModelConfig
from mamegpt.errors import ExportError, require_packages
from mamegpt.exporting.checks import (
    EDGE_CASES,
    Cases,
    Check,
    chat_checks,
    chats,
    greedy_check,
    last_logits,
    logits_check,
    text_checks,
    until_end,
)  # fmt: skip
from mamegpt.exporting.clean_process import run_in_clean_process
from mamegpt.messages import msg
from mamegpt.models.base import LanguageModel, cpu_state_dict
from mamegpt.models.gguf_format import GGUFFormat
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.chat import TEMPLATE
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["GgufType", "check_gguf", "refuse_impossible", "write_gguf"]

GgufType = Literal["f32", "f16", "bf16", "q8_0"]

VERIFIER = Path(__file__).with_name("verify_gguf.py")
TOLERANCE: dict[GgufType, float] = {"f32": 1e-3, "f16": 2e-3, "bf16": 2e-2, "q8_0": 5e-2}
"""Largest difference of log-probabilities, relative to the largest logit, that the data type explains; for f32,
llama.cpp's GELU explains it, which is a table in float16."""
N_DECODED = len(EDGE_CASES) + 1000
N_LOGITS = 6
Q8_BLOCK = 32

_PIECE_TYPES = {"normal": 1, "unknown": 2, "control": 3, "user_defined": 4, "unused": 5, "byte": 6}


def refuse_impossible(tokenizer: Tokenizer) -> None:
    """Raise an error if an export to GGUF is impossible, before anything is computed.

    `ConfigError` if the packages of the extra ``export`` are not installed, `ExportError` for a tokenizer that
    llama.cpp does not support.
    """
    require_packages("--to gguf", ["gguf", "xllamacpp"], "export")
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

    With q8_0, matrices whose row length is not a multiple of 32 are written in f16.
    """
    import gguf

    own = {name: tensor.numpy() for name, tensor in cpu_state_dict(model).items()}
    file = gguf.GGUFWriter(path, gguf_format.name)
    file.add_context_length(sizes.context_length)
    file.add_embedding_length(sizes.emb_dim)
    file.add_block_count(sizes.n_layers)
    file.add_head_count(sizes.n_heads)
    gguf_format.write_settings(file, sizes)
    file.add_file_type(getattr(gguf.LlamaFileType, _FILE_TYPES[kind]))
    _add_tokenizer(file, tokenizer)
    if answers and tokenizer.turns:
        file.add_eot_token_id(tokenizer.turns.end)
        file.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[gguf_format.name.upper()], sizes.n_layers)
    for theirs, tensor in gguf_format.to_file(own, sizes).items():
        name = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        assert name is not None, f"llama.cpp's {gguf_format.name} has no tensor {theirs}"
        stored = gguf.GGMLQuantizationType[_kind_of(name, tensor, kind).upper()]
        file.add_tensor(name, gguf.quantize(tensor, stored), raw_dtype=stored)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def _kind_of(name: str, tensor: NDArray[np.float32], kind: GgufType) -> GgufType:
    """Return the data type of one tensor; q8_0 has blocks of 32, so rows of other lengths become f16."""
    if tensor.ndim == 1 or name == "position_embd.weight":
        return "f32"
    return "f16" if kind == "q8_0" and tensor.shape[1] % Q8_BLOCK else kind


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


def check_gguf(path: Path, cases: Cases, kind: GgufType) -> list[Check]:
    """Compare the outputs of llama.cpp, in a separate process, with those of the model and the tokenizer.

    Log-probabilities are compared, since llama.cpp does not return logits; all of them, after texts of several lengths.
    Raises `ExportError` if the file does not load at all.
    """
    n_context = cases.model.context_length
    row = cases.rows[0]
    lengths = sorted({max(1, (len(row) - 1) * i // N_LOGITS) for i in range(1, N_LOGITS + 1)})
    # An id that no text has: a control token or, without one, <unk>, since unknown characters become bytes.
    controls = (token for token, piece in enumerate(cases.tokenizer.pieces) if piece.kind == "control")
    separator = next(controls, cases.tokenizer.unk_id)
    shown = next(token for token, piece in enumerate(cases.tokenizer.pieces) if piece.kind == "normal")
    asked = {
        "shown": shown, "prompts": cases.prompts, "n_new": cases.n_new, "beginnings": [row[:n] for n in lengths],
        "vocab_size": cases.tokenizer.vocab_size, "n_context": n_context,
        "texts": [normalize(text) for text in cases.texts],
        "decode": cases.text_ids[:N_DECODED], "separator": separator, "chats": chats(cases),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        found = run_in_clean_process(VERIFIER, path, asked, Path(scratch))
    own = np.stack([last_logits(cases.model, row[:n]).log_softmax(-1).numpy() for n in lengths])
    apart = float(np.abs(own - np.asarray(found["log_probabilities"], dtype=np.float64)).max())  # NaN stays NaN
    tolerance = TOLERANCE[kind] * cases.scale
    # llama.cpp ends where the text does.
    until = [until_end(row, cases.ends) for row in cases.greedy]
    # SentencePiece drops the space of a dummy prefix when it decodes; llama.cpp's server does not.
    prefix = " " if cases.tokenizer.settings.add_dummy_prefix else ""
    decoded = [text.removeprefix(prefix) for text in found["decoded"]]
    return [
        logits_check(
            apart,
            tolerance,
            msg("log-probabilities of {n} x {vocab_size:,} ids", n=len(lengths), vocab_size=cases.tokenizer.vocab_size),
        ),
        greedy_check(msg("greedy"), cases, until, found["greedy"], tolerance),
        greedy_check(msg("no cache"), cases, found["greedy"], found["uncached"], tolerance),
        *text_checks(cases, found["text_ids"], decoded, must_agree=True),
        *chat_checks(cases, found["chat_ids"]),
    ]
