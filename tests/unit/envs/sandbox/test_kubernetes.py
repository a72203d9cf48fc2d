"""Sandboxes in pods of a cluster, which here is a stand-in for the API server that runs containers (``stand_ins``)."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config
from kubernetes.stream import stream

from verigym.envs.sandbox import host_image, labels
from verigym.envs.sandbox.conformance import CHECKS, ISOLATION_CHECKS, InImage
from verigym.envs.sandbox.kubernetes import cluster, manifest
from verigym.envs.sandbox.kubernetes.backend import KubernetesBackend
from verigym.envs.sandbox.kubernetes.bring import taking
from verigym.envs.sandbox.kubernetes.manifest import OWNER as OWNED
from verigym.envs.sandbox.kubernetes_places import note
from verigym.envs.sandbox.leftovers import sweep_machine
from verigym.envs.sandbox.pool import ContainerPool, PooledSandbox
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import SandboxError

from .chaos import ATTACKS, DEADLINE_S, LEFTOVERS, until
from .stand_ins.kubernetes import ApiServer
from .test_pool import LOOK, NOT_UNDONE, UNDONE, prepare

pytestmark = pytest.mark.docker

QUICK = {"check_session", "check_run", "check_close", "check_network", "check_full_disk", "check_binds", "check_files"}
OWNER = """
import asyncio
from verigym.envs.sandbox.kubernetes.backend import KubernetesBackend
from verigym.envs.sandbox.types import SandboxSpec

async def main():
    backend = KubernetesBackend()
    boxes = await asyncio.gather(*(backend.create(SandboxSpec()) for _ in range(5)))
    print("ready", flush=True)
    await boxes[0].aexec("(setsid sleep 10000 &); sleep 10000")

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def one_server(engine, tmp_path_factory):
    server = ApiServer(engine, tmp_path_factory.mktemp("kubernetes"))
    yield server
    server.close()
    assert server.containers() == []


@pytest.fixture
def server(one_server):
    """As it is when nobody has troubled it; nothing is left in it afterwards."""
    yield one_server
    one_server.quota, one_server.role, one_server.broken, one_server.node.has_room = None, None, {}, True
    until(lambda: not one_server.pods)


def settings(server, image, **more):
    return SandboxSettings(kubernetes_config=server.kubeconfig, kubernetes_image=image, **more)


@pytest.fixture
def backend(server, bare_image):
    return KubernetesBackend(settings=settings(server, bare_image))


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, DEADLINE_S))


async def said(backend, command, **spec):
    sandbox = await backend.create(SandboxSpec(**spec))
    try:
        return (await sandbox.aexec(command)).output
    finally:
        await sandbox.aclose()


async def broken_by(backend, break_it, **spec):
    """What a command says under which something breaks."""
    sandbox = await backend.create(SandboxSpec(**spec))
    try:
        running = asyncio.create_task(sandbox.aexec("echo begun > /tmp/begun; sleep 1000"))
        while not (await sandbox.arun(["cat", "/tmp/begun"])).stdout:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(break_it)
        with pytest.raises(SandboxError) as caught:
            await asyncio.wait_for(running, 60)
        return str(caught.value)
    finally:
        await sandbox.aclose()


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, marks=[] if check.__name__ in QUICK else [pytest.mark.slow], id=check.__name__)
        for check in (*CHECKS, *ISOLATION_CHECKS)
    ],
)
def test_it_passes_what_every_sandbox_must(check, server, base_image):
    backend = KubernetesBackend(settings=settings(server, base_image))
    asyncio.run(asyncio.wait_for(check(InImage(backend, base_image)), 5 * DEADLINE_S))  # some take two dozen pods


def test_what_commands_see_is_the_image_and_nothing_of_the_cluster(backend, server):
    look = "id -u; ls -A /var/run/secrets 2>/dev/null; env | grep -c KUBERNETES; touch /.verigym/x 2>/dev/null; echo $?"
    assert run(said(backend, look)).splitlines() == ["1000", "0", "1"]


def test_tasks_that_install_are_root_with_a_few_rights(server, base_image):
    backend = KubernetesBackend(settings=settings(server, base_image))
    look = "id -u; touch /opt/x; chown 5:5 /opt/x; stat -c %u /opt/x; mount -t tmpfs none /mnt 2>/dev/null || echo no"
    assert run(said(backend, look, root=True)).splitlines() == ["0", "5", "no"]


def test_the_older_protocol_will_do_and_without_either_it_is_said(server, backend, monkeypatch):
    monkeypatch.setattr(server, "protocols", ("v4.channel.k8s.io",))
    assert run(said(backend, "echo ok")) == "ok\n"
    monkeypatch.setattr(server, "protocols", ("v3.channel.k8s.io",))
    with pytest.raises(SandboxError, match=r"attaching to pod \S+ was refused \(400\)"):
        run(said(backend, "echo ok"))


def only(server):
    (pod,) = server.pods.values()
    return pod


def test_the_stand_ins_streams_are_what_the_client_reads(server, backend):
    """By the client's other half, which is not asynchronous and of which we use nothing."""

    async def main():
        box = await backend.create(SandboxSpec())
        name = only(server)["metadata"]["name"]
        told = await asyncio.to_thread(executed, server, name, "echo out; echo err >&2; exit 7")
        await box.aclose()
        return told

    assert run(main()) == ("out\n", "err\n", 7)


def executed(server, pod, command):
    with new_client_from_config(str(server.kubeconfig)) as client:
        words = ["/bin/sh", "-c", command]
        wanted = {"stderr": True, "stdin": False, "stdout": True, "tty": False, "_preload_content": False}
        call = CoreV1Api(client).connect_get_namespaced_pod_exec
        opened = stream(call, pod, "boxes", command=words, container="sandbox", **wanted)
        opened.run_forever(timeout=60)
        return opened.read_stdout(), opened.read_stderr(), opened.returncode


BREAKS = {
    "deleted": (lambda s: s.do(s._delete(only(s), 0)), "its pod (was|is being) deleted by somebody|exit code 137"),
    "killed": (lambda s: s.do(s.node.kill(only(s))), r"its container ended: .*exit code 137"),
    "evicted": (lambda s: s.evict(only(s)), "ended by the cluster .Evicted: Pod ephemeral local storage .*disk limit"),
    "cut": (lambda s: s.cut(), "the connection to its pod was cut|its container ended"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_pod_that_breaks_under_a_command_is_an_infrastructure_failure(how, backend, server):
    break_it, told = BREAKS[how]
    why = run(broken_by(backend, lambda: break_it(server)))
    assert re.search(f"^the sandbox ended: .*({told})", why), why
    assert run(said(backend, "echo ok")) == "ok\n"


def test_a_node_that_takes_in_slowly_is_waited_for(backend, monkeypatch):
    """Pings of a websocket are answered behind what was sent before: they do not tell that it is gone."""
    monkeypatch.setattr(cluster, "PING_S", 0.2)
    monkeypatch.setattr(manifest, "taking", lambda num_bytes: f"sleep 3; {taking(num_bytes)}")
    assert run(said(backend, "echo ok")) == "ok\n"


def test_a_connection_that_is_cut_while_a_pod_is_filled_is_said(backend, server, monkeypatch):
    run(said(backend, "true"))  # the image is known now, so that one more pod is made
    until(lambda: not server._sockets)
    monkeypatch.setattr(manifest, "taking", lambda num_bytes: f"sleep 5; {taking(num_bytes)}")

    async def main():
        starting = asyncio.create_task(said(backend, "true"))
        while not server._sockets:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(server.cut)
        with pytest.raises(SandboxError, match="the connection to it was cut"):
            await starting

    run(main())


def test_a_server_that_reads_nothing_for_long_is_lost(backend, server, monkeypatch):
    monkeypatch.setattr(cluster, "SILENT_S", 1.0)

    async def main():
        sandbox = await backend.create(SandboxSpec())
        server.loop.call_soon_threadsafe(time.sleep, 6)
        with pytest.raises(SandboxError, match=r"^the sandbox ended: "):
            await sandbox.write_file("/tmp/large", bytes(64 << 20))
        await sandbox.aclose()

    run(main())


def test_a_pod_that_lives_too_long_ends_and_says_so(server, bare_image):
    lasting = settings(server, bare_image).model_copy(update={"kubernetes_life_s": 20})
    assert "DeadlineExceeded" in run(broken_by(KubernetesBackend(settings=lasting), lambda: None))


def test_a_server_that_goes_away_ends_its_boxes_and_is_waited_for(backend, server):
    """What hangs on it is lost with it; what is asked while it restarts is answered by the new one."""

    async def main():
        sandbox = await backend.create(SandboxSpec())
        running = asyncio.create_task(sandbox.aexec("sleep 1000"))
        await asyncio.to_thread(server.stop)
        starting = asyncio.create_task(said(backend, "echo ok"))
        await asyncio.sleep(1)
        await asyncio.to_thread(server.start)
        with pytest.raises(SandboxError, match="the sandbox ended: "):
            await running
        await sandbox.aclose()
        return await starting

    assert run(main()) == "ok\n"


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("verigym/no-such:1", r"the image verigym/no-such:1 cannot be pulled .*not found.*imagePullSecrets"),
        ("UPPER CASE", "the name of the image is not one .*InvalidImageName"),
        (None, r"container bring ended: StartError .*sh.*not found"),
    ],
)
def test_an_image_that_cannot_be_had_or_used_is_said_and_leaves_nothing(image, told, backend, server, engine):
    image = image or host_image.ensure(engine.client)  # links that lead nowhere
    with pytest.raises(SandboxError, match=told):
        run(said(backend, "true", image=image))
    assert backend._num_pods == 0


def test_a_cluster_without_room_is_waited_for_and_then_said(server, bare_image):
    server.node.has_room = False
    short = KubernetesBackend(settings=settings(server, bare_image, kubernetes_start_s=2))
    with pytest.raises(SandboxError, match=r"within 2 s; it waits for .*no node has room .*\(0/1 nodes are available"):
        run(said(short, "true"))

    async def main():
        starting = asyncio.create_task(said(KubernetesBackend(settings=settings(server, bare_image)), "echo ok"))
        await asyncio.sleep(0.5)
        server.node.has_room = True
        return await starting

    assert run(main()) == "ok\n"


def test_a_quota_is_waited_for_while_our_own_pods_use_it_and_else_said(backend, server):
    async def main():
        first = await backend.create(SandboxSpec())
        server.quota = 1
        second = asyncio.create_task(said(backend, "echo ok"))
        await asyncio.sleep(1)
        await first.aclose()
        return await second

    assert run(main()) == "ok\n"
    server.quota = 0
    with pytest.raises(SandboxError, match=r"403 Forbidden.*exceeded quota.*VERIGYM_SANDBOX_MAX_CONTAINERS"):
        run(said(backend, "true"))


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "deaf"])
def test_attacks_end_and_the_session_goes_on(name, backend, server):
    command, killed, limits = ATTACKS[name]

    async def main():
        sandbox = await backend.create(SandboxSpec(limits=limits))
        try:
            result = await sandbox.aexec(command, timeout_s=30)
            return result.killed, (await sandbox.aexec("echo ok")).output
        finally:
            await sandbox.aclose()

    assert run(main()) == (killed, "ok\n")


def test_no_more_are_started_at_once_than_allowed_nor_alive(server, bare_image):
    backend = KubernetesBackend(settings=settings(server, bare_image, kubernetes_starting=2, max_containers=3))
    run(said(backend, "true"))
    server.node.most_starting = 0

    async def one(number):
        sandbox = await backend.create(SandboxSpec())
        try:
            alive = backend._num_pods
            return (await sandbox.aexec(f"echo {number}")).output, alive <= 3
        finally:
            await sandbox.aclose()

    async def main():
        return await asyncio.gather(*map(one, range(6)))

    assert run(main()) == [(f"{n}\n", True) for n in range(6)]
    assert server.node.most_starting == 2


def documented_rules():
    """Of the Role in the documentation."""
    text = (Path(__file__).parents[4] / "docs/sandboxes.md").read_text()
    (role,) = re.findall(r"```yaml\n(apiVersion: rbac.*?)```", text, re.DOTALL)
    return yaml.safe_load(role)["rules"]


def test_the_role_of_the_documentation_is_enough_and_nothing_in_it_is_too_much(server, bare_image):
    server.role, server.requests = documented_rules(), []
    server.policies.clear()
    for _ in range(2):  # the second one finds the policy
        assert run(said(KubernetesBackend(settings=settings(server, bare_image)), "echo ok")) == "ok\n"
    given = {f"{verb} {resource}" for rule in server.role for resource in rule["resources"] for verb in rule["verbs"]}
    assert set(server.requests) == given


@pytest.mark.parametrize("lacks", ["create pods", "create pods/attach", "list pods"])
def test_rights_that_lack_are_said(lacks, server, backend):
    verb, resource = lacks.split()
    server.role = [
        {**rule, "resources": [resource], "verbs": [one for one in rule["verbs"] if f"{one} {resource}" != lacks]}
        for rule in documented_rules()
        for resource in rule["resources"]
    ]
    with pytest.raises(SandboxError, match=r"403.*Role of docs/sandboxes.md"):
        run(said(backend, "true"))


def test_a_policy_that_we_may_not_make_must_be_there_and_let_nothing_through(server, bare_image, monkeypatch):
    monkeypatch.setattr(server, "policies", {})
    policies = {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["get"]}
    server.role = [*(rule for rule in documented_rules() if "" in rule["apiGroups"]), policies]
    with pytest.raises(SandboxError, match=r"let an administrator apply it: .*NetworkPolicy"):
        run(said(KubernetesBackend(settings=settings(server, bare_image)), "true"))
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{}]}
    server.policies["boxes", "verigym-no-network"] = {"spec": spec}
    with pytest.raises(SandboxError, match="lets something through"):
        run(said(KubernetesBackend(settings=settings(server, bare_image)), "true"))


def test_a_cluster_that_enforces_no_policy_is_refused_unless_that_is_accepted(server, bare_image, monkeypatch):
    monkeypatch.setattr(server.node, "has_open_network", True)
    with pytest.raises(SandboxError, match=r"can reach the network .*does not enforce it"):
        run(said(KubernetesBackend(settings=settings(server, bare_image)), "true"))
    accepted = settings(server, bare_image, kubernetes_open_network=True)
    assert run(said(KubernetesBackend(settings=accepted), "echo ok")) == "ok\n"


def test_pods_of_a_killed_process_end_and_are_deleted_by_the_next_start(server, backend, bare_image):
    names = {"CONFIG": str(server.kubeconfig), "IMAGE": bare_image}
    here = {f"VERIGYM_SANDBOX_KUBERNETES_{name}": value for name, value in names.items()}
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env={**os.environ, **here})
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline() == b"ready\n"
        assert len(server.pods) == 5
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    until(lambda: {pod["status"]["phase"] for pod in server.pods.values()} == {"Succeeded"})  # their input has ended
    assert run(said(backend, "echo ok")) == "ok\n"
    until(lambda: not server.pods)


def test_what_the_dead_left_goes_when_the_machine_is_swept_and_nothing_else(server, backend, monkeypatch, tmp_path):
    async def main():
        boxes = [await backend.create(SandboxSpec()) for _ in range(2)]
        dead, alive = list(server.pods.values())
        dead["metadata"]["annotations"][OWNED] = json.dumps({**labels.owner(), "start": "1"})
        monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
        note(backend.settings)
        assert await asyncio.to_thread(sweep_machine) >= 1
        await asyncio.to_thread(until, lambda: list(server.pods.values()) == [alive])
        for box in boxes:
            await box.aclose()

    run(main())


@pytest.mark.slow
def test_two_hundred_episodes_leave_nothing(server, base_image):
    """16 at a time, some killed, out of time or given up; what is left is looked for by the benchmark's own command."""
    command = [sys.executable, str(LEFTOVERS), "--sandbox", "kubernetes", "--image", base_image]
    here = {"VERIGYM_SANDBOX_KUBERNETES_CONFIG": str(server.kubeconfig)}
    done = subprocess.run(command, env={**os.environ, **here}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 episodes, 16 at once, 20 killed from outside" in done.stdout
    assert (server.pods, server.containers(), server.node.folders) == ({}, [], {})


@pytest.mark.slow
def test_a_pod_is_used_again_where_it_can_be_brought_back(server, repo_image):
    """As ``test_pool.py`` has it for Docker."""

    async def main(dirt):
        pool = ContainerPool(KubernetesBackend(settings=settings(server, repo_image)))
        spec, seen = SandboxSpec(image=repo_image, workdir="/testbed"), {}
        await (await pool.reuse(spec, "s", prepare)).aclose()
        for name, command in dirt.items():
            box = await pool.reuse(spec, "s", prepare)
            assert isinstance(box, PooledSandbox)
            first, pod = await box.aexec(LOOK), box.box.stream.pod.name
            result = await box.aexec(command, timeout_s=30)
            assert result.exit_code == 0, result
            await box.aclose()
            box = await pool.reuse(spec, "s", prepare)
            assert (await box.aexec(LOOK)).output == first.output, name
            seen[name] = box.box.stream.pod.name == pod
            await box.aclose()
        await pool.empty()
        return seen

    wanted = dict.fromkeys(["nothing", *UNDONE], True) | dict.fromkeys(NOT_UNDONE, False)
    assert asyncio.run(asyncio.wait_for(main({"nothing": "true", **UNDONE, **NOT_UNDONE}), 600)) == wanted
