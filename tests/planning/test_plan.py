"""A plan says what the parts say: operations, corpus, law; and picks the size that will be best."""

import dataclasses
import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from little import Little, run_mamegpt

from mamegpt.cli.commands.training import plan_command
from mamegpt.cli.render.next_step import next_training
from mamegpt.cli.render.planning import plan_table
from mamegpt.data.shards import open_shards
from mamegpt.errors import ConfigError, DataError
from mamegpt.models.registry import build_model
from mamegpt.planning import plan as plan_module
from mamegpt.planning import scaling_law
from mamegpt.planning.data_sheets import DATA_SHEETS, KERNEL_S, KERNELS_PER_LAYER, SUSTAINED, seconds_per_step
from mamegpt.planning.plan import CorpusSize, Cost, Plan, count, measure, operations, plan
from mamegpt.presets import SIZES, preset
from mamegpt.run import checkpoint
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.tokenizer.vocab_size import characters_per_token, choose_vocab_size
from mamegpt.training.optim import OPTIMIZERS, build_optimizer

COSTS = (
    Cost("1m", 1_200_000, 40_000.0, 700_000_000, measured=True),
    Cost("5m", 4_900_000, 18_000.0, 900_000_000, measured=True),
    Cost("125m", 120_000_000, 400.0, 4_000_000_000, measured=False),
)
# fmt: off
PLAN = Plan(
    "cpu", "bf16", COSTS, minutes=10.0, vocab_size=8_000, is_vocab_size_chosen=True, corpus=None, counting_s=2.0,
    measuring_s=3.0, free_memory_bytes=8_000_000_000,
)
# fmt: on


def test_operations_are_those_of_the_matrix_products() -> None:
    config = preset("5m")
    n_parameters, flops = operations(config, 16_000)
    inner = 4 * (4 * 128 * 128 + 3 * 128 * 344)  # q, k, v, o; gate, up, down
    assert n_parameters == pytest.approx(inner + 2 * 16_000 * 128, rel=1e-3)  # and vectors
    assert flops == 6 * (inner + 16_000 * 128) + 6 * 4 * 256 * 128
    tied = dataclasses.replace(config, tie_embeddings=True)
    assert operations(tied, 16_000)[1] == flops  # the head is a matrix product, whoever owns its weight


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_what_a_checkpoint_takes_is_what_is_in_its_files(optimizer: str, tmp_path: Path) -> None:
    config = dataclasses.replace(preset("1m"), optimizer=optimizer)
    model = build_model(config.architecture, config.model(500))
    made = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    path = checkpoint.save(tmp_path, model, made, checkpoint.State(1, 0.0, "", "", ""), keep=1)
    n_bytes = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert plan_module.saved_bytes(config, 500) == pytest.approx(n_bytes, rel=0.01)


def test_on_the_cpu_memory_counts_the_copy_that_a_checkpoint_is_written_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "peak_memory", lambda _: 1_000_000_000)
    monkeypatch.setattr(plan_module.Probe, "seconds_per_step", lambda _, kinds: [1.0] * len(kinds))
    cpu = torch.device("cpu")
    for cost in measure(500, cpu, seconds=60.0)[1]:
        assert cost.memory_bytes == 1_000_000_000 + plan_module.saved_bytes(preset(cost.size), 500)


def test_sizes_that_do_not_fit_into_the_time_are_estimated_from_the_last_that_did() -> None:
    precision, costs = measure(500, torch.device("cpu"), seconds=0.0)
    assert precision in ("fp32", "bf16") and [cost.size for cost in costs] == list(SIZES)
    assert [cost.measured for cost in costs] == [True] + [False] * (len(SIZES) - 1)
    flops = {size: operations(preset(size), 500)[1] for size in SIZES}
    rates = [cost.tokens_per_s * flops[cost.size] for cost in costs]
    assert rates == pytest.approx([rates[0]] * len(costs))
    assert sorted(costs, key=lambda cost: cost.memory_bytes) == costs and costs[0].memory_bytes > 50_000_000


def test_a_gpu_is_estimated_from_its_data_sheet_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "SIZES", ("1m", "5m"))
    made = plan(gpu="t4", vocab_size=8_000)
    assert made.precision == "fp16" and not any(cost.measured for cost in made.costs)
    assert "from the data sheet of NVIDIA T4, not measured: 65 TFLOP/s in fp16, 16 GB" in plan_table(made)
    assert "data sheet" not in plan_table(PLAN) and "measured in 3 s" in plan_table(PLAN)
    assert json.loads(json.dumps(made.to_dict()))["data_sheet"]["peak_flops"] == 65e12
    wide = {"n_tokens": 1 << 14, "n_parameters": 10**8, "n_layers": 4, "emb_dim": 10**4, "vocab_size": 10}
    for sheet in DATA_SHEETS.values():  # wide models are computed, and narrow ones are launched
        shares = [1e15 / seconds_per_step(sheet, flops=1e15 / (1 << 14), **wide) / sheet.peak_flops]
        shares.append(1e9 / seconds_per_step(sheet, flops=1e9, **wide | {"n_tokens": 1, "n_parameters": 0}) / 1e9)
        assert 0.4 < shares[0] < SUSTAINED and shares[1] < 1 / (KERNEL_S * KERNELS_PER_LAYER * 4), sheet.name
    with pytest.raises(ConfigError, match="gpu must be one of t4, "):
        plan(gpu="t5")


def test_the_help_names_all_gpus() -> None:
    text = (inspect.getdoc(plan_command) or "").partition("gpu:")[2].partition("cluster:")[0]
    assert set(re.findall(r"\b[a-z]+\d+\b", text)) == set(DATA_SHEETS)


def test_the_best_size_is_that_of_the_lowest_expected_bits() -> None:
    law, _ = scaling_law.expected_quality()
    expected = {cost.size: law(cost.n_parameters, cost.tokens_per_s * (600 - PLAN.start_s(cost))) for cost in COSTS}
    assert PLAN.best.size == min(expected, key=expected.__getitem__)
    assert PLAN.best.size != "125m"  # 240,000 tokens are nothing for it
    hours = dataclasses.replace(PLAN, minutes=60 * 24 * 365.0)
    assert hours.best.size == "125m"
    assert dataclasses.replace(hours, free_memory_bytes=1_000_000_000).best.size == "5m"
    assert dataclasses.replace(hours, free_memory_bytes=1).best.size == "1m"  # somebody has to be


def test_the_start_is_counting_and_for_models_of_bigrams_their_fit() -> None:
    tied, untied, _ = COSTS
    assert PLAN.start_s(tied) == PLAN.counting_s  # 1m is tied
    # 160 steps of 512 rows, three products of 128 x 8,000 each, at the speed of training
    flops = 6 * 160 * 512 * 128 * 8_000 / operations(preset("5m"), 8_000)[1] / untied.tokens_per_s
    assert PLAN.start_s(untied) == pytest.approx(PLAN.counting_s + flops)
    assert PLAN.n_tokens(untied) == int((600 - PLAN.start_s(untied)) * untied.tokens_per_s)
    short = dataclasses.replace(PLAN, minutes=0.01)
    assert short.n_tokens(untied) == 0
    assert short.bits_per_character(untied) == math.log2(8_000) / characters_per_token(8_000)  # every token alike
    best = PLAN.best
    assert f"about {PLAN.start_s(best):.0f} s ({best.size}) are for n-gram counts" in plan_table(PLAN)
    assert 0 < plan_module.measure_counting(500, 1 << 20) < 60


def test_a_text_read_again_and_again_is_worth_less_than_a_long_one() -> None:
    short = dataclasses.replace(PLAN, corpus=CorpusSize(166_000, 100_000))
    for cost in COSTS[:2]:
        assert short.bits_per_character(cost) > PLAN.bits_per_character(cost)
    assert short.corpus_s(COSTS[0]) == 2.5


def test_a_corpus_is_counted_exactly_if_it_is_tokens_and_nearly_if_it_is_text(little: Little) -> None:
    meta, splits = open_shards(little.run / "tokens")
    _, exact = count(str(little.run / "tokens"), "train", None)
    assert exact == len(splits["train"].tokens) == meta.splits["train"].n_tokens
    text = little.text.read_text(encoding="utf-8")
    n_characters, counted = count(str(little.text), "train", Tokenizer.load(little.spm))
    both = sum(split.n_tokens for split in meta.splits.values())
    assert n_characters == pytest.approx(len(text), rel=0.01) and counted == pytest.approx(both, rel=0.02)
    assert count(str(little.text), "train", None) == (n_characters, None)


def test_the_vocabulary_of_a_plan_is_given_or_chosen(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "measure", lambda vocab_size, device, seconds: ("fp32", COSTS))

    def planned(**given: Any) -> Plan:
        return plan(device="cpu", seconds=0.0, **given)

    text, shards = str(little.text), str(little.run / "tokens")
    n_characters = count(text, "train", None)[0]
    cases: dict[int, Plan] = {
        choose_vocab_size(3): planned(minutes=3),
        choose_vocab_size(3, n_characters): planned(minutes=3, data=text),
    }
    for vocab_size, made in cases.items():
        assert (made.vocab_size, made.is_vocab_size_chosen) == (vocab_size, True)
        assert f"vocabulary size {vocab_size:,}, chosen for 3 minutes" in plan_table(made)
        assert " --for-minutes 3, then " in next_training(made, "", "")
    assert len(cases) == 2  # a short text has a smaller one
    for made, size in (
        (planned(vocab_size=700), 700),
        (planned(data=shards), 1000),
        (planned(data=text, vocab_size=900), 900),
    ):
        assert (made.vocab_size, made.is_vocab_size_chosen) == (size, False)
        assert "chosen" not in plan_table(made) and f" --vocab-size {size}, then " in next_training(made, "", "")
    made = planned(minutes=3, data=text)
    assert made.corpus == CorpusSize(n_characters, round(n_characters / characters_per_token(made.vocab_size)))


def test_the_table_and_the_json_say_the_same(little: Little) -> None:
    made = plan(minutes=5, data=str(little.text), tokenizer=str(little.spm), device="cpu", seconds=0.0)
    table, plain = plan_table(made), json.loads(json.dumps(made.to_dict()))
    assert plain["best"] == made.best.size and f"best for 5 minutes: {made.best.size}" in table
    for row in plain["costs"]:
        (line,) = (line for line in table.splitlines() if line.split()[:1] == [row["size"]])
        assert f"{row['n_parameters']:,}" in line and f" {row['bits_per_character']:.2f} " in line
        assert ("~" in line) is not row["measured"]
    command = next_training(made, str(little.text), str(little.spm))
    assert command.endswith(f"--size {made.best.size} --minutes 5") and str(little.text) in command


def test_what_cannot_be_planned_is_said(little: Little) -> None:
    with pytest.raises(ConfigError, match=r"minutes must be above 0 \(got 0\)"):
        plan(minutes=0)
    with pytest.raises(ConfigError, match="leave one of them out"):
        plan(minutes=1, tokenizer=str(little.spm), vocab_size=100)
    with pytest.raises(ConfigError, match="vocab_size must be at least 1"):
        plan(minutes=1, vocab_size=-1)
    empty = little.text.with_name("empty.txt")
    empty.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"empty\.txt"):
        plan(minutes=1, data=str(empty))


@pytest.mark.slow
def test_the_command_ends_with_the_next_one(little: Little, tmp_path: Path) -> None:
    done = run_mamegpt(
        "plan", "--minutes", "3", "--data", str(little.text), "--tokenizer", str(little.spm), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("next: mamegpt train --data ")
    assert all(f"\n  {size}" in done.stdout for size in SIZES)
