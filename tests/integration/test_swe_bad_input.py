"""What cannot be used is told in one clear message, by the command itself."""

import json
import os
import subprocess
import sys

import pytest

from verigym.envs.sandbox.images import ensure_base_image

pytestmark = pytest.mark.docker


def verigym(*arguments, **env):
    command = [sys.executable, "-m", "verigym", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **env})


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def row(published_rows):
    return json.loads(published_rows.read_text().splitlines()[0])


def test_each_bad_row_has_its_reason_and_the_good_one_its_verdict(row, tmp_path):
    import docker

    client = docker.from_env()
    base = ensure_base_image(client)
    client.close()
    bad = {
        "image that is missing": {"image": "verigym/not-there:1"},
        "row without tests": {"FAIL_TO_PASS": "[]", "PASS_TO_PASS": "[]"},
        "repository without git": {"image": base},
    }
    data = written(
        tmp_path / "rows.jsonl", [row, *({**row, **change, "instance_id": name} for name, change in bad.items())]
    )
    patches = [
        (row["instance_id"], row["patch"]),
        (row["instance_id"], "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"),
    ]
    patches += [(name, row["patch"]) for name in bad]
    predictions = written(
        tmp_path / "predictions.jsonl",
        [{"instance_id": name, "model_name_or_path": "m", "model_patch": patch} for name, patch in patches],
    )
    out = tmp_path / "out"
    done = verigym(
        *("grade", "swe", "--data", data, "--predictions", predictions, "--sandbox", "docker", "--out", out),
        VERIGYM_SANDBOX_PULL_ATTEMPTS="1",
    )
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [(one["passed"], one["ending"]) for one in verdicts] == [
        (True, "answered"),
        (False, "answered"),
        (None, "sandbox_failure"),
        (None, "ungradable"),
        (None, "ungradable"),
    ]
    details = [one["detail"] for one in verdicts]
    assert details[1].startswith("the patch does not apply: ")
    assert "verigym/not-there:1 is not on" in details[2]
    assert "cannot be pulled" in details[2]
    assert details[3] == "row without tests: FAIL_TO_PASS and PASS_TO_PASS are empty; the task cannot be graded"
    assert f"the image {base} has no git repository" in details[4]
    report = json.loads((out / "report.json").read_text())
    assert (report["pass@1"], report["num_ungradable"], report["num_infrastructure_failures"]) == (0.5, 2, 1)


def test_an_engine_that_is_not_there(row, tmp_path):
    data = written(tmp_path / "rows.jsonl", [row])
    out, host = tmp_path / "out", f"unix://{tmp_path}/none.sock"
    for command in (
        ("eval", "swe", "--data", data, "--policy", "gold", "--sandbox", "docker", "--out", out),
        ("tasks", "parity", data),
        ("tasks", "validate", data, "--sandbox", "docker"),
    ):
        done = verigym(*command, DOCKER_HOST=host)
        assert done.returncode == 2, command
        assert done.stderr.count("\n") == 1, done.stderr
        assert "no container engine answers" in done.stderr.lower() or "no docker engine answers" in done.stderr.lower()
        assert "DOCKER_HOST" in done.stderr
