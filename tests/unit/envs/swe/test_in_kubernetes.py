"""A suite by the command line in pods, where the cluster is a stand-in."""

import json

import pytest

from verigym.__main__ import main
from verigym.envs.sandbox import choose
from verigym.envs.sandbox.engine import Engine
from verigym.envs.sandbox.settings import SandboxSettings

from ..sandbox.stand_ins.kubernetes import ApiServer

pytestmark = pytest.mark.docker


@pytest.fixture
def server(tmp_path, monkeypatch):
    engine = Engine(None, SandboxSettings())
    server = ApiServer(engine, tmp_path)
    monkeypatch.setenv("VERIGYM_SANDBOX_KUBERNETES_CONFIG", str(server.kubeconfig))
    choose._kubernetes.cache_clear()
    yield server
    choose._kubernetes.cache_clear()
    server.close()
    assert server.containers() == []
    engine.client.close()


def test_gold_resolves_and_nothing_does_not(server, docker_vault, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(dict(docker_vault.task.hidden)) + "\n")
    for policy, resolved in (("gold", 1.0), ("empty", 0.0)):
        out = tmp_path / policy
        command = ["eval", "swe", "--data", str(rows), "--policy", policy, "--sandbox", "kubernetes", "--out", str(out)]
        assert main(command) == 0
        report = json.loads((out / "report.json").read_text())
        assert (report["num_infrastructure_failures"], report["pass@1"]) == (0, resolved), report
    assert not server.pods
