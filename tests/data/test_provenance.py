"""What a corpus file was made from goes with it: through cleaning and tokens to the model's card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from little import ROOT, Little, sizes_for

from mamegpt.config import TrainConfig
from mamegpt.data.clean.clean import clean
from mamegpt.data.extract.extract import extract
from mamegpt.data.extract.topic import Topic
from mamegpt.data.provenance import read_provenance
from mamegpt.data.shards import open_shards
from mamegpt.distributed.processes import World
from mamegpt.errors import DataError
from mamegpt.exporting.model_card import Facts, model_card
from mamegpt.models.custom_gpt.hf import CUSTOM_GPT
from mamegpt.text.articles import format_article
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.setup import run_tokens

STORY = "昔々、小さな町に大きな豆の木がありました。子どもたちは毎日その下で遊び、豆がなるのを待っていました。"


@pytest.fixture
def cleaned(tmp_path: Path) -> Path:
    """A corpus of which a topic was extracted, and what was extracted cleaned."""
    titles = ["豆", "豆二", "町", "豆三"]
    texts = [STORY, STORY, STORY.replace("豆", "杉"), STORY * 3 + "おしまい。"]
    (tmp_path / "all.txt").write_text("".join(map(format_article, titles, texts)), encoding="utf-8")
    extract(str(tmp_path / "all.txt"), Topic(("豆",), exclude=("杉",)), tmp_path / "topic.jsonl")
    clean(str(tmp_path / "topic.jsonl"), tmp_path / "clean.txt", only=["repetitive"])
    return tmp_path / "clean.txt"


def test_each_step_is_told_in_the_tokens_and_on_the_card(cleaned: Path, little: Little, tmp_path: Path) -> None:
    first, second = read_provenance([cleaned])
    assert (first.command, first.read, first.kept) == ("extract", 4, 2)
    assert first.source == f"{tmp_path / 'all.txt'} (train)"
    assert first.settings == {"keywords": "豆", "exclude": "杉"}
    assert first.dropped["duplicate"] == 1 and sum(first.dropped.values()) == 2
    assert (second.command, second.read, second.kept) == ("clean", 2, 1)
    assert second.settings == {"steps": "normalisation nfc, repetitive"} and second.dropped == {
        "empty": 0,
        "repetitive": 1,
    }

    config = TrainConfig(data=str(cleaned), tokenizer=str(little.tokenizer.path), out=str(tmp_path), val_fraction=0)
    run_tokens(config, Tokenizer.load(little.tokenizer.path), tmp_path, World(0, 1, torch.device("cpu")), print)
    meta, _ = open_shards(tmp_path / "tokens")
    assert meta.origins == [first, second]

    rows = [value for name, _, value in Facts(config=config, origins=meta.origins).rows() if name == "データの選び方"]
    assert rows == [  # names, without the folders of this machine
        "extract(keywords 豆、exclude 杉): all.txt (train) の 4 文書から 2 文書。"
        "除外した文書: キーワードなし 1、重複 1",
        "clean(steps normalisation nfc, repetitive): topic.jsonl (train) の 2 文書から 1 文書。"
        "除外した文書: 繰り返しが多い(repetitive) 1",
    ]


def test_a_note_is_of_the_file_it_was_written_for(cleaned: Path, tmp_path: Path) -> None:
    cleaned.write_text(STORY, encoding="utf-8")
    assert read_provenance([cleaned]) == []
    clean(str(cleaned), tmp_path / "again.txt", only=["repetitive"])
    (only,) = read_provenance([tmp_path / "again.txt"])
    assert only.read == 1
    assert read_provenance([tmp_path / "nothing.txt", tmp_path / ("豆" * 84)]) == []  # so long a name takes no suffix


def test_a_bar_in_a_keyword_is_no_new_column(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text(format_article("豆", STORY), encoding="utf-8")
    extract(str(tmp_path / "all.txt"), Topic(regex=("豆|\n杉",)), tmp_path / "topic.txt")
    facts = Facts(config=TrainConfig(data="a"), origins=read_provenance([tmp_path / "topic.txt"]))
    tokenizer = Tokenizer.load(ROOT / "tests" / "golden" / "jp_tok.model")
    card = model_card("豆", sizes_for(tokenizer), 7, tokenizer, CUSTOM_GPT, facts)
    assert "regex 豆\\| 杉" in card


@pytest.mark.parametrize("damage", [{"steps": 3}, {"n_bytes": 0, "steps": [{"command": 1}]}, ["n_bytes"], "{"])
def test_a_damaged_note_is_said_in_one_line(cleaned: Path, damage: object) -> None:
    note = cleaned.with_name("clean.txt.origin.json")
    note.write_text(damage if isinstance(damage, str) else json.dumps(damage), encoding="utf-8")
    with pytest.raises(DataError, match=r"clean\.txt\.origin\.json is damaged \(.*\); remove it"):
        read_provenance([cleaned])
