"""Verdicts beside those of swebench's own harness: where they differ, that is told."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from verigym.__main__ import main
from verigym.envs.cli.repositories import docker_client
from verigym.envs.sandbox import labels
from verigym.envs.sandbox.leftovers import sweep_machine

pytestmark = [pytest.mark.docker, pytest.mark.slow]

HOOK = "def pytest_collection_modifyitems(items):\n    for item in items:\n        item.runtest = lambda: None\n"


def test_both_agree_but_on_a_patch_that_brings_a_hook(docker_vault, gold, tmp_path, capsys):
    """swebench leaves a patch's conftest.py where it is; it is the one disagreement, and makes the command fail."""
    rows, predictions = tmp_path / "rows.jsonl", tmp_path / "predictions.jsonl"
    rows.write_text(json.dumps(dict(docker_vault.task.hidden)) + "\n")
    patches = {
        "gold": docker_vault.patch({"pkg/calc.py": gold}),
        "empty": "",
        "broken": docker_vault.patch({"pkg/calc.py": gold.replace("2 * x", "3 * x")}),
    }
    forged = docker_vault.patch({"tests/conftest.py": HOOK})

    def compared(texts):
        lines = [json.dumps({"instance_id": "vault", "model_patch": text}) + "\n" for text in texts]
        predictions.write_text("".join(lines))
        code = main(["tasks", "parity", str(rows), "--predictions", str(predictions), "--workers", "4"])
        return code, capsys.readouterr().out

    code, out = compared(patches.values())
    assert (code, out.splitlines()[-1]) == (0, "0 disagreements"), out
    code, out = compared([forged])
    assert (code, out.splitlines()[-1]) == (1, "1 disagreements")
    assert "verigym says unresolved" in out
    assert "swebench resolved" in out


def test_what_swebench_has_when_the_command_is_killed_goes_when_the_machine_is_swept(docker_vault, tmp_path):
    rows, client = tmp_path / "rows.jsonl", docker_client()
    rows.write_text(json.dumps(dict(docker_vault.task.hidden)) + "\n")

    def containers():
        wanted = {"label": f"{labels.RUN}=test-parity"}
        return [one["Command"] for one in client.api.containers(all=True, filters=wanted)]

    running = subprocess.Popen(
        [sys.executable, "-m", "verigym", "tasks", "parity", str(rows), "--workers", "1"],
        env={**os.environ, "VERIGYM_RUN": "test-parity"},
        start_new_session=True,
    )
    while "tail -f /dev/null" not in containers():
        assert running.poll() is None, "it ended before swebench had a container"
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert containers()
    sweep_machine()
    assert containers() == []
