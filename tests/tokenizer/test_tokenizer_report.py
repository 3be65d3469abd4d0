"""The measurements of a tokenizer against plain counting, and the same tokenizer in two formats."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from little import ROOT

from mamegpt.cli.console import n_cells
from mamegpt.cli.render.data import comparison_table
from mamegpt.data.sources import read_documents
from mamegpt.data.stories import stories
from mamegpt.errors import TokenizerError
from mamegpt.text.articles import format_article
from mamegpt.text.normalize import normalize
from mamegpt.text.subsample import subsample
from mamegpt.tokenizer.hf import fast_tokenizer_json
from mamegpt.tokenizer.report import (
    EXAMPLE_WORDS,
    JsonTokenizer,
    compare_tokenizers,
    longest_pieces,
    measure_tokenizer,
    odd_pieces,
    open_tokenizer,
    split_word,
)
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer

DATA = ROOT.parent / "shared" / "data"
TEXTS = [text for _, text in stories(seed=9, n=30)]
EDGE_CASES = [
    *EXAMPLE_WORDS,
    "",
    " ",
    "\n\n\n",
    "\t\x00\x01\x7f\x85",
    "  空白  \u3000\u3000と\xa0\u2009\u200b",
    "か\u3099は\u309aｶﾞﾊﾟ",
    "👨‍👩‍👧‍👦🇯🇵👍🏽",
    "葛\U000e0100城と辻\U000e0101",
    "\u2028\u2029\ufeff\ufffe\uffff",
    "\U0010ffff\U000f0000\ue000",
    "<s></s><unk><pad><0xE3>",
    "▁▅█",
    "ااَلْعَرَبِيَّة\u202eعكس",
    "Ä\u0308ﬃ㋿㍿①⑽Ⅷ",
    "0123456789０１２３一二三",
    "ーーーーーーーー",
    "！？…‥──〜～",
    "\r\n\r",
    "a" * 5000,
    "豆" * 5000,
    "𛀁𛄢𝔸𝒷🀀",
    "ท̴̡̢̛ั้้้",
    "\ud7ff\ue000",
    "/* {}[]<>\\\"' */",
    "data:image/png;base64,iVBORw0KGgo=",
    "。" * 300,
    "\u3000" * 300,
]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as GPT-2 has it, trained on stories."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<end>"],
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    folder = tmp_path_factory.mktemp("bytes")
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_the_numbers_are_those_of_plain_counting(stories_model: Path) -> None:
    tokenizer = Tokenizer.load(stories_model)
    texts = [*TEXTS, "𠮷野家\n"]
    found = measure_tokenizer(tokenizer, texts)
    ids = [token for text in texts for token in tokenizer.encode(text)]
    assert found.n_tokens == len(ids)
    assert found.characters_per_token == sum(map(len, texts)) / len(ids)
    assert found.bytes_per_token == sum(len(text.encode()) for text in texts) / len(ids)
    line_feed = tokenizer.encode("\n")[0]
    n_bytes = sum(tokenizer.pieces[token].kind == "byte" and token != line_feed for token in ids)
    assert n_bytes >= 4 and found.byte_rate == n_bytes / len(ids)
    assert found.unused_rate == 1 - len(set(ids)) / 1000
    assert (found.unknown_rate, found.round_trips) == (0, 1)
    with pytest.raises(TokenizerError, match="no text to measure"):
        measure_tokenizer(tokenizer, [""])


def test_one_tokenizer_in_two_formats_measures_the_same(stories_model: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(stories_model)
    (tmp_path / "tokenizer.json").write_text(fast_tokenizer_json(tokenizer), encoding="utf-8")
    shutil.copy(stories_model, tmp_path)
    other = open_tokenizer(str(tmp_path))
    assert isinstance(other, JsonTokenizer)
    texts = [*TEXTS, *(normalize(text) for text in EDGE_CASES if "</s>" not in text)]  # that is a token in an export
    assert measure_tokenizer(other, texts) == measure_tokenizer(tokenizer, texts)
    assert longest_pieces(other) == longest_pieces(tokenizer) and odd_pieces(other) == odd_pieces(tokenizer)
    assert all(split_word(other, word) == split_word(tokenizer, word) for word in EXAMPLE_WORDS)
    assert isinstance(open_tokenizer(str(stories_model)), Tokenizer)
    (tmp_path / "tokenizer.json").unlink()
    assert isinstance(open_tokenizer(str(tmp_path)), Tokenizer)


def test_a_byte_level_tokenizer_beside_ours(byte_level: Path, stories_model: Path) -> None:
    other = open_tokenizer(str(byte_level))
    assert "".join(split_word(other, "𠮷野家").split("|")).startswith("<F0><A0><AE><B7>")
    assert split_word(other, "abc") == "a|b|c" and split_word(other, "<end>") == "<|e|n|d|>"
    stats = measure_tokenizer(other, EDGE_CASES)
    assert stats.round_trips == 1 and stats.byte_rate > 0.3
    found = compare_tokenizers([str(stories_model), str(byte_level)], TEXTS, words=["豆腐"], max_characters=1000)
    printed = comparison_table(found).splitlines()
    chosen = subsample(TEXTS, 1000, len)
    assert chosen != TEXTS[: len(chosen)]
    assert printed[0] == f"{len(chosen)} documents, {sum(map(len, chosen)):,} characters"
    assert [line[2:].split("  ")[0] for line in printed[2:10]] == [
        "vocabulary",
        "tokens",
        "characters per token",
        "bytes per token",
        "tokens of less than a character",
        "unknown tokens",
        "vocabulary never used",
        "documents restored exactly",
    ]
    ours, theirs = printed[2].split()[1:]
    assert (ours, theirs) == ("1,000", "400")
    words = printed.index("how words are split")
    assert printed[words + 1].split() == [str(stories_model), str(byte_level)]
    first, second = printed[words + 2], printed[words + 1].index(str(byte_level))
    assert first.startswith("  豆") and n_cells(first[: first.rindex("    ") + 4]) == second
    assert len(printed) == words + 3


def test_a_length_that_a_file_asks_for_does_not_count(byte_level: Path, tmp_path: Path) -> None:
    asking = tokenizers.Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    asking.enable_truncation(max_length=4)
    asking.enable_padding(length=20)
    asking.save(str(tmp_path / "tokenizer.json"))
    plain, asked = (open_tokenizer(str(folder)) for folder in (byte_level, tmp_path))
    assert measure_tokenizer(asked, TEXTS) == measure_tokenizer(plain, TEXTS)
    assert asked.token_bytes(10_000) == b""


def test_a_file_that_lacks_what_it_names_is_named(byte_level: Path, tmp_path: Path) -> None:
    made = json.loads((byte_level / "tokenizer.json").read_text(encoding="utf-8"))
    made["model"] |= {"unk_token": "<nothing>", "vocab": {"a": 1}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not a tokenizer.json \(Unk token"):
        open_tokenizer(str(tmp_path)).encode_batch(["豆"])


def test_odd_pieces_are_told_by_what_is_odd(tmp_path: Path) -> None:
    texts = ["ーーーーーーーー\n" * 40, "ＡＢCDEﾃｽﾄ WiFiルーター\n" * 40, "豆です。\n" * 40]
    tokenizer = Tokenizer.load(train_tokenizer(texts, tmp_path / "odd", vocab_size=310).path)
    odd = odd_pieces(tokenizer)
    assert "ーーーー" in odd["one character four times and more"]
    assert not odd["letters and signs"]  # the trainer does not join them
    assert len(longest_pieces(tokenizer, 3)[0]) >= 8


def test_a_tokenizer_without_bytes_has_unknown_tokens(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"豆": 0, "?": 1}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    made.save(str(tmp_path / "tokenizer.json"))
    found = measure_tokenizer(open_tokenizer(str(tmp_path)), ["豆", "麦"])
    assert (found.unknown_rate, found.round_trips, found.unused_rate) == (0.5, 0.5, 0)


def test_what_is_no_tokenizer_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json and no single \.model"):
        open_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"is not a tokenizer\.json"):
        open_tokenizer(str(tmp_path))
    with pytest.raises(TokenizerError, match="cannot read"):
        open_tokenizer(str(tmp_path / "none.model"))


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_nasty_strings_come_back(tmp_path: Path, model_type: str) -> None:
    texts = [format_article(*story) for story in stories(seed=1, n=100)]
    tokenizer = Tokenizer.load(train_tokenizer(texts, tmp_path / "t", vocab_size=1000, model_type=model_type).path)
    for text in map(normalize, EDGE_CASES):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the data folder is not there")
def test_all_real_text_comes_back(tmp_path: Path) -> None:
    wiki = (document.text for document in read_documents(DATA / "wiki_ja" / "train.parquet"))
    tokenizer = Tokenizer.load(train_tokenizer(wiki, tmp_path / "wiki", vocab_size=8000, max_characters=2_000_000).path)
    n_documents = 0
    for path in sorted(DATA.rglob("*.parquet")):
        if path.stem != "attribution":
            for document in read_documents(path, path.stem):
                text = normalize(document.title + "\n" + document.text)
                assert tokenizer.decode(tokenizer.encode(text)) == text, document.id
                n_documents += 1
    for line in (DATA / "jcommonsenseqa" / "train.jsonl").read_text(encoding="utf-8").splitlines():
        assert tokenizer.decode(tokenizer.encode(normalize(line))) == normalize(line)
        n_documents += 1
    assert n_documents > 30_000
