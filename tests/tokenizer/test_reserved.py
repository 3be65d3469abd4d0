"""Reserved tokens: at fixed ids in new tokenizers, appended to others, and never made of a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from little import ROOT, Little
from tokenizers import Tokenizer as FastTokenizer

from mamegpt.tokenizer.hf import fast_tokenizer_json
from mamegpt.tokenizer.reserved import FIRST_RESERVED_ID, RESERVED, ROLES, with_reserved
from mamegpt.tokenizer.tokenizer import Tokenizer

GOLDEN = ROOT / "tests" / "golden" / "jp_tok.model"  # made by a version without reserved tokens
SPELLED = "".join(RESERVED) + "豆<|end|>"


@pytest.fixture(params=["new", "resized"])
def tokenizer(request: pytest.FixtureRequest, little: Little) -> Tokenizer:
    if request.param == "new":
        return little.tokenizer
    return Tokenizer(with_reserved(GOLDEN.read_bytes()), Path("resized.model"))


def test_new_tokenizers_have_them_at_fixed_ids_within_the_size_that_was_asked_for(little: Little) -> None:
    found = [piece.text for piece in little.tokenizer.pieces[FIRST_RESERVED_ID:][: len(RESERVED)]]
    assert found == list(RESERVED)
    assert little.tokenizer.vocab_size == 1000


def test_a_text_with_their_spelling_has_none_of_them(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(SPELLED)
    assert {tokenizer.pieces[i].kind for i in ids} <= {"normal", "byte"}
    assert tokenizer.decode(ids) == SPELLED
    fast = FastTokenizer.from_str(fast_tokenizer_json(tokenizer))
    fast.encode_special_tokens = True
    assert fast.encode(SPELLED, add_special_tokens=False).ids == ids


def test_tokenizer_json_knows_them_as_special_tokens(tokenizer: Tokenizer) -> None:
    added = {it["content"]: it for it in json.loads(fast_tokenizer_json(tokenizer))["added_tokens"]}
    assert {added[name]["id"]: added[name]["special"] for name in RESERVED} == {
        tokenizer.pieces.index(piece): True for piece in tokenizer.pieces if piece.text in RESERVED
    }


def test_turns_are_found_by_name(tokenizer: Tokenizer) -> None:
    turns = tokenizer.turns
    assert turns is not None
    assert [tokenizer.piece(turns.begin[role]) for role in ROLES] == [f"<|{role}|>" for role in ROLES]
    assert tokenizer.piece(turns.end) == "<|end|>"
    assert tokenizer.decode([*turns.begin.values(), turns.end]) == ""


def test_a_tokenizer_made_before_keeps_its_ids_and_gets_them_once() -> None:
    old = Tokenizer.load(GOLDEN)
    assert old.turns is None
    model = with_reserved(GOLDEN.read_bytes())
    new = Tokenizer(model, Path("resized.model"))
    assert new.pieces[: old.vocab_size] == old.pieces
    assert new.vocab_size == old.vocab_size + len(RESERVED)
    assert new.settings == old.settings
    text = "犬は、春の朝に公園へ行きました。𠮷"
    assert new.encode(text) == old.encode(text)
    assert with_reserved(model) == model
