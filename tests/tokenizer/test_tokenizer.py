"""Tokenizers lose nothing, count honestly, and stream whole characters."""

import hashlib
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_texts import EDGE_CASES, story_lines, train_directly

from mamegpt.errors import ConfigError, OutputError, TokenizerError
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer
from mamegpt.tokenizer.trainer import MAX_LINE_BYTES, cut_line


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="session", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    report = train_tokenizer(story_lines(400), folder / request.param, vocab_size=400, model_type=request.param)
    return Tokenizer.load(report.path)


@pytest.fixture(scope="session", params=["ours", "dummy_prefix", "nmt_nfkc", "no_bytes"])
def any_tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    settings: dict[str, dict[str, object]] = {
        "ours": {
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True,
        },
        "dummy_prefix": {
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True,
        },
        "nmt_nfkc": {"user_defined_symbols": ["<sep>", "\n"]},
        "no_bytes": {"vocab_size": 160, "byte_fallback": False, "eos_id": -1, "model_type": "unigram"},
    }
    path = folder / f"{request.param}.model"
    path.write_bytes(train_directly(**settings[request.param]))
    return Tokenizer.load(path)


# ---------------------------------------------------------------- lossless


@pytest.mark.parametrize("text", EDGE_CASES)
def test_nasty_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {0, 1, 2, 3}


def test_text_like_the_training_text_needs_few_tokens(tokenizer: Tokenizer) -> None:
    text = "".join(story_lines(50, seed=1))
    assert len(text) / len(tokenizer.encode(text)) > 1.25


def test_literal_special_tokens_are_text(tokenizer: Tokenizer) -> None:
    assert not {1, 2, 3} & set(tokenizer.encode("<s></s><pad>"))


def test_digits_are_single_pieces(tokenizer: Tokenizer) -> None:
    assert [tokenizer.piece(i) for i in tokenizer.encode("2025")] == ["2", "0", "2", "5"]


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    for call in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(TokenizerError, match="surrogate"):
            call("豆\ud83d")


def test_batch_equals_one_by_one(tokenizer: Tokenizer) -> None:
    texts = EDGE_CASES + story_lines(20, seed=2)
    assert tokenizer.encode_batch(texts, n_threads=2) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


# ---------------------------------------------------------------- what a model says of itself


def test_ids_settings_and_fingerprint(tokenizer: Tokenizer) -> None:
    assert [tokenizer.piece(i) for i in range(4)] == ["<unk>", "<s>", "</s>", "<pad>"]
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, 3)
    assert tokenizer.vocab_size == 400
    settings = tokenizer.settings
    assert (settings.normalizer, settings.charsmap, settings.add_dummy_prefix) == ("identity", b"", False)
    assert settings.byte_fallback and settings.is_lossless
    assert settings.model_type == tokenizer.path.stem
    assert tokenizer.fingerprint == hashlib.sha256(tokenizer.path.read_bytes()).hexdigest()


def test_settings_of_others(any_tokenizer: Tokenizer) -> None:
    settings = any_tokenizer.settings
    name = any_tokenizer.path.stem
    assert settings.add_dummy_prefix == (name != "ours")
    assert settings.byte_fallback == (name != "no_bytes")
    assert settings.normalizer == ("nmt_nfkc" if name in ("nmt_nfkc", "no_bytes") else "identity")
    assert bool(settings.charsmap) == (settings.normalizer == "nmt_nfkc")
    assert settings.is_lossless == (name in ("ours", "dummy_prefix"))
    assert settings.model_type == ("unigram" if name == "no_bytes" else "bpe")
    assert (any_tokenizer.eos_id is None) == (name == "no_bytes")
    assert any_tokenizer.pad_id is None


def test_pieces_equal_those_of_sentencepiece(any_tokenizer: Tokenizer) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(any_tokenizer.path))
    ids = range(processor.get_piece_size())
    assert len(any_tokenizer.pieces) == len(ids)
    for i, piece in zip(ids, any_tokenizer.pieces, strict=True):
        assert (piece.text, piece.score) == (processor.id_to_piece(i), processor.get_score(i))
        assert (piece.kind == "byte") == processor.is_byte(i)
        assert (piece.kind == "control") == processor.is_control(i)
        assert (piece.kind == "unknown") == processor.is_unknown(i)
    assert [p.text for p in any_tokenizer.pieces if p.kind == "user_defined"] == (
        ["<sep>", "\n"] if any_tokenizer.path.stem == "nmt_nfkc" else []
    )


def test_unigram_scores_are_multiples_of_a_64th(folder: Path) -> None:
    report = train_tokenizer(story_lines(100), folder / "rounded", vocab_size=400, model_type="unigram")
    scores = [piece.score for piece in Tokenizer.load(report.path).pieces]
    assert all((score * 64).is_integer() for score in scores)
    assert len(set(scores)) > 20


# ---------------------------------------------------------------- streaming


@given(data=st.data())
def test_stream_equals_decode(any_tokenizer: Tokenizer, data: st.DataObject) -> None:
    n = any_tokenizer.vocab_size
    byte_ids = [i for i, piece in enumerate(any_tokenizer.pieces) if piece.kind == "byte"]
    space_ids = [i for i, piece in enumerate(any_tokenizer.pieces) if piece.text.startswith("\u2581")]
    few = st.sampled_from([0, 1, 2, *byte_ids, *space_ids])
    ids = data.draw(st.lists(st.one_of(few, st.integers(0, n - 1)), max_size=20))
    stream = any_tokenizer.stream()
    assert "".join(map(stream.push, ids)) + stream.flush() == any_tokenizer.decode(ids)


@given(raw=st.binary(max_size=24))
def test_stream_equals_decode_for_any_bytes(tokenizer: Tokenizer, raw: bytes) -> None:
    by_text = {piece.text: i for i, piece in enumerate(tokenizer.pieces)}
    ids = [by_text[f"<0x{byte:02X}>"] for byte in raw]
    stream = tokenizer.stream()
    assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids)


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\ufffd")))
def test_stream_never_yields_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    stream = tokenizer.stream()
    so_far = ""
    for token in tokenizer.encode(text):
        so_far += stream.push(token)
        assert text.startswith(so_far)
    assert so_far == text
    assert stream.flush() == ""


# ---------------------------------------------------------------- long lines


@given(
    line=st.text(st.sampled_from("豆a。！」』、😀é"), max_size=200),
    max_bytes=st.integers(4, 60),
)
def test_cut_line_loses_nothing_and_fits(line: str, max_bytes: int) -> None:
    parts = cut_line(line, max_bytes)
    assert "".join(parts) == line
    assert all(len(part.encode()) <= max_bytes for part in parts)
    assert all(parts) or parts == [""]


def test_cut_line_prefers_sentence_ends_then_commas() -> None:
    assert cut_line("ああ。」いい、うう", 18) == ["ああ。」", "いい、うう"]
    assert cut_line("ああ、いいうう", 15) == ["ああ、", "いいうう"]
    assert cut_line("あああああああ", 10) == ["あああ", "あああ", "あ"]


def test_long_lines_are_cut_and_learnt_from(tmp_path: Path) -> None:
    long_line = "".join(story_lines(200))
    assert len(long_line.encode()) > MAX_LINE_BYTES
    report = train_tokenizer([long_line], tmp_path / "long", vocab_size=400)
    assert report.n_lines_split == 1
    assert report.n_sentences > 1
    assert report.n_characters_used == report.n_characters == len(long_line)


def test_lines_with_reserved_characters_are_learnt_from(tmp_path: Path) -> None:
    lines = [f"{line}\u2585{line}\t{line}" for line in story_lines(200)]
    report = train_tokenizer(lines, tmp_path / "reserved", vocab_size=400)
    assert report.byte_fallback_rate == 0  # lines dropped by the trainer would be spelt in bytes


# ---------------------------------------------------------------- training: files, report, refusals


@pytest.mark.parametrize("name", ["mame", "mame.model", "mame.v2"])
def test_files_written(tmp_path: Path, name: str) -> None:
    report = train_tokenizer(story_lines(100), tmp_path / "new" / name, vocab_size=400)
    stem = name.removesuffix(".model")
    assert report.path == tmp_path / "new" / f"{stem}.model"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [f"{stem}.model", f"{stem}.vocab"]
    rows = (tmp_path / "new" / f"{stem}.vocab").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    tokenizer = Tokenizer.load(report.path)
    assert len(rows) == tokenizer.vocab_size == 400
    for row, piece in zip(rows, tokenizer.pieces, strict=True):
        text, score = row.split("\t")
        assert text == piece.text
        assert float(score) == pytest.approx(piece.score, rel=1e-5)


def test_report_counts_what_was_read(tmp_path: Path) -> None:
    lines = story_lines(200)
    document = "\n".join(lines)
    report = train_tokenizer([document, "", " \n"], tmp_path / "a", vocab_size=400)
    assert report.n_characters == len(document) + 2
    assert report.n_characters_used == sum(map(len, lines))
    assert (report.n_sentences, report.n_lines_split) == (200, 0)
    ids = [i for line in lines for i in Tokenizer.load(report.path).encode(line + "\n")]
    assert report.characters_per_token == pytest.approx((len(document) + 1) / len(ids))
    assert report.byte_fallback_rate == 0
    assert 0 < report.elapsed_s < 60


def test_byte_fallback_is_reported(tmp_path: Path) -> None:
    lines = [*story_lines(300), "".join(map(chr, range(0x5000, 0x5010)))]
    report = train_tokenizer(lines, tmp_path / "a", vocab_size=400, character_coverage=0.99)
    tokenizer = Tokenizer.load(report.path)
    n_bytes = n_tokens = 0
    for line in lines:
        kinds = [tokenizer.pieces[i].kind for i in tokenizer.encode(line)]
        n_bytes += kinds.count("byte")
        n_tokens += len(kinds) + 1
    assert n_bytes >= 48
    assert report.byte_fallback_rate == pytest.approx(n_bytes / n_tokens)


def test_same_text_gives_the_same_file(tmp_path: Path) -> None:
    settings: dict[str, int] = {"vocab_size": 400, "max_characters": 5000}
    one = train_tokenizer(story_lines(300), tmp_path / "one", n_threads=1, **settings)
    two = train_tokenizer(iter(story_lines(300)), tmp_path / "two", n_threads=2, **settings)
    assert Tokenizer.load(one.path).fingerprint == Tokenizer.load(two.path).fingerprint


def test_sample_is_bounded_and_spread(tmp_path: Path) -> None:
    lines = [f"{line}{'春夏秋冬'[i // 250]}" for i, line in enumerate(story_lines(1000))]
    report = train_tokenizer(lines, tmp_path / "a", vocab_size=400, max_characters=10_000)
    assert report.n_characters == sum(map(len, lines))
    assert 9_900 < report.n_characters_used <= 10_000
    learnt = {piece.text for piece in Tokenizer.load(report.path).pieces}
    assert set("春夏秋冬") <= learnt


def test_existing_files_are_kept_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "mame.vocab"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        train_tokenizer(story_lines(100), tmp_path / "mame", vocab_size=400)
    assert [p.name for p in tmp_path.iterdir()] == ["mame.vocab"]
    assert path.read_text(encoding="utf-8") == "old"
    train_tokenizer(story_lines(100), tmp_path / "mame", vocab_size=400, overwrite=True)
    assert path.read_text(encoding="utf-8") != "old"


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_vocabulary_too_large_names_one_that_works(tmp_path: Path, model_type: str) -> None:
    with pytest.raises(TokenizerError, match=r"too large for this text; use at most (\d+)") as caught:
        train_tokenizer(story_lines(30), tmp_path / "a", vocab_size=16_000, model_type=model_type)
    largest = int(str(caught.value).split("at most ")[1].split(",")[0])
    report = train_tokenizer(story_lines(30), tmp_path / "a", vocab_size=largest, model_type=model_type)
    assert report.vocab_size == largest


def test_vocabulary_too_small_names_one_that_works(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"too small .* use more than (\d+)") as caught:
        train_tokenizer(story_lines(30), tmp_path / "a", vocab_size=280)
    least = int(str(caught.value).split("more than ")[1].split(",")[0])
    assert train_tokenizer(story_lines(30), tmp_path / "a", vocab_size=least + 1).vocab_size == least + 1


@pytest.mark.parametrize("documents", [[], [""], ["\n \n", "\t"]])
def test_no_text(tmp_path: Path, documents: list[str]) -> None:
    with pytest.raises(TokenizerError, match="no text"):
        train_tokenizer(documents, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_broken_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="surrogate"):
        train_tokenizer(["豆\ud83d" * 2000], tmp_path / "a", vocab_size=300)
    with pytest.raises(TokenizerError, match="surrogate"):
        train_tokenizer(["豆\ud83d"], tmp_path / "a", vocab_size=300)


def test_settings_out_of_range_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^vocab_size must .* \(got 260\).*; character_coverage must .* \(got 0.5\)",
    ):
        train_tokenizer(["豆"], tmp_path / "a", vocab_size=260, character_coverage=0.5)
    with pytest.raises(ConfigError, match=r"model_type must be one of bpe, unigram \(got 'word'\)"):
        train_tokenizer(["豆"], tmp_path / "a", model_type="word")
    with pytest.raises(ConfigError, match=r"n_threads must .* \(got 500\).*; max_characters must .* \(got 0\)"):
        train_tokenizer(["豆"], tmp_path / "a", n_threads=500, max_characters=0)


def test_an_error_of_the_text_source_passes_through(tmp_path: Path) -> None:
    def broken():
        yield "豆"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        train_tokenizer(broken(), tmp_path / "a")


def test_training_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_tokenizer([*story_lines(100), "あ" * 3000], tmp_path / "a", vocab_size=400)
    with pytest.raises(TokenizerError):
        train_tokenizer(story_lines(30), tmp_path / "b", vocab_size=9999)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- loading and unknown ids


def test_files_that_are_no_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"cannot read .*missing.model"):
        Tokenizer.load(tmp_path / "missing.model")
    with pytest.raises(TokenizerError, match="cannot read"):
        Tokenizer.load(tmp_path)
    whole = tokenizer.path.read_bytes()
    for content in (b"", b"junk", "豆の木".encode() * 99, whole[: len(whole) // 2], whole[:-1]):
        path = tmp_path / "bad.model"
        path.write_bytes(content)
        with pytest.raises(TokenizerError, match="not a complete SentencePiece model"):
            Tokenizer.load(path)


@pytest.mark.parametrize("bad", [400, -1, 10**6])
def test_ids_of_another_tokenizer(tokenizer: Tokenizer, bad: int) -> None:
    for call in (tokenizer.stream().push, tokenizer.piece, lambda token: tokenizer.decode([5, token])):
        with pytest.raises(TokenizerError, match=rf"{bad} is not a token id of .* 0 to 399"):
            call(bad)
