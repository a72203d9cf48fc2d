"""Every kernel compiles for Hopper, without a GPU, and keeps its numbers in registers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import dataclasses, json
from verigym.model.kernels.catalogue import production_launches
from verigym.model.kernels.resources import resources_of
rows = [dataclasses.asdict(resources_of(launch)) | {"name": launch.name, "spill_free": launch.spill_free}
        for launch in production_launches()]
print(json.dumps(rows))
"""
# Of shared memory, a program on Hopper can have 227 KiB.
SHARED_BYTES = 227 * 1024


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """In a process of its own: Triton interprets in this one. What is compiled is kept by its source's hash."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(Path(__file__).parents[4] / "build" / "triton")
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_kernel_compiles_and_fits(rows: list[dict], record_property) -> None:
    kernels = Path(__file__).parents[4] / "model" / "kernels"
    sources = "".join(path.read_text() for path in kernels.glob("*_triton.py"))
    launched = {row["name"].split(",")[0] for row in rows}
    # A function that no other of these files calls is a kernel, and each has at least one launch.
    assert len(launched) == sources.count('"""Grid ['), "a kernel is missing in catalogue.py"
    for row in rows:
        record_property(row["name"], f"{row['registers']} registers, {row['spilled_bytes']} bytes spilled")
        assert 0 < row["registers"] <= 255
        assert row["shared_bytes"] <= SHARED_BYTES, row


def test_nothing_spills(rows: list[dict]) -> None:
    assert {"attention forward", "attention dQ"} <= {row["name"] for row in rows if row["spill_free"]}
    spilled = {row["name"]: row["spilled_bytes"] for row in rows if row["spill_free"] and row["spilled_bytes"]}
    assert not spilled, f"bytes spilled: {spilled}; take smaller blocks"


def test_the_interpreter_is_named_where_it_is_in_the_way() -> None:
    from verigym.model.kernels import tiles_triton
    from verigym.model.kernels.launch import interpreted
    from verigym.model.kernels.resources import Launch, resources_of

    if not interpreted():
        pytest.skip("Triton compiles in this process: there is a GPU")
    launch = Launch(name="x", kernel=tiles_triton.product, types={}, constants={}, num_warps=4, num_stages=2)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        resources_of(launch)
