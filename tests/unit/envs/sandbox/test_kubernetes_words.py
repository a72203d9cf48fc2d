"""What is said to a cluster and what it says, without one: pods as its validation takes them, statuses as messages.

A client of Kubernetes is 300 modules: only the tests that use it import it.
"""

import asyncio
import io
import json
import os
import re
import socket
import subprocess
import tarfile

import pytest

from verigym.envs.sandbox import guest_facts, labels
from verigym.envs.sandbox.guest import changes
from verigym.envs.sandbox.image_facts import ImageFacts
from verigym.envs.sandbox.kubernetes import bring, manifest, reach, status
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.errors import SandboxError

from .stand_ins.kubernetes_rules import check_pod, check_policy

FACTS = ImageFacts(id="x", env={}, user="1000:1000", home="/home/agent", bash=("/bin/bash", "bash"))
FURNITURE = (
    ("home", 0, 0, 0o755, None),
    ("home/agent", 1000, 1000, 0o755, None),
    ("etc/group", 0, 0, 0o644, "a:x:1:\n"),
)
LOAD = bring.Load(
    archive=b"x" * 1234,
    places=(bring.Place(name="runtime", target="/.verigym", read_only=True),),
)


def pod(facts=FACTS, *, settings=None, **spec):
    spec = SandboxSpec(image="registry.example.org/a:1", **spec)
    return manifest.pod("verigym-a-1", spec, facts, LOAD, ["guest"], settings or SandboxSettings())


@pytest.mark.parametrize("spec", [{}, {"root": True}, {"limits": Limits(cpus=0)}, {"limits": Limits(cpus=0.01)}])
def test_a_pod_is_one_that_a_server_takes(spec):
    for facts in (FACTS, None):
        check_pod(pod(facts, **spec))
    check_policy(manifest.policy())


@pytest.mark.parametrize("run", ["My run: 3 %", "---", "x" * 100])
def test_a_run_may_have_any_name(run, monkeypatch):
    monkeypatch.setattr(labels, "run_id", lambda: run)
    made = pod()
    made["metadata"]["name"] = f"verigym-{manifest.run_word()}-1"
    check_pod(made)


def test_a_pod_is_hardened_and_bounded():
    made = pod()["spec"]
    assert (made["restartPolicy"], made["automountServiceAccountToken"], made["enableServiceLinks"]) == (
        *("Never", False, False),
    )
    assert made["activeDeadlineSeconds"] == 43200
    assert made["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    for container in (*made["initContainers"], *made["containers"]):
        assert container["securityContext"] == {
            **{"allowPrivilegeEscalation": False, "privileged": False, "capabilities": {"drop": ["ALL"]}},
            **{"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True},
        }
        assert (container["stdin"], container["stdinOnce"]) == (True, True)
        limits = container["resources"]["limits"]
        assert limits == {
            "memory": str((2048 + 64) << 20),
            "ephemeral-storage": str((1024 + 256) << 20),
            "cpu": "2000m",
        }
    assert made["containers"][0]["volumeMounts"][0]["readOnly"]
    assert pod(root=True)["spec"]["containers"][0]["securityContext"]["capabilities"]["add"][0] == "CHOWN"
    assert "add" not in pod(root=True)["spec"]["initContainers"][0]["securityContext"]["capabilities"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda made: made["spec"].update(restartPolicy="never"), "Unsupported value: 'never'"),
        (lambda made: made["spec"].update(securityContexts={}), "strict decoding error.*securityContexts"),
        (lambda made: made["spec"]["containers"][0]["resources"]["limits"].update(memory="2 GB"), "quantities must"),
        (lambda made: made["spec"]["containers"][0]["resources"]["limits"].update(memory="1"), "less than or equal"),
        (lambda made: made["metadata"]["labels"].update(owner=json.dumps({"pid": 1})), "is not a label"),
        (lambda made: made["spec"].pop("dnsConfig"), "at least one DNS nameserver"),
        (lambda made: made["spec"]["containers"][0]["volumeMounts"][0].update(subPath="../x"), "relative path"),
        (lambda made: made["metadata"].update(name="Upper_case"), "RFC 1123"),
    ],
)
def test_the_stand_in_refuses_what_a_server_refuses(change, told):
    made = pod()
    change(made)
    with pytest.raises(ValueError, match=told):
        check_pod(made)


def test_what_a_cluster_wants_is_added_and_takes_nothing_away(tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text(
        "metadata: {labels: {team: rl, app.kubernetes.io/managed-by: us}}\n"
        "spec: {imagePullSecrets: [{name: s}], nodeSelector: {pool: cpu}, automountServiceAccountToken: true}\n"
    )
    made = pod(settings=SandboxSettings(kubernetes_pod=path))
    check_pod(made)
    assert made["metadata"]["labels"]["team"] == "rl"
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "verigym"
    assert made["spec"]["imagePullSecrets"] == [{"name": "s"}]
    assert made["spec"]["nodeSelector"]["pool"] == "cpu"
    assert made["spec"]["automountServiceAccountToken"] is False
    for text, told in (("spec: {hostNetwork: true}", "may not say spec.hostNetwork"), ("[1", "is no part of a pod")):
        path.write_text(text)
        with pytest.raises(SandboxError, match=told):
            pod(settings=SandboxSettings(kubernetes_pod=path))


def test_what_is_brought_is_whole_and_taken_in_by_any_shell(tmp_path, monkeypatch):
    shown = tmp_path / "shown"
    (shown / "deep").mkdir(parents=True)
    (shown / "deep/file").write_text("seen\n")
    load = bring.load({"/opt/shown": str(shown)}, FURNITURE)
    assert [(place.target, place.read_only) for place in load.places] == [
        *(("/.verigym", True), ("/opt/shown", True), ("/home/agent", False), ("/etc/group", True)),
    ]
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.setattr(bring, "INSIDE", str(there))
    command = bring.taking(len(load.archive))
    subprocess.run(["sh", "-c", command], input=load.archive + b"what comes after", check=True)
    by_target = {place.target: there / place.name for place in load.places}
    assert (by_target["/opt/shown"] / "deep/file").read_text() == "seen\n"
    assert by_target["/etc/group"].read_text() == "a:x:1:\n"
    assert (by_target["/.verigym"] / "lib/loader").stat().st_mode & 0o111
    (shown / "deep/file").write_text("changed\n")
    with tarfile.open(fileobj=io.BytesIO(bring.load({"/opt/shown": str(shown)}, ()).archive)) as archive:
        assert archive.extractfile("bind0/deep/file").read() == b"changed\n"
    assert subprocess.run(["sh", "-c", command], input=load.archive[:1000], capture_output=True).returncode != 0


def told(phase="Pending", *, init=None, main=None, **more):
    def one(name, state):
        return [{"name": name, "state": state}] if state else []

    statuses = {"initContainerStatuses": one(status.BRINGER, init), "containerStatuses": one(status.MAIN, main)}
    spec = {"containers": [{"image": "a:1"}]}
    return {"metadata": {}, "spec": spec, "status": {"phase": phase, **statuses, **more}}


def waiting(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


def ended(code, reason, **more):
    return {"terminated": {"exitCode": code, "reason": reason, **more}}


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (told(), None),
        (told(init=waiting("PodInitializing")), None),
        (told(init=waiting("ErrImagePull", "dial tcp: i/o timeout")), None),  # tried again
        (told(init=waiting("ImagePullBackOff", "pull access denied")), "image a:1 cannot be pulled .*imagePullSecrets"),
        (told(init=waiting("InvalidImageName", "bad")), "name of the image is not one .a:1: InvalidImageName: bad"),
        (told(main=waiting("CreateContainerConfigError", "runAsNonRoot")), "does not take a container.*runAsNonRoot"),
        (told(init=ended(2, "Error", message="tar: short read")), r"container bring ended: .*short read .exit code 2"),
        (told("Failed", reason="Evicted", message="low on disk"), "ended by the cluster .Evicted: low on disk"),
        (told("Failed"), "its pod failed"),
    ],
)
def test_why_a_pod_will_not_start(pod, why):
    found = status.why_not(pod)
    assert (found is None) if why is None else re.search(why, found or "")


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (told("Running", main={"running": {}}), None),
        (None, "was deleted by somebody else"),
        (
            told("Failed", main=ended(137, "OOMKilled")),
            "OOMKilled, all together took more memory",
        ),
        (told("Failed", main=ended(137, "Error")), r"Error \(exit code 137\)"),
        (told("Failed", reason="DeadlineExceeded", message="m"), "a longer life is VERIGYM_SANDBOX_KUBERNETES_LIFE_S"),
    ],
)
def test_why_a_pod_ended(pod, why):
    found = status.why_ended(pod)
    assert (found is None) if why is None else re.search(why, found or "")


def test_what_a_pod_waits_for():
    unscheduled = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]
    assert "0/3 nodes" in status.waits_for(told(conditions=unscheduled))
    assert "i/o timeout" in status.waits_for(told(init=waiting("ErrImagePull", "i/o timeout")))
    assert "kubectl describe pod" in status.waits_for(told())


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        (401, "Unauthorized", "log in again"),
        (403, 'pods is forbidden: User "a" cannot create resource "pods"', "Role of docs/sandboxes.md"),
        (403, "exceeded quota: pods, used: pods=5", "VERIGYM_SANDBOX_MAX_CONTAINERS"),
        (403, 'violates PodSecurity "restricted:latest": runAsNonRoot != true', "no more than baseline"),
        (404, 'namespaces "x" not found', "kubectl create namespace"),
    ],
)
def test_a_refusal_names_its_remedy(code, message, remedy):
    from verigym.envs.sandbox.kubernetes import cluster

    body = json.dumps({"kind": "Status", "reason": "Reason", "message": message}).encode()
    with pytest.raises(cluster.Refused, match=remedy) as caught:
        cluster._refuse("making a pod", code, body)
    assert message in str(caught.value)
    with pytest.raises(cluster.Refused, match=r"502 .*bad gateway"):
        cluster._refuse("making a pod", 502, b"<html>bad gateway</html>")


def test_no_cluster_and_no_image_are_said(tmp_path):
    from verigym.envs.sandbox.kubernetes.backend import KubernetesBackend

    nowhere = SandboxSettings(kubernetes_config=tmp_path / "none")
    with pytest.raises(SandboxError, match=r"no cluster is known here .*VERIGYM_SANDBOX_KUBERNETES_CONFIG"):
        asyncio.run(KubernetesBackend(settings=nowhere).prepare())
    with pytest.raises(SandboxError, match=r"names no image.*VERIGYM_SANDBOX_KUBERNETES_IMAGE"):
        asyncio.run(KubernetesBackend(settings=nowhere).create(SandboxSpec()))


def test_what_was_changed_is_seen_whatever_its_times_say(tmp_path, monkeypatch):
    for name in ("work", "usr/share", "opt"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "opt/kept").write_text("x" * 5000)
    (tmp_path / "opt/old").write_text("x")
    monkeypatch.setattr(changes, "_walk", walk_of(tmp_path))
    since = changes.moment()
    assert changes.written(since) == (0, 0)
    assert {path for path in changes.changed(since, ("/work",)) if not path.endswith(" holds")} == set()
    before = (tmp_path / "opt/kept").stat()
    (tmp_path / "opt/kept").write_text("y" * 5000)
    os.utime(tmp_path / "opt/kept", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "opt/old").unlink()
    (tmp_path / "work/new").write_text("z")
    assert {path for path in changes.changed(since, ("/work",)) if not path.endswith(" holds")} == {"/opt", "/opt/kept"}
    num_bytes, num_files = changes.written(since)
    assert num_bytes >= 8192
    assert num_files == 4  # with the folders /opt and /work


def walk_of(root):
    """The walk of a root that is a folder here."""

    def walk(left_out):
        for folder, names, files in os.walk(root):
            for name in (*names, *files):
                path = os.path.join(folder, name)
                inside = path[len(str(root)) :]
                if not left_out(inside):
                    yield inside, os.lstat(path)

    return walk


def test_the_network_is_looked_for_where_the_api_server_is(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.getsockname()[1]))
        monkeypatch.setattr(reach, "TRIES", 1)
        assert reach.reaches()
    assert not reach.reaches()
    assert guest_facts.owner("/") == (0, 0)
