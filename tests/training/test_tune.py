"""Tuning a model on conversations: the objective, no leak between conversations, exact resume, resize, early stop."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from little import ROOT, Little, random_model, sizes_for
from safetensors.torch import load_file

from mamegpt.config import TuneConfig
from mamegpt.data.conversation_order import ConversationOrder, Conversations
from mamegpt.data.window_order import WindowOrder
from mamegpt.errors import ConfigError, DataError
from mamegpt.models.registry import ARCHITECTURES
from mamegpt.run.run import Run
from mamegpt.tokenizer.chat import Message, conversation_ids
from mamegpt.tokenizer.reserved import RESERVED
from mamegpt.training.batches import ConversationBatches, cuts
from mamegpt.training.events import ConversationsRead, EarlyStop, Event
from mamegpt.training.forward import SummedLoss
from mamegpt.training.init_from import tuned_config
from mamegpt.training.trainer import train

N = 40
# fmt: off
TINY: dict[str, Any] = {
    "batch_size": 8, "max_steps": 8, "eval_every_steps": 4, "save_every_steps": 2, "log_every_steps": 4,
    "val_fraction": 0.2, "precision": "fp32", "engine": "torch", "device": "cpu",
}
# fmt: on


def pairs() -> list[tuple[Message, ...]]:
    return [(Message("user", f"豆{'の' * (i % 3)}{i}"), Message("assistant", "春" * (1 + i % 4))) for i in range(N)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": question.content, "response": answer.content} for question, answer in pairs()]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(model: Path, data: Path, out: Path, **changed: Any) -> TuneConfig:
    given = {**TINY, **changed}
    return tuned_config(TuneConfig(init_from=str(model), data=str(data), out=str(out), **given), given.keys())


def conversations_of(little: Little, all_ids: list[list[int]]) -> Conversations:
    assert little.tokenizer.turns and little.tokenizer.eos_id is not None
    tokens = np.array([token for ids in all_ids for token in [*ids, little.tokenizer.eos_id]])
    return Conversations(tokens, little.tokenizer.turns, little.tokenizer.eos_id)


@pytest.fixture
def all_ids(little: Little) -> list[list[int]]:
    return [conversation_ids(little.tokenizer, messages) for messages in pairs()]


def batches_of(
    little: Little, all_ids: list[list[int]], share: float = 0.0, pass_cost: int | None = None
) -> ConversationBatches:
    text = np.arange(500) % little.tokenizer.vocab_size
    return ConversationBatches(
        conversations_of(little, all_ids),
        ConversationOrder(N, 8, seed=1),
        3,
        *((WindowOrder(len(text), 16, 7, seed=1), text, share) if share else ()),
        pass_cost=pass_cost,
    )


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("share", "pass_cost"), [(0.0, None), (0.25, None), (0.25, 5)])
def test_the_loss_of_a_step_is_the_mean_over_answers_and_over_text(
    little: Little, all_ids: list[list[int]], world: int, share: float, pass_cost: int | None
) -> None:
    batches, step = batches_of(little, all_ids, share, pass_cost), 3
    model = random_model(sizes_for(little.tokenizer), architecture="qwen3")
    summed = SummedLoss(model, "fp32")
    found = 0.0
    with torch.no_grad():
        for rank in range(world):
            for one in batches.passes(step, rank, world):
                assert len(one.inputs) <= batches.n_rows
                learned = None if one.learned is None else torch.from_numpy(one.learned)
                targets = torch.from_numpy(one.targets)
                found += summed(torch.from_numpy(one.inputs), targets, learned=learned).item() / one.divisor

        def losses(row: list[int]) -> torch.Tensor:  # of each token but the first
            return F.cross_entropy(model(torch.tensor([row[:-1]]))[0], torch.tensor(row[1:]), reduction="none")

        turns = little.tokenizer.turns
        assert turns and little.tokenizer.eos_id is not None
        answers = []
        for i in batches.order.conversations(step):
            ids = all_ids[i]
            begin = ids.index(turns.begin["assistant"]) + 1
            answers.append(losses([little.tokenizer.eos_id, *ids])[begin:])
        expected = (1 - share) * torch.cat(answers).mean().item()
        if batches.text:
            assert batches.text_tokens is not None
            windows = [batches.text_tokens[at : at + 17].tolist() for at in batches.text.starts(step)]
            expected += share * torch.cat([losses(window) for window in windows]).mean().item()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pass_cost", [0, 7, 1000])
@pytest.mark.parametrize("n_rows", [2, 9])
def test_conversations_are_cut_into_passes_where_padding_would_cost_more(pass_cost: int, n_rows: int) -> None:
    lengths = np.array([30, 29, 12, 11, 11, 5, 4, 4, 4])

    def cost(slices: Sequence[slice]) -> float:
        return sum(int(lengths[one.start]) * (one.stop - one.start) + pass_cost for one in slices)

    ways = []
    for n_cuts in range(len(lengths)):
        for inner in itertools.combinations(range(1, len(lengths)), n_cuts):
            edges = [0, *inner, len(lengths)]
            slices = [slice(*pair) for pair in itertools.pairwise(edges)]
            if all(one.stop - one.start <= n_rows for one in slices):
                ways.append(slices)
    found = cuts(lengths, n_rows, pass_cost)
    assert found in ways
    assert cost(found) == min(map(cost, ways))
    if pass_cost == 0:
        assert sum(lengths[one.start] * (one.stop - one.start) for one in found) == lengths.sum() or n_rows == 2
    if pass_cost == 1000:
        assert len(found) == -(-len(lengths) // n_rows)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_changing_one_conversation_changes_no_logits_of_another(
    little: Little, all_ids: list[list[int]], architecture: str
) -> None:
    model = random_model(sizes_for(little.tokenizer), architecture=architecture).train()
    which = np.array([0, 5, 3])
    inputs, _, _ = conversations_of(little, all_ids).rows(which)
    changed = [list(ids) for ids in all_ids]
    changed[5][1:3] = [300, 301]
    changed[5] += changed[5]  # longer: the others have more padding
    others, _, _ = conversations_of(little, changed).rows(which)
    assert others.shape[1] > inputs.shape[1]
    with torch.no_grad():
        before, after = model(torch.from_numpy(inputs)), model(torch.from_numpy(others))
        for row, i in enumerate(which):
            n = len(all_ids[i])
            alone = model(torch.from_numpy(inputs[row : row + 1, :n]))[0]
            torch.testing.assert_close(before[row, :n], alone)
            if i != 5:
                torch.testing.assert_close(after[row, :n], before[row, :n])


def test_which_rows_a_step_has_does_not_depend_on_the_number_of_processes(
    little: Little, all_ids: list[list[int]]
) -> None:
    batches = batches_of(little, all_ids, 0.1)

    def rows(world: int) -> list[list[int]]:
        passes = [one for rank in range(world) for one in batches.passes(2, rank, world)]
        return sorted(np.trim_zeros(row - 2, "b").tolist() for one in passes for row in one.inputs)  # 2 is the padding

    assert rows(1) == rows(2) == rows(4)


def test_a_run_that_was_stopped_ends_bitwise_as_one_that_never_was(little: Little, data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    straight = train(settings(little.run, data, tmp_path / "a"), watchers=[events.append])
    (read,) = [event for event in events if isinstance(event, ConversationsRead)]
    assert read.columns == ["prompt, response"] and sum(read.n_rows.values()) == N and not read.are_pairs
    assert read.n_text_tokens > 0 and not read.dropped
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for step in (8, 6):
        newest = tmp_path / "b" / "checkpoints" / f"step-{step:08d}"
        if newest.exists():
            shutil.rmtree(newest)
    kept = Run(tmp_path / "b").config
    assert isinstance(kept, TuneConfig)
    resumed = train(settings(little.run, data, tmp_path / "b"), resume=True)
    assert resumed.losses == straight.losses
    last = Path("checkpoints", "step-00000008", "model.safetensors")
    assert (tmp_path / "a" / last).read_bytes() == (tmp_path / "b" / last).read_bytes()
    assert straight.losses[-1] < straight.losses[0]


def test_a_model_made_before_gets_the_tokens_of_turns(data: Path, tmp_path: Path) -> None:
    old = ROOT / "tests" / "golden" / "mame"
    result = train(settings(old, data, tmp_path / "run", max_steps=1, text_share=0.0))
    run = Run(result.out)
    n_old = Run(old).tokenizer.vocab_size
    assert run.tokenizer.vocab_size == n_old + len(RESERVED)
    assert run.tokenizer.pieces[:n_old] == Run(old).tokenizer.pieces
    start = load_file(run.checkpoints()[0].path / "model.safetensors")
    before = load_file(next(old.glob("checkpoints/*/model.safetensors")))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        torch.testing.assert_close(start[name][:n_old], before[name])
        torch.testing.assert_close(start[name][n_old:], before[name].mean(0).expand(len(RESERVED), -1))


def test_it_stops_early_with_the_best_model(little: Little, data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = settings(
        little.run,
        data,
        tmp_path / "run",
        max_steps=40,
        eval_every_steps=1,
        patience=2,
        lr=1.0,
        emb_lr=3.0,
        cooldown_fraction=0.0,
        warmup_fraction=0.0,
        keep_checkpoints=1,
        text_share=0.0,
    )
    result = train(config, watchers=[events.append])
    (stop,) = [event for event in events if isinstance(event, EarlyStop)]
    assert result.step == stop.step < 40 and stop.best_step == stop.step - 2
    best, last = (Run(result.out).folder / "checkpoints" / f"step-{step:08d}" for step in (stop.best_step, stop.step))
    assert (best / "model.safetensors").read_bytes() == (last / "model.safetensors").read_bytes()
    losses = [quality.loss for quality in Run(result.out).validations]
    assert losses[stop.best_step - 1] == min(losses)
    again = train(config, resume=True)
    assert again.step == stop.step  # it is finished


def test_text_is_that_of_the_run_or_what_is_given(little: Little, data: Path, tmp_path: Path) -> None:
    assert settings(little.run, data, tmp_path / "a").text_data == str(little.run)
    assert settings(little.exported, data, tmp_path / "a").text_share == 0
    with pytest.raises(ConfigError, match="text_data"):
        settings(little.exported, data, tmp_path / "a", text_share=0.1)
    given = settings(little.exported, data, tmp_path / "b", text_data=str(little.text), text_share=0.1, max_steps=1)
    assert train(given).step == 1
    other = settings(ROOT / "tests" / "golden" / "mame", data, tmp_path / "c", text_data=str(little.run))
    with pytest.raises(DataError, match="another tokenizer"):
        train(other)
    assert not (tmp_path / "c").exists()


def test_errors_about_text_name_only_options_of_tune(little: Little, data: Path, tmp_path: Path) -> None:
    short, columns = tmp_path / "short.txt", tmp_path / "columns.jsonl"
    short.write_text("豆の木", encoding="utf-8")
    columns.write_text(json.dumps({"a": "豆", "b": "木"}), encoding="utf-8")
    for path, message in ((short, r"has \d+ tokens, .* or text_share 0"), (columns, "several columns")):
        given = settings(little.run, data, tmp_path / "run", text_data=str(path), text_share=0.1)
        with pytest.raises(DataError, match=message) as error:
            train(given)
        assert "context_length" not in str(error.value) and "text_column" not in str(error.value)
        assert not (tmp_path / "run").exists()


def test_rows_that_do_not_fit_are_counted(little: Little, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "長", "response": "豆" * 99}, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(DataError, match="longer than the context of the model 1"):
        train(settings(little.run, path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_settings_without_use_are_refused(little: Little, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ngrams, compile cannot be used.*|.*patience"):
        TuneConfig(data="a", tokenizer="b", out="c", ngrams=True, compile="true", patience=-1, text_share=0).validate()
