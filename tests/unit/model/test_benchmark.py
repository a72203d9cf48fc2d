"""The benchmark runs at its smoke size, and counts work as the planner does."""

import json
import runpy
from pathlib import Path

import pytest
import torch

from verigym.model.config import preset

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "model" / "train.py"


def test_the_smoke_size_writes_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    assert runpy.run_path(str(SCRIPT))["main"](["--smoke", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [row["tokens"] for row in found["rows"]] == [96, 192]
    assert all(len(row["seconds"]) == 2 and row["mfu"] is None for row in found["rows"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, which this is not about")
def test_without_cuda_it_says_so_and_measures_nothing(tmp_path: Path) -> None:
    assert runpy.run_path(str(SCRIPT))["main"](["--out", str(tmp_path / "x.json")]) == 2
    assert not (tmp_path / "x.json").exists()


def test_the_work_of_a_step_by_hand() -> None:
    config = preset("cwm-tiny")
    flops = runpy.run_path(str(SCRIPT))["flops_of_step"](config, [100])
    matrices = 4 * (128 * (8 * 32) + 128 * 128 + 3 * 128 * 448) + 128 * 1024
    whole, windowed = 100 * 101 // 2, 64 * 65 // 2 + 36 * 64
    assert flops == 6 * matrices * 100 + 12 * 2 * (whole + windowed) * 4 * 32
