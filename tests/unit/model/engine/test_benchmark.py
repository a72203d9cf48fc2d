"""The benchmark runs at its smoke size beside both peers, and counts what the engine computed."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[4] / "benchmarks" / "engine" / "throughput.py"


@pytest.mark.slow
def test_the_smoke_size_writes_what_it_measured(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    out = tmp_path / "found.json"
    assert runpy.run_path(str(SCRIPT))["main"](["--smoke", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["ours", "generate", "generate_batch"] * 3
    assert all(row["error"] is None and row["median"] > 0 for row in rows)
    # Two turns of two conversations that share 20 tokens: the first alone computes them, the second turn what is new.
    assert rows[3]["prompt_tokens"] == 2 * 22 + 2 * 26
    assert rows[3]["prompt_tokens_computed"] == 22 + 2 + 2 * 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, which this is not about")
def test_without_cuda_it_says_so_and_measures_nothing(tmp_path: Path) -> None:
    assert runpy.run_path(str(SCRIPT))["main"](["--cuda", "--out", str(tmp_path / "x.json")]) == 2
    assert not (tmp_path / "x.json").exists()


@pytest.mark.slow
def test_a_checkpoint_is_measured_beside_every_peer(tmp_path: Path, family_checkpoint: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.engine.checkpoint", str(family_checkpoint), "--smoke", "--runs", "1"]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=SCRIPT.parents[2], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["ours", "transformers' model, slots", "generate", "generate_batch"]
    assert all(row["median"] > 0 for row in rows)
