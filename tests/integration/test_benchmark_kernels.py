"""The benchmark of kernels runs from end to end, on a CPU in its smallest size."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_smoke_size_runs_and_writes_json(tmp_path: Path) -> None:
    out = tmp_path / "kernels.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernels", "--smoke", "--out", str(out)],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["ceilings"]["matmul_tflops"] > 0
    assert record["environment"]["torch"]
    timed = {(row["task"], row["name"].split()[0]) for row in record["rows"] if row["seconds"]}
    tasks = ("attention forward", "attention backward", "loss head, both ways")
    assert {(task, "ours") for task in tasks} <= timed
    assert {("attention forward", "sdpa"), ("decode", "sdpa"), ("loss head, both ways", "unfused")} <= timed
    assert all(row["error"] for row in record["rows"] if not row["seconds"])
