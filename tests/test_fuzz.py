"""Bytes from outside end in an answer or in one clear line: spoilt files and requests, for every parser of them."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.vendor.pretty import pretty

from fuzz.targets import Target, feed, targets
from mamegpt.models.registry import hf_formats

# fmt: off
NAMES = (
    "text", "address", "jsonl", "txt", "csv", "gz", "bz2", "xz", "zst", "parquet", "dump", "card", "test-items.jsonl",
    "test-items.parquet", "origin", "shards", "state", "checkpoint model.safetensors",
    "checkpoint optimizer.safetensors", "config", "metrics",
    *(f"{name} {what}" for name in hf_formats() for what in ("config", "weights")), "pth", "sentencepiece",
    "tokenizer.json", "http body", "http request",
)
# fmt: on
# fmt: off
VALUES = [
    b"null", b"true", b"-1", b"0", b"2", b"7", b"1.5", b"1e999", b"NaN", b"9" * 12, b"9" * 400, b"9" * 5000, b'""',
    b'"text"', b'"\\ud800"', b'"../up"', b"[]", b"{}", b"[[1]]", b'{"a": null}', b"[" * 100_000,
]
# fmt: on
"""What may stand in JSON and is seldom thought of."""


BROKE = [
    ("jsonl", rb".*", b'{"text": ' + b"9" * 5000 + b"}"),
    ("jsonl", rb".*", b"[" * 100_000),
    ("gz", rb".{8}$", b"\0" * 8),
    ("dump", rb"<text>.*</text>", b""),
    ("shards", rb'"train": {', b'"../x": {'),
    ("shards", rb'"n_tokens": \d+', b'"n_tokens": 1e999'),
    ("shards", rb'"n_characters": \d+', b'"n_characters": 0'),
    ("shards", rb'"vocab_size": \d+', b'"vocab_size": 9'),
    ("state", rb'"files": {.*?}', b'"files": ["model.safetensors", "optimizer.safetensors"]'),
    ("checkpoint optimizer.safetensors", rb"\|", b" "),
    ("config", rb'"emb_dim": 8', b'"emb_dim": 999999999999'),
    ("config", rb'"emb_dim": 8', b'"emb_dim": 100000'),
    ("config", rb'"rope_theta": 10000.0', b'"rope_theta": ' + b"9" * 400),
    ("config", rb'"device": "cpu"', b'"device": "abacus"'),
    ("custom-gpt config", rb'"n_heads": 2', b'"n_heads": "2"'),
    ("gpt2 config", rb'"n_embd": 8', b'"n_embd": {}'),
    ("gpt2 config", rb'"n_layer": 1', b'"n_layer": 999999999'),
    ("qwen3 config", rb'"max_position_embeddings": 16', b'"max_position_embeddings": 999999999999'),
    ("qwen3 config", rb'"hidden_size": 8', b'"hidden_size": 100000'),
    ("qwen3 config", rb'"num_attention_heads": 2', b'"num_attention_heads": 999999999999'),
    ("tokenizer.json", rb'"continuing_subword_prefix": null', b'"continuing_subword_prefix": "' + b"#" * 99 + b'"'),
    ("metrics", rb'"elapsed_s": 1.0', b'"elapsed_s": 0'),
    ("metrics", rb"^", b"[1]\n"),
]
"""What once ended in a traceback, a division by zero, a foreign file, the end of all memory, or never."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return targets(tmp_path_factory.mktemp("fuzz"))


def spoil_bytes(data: bytes, random: random.Random) -> bytes:
    """Change, cut out or double a few stretches."""
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice([0, 1, 1, 2, 4, 8, 64, 1024]))
        new = random.choice([b"", data[start:end] * 2, random.randbytes(end - start), b"\xff" * 4, b"\0"])
        data = data[:start] + new + data[end:]
    return data


def spoil_json(value: Any, random: random.Random) -> bytes:
    """Put one of `VALUES` in some place of a JSON value, or take the place away, or add another."""
    places = [(value, key) for value, key in _places([value])]
    holder, key = random.choice(places)
    before = holder[key]
    choice = random.randrange(6)
    if choice == 0 and holder is not places[0][0]:
        del holder[key]
    elif choice == 1 and isinstance(before, dict):
        before["\0"] = 0
    else:
        holder[key] = "\0"
    return json.dumps(places[0][0][0]).encode().replace(b'"\\u0000"', random.choice(VALUES))


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    found = [(value, key) for key in keys]
    return found + [place for key in keys if isinstance(value[key], dict | list) for place in _places(value[key])]


def spoil(seeds: list[bytes], random: random.Random) -> bytes:
    seed = random.choice(seeds)
    if random.random() < 0.5:
        lines = seed.split(b"\n")
        i = random.randrange(len(lines))
        try:
            lines[i : i + 1] = [spoil_json(json.loads(lines[i]), random)]
            return b"\n".join(lines)
        except ValueError:
            pass
        try:
            return spoil_json(json.loads(seed), random)
        except ValueError:
            pass
    return spoil_bytes(seed, random)


def test_all_targets_are_here(places: dict[str, Target]) -> None:
    assert tuple(places) == NAMES
    assert all(feed(target, target.seeds[0]) for target in places.values())


@pytest.mark.parametrize(("name", "old", "new"), BROKE)
def test_what_once_broke_is_refused(places: dict[str, Target], name: str, old: bytes, new: bytes) -> None:
    data, n = re.subn(old, lambda _: new, places[name].seeds[0], count=1, flags=re.DOTALL)
    assert n == 1 and not feed(places[name], data)


def test_a_run_whose_loss_became_no_number_can_be_reported(places: dict[str, Target]) -> None:
    assert feed(places["metrics"], places["metrics"].seeds[0].replace(b"6.4,", b"NaN,", 1))


def test_what_is_read_with_a_warning_is_accepted(places: dict[str, Target]) -> None:
    assert feed(places["jsonl"], b'{"a": null}\n' + places["jsonl"].seeds[0])


def test_a_target_is_short_in_a_report(places: dict[str, Target]) -> None:
    assert len(pretty(places)) < 100 * len(NAMES)  # as hypothesis prints the arguments of a test that fails


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32))
def test_what_is_spoilt_ends_in_one_line(places: dict[str, Target], name: str, seed: int) -> None:
    feed(places[name], spoil(places[name].seeds, random.Random(seed)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), noise=st.binary(max_size=200))
def test_much_that_is_spoilt_ends_in_one_line(places: dict[str, Target], name: str, seed: int, noise: bytes) -> None:
    feed(places[name], spoil(places[name].seeds, random.Random(seed)))
    feed(places[name], noise)


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_ends_in_one_line(places: dict[str, Target], name: str) -> None:
    for seed in [*places[name].seeds, b"", b"{}", b"[" * 100_000, b"\xff"]:
        feed(places[name], seed)
