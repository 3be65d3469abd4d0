"""The model of a step on a cluster: closed forms by hand, its error on published runs, and the page that says so."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from command import Mame
from hypothesis import given
from hypothesis import strategies as st
from little import ROOT

from benchmarks.research.check_cluster import RUNS, error, table
from mamegpt.cli.render.planning import cluster_table
from mamegpt.config import TrainConfig
from mamegpt.errors import ConfigError
from mamegpt.planning.cluster_cost import CLUSTERS, MODELS, SHARDINGS, Cluster, Shape, best, estimate, plan_cluster

SHAPE = Shape(4, 128, 344, 1000, 256, batch_tokens=1 << 20)
PLAIN = Cluster(1e12, 0.5, 1e12, 1e12, 4, 1e9, 1e8, 1e9, 2.0, latency_s=1e-9)


def test_parameters_and_arithmetic_are_those_of_the_model() -> None:
    from mamegpt.models.registry import build_model

    sizes = TrainConfig(context_length=256, emb_dim=128, n_layers=4, n_heads=2, ffn_dim=344).model(1000)
    matrices = [p for p in build_model("qwen3", sizes).parameters() if p.ndim == 2]
    assert sum(p.numel() for p in matrices) == SHAPE.n_parameters
    assert SHAPE.flops_per_token == 6 * (SHAPE.n_parameters - 128_000) + 12 * 4 * 128 * 256


def test_a_step_by_hand() -> None:
    n = SHAPE.n_parameters
    arithmetic = SHAPE.batch_tokens * SHAPE.flops_per_token / (1e12 * 0.5 * 128 / 500)
    alone = estimate(SHAPE, PLAIN, 1, "none")
    assert alone.step_s == pytest.approx(arithmetic + 28 * n / 1e12)
    assert alone.efficiency == 1 and alone.exposed_s == 0
    # four in a node, weights by each: 2 * 3/4 of 4 bytes a parameter, hidden by the backward pass of three layers
    four = estimate(SHAPE, PLAIN, 4, "none")
    assert four.hidden_s == pytest.approx(6 * n / 0.8e9, rel=1e-4)
    assert four.step_s == pytest.approx(arithmetic / 4 + 28 * n / 1e12)
    # with so little to compute that nothing is hidden
    quick = dataclasses.replace(PLAIN, peak_flops=1e30)
    assert estimate(SHAPE, quick, 4, "none").exposed_s == pytest.approx(6 * n / 0.8e9, rel=1e-4)
    # eight in two nodes, of all 12 bytes a parameter each sends 7/8; 8 bytes if weights are gathered in bfloat16
    assert estimate(SHAPE, quick, 8, "full").exposed_s == pytest.approx(12 * 7 / 8 * n / (0.8 * 4e8), rel=1e-4)
    narrow = estimate(SHAPE, quick, 8, "full", weight_bytes=2)
    assert narrow.exposed_s == pytest.approx(7 * n / (0.8 * 4e8), rel=1e-4)


def test_it_recommends_only_what_train_has() -> None:
    assert get_args(get_type_hints(TrainConfig)["sharding"]) == SHARDINGS
    ways = [best(MODELS[name], CLUSTERS["a100"], 64) for name in MODELS]
    assert {way.sharding for way in ways if way} <= {*SHARDINGS}


def test_memory_by_hand() -> None:
    n, window = SHAPE.n_parameters, 256 * 128
    block = 4 * 128 * 128 + 3 * 128 * 344
    each = SHAPE.batch_tokens // 256 // 4  # windows of a device, which all fit
    assert estimate(SHAPE, PLAIN, 4, "none").memory_bytes == 18 * n + each * 34 * 4 * window
    assert estimate(SHAPE, PLAIN, 4, "full").memory_bytes == 4 * n + 8 * block + each * 34 * 4 * window
    assert (
        estimate(SHAPE, PLAIN, 4, "full", recomputes=True).memory_bytes == 4 * n + 8 * block + each * (34 + 8) * window
    )
    small = dataclasses.replace(PLAIN, memory_bytes=(4 * n + 8 * block + 2.5 * 34 * 4 * window) / 0.9)
    half = estimate(SHAPE, small, 4, "full")  # two windows at a time
    assert half.memory_bytes == 4 * n + 8 * block + 2 * 34 * 4 * window
    once = estimate(SHAPE, PLAIN, 4, "full")
    assert half.hidden_s + half.exposed_s == pytest.approx(each / 2 * (once.hidden_s + once.exposed_s))


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(sorted(CLUSTERS)), st.integers(0, 10))
def test_more_devices_are_never_slower_and_what_is_chosen_fits(model: str, name: str, doublings: int) -> None:
    shape, cluster = MODELS[model], CLUSTERS[name]
    few, many = (best(shape, cluster, 1 << k) for k in (doublings, doublings + 1))
    for way in (few, many):
        if way is not None:
            assert way.memory_bytes <= 0.9 * cluster.memory_bytes
            assert 0 < way.efficiency <= 1
    if few is not None:
        assert many is not None and many.tokens_per_s > few.tokens_per_s


def test_a_model_that_fits_nowhere_is_said_to() -> None:
    assert best(MODELS["7B"], CLUSTERS["a100"], 1) is None
    small = dataclasses.replace(CLUSTERS["a100"], memory_bytes=1e9)
    assert best(MODELS["7B"], small, 1024) is None


def test_published_runs_are_met_as_the_documents_say() -> None:
    assert all(abs(error(run)) < 0.02 for run in RUNS if run.fitted)
    wide = [abs(error(run)) for run in RUNS if not run.fitted and run.shape.emb_dim >= 4096]
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert table() in page
    assert f"{statistics.fmean(wide):.0%} on average" in page and f"{max(wide):.0%} at most" in page
    assert cluster_table(plan_cluster("h100")) in page


def test_the_command_prints_the_table_and_json(mame: Mame, tmp_path: Path) -> None:
    code, out, _ = mame("plan", "--cluster", "a100")
    assert code == 0 and out == cluster_table(plan_cluster("a100")) + "\n"
    described = tmp_path / "ours.toml"
    values = dataclasses.asdict(CLUSTERS["a100"])
    described.write_text("\n".join(f"{name} = {value!r}" for name, value in values.items()))
    made = json.loads(mame("plan", "--cluster", described, "--json")[1])
    assert made["cluster"] == {"name": str(described), **values}
    assert made["rows"] == json.loads(mame("plan", "--cluster", "a100", "--json")[1])["rows"]
    assert all(math.isfinite(row["step_s"]) for row in made["rows"] if row["fits"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "not a readable file"),
        ("peak = ", "is not TOML"),
        ("peak_flops = 1", "describes no cluster (sustained is missing; memory_bytes is missing; "),
        ("{all}\nspeed = 1", "speed is unknown"),
        ("{all}\nlatency_s = -1", "latency_s must be above 0 (got -1)"),
        ("{all}\nlatency_s = 'x'", "latency_s must be a number (got 'x')"),
        ("{all}\nlatency_s = inf", "latency_s must be a finite number (got inf)"),
    ],
)
def test_a_bad_description_is_one_line(text: str | None, complaint: str, mame: Mame, tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    every = "\n".join(f"{k} = {v!r}" for k, v in dataclasses.asdict(CLUSTERS["h100"]).items() if k != "latency_s")
    if text is not None:
        file.write_text(text.replace("{all}", every))
    code, _, err = mame("plan", "--cluster", file)
    assert code == 2 and complaint in err and len(err.strip().splitlines()) == 1
    with pytest.raises(ConfigError):
        plan_cluster(str(file))


def test_what_is_measured_here_has_no_place_beside_a_cluster(mame: Mame) -> None:
    code, _, err = mame("plan", "--cluster", "h100", "--minutes", 5)
    assert code == 2 and "--cluster is an analytical estimate" in err
