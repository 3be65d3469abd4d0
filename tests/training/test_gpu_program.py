"""The program that proves on a GPU what is tested without one, rehearsed on the CPU."""

import json
from pathlib import Path

import pytest
from training_helpers import finish


@pytest.mark.slow
def test_the_proof_for_gpus_passes_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--steps", "4", "--seconds", "0", "--mark-seconds", "5", "--out", str(out)]
    printed = finish("-m", "benchmarks.gpu", *words)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert all(check["passed"] for check in found["checks"]) and printed.count("passed  ") == len(found["checks"])
    assert found["sizes"][0]["measured"] and "1m" in printed
    speeds = found["sizes"][0]["tokens_per_s_in_turns"]
    assert speeds["mamegpt"] > 0 and speeds["transformers"] > 0
    assert "3-gram mark" in printed and found["three_gram_mark"].keys() == {"mark", "loss", "seconds"}
