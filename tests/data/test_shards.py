"""Token shards hold the text and know when they no longer do."""

import dataclasses
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from little import ROOT

from mamegpt.data import shards
from mamegpt.data.shards import Meta, Split, open_shards, write_shards
from mamegpt.data.sources import read_texts
from mamegpt.data.stories import stories
from mamegpt.data.window_order import WindowOrder
from mamegpt.errors import DataError, OutputError, TokenizerError
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer

EDGE_CASES = [
    "",
    "  空白 \n\n\t",
    "か\u3099",
    "👨‍👩‍👧‍👦と🇯🇵",
    "\u3000𠮷野家",
    "<s></s><unk>",
    "豆" * 3000,
    "\x01\u2028",
]


@pytest.fixture(scope="module")
def tokenizer(stories_model: Path) -> Tokenizer:
    return Tokenizer.load(stories_model)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for _, text in stories(seed=5, n=60)]


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer, texts: list[str]) -> Path:
    write_shards(tmp_path / "tokens", {"train": texts}, tokenizer, val_fraction=0.2)
    return tmp_path / "tokens"


def documents_of(split: Split, tokenizer: Tokenizer) -> list[str]:
    """The texts of a split, cut where its end-of-text ids are."""
    ids = split.tokens.tolist()
    assert not ids or ids[-1] == split.eos_id
    found: list[list[int]] = [[]]
    for i in ids[:-1]:
        if i == split.eos_id:
            found.append([])
        else:
            found[-1].append(i)
    return [tokenizer.decode(document) for document in found]


def test_the_texts_come_back_from_the_file(tmp_path: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    written = write_shards(tmp_path / "t", {"train": texts + EDGE_CASES}, tokenizer, source="stories")
    meta, splits = open_shards(tmp_path / "t", tokenizer)
    assert meta == written
    assert meta.source == "stories"
    assert list(splits) == ["train"]
    assert documents_of(splits["train"], tokenizer) == texts + EDGE_CASES


def test_counts_are_those_of_the_texts(tmp_path: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    everything = texts + EDGE_CASES
    train = write_shards(tmp_path / "t", {"train": everything}, tokenizer).splits["train"]
    assert train.n_documents == len(everything)
    assert train.n_characters == sum(map(len, everything))
    assert train.n_bytes == sum(len(text.encode()) for text in everything)
    assert train.n_tokens == sum(len(tokenizer.encode(text)) + 1 for text in everything)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_small_batches_on_several_threads_write_the_same_files(
    tmp_path: Path, tokenizer: Tokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch, n_threads: int
) -> None:
    whole = write_shards(tmp_path / "whole", {"train": texts}, tokenizer, val_fraction=0.2, n_threads=1)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(shards, "CHUNK_CHARACTERS", 500)
    parts = write_shards(
        tmp_path / "parts",
        {"train": iter(texts)},
        tokenizer,
        val_fraction=0.2,
        n_threads=n_threads,
        on_progress=lambda *n: seen.append(n),
    )
    assert parts == whole
    for name in ("train.bin", "val.bin", "meta.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(seen) > 10 and seen == sorted(seen)
    assert seen[-1][1] <= sum(split.n_tokens for split in whole.splits.values())


def test_no_more_is_read_ahead_than_the_threads_have_to_do(
    tmp_path: Path, tokenizer: Tokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "CHUNK_CHARACTERS", 1)  # each text is a batch
    n_read = n_done = 0

    class Slow(Tokenizer):
        """Counts what it has done."""

        def encode_joined(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
            nonlocal n_done
            time.sleep(0.005)
            n_done += 1
            return super().encode_joined(texts)

    def counted() -> Iterator[str]:
        nonlocal n_read
        for text in texts[:20]:
            n_read += 1
            assert n_read - n_done <= 3 + 1
            yield text

    write_shards(tmp_path / "t", {"train": counted()}, Slow.load(tokenizer.path), n_threads=3)


def test_texts_in_one_row_are_those_of_encode(tokenizer: Tokenizer, texts: list[str]) -> None:
    joined = tokenizer.encode_joined(texts + EDGE_CASES).tolist()
    assert joined == [i for text in texts + EDGE_CASES for i in (*tokenizer.encode(text), tokenizer.eos_id)]
    assert tokenizer.encode_joined([]).tolist() == []
    with pytest.raises(TokenizerError, match="surrogate"):
        tokenizer.encode_joined(["豆", "\ud800"])


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, "uint16"), ((1 << 16) + 1, "uint32")])
def test_ids_past_16_bits_are_kept(tmp_path: Path, tokenizer: Tokenizer, vocab_size: int, dtype: str) -> None:
    shift = vocab_size - tokenizer.vocab_size

    class Large(Tokenizer):
        """The same tokenizer, with its ids at the end of a larger vocabulary."""

        @property
        def vocab_size(self) -> int:
            return super().vocab_size + shift

        def encode_joined(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
            return super().encode_joined(texts) + shift

    text = "豆の木町に住むハナは、やさしい女の子でした。"
    large = Large.load(tokenizer.path)
    assert write_shards(tmp_path / "t", {"train": [text]}, large).dtype == dtype
    _, splits = open_shards(tmp_path / "t", large)
    assert splits["train"].tokens.dtype == np.dtype(dtype)
    assert splits["train"].tokens[:-1].tolist() == [i + shift for i in tokenizer.encode(text)]


def test_a_document_falls_on_the_same_side_wherever_it_stands(
    tmp_path: Path, tokenizer: Tokenizer, texts: list[str]
) -> None:
    sides = []
    for seed in range(3):
        shuffled = random.Random(seed).sample(texts, len(texts))
        write_shards(tmp_path / str(seed), {"train": shuffled[: 50 + seed]}, tokenizer, val_fraction=0.2)
        _, splits = open_shards(tmp_path / str(seed))
        sides.append({name: set(documents_of(split, tokenizer)) for name, split in splits.items()})
    for a in sides:
        for b in sides:
            assert not a["train"] & b["val"]


@pytest.mark.parametrize("fraction", [0.02, 0.3])
def test_the_share_held_out_is_about_the_fraction(tmp_path: Path, tokenizer: Tokenizer, fraction: float) -> None:
    n = 4000
    meta = write_shards(tmp_path / "t", {"train": (f"{i}番の豆" for i in range(n))}, tokenizer, val_fraction=fraction)
    got = meta.splits["val"].n_documents
    assert got + meta.splits["train"].n_documents == n
    assert abs(got - n * fraction) < 5 * (n * fraction * (1 - fraction)) ** 0.5


def test_explicit_validation_text_leaves_the_training_text_whole(
    tmp_path: Path, tokenizer: Tokenizer, texts: list[str]
) -> None:
    write_shards(tmp_path / "t", {"train": texts[:50], "val": texts[50:]}, tokenizer, val_fraction=0.5)
    _, splits = open_shards(tmp_path / "t")
    assert documents_of(splits["train"], tokenizer) == texts[:50]
    assert documents_of(splits["val"], tokenizer) == texts[50:]


def test_without_a_fraction_nothing_is_held_out(tmp_path: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    assert list(write_shards(tmp_path / "t", {"train": texts}, tokenizer).splits) == ["train"]


# What can go wrong while writing.


def test_nothing_is_left_after_a_failure_in_the_middle(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def failing() -> Iterator[str]:
        yield "一つ目"
        raise DataError("line 2 is broken")

    with pytest.raises(DataError, match="line 2"):
        write_shards(tmp_path / "t", {"train": failing()}, tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("documents", "fraction", "message"),
    [
        ({"train": []}, 0.0, "no text for the split 'train'"),
        ({"train": ["豆"], "val": []}, 0.0, "no text for the split 'val'"),
        ({"train": ["豆"], "val": [""]}, 0.0, "no text for the split 'val'"),
        ({"train": ["豆"]}, 1 - 1e-15, r"all 1 document\(s\) of the corpus .*val_fraction 0"),
    ],
)
def test_a_split_without_text_is_an_error(
    tmp_path: Path, tokenizer: Tokenizer, documents: dict[str, list[str]], fraction: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_shards(tmp_path / "t", documents, tokenizer, val_fraction=fraction)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(folder: Path, tokenizer: Tokenizer) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match="already exists"):
        write_shards(folder, {"train": ["豆"]}, tokenizer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# What can go wrong while opening: one line each, naming the file.


def refused(folder: Path, tokenizer: Tokenizer | None = None) -> str:
    with pytest.raises(DataError) as caught:
        open_shards(folder, tokenizer)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message
    return message


def test_one_changed_byte_anywhere_is_found(folder: Path) -> None:
    for name in ("train.bin", "val.bin"):
        data = (folder / name).read_bytes()
        for at in (0, len(data) // 2, len(data) - 1):
            (folder / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert f"{name} is damaged" in refused(folder)
        (folder / name).write_bytes(data)
    open_shards(folder)


def test_a_truncated_file_is_found_also_without_hashing(folder: Path) -> None:
    data = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(data[:-2])
    with pytest.raises(DataError, match=rf"train\.bin has {len(data) - 2} bytes where meta\.json says {len(data)}"):
        open_shards(folder, verify=False)


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "val.bin").unlink()
    assert "val.bin is missing" in refused(folder)
    (folder / "meta.json").unlink()
    assert "has no meta.json" in refused(folder)


def test_another_tokenizer_is_refused(folder: Path, tmp_path: Path, texts: list[str], tokenizer: Tokenizer) -> None:
    other = Tokenizer.load(train_tokenizer(texts, tmp_path / "other", vocab_size=900).path)
    assert "made with another tokenizer" in refused(folder, other)
    open_shards(folder, tokenizer)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"meta"', '{"format": "mamegpt-tokens-1"}', "\udcff"])
def test_a_meta_file_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "meta.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "meta.json is damaged" in refused(folder)


def test_a_meta_file_of_another_format_is_refused(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    (folder / "meta.json").write_text(json.dumps({**meta, "format": "mamegpt-tokens-9"}), encoding="utf-8")
    assert "format must be one of mamegpt-tokens-1 (got 'mamegpt-tokens-9')" in refused(folder)


JUNK: list[Any] = [None, "豆", -1, 10**30, 1.5, [], {}, {"train": {}}, {"train": None}, True]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_wrong_values_in_the_meta_file_never_make_another_kind_of_error(folder: Path, junk: Any) -> None:
    good = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    places = [(key,) for key in good] + [("splits", "train", key) for key in good["splits"]["train"]]
    for place in places:
        meta = json.loads(json.dumps(good))
        inner = meta
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = junk
        (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        if (place[-1], junk) in [("eos_id", None), ("origins", []), ("source", "豆"), ("tokenizer_sha256", "豆")]:
            open_shards(folder)
        else:
            refused(folder)


def test_a_split_of_another_name_cannot_lead_out_of_the_folder(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    meta["splits"]["../train"] = meta["splits"]["train"]
    (folder.parent / "train.bin").write_bytes((folder / "train.bin").read_bytes())
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    assert "no usable splits" in refused(folder)


def test_ids_beyond_the_vocabulary_are_refused(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    (folder / "meta.json").write_text(json.dumps({**meta, "vocab_size": 5}), encoding="utf-8")
    assert "ids beyond the vocabulary size 5" in refused(folder)


def test_the_fingerprint_changes_with_tokens_type_and_tokenizer_only(folder: Path) -> None:
    meta, _ = open_shards(folder)
    train = meta.splits["train"]
    changed = [
        dataclasses.replace(meta, tokenizer_sha256="0" * 64),
        dataclasses.replace(meta, dtype="uint32"),
        dataclasses.replace(meta, splits={"train": train}),
        dataclasses.replace(meta, splits={**meta.splits, "train": dataclasses.replace(train, sha256="0" * 64)}),
    ]
    assert len({m.fingerprint() for m in [meta, *changed]}) == 5
    assert dataclasses.replace(meta, source="elsewhere").fingerprint() == meta.fingerprint()
    assert isinstance(meta, Meta) and len(meta.fingerprint()) == 64


def test_a_large_file_is_not_loaded(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_shards(tmp_path / "t", {"train": ["豆"]}, tokenizer)
    n_tokens = 1 << 29  # a gigabyte of zeros that take no room on most file systems
    meta = json.loads((tmp_path / "t" / "meta.json").read_text(encoding="utf-8"))
    meta["splits"]["train"]["n_tokens"] = n_tokens
    (tmp_path / "t" / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    try:
        with (tmp_path / "t" / "train.bin").open("r+b") as file:
            file.truncate(2 * n_tokens)
    except OSError as error:
        pytest.skip(f"no room for a file of a gigabyte: {error}")
    process = psutil.Process()
    before = process.memory_info().rss
    _, splits = open_shards(tmp_path / "t", verify=False)
    order = WindowOrder(len(splits["train"].tokens), 256, 32, seed=0)
    for step in range(10):
        order.batch(splits["train"].tokens, step)
    assert process.memory_info().rss - before < 100 << 20


def test_real_text_comes_back(tmp_path: Path) -> None:
    data = ROOT.parent / "shared" / "data" / "wikinews_ja"
    if not data.is_dir():
        pytest.skip("the real data is not here")
    texts = [text for text, _ in zip(read_texts(data), range(200), strict=False)]
    tokenizer = Tokenizer.load(train_tokenizer(texts, tmp_path / "wiki", vocab_size=4000).path)
    meta = write_shards(tmp_path / "t", {"train": texts}, tokenizer)
    _, splits = open_shards(tmp_path / "t", tokenizer)
    assert documents_of(splits["train"], tokenizer) == texts
    assert meta.splits["train"].n_characters == sum(map(len, texts))
