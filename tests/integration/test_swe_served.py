"""``verigym eval`` over rows as SWE-bench publishes them: a server acts through OpenAI's API, containers, a verdict."""

import json
import os
import signal
import subprocess
import sys
import time

import docker
import pytest

from verigym.__main__ import main
from verigym.envs.sandbox import labels
from verigym.envs.sandbox.docker import DockerBackend

pytestmark = pytest.mark.docker

SHELF = [
    ("bash", {"command": "grep -n thickness shelf.py"}),
    ("edit", "no JSON"),
    (
        "edit",
        {
            "path": "shelf.py",
            "search": "        if thickness < self.free():",
            "replace": "        if thickness <= self.free():",
        },
    ),
    ("bash", {"command": "python -m pytest -q 2>&1 | tail -n 1; git log --oneline | wc -l"}),
    ("submit", {}),
]
CLOCK = [
    ("bash", {"command": "sed -i 's/DAY = 24/DAY = 23/' clock.py"}),
    ("create", {"path": "tests/conftest.py", "content": "import os\nos._exit(0)\n"}),
    ("submit", {}),
]


def act(body):
    """The next call of the script of the task in question: it depends on the request alone."""
    done = sum(row["role"] == "assistant" for row in body["messages"])
    script = SHELF if "shelf" in json.dumps(body["messages"]) else CLOCK
    name, arguments = script[done]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    call = {"id": f"call_{done}", "type": "function", "function": {"name": name, "arguments": text}}
    return {"content": None, "tool_calls": [call]}


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("suite", ["swe", "swebench_verified", "swebench_lite"])
def test_rows_as_published_end_to_end(suite, published_rows, scripted_server, tmp_path):
    (row, _) = rows_of(published_rows)
    assert not {"interpreter", "archive", "workdir", "python"} & set(row)
    scripted_server.reply = act
    data, out, graded = str(published_rows), tmp_path / "out", tmp_path / "graded"
    command = ["eval", suite, "--data", data, "--policy", scripted_server.policy, "--sandbox", "docker"]
    assert main([*command, "--out", str(out), "--save-trajectories"]) == 0
    verdicts = rows_of(out / "verdicts.jsonl")
    assert [(one["task_id"], one["passed"], one["ending"]) for one in verdicts] == [
        ("verigym__shelf", True, "submitted"),
        ("verigym__clock", False, "submitted"),
    ]
    report = json.loads((out / "report.json").read_text())
    assert (report["pass@1"], report["num_infrastructure_failures"], report["num_ungradable"]) == (0.5, 0, 0)
    assert "swerl_tool.py" in report["sources"]["max_turns"]

    offered = {tool["function"]["name"] for tool in scripted_server.asked[0]["tools"]}
    assert offered == {"bash", "view", "edit", "create", "submit"}
    last = max((body for body in scripted_server.asked if "shelf" in str(body)), key=lambda body: len(body["messages"]))
    answers = [message["content"] for message in last["messages"] if message["role"] == "tool"]
    assert "if thickness < self.free():" in answers[0]
    assert answers[1] == "edited shelf.py"
    assert answers[2].split("\n")[0].startswith("2 passed")  # the hidden test is not there
    assert answers[2].split("\n")[1].strip() == "1"
    assert verdicts[0]["num_format_errors"] == 1

    patches = {row["instance_id"]: row["model_patch"] for row in rows_of(out / "preds.jsonl")}
    assert "+        if thickness <= self.free():" in patches["verigym__shelf"]
    command = ["grade", suite, "--data", data, "--predictions", str(out / "preds.jsonl"), "--sandbox", "docker"]
    assert main([*command, "--out", str(graded)]) == 0
    assert [one["passed"] for one in rows_of(graded / "verdicts.jsonl")] == [True, False]
    told = json.loads((graded / "swebench_report.json").read_text())
    assert (told["resolved_ids"], told["unresolved_ids"]) == (["verigym__shelf"], ["verigym__clock"])


@pytest.mark.slow
def test_an_evaluation_in_containers_that_is_killed_goes_on(published_rows, scripted_server, tmp_path):
    """``kill -9`` three times: no sample is lost or taken twice, and no container is left."""
    scripted_server.reply = act
    out, samples = tmp_path / "out", 4
    command = [sys.executable, "-m", "verigym", "eval", "swebench_verified", "--data", str(published_rows)]
    command += ["--policy", scripted_server.policy, "--sandbox", "docker", "--samples", str(samples), "--workers", "3"]
    command += ["--out", str(out)]
    record, seen, owners = out / "verdicts.jsonl", [], []
    for kills in range(1, 4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        owners.append(process.pid)
        deadline = time.monotonic() + 300
        while process.poll() is None and (not record.exists() or len(record.read_bytes().splitlines()) < kills):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        seen.append([line for line in record.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")])
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    owners.append(0)
    final = record.read_bytes().splitlines(keepends=True)
    assert all(line in final for lines in seen for line in lines)
    keys = [(one["task_id"], one["index"], one["passed"]) for one in map(json.loads, final)]
    wanted = [("verigym__shelf", True), ("verigym__clock", False)]
    assert keys == [(name, index, passed) for name, passed in wanted for index in range(samples)]
    assert [(one["instance_id"], one["index"]) for one in rows_of(out / "preds.jsonl")] == [key[:2] for key in keys]

    DockerBackend()  # a start sweeps
    client = docker.from_env()
    try:
        left = client.api.containers(all=True, filters={"label": labels.OWNER})
        assert [one for one in left if int(json.loads(one["Labels"][labels.OWNER])["pid"]) in owners] == []
    finally:
        client.close()
