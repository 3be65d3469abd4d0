"""The same tokenizer for Hugging Face's ``transformers``: `tokenizer.json` and `tokenizer_config.json`.

The files load as ``PreTrainedTokenizerFast`` through ``AutoTokenizer``, without remote code, sentencepiece
or protobuf. Names of classes that know better (``LlamaTokenizerFast``, ``T5Tokenizer``) are avoided:
transformers 5 rebuilds the normaliser of those and ignores the file's.

The normalizer of `tokenizer.json` does what `normalize` does to training text and prompts, so a text gives
the ids of `stream.prompt_ids`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from mamegpt.errors import TokenizerError
from mamegpt.text.normalize import REPLACED, normalize
from mamegpt.tokenizer.chat import TEMPLATE
from mamegpt.tokenizer.sentencepiece_file import Piece
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["agreement", "fast_tokenizer_json", "tokenizer_config"]

_SPACE = "\u2581"


def fast_tokenizer_json(tokenizer: Tokenizer) -> str:
    """Return the content of ``tokenizer.json``: ``tokenizer`` rebuilt with the ``tokenizers`` library.

    A text gives the ids of ``tokenizer.encode(normalize(text))``, if the model is ours (BPE, or unigram with rounded
    scores). For a model with a normalisation table ("nmt_nfkc", "nfkc") most texts do; measure it with `agreement`.
    Raises `TokenizerError` for a model that is neither BPE nor unigram.
    """
    pieces = tokenizer.pieces
    settings = tokenizer.settings
    fast = tokenizers.Tokenizer(_model(tokenizer))
    fast.normalizer = normalizers.Sequence(list(_normalizers(tokenizer)))
    symbols = _user_defined(tokenizer)
    cuts = [_name_guard(tokenizer)] if settings.model_type == "unigram" or symbols else []
    if symbols:
        cuts.append(pre_tokenizers.Split(tokenizers.Regex("|".join(map(re.escape, symbols))), "isolated"))
    if cuts:
        fast.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if settings.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    fast.decoder = decoders.Sequence(steps)
    fast.add_special_tokens([AddedToken(p.text, normalized=False) for p in pieces if p.kind in ("control", "unknown")])
    return fast.to_str(pretty=True)


def tokenizer_config(tokenizer: Tokenizer, model_max_length: int, *, answers: bool = False) -> dict[str, object]:
    """Return the content of ``tokenizer_config.json``; ``model_max_length`` is the model's context in tokens.

    A model that ``answers`` has the chat template.
    """
    names = {
        "bos_token": tokenizer.start_id,
        "eos_token": tokenizer.eos_id,
        "unk_token": tokenizer.unk_id,
        "pad_token": tokenizer.pad_id,
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model_max_length,
        # Without token_type_ids, which GPT-2 would add to its embeddings.
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",  # what generation from a batch needs
        "clean_up_tokenization_spaces": False,
        # "</s>" in a text is the end of a text, as trainers expect that append it (TRL): they would else teach the
        # model to spell it. Text from others is read as text with tokenizer(text, split_special_tokens=True).
        "split_special_tokens": False,
        **{name: tokenizer.piece(token) for name, token in names.items() if token is not None},
        **({"chat_template": TEMPLATE} if answers else {}),
    }


def agreement(tokenizer: Tokenizer, fast: tokenizers.Tokenizer, texts: Iterable[str]) -> float:
    """Return the share of ``texts`` (0 to 1) that ``fast`` and ``tokenizer`` cut into the same ids.

    ``fast`` reads the names of special tokens as text meanwhile. Raises `TokenizerError` if there are no texts.
    """
    texts = list(texts)
    if not texts:
        raise TokenizerError("no texts to compare the two tokenizers on; give at least one")
    before = fast.encode_special_tokens
    fast.encode_special_tokens = True
    try:
        found = fast.encode_batch(texts, add_special_tokens=False)
    finally:
        fast.encode_special_tokens = before
    expected = tokenizer.encode_batch([normalize(text) for text in texts])
    return sum(f.ids == ids for f, ids in zip(found, expected, strict=True)) / len(texts)


def _model(tokenizer: Tokenizer) -> models.Model:
    pieces, settings = tokenizer.pieces, tokenizer.settings
    if settings.model_type == "unigram":
        return models.Unigram(
            [(piece.text, piece.score) for piece in pieces],
            unk_id=tokenizer.unk_id,
            byte_fallback=settings.byte_fallback,
        )
    if settings.model_type == "bpe":
        return models.BPE(
            vocab={piece.text: token for token, piece in enumerate(pieces)},
            merges=_merges(pieces),
            unk_token=tokenizer.piece(tokenizer.unk_id),
            fuse_unk=True,
            byte_fallback=settings.byte_fallback,
            ignore_merges=bool(_user_defined(tokenizer)),
        )
    raise TokenizerError(
        "{path} is a {model_type!r} model, which tokenizer.json cannot hold; use a bpe or unigram model",
        path=tokenizer.path,
        model_type=settings.model_type,
    )


def _user_defined(tokenizer: Tokenizer) -> list[str]:
    """Return the symbols that are cut out of a text before all else, longest first, as SentencePiece matches them.

    They are whole pieces, which no merges make (so BPE looks a whole segment up first, "ignore_merges"). They are no
    "added tokens": those are found before a text is normalised, where a piece of two spaces has another spelling.
    """
    return sorted((p.text for p in tokenizer.pieces if p.kind == "user_defined"), key=len, reverse=True)


def _name_guard(tokenizer: Tokenizer) -> pre_tokenizers.PreTokenizer:
    """Cut "<s>" and "<0xE3>" in a text before their first letter.

    SentencePiece never takes them for the pieces of that name; ``Unigram`` of `tokenizers` does, whenever
    that scores better than spelling them, and BPE that looks whole segments up. No piece crosses the
    cut: trainers do not join signs and letters.
    """
    named = (p.text for p in tokenizer.pieces if p.kind in ("control", "unknown"))
    heads = ((name, len(name) - len(name.lstrip("<[/|_-"))) for name in named)
    guards = [f"{re.escape(name[:n])}(?={re.escape(name[n:])})" for name, n in heads if n]
    guards.append("<0(?=x[0-9A-F]{2}>)")
    return pre_tokenizers.Split(tokenizers.Regex("|".join(guards)), "merged_with_previous")


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Each way to join two pieces into a third, best score first.

    SentencePiece joins the pair whose result scores best, however it is cut; a list of merges in the order of
    the results' scores does the same.
    """
    known = {piece.text for piece in pieces if piece.kind == "normal"}
    ordered = sorted((p for p in pieces if p.kind == "normal"), key=lambda piece: -piece.score)
    return [
        (piece.text[:cut], piece.text[cut:])
        for piece in ordered
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in known and piece.text[cut:] in known
    ]


def _normalizers(tokenizer: Tokenizer) -> Iterator[normalizers.Normalizer]:
    """Yield what `normalize` does, then SentencePiece's steps: table, spaces, prefix, and U+2581 for the space.

    A lone surrogate cannot occur: `tokenizers` takes text that is valid UTF-8.
    """
    yield from (normalizers.Replace(old, new) for old, new in REPLACED)
    yield normalizers.NFC()
    settings = tokenizer.settings
    if settings.charsmap:
        yield from (normalizers.Replace(pair, kana) for pair, kana in _kana_pairs(tokenizer))
        yield normalizers.Precompiled(settings.charsmap)
    if settings.remove_extra_whitespaces:
        yield normalizers.Strip()
        yield normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    if settings.add_dummy_prefix:
        yield normalizers.Prepend(" ")
    yield normalizers.Replace(" ", _SPACE)


def _kana_pairs(tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """(kana with a separate voicing mark, the one kana the model's table makes of the two).

    ``Precompiled`` of `tokenizers` skips the table's rules for several characters of six bytes and more, and
    these are the ones that Japanese needs: half-width katakana, and text in NFD as macOS writes it.
    """
    for base in chain(range(0x3041, 0x3100), range(0xFF66, 0xFF9E)):
        for mark in "\u3099\u309a\uff9e\uff9f":
            pair = chr(base) + mark
            kana = unicodedata.normalize("NFKC", pair)
            if len(kana) == 1 and tokenizer.normalize(pair).lstrip(_SPACE) == kana:
                yield pair, kana
