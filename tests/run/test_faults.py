"""The fault campaign, a short one: see tests/faults/campaign.py for what is done to a run."""

import json
import os
from pathlib import Path

import pytest
from training_helpers import finish


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="every life of the campaign is a fork")
def test_nothing_is_lost_by_kills_flipped_bits_full_disks_doubles_and_clocks(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    finish("-m", "tests.faults.campaign", "--kills", "20", "--flips", "3", "--disks", "4", "--out", str(out))
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["kill -9"]["kills"] == 20
    assert found["kill -9"]["runs equal"] == found["kill -9"]["runs"] >= 1
    counts = found["flipped bits and files gone"]["files"]
    for name in ("config.json", "metrics.jsonl", "tokens/train.bin", "tokens/meta.json"):
        assert sum(counts[name].values()) == 4, name  # three flips, and the file gone
    assert [fault for part in found.values() for fault in part.get("faults", [])] == []
