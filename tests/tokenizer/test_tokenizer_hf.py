"""The folder's tokenizer.json cuts text into the same ids as SentencePiece, through AutoTokenizer."""

import functools
import json
import re
import unicodedata
from itertools import islice
from pathlib import Path

import pyarrow.parquet
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from little import ROOT
from tokenizer_texts import EDGE_CASES, story_lines, train_directly
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mamegpt.errors import TokenizerError
from mamegpt.generation.stream import prompt_ids
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.hf import agreement, fast_tokenizer_json, tokenizer_config
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer

WIKI = ROOT.parent / "shared" / "data" / "wiki_ja"
SENTENCES = [*story_lines(100, seed=3), "\n".join(story_lines(30, seed=4))]
KANA = ["ﾃﾞｰﾀとﾊﾟﾝ", unicodedata.normalize("NFD", "がぎぐげござじずパピプペポヴ"), "う\u3099ヷ"]

UNNORMALISED = [unicodedata.normalize("NFD", "がぎ、"), "行\r\n行\r行\0", "豆\u2581の", "é\u0323"]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("hf")
    report = train_tokenizer(story_lines(400), folder / "spm", vocab_size=400, model_type=request.param)
    return Tokenizer.load(report.path)


def load_folder(tokenizer: Tokenizer, folder: Path) -> PreTrainedTokenizerFast:
    """Write the two files into ``folder`` and load them the way a user does."""
    (folder / "tokenizer.json").write_text(fast_tokenizer_json(tokenizer), encoding="utf-8")
    config = json.dumps(tokenizer_config(tokenizer, model_max_length=256))
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def auto(ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return load_folder(ours, tmp_path_factory.mktemp("folder"))


@pytest.mark.parametrize("text", EDGE_CASES + SENTENCES[-3:] + KANA + UNNORMALISED)
def test_ids_and_text_equal_sentencepiece(ours: Tokenizer, auto: PreTrainedTokenizerFast, text: str) -> None:
    ids = ours.encode(normalize(text))
    assert auto(text, split_special_tokens=True)["input_ids"] == ids
    assert auto.decode(ids) == normalize(text)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_gets_the_same_ids(ours: Tokenizer, auto: PreTrainedTokenizerFast, text: str) -> None:
    assert auto(text, split_special_tokens=True)["input_ids"] == ours.encode(normalize(text))


@given(text=st.text(st.sampled_from("太郎は豆を「」、。！ 　\n傘が12いいい"), max_size=60))
def test_runs_and_ties_get_the_same_ids(ours: Tokenizer, auto: PreTrainedTokenizerFast, text: str) -> None:
    assert auto(text, split_special_tokens=True)["input_ids"] == ours.encode(normalize(text))


@given(
    parts=st.lists(st.sampled_from(["<s>", "</s>", "<unk>", "<pad>", "<0xE3>", "<0x0A>", "<", "</", "0x", ">", "豆"]))
)
def test_names_of_pieces_are_text(ours: Tokenizer, auto: PreTrainedTokenizerFast, parts: list[str]) -> None:
    text = "".join(parts)
    assert auto(text, split_special_tokens=True)["input_ids"] == ours.encode(normalize(text))


def test_what_the_loaded_tokenizer_knows(ours: Tokenizer, auto: PreTrainedTokenizerFast) -> None:
    assert len(auto) == ours.vocab_size
    assert (auto.bos_token_id, auto.eos_token_id, auto.pad_token_id, auto.unk_token_id) == (2, 2, 3, 0)
    assert auto.model_max_length == 256
    batch = auto(["豆の木", "豆"], padding=True)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["attention_mask"][1][0] == 0  # padded on the left
    ids = ours.encode("豆の木")
    assert auto.decode([1, *ids, 2], skip_special_tokens=True) == "豆の木"
    assert auto.decode([1, *ids, 2]) == "<s>豆の木</s>"


def test_agreement_counts_texts(ours: Tokenizer) -> None:
    fast = tokenizers.Tokenizer.from_str(fast_tokenizer_json(ours))
    assert agreement(ours, fast, SENTENCES + EDGE_CASES) == 1.0
    assert fast.encode_special_tokens is False  # as it was
    fast.normalizer = tokenizers.normalizers.Replace("豆", "麦")
    assert agreement(ours, fast, ["豆", "花", "木", "豆と豆"]) == 0.5
    with pytest.raises(TokenizerError, match="no texts"):
        agreement(ours, fast, [])


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "identity"])
def test_models_with_defaults_of_sentencepiece(tmp_path: Path, rule: str, model_type: str) -> None:
    settings = {"normalization_rule_name": rule, "model_type": model_type, "vocab_size": 390}
    (tmp_path / "spm.model").write_bytes(train_directly(**settings))
    tokenizer = Tokenizer.load(tmp_path / "spm.model")
    auto = load_folder(tokenizer, tmp_path)
    for text in [*SENTENCES, *KANA, "  空白   が  続く ", "ＡＢＣ１２３"]:
        assert auto(text)["input_ids"] == tokenizer.encode(normalize(text))
    assert auto.decode(tokenizer.encode("太郎は豆を")) == "太郎は豆を"
    assert auto.pad_token is None


def test_user_defined_symbols_stay_whole(tmp_path: Path) -> None:
    model = train_directly(user_defined_symbols=["<sep>", "\n"], normalization_rule_name="identity")
    (tmp_path / "spm.model").write_bytes(model)
    tokenizer = Tokenizer.load(tmp_path / "spm.model")
    auto = load_folder(tokenizer, tmp_path)
    ids = tokenizer.encode("太郎<sep>豆\n花")
    assert "<sep>" in [tokenizer.piece(i) for i in ids]
    assert auto.convert_tokens_to_ids("<sep>") in ids
    assert "<sep>" in auto.decode(ids, skip_special_tokens=True)


@given(
    parts=st.lists(
        st.sampled_from([*"豆の 　12\n\r\0\u2581\u3099か<>[x", "  ", "\r\n", "[SEP]", "<sep>", "</s>", "<0x0A>"])
    )
)
@pytest.mark.parametrize("symbols", [["  ", "    ", "\n", "[SEP]"], ["<sep>", "\n"]])
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_symbols_of_the_users_are_found_as_sentencepiece_finds_them(
    model_type: str, symbols: list[str], parts: list[str]
) -> None:
    text = "".join(parts)
    tokenizer, fast = with_symbols(model_type, tuple(symbols))
    assert fast.encode(text, add_special_tokens=False).ids == tokenizer.encode(normalize(text))


@functools.cache
def with_symbols(model_type: str, symbols: tuple[str, ...]) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    model = train_directly(
        user_defined_symbols=list(symbols),
        normalization_rule_name="identity",
        model_type=model_type,
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
    )
    tokenizer = Tokenizer(model, Path("symbols.model"))
    fast = tokenizers.Tokenizer.from_str(fast_tokenizer_json(tokenizer))
    fast.encode_special_tokens = True
    return tokenizer, fast


def test_the_end_that_a_trainer_appends_is_the_end(ours: Tokenizer, auto: PreTrainedTokenizerFast) -> None:
    """As TRL's SFTTrainer does it: it adds the end of a text as a string."""
    assert auto("豆の木" + auto.eos_token)["input_ids"] == [*ours.encode("豆の木"), ours.eos_id]
    assert auto(auto.bos_token + "豆の木")["input_ids"] == prompt_ids(ours, "豆の木", at_start=True)


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "spm.model").write_bytes(train_directly(model_type="char", byte_fallback=False, vocab_size=60))
    with pytest.raises(TokenizerError, match="'char' model"):
        fast_tokenizer_json(Tokenizer.load(tmp_path / "spm.model"))


@pytest.mark.skipif(not WIKI.exists(), reason=f"no Japanese text at {WIKI}")
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_real_text_gets_the_same_ids(tmp_path: Path, model_type: str) -> None:
    table = pyarrow.parquet.read_table(WIKI / "validation.parquet", columns=["text"])
    texts = [re.sub("_[A-Z]+(_[A-Z]+)?_", "\n", text).replace("\u2581", "") for text in table["text"].to_pylist()]
    texts = [normalize(text) for text in texts]
    report = train_tokenizer(
        texts[:100], tmp_path / "spm", vocab_size=3000, model_type=model_type, character_coverage=0.995
    )
    tokenizer = Tokenizer.load(report.path)
    auto = load_folder(tokenizer, tmp_path)
    unseen = texts[100:160]
    sentences = list(islice((s for text in unseen for s in text.split("\n") if s), 2000))
    assert [auto(text)["input_ids"] for text in sentences] == tokenizer.encode_batch(sentences)
    assert agreement(tokenizer, auto.backend_tokenizer, unseen) == 1.0
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in unseen)
