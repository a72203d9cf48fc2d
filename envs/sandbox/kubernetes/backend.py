"""Sandboxes in pods: the guest is the first process of a container, its frames go over an attached websocket."""

import ast
import asyncio
import json
import logging
import secrets
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ....errors import SandboxError
from .. import guest_facts, kubernetes_places, labels, launch
from ..background import on_thread
from ..container_config import guest_config
from ..container_reset import Resetter
from ..container_session import ContainerSandbox
from ..disk_watch import DiskWatch
from ..image_facts import ImageFacts, facts_of
from ..per_loop import PerLoop
from ..room import Room
from ..runtime import python_argv, runtime_python
from ..settings import SandboxSettings
from ..types import SandboxSpec
from . import manifest, reach
from .bring import load
from .cluster import Client, Cluster, Refused
from .pod import Pod, delete
from .stream import PodStream
from .written import changed, moment, written

logger = logging.getLogger(__name__)

GUEST_S, LOOK_S, SWEEP_S = 60.0, 120.0, 30.0
LEFT_S = 600.0
"""A pod that ended so long ago has no owner that would delete it."""


class KubernetesBackend:
    """Pods without network, capabilities, service account or new privileges, under the runtime's seccomp filter and
    ours, bounded in memory, processor time and disk.

    Of an image sh, head, tar and gzip are needed: with them a first container takes in the guest's Python and bash, and
    what tasks bind; the second sees that read-only. Commands run as the image's user; where that is root, as the owner
    of the working folder; where there is no such folder, as user 1000. A pod ends with its connection, which is this
    process's, and after ``kubernetes_life_s`` in any case.
    """

    name = "kubernetes"

    def __init__(self, *, settings: SandboxSettings | None = None) -> None:
        """
        Args:
            settings: None reads the environment.
        """
        self.settings = settings or SandboxSettings()
        self.room = Room()
        self._cluster = Cluster(self.settings)
        self._num_pods = 0
        self._ready = False
        self._preparing = PerLoop(asyncio.Lock)
        self._starting = PerLoop(lambda: asyncio.Semaphore(self.settings.kubernetes_starting))
        self._facts: dict[tuple[str, str, bool], ImageFacts] = {}
        self._looking: PerLoop[dict[tuple[str, str, bool], asyncio.Lock]] = PerLoop(lambda: defaultdict(asyncio.Lock))

    async def create(self, spec: SandboxSpec) -> ContainerSandbox:
        image = spec.image or self.settings.kubernetes_image
        if image is None:
            raise SandboxError(
                "the task names no image, and a pod needs one; name one that has what such tasks need in "
                "VERIGYM_SANDBOX_KUBERNETES_IMAGE, or take another sandbox"
            )
        binds = launch.checked_binds(bind for bind in spec.binds if not bind.optional)
        await self.room.wait_for(self._one_more)
        try:
            return await self._create(replace(spec, image=image), binds)
        except BaseException:
            await self._give_back()
            raise

    async def prepare(self) -> None:
        """See once that pods can be made, that they have no network, and what dead processes have left.

        Raises:
            SandboxError: the cluster is not there, or does not let us.
        """
        async with self._preparing.get():
            if self._ready:
                return
            client = await self._cluster.client()
            try:
                await _ensure_policy(client)
                await sweep(client)
                await on_thread(kubernetes_places.note, self.settings)
                self._ready = True
            finally:
                await client.aclose()

    async def aclose(self) -> None:
        """Nothing is held but by the sandboxes themselves."""

    async def _create(self, spec: SandboxSpec, binds: dict[str, str]) -> ContainerSandbox:
        await self.prepare()
        async with self._starting.get():
            facts = await self._facts_of(spec)
            pod = await self._start(spec, facts, binds, python_argv())
            config = guest_config(spec, facts, has_quota=False)
            stream = await PodStream.open(pod, launch.first_input(config), timeout_s=GUEST_S)
        try:
            since = await moment(stream)
        except BaseException:
            await stream.aclose()
            raise
        watch = DiskWatch(partial(written, stream, since), stream, spec.limits)
        resetter = Resetter(partial(changed, stream, since), stream, (spec.workdir, facts.home))
        return ContainerSandbox(stream, spec, watch=watch, resetter=resetter, give_back=self._give_back)

    async def _start(
        self, spec: SandboxSpec, facts: ImageFacts | None, binds: dict[str, str], command: list[str]
    ) -> Pod:
        """A pod of which everything is there and the command runs. Raises SandboxError."""
        brought = await on_thread(load, binds, facts.furniture if facts else ())
        name = f"verigym-{manifest.run_word()}-{secrets.token_hex(6)}"
        client, seconds = await self._cluster.client(), self.settings.kubernetes_start_s
        pod = Pod(client, name)
        try:
            wanted = manifest.pod(name, spec, facts, brought, command, self.settings)
            await pod.make(wanted, seconds, lambda: self._num_pods > 1)
            await pod.fill(brought, seconds)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(_end(pod)))
            raise
        return pod

    async def _facts_of(self, spec: SandboxSpec) -> ImageFacts:
        """What the spec's image is; looked at once, by a pod of its own. Raises SandboxError."""
        key = (str(spec.image), spec.workdir, spec.root)
        async with self._looking.get()[key]:
            if key not in self._facts:
                self._facts[key] = await self._look(spec)
        return self._facts[key]

    async def _look(self, spec: SandboxSpec) -> ImageFacts:
        source = "\n".join(Path(str(one.__file__)).read_text(encoding="utf-8") for one in (guest_facts, reach))
        words = [*runtime_python(), "-I", "-S", "-E", "-c", source, spec.workdir, launch.HOME]
        pod = await self._start(spec, None, {}, words)
        try:
            said = await pod.output(LOOK_S)
        finally:
            await asyncio.shield(asyncio.ensure_future(_end(pod)))
        try:
            told, reaches = (ast.literal_eval(line) for line in said.splitlines()[-2:])
        except (ValueError, SyntaxError):
            raise SandboxError(f"the image {spec.image} could not be looked into: {said[-300:]!r}") from None
        if reaches and not self.settings.kubernetes_open_network:
            raise SandboxError(
                f"pods can reach the network in spite of the NetworkPolicy {manifest.POLICY}: the cluster does not "
                "enforce it; have a network plugin that does (Calico, Cilium, ...), or accept that with "
                "VERIGYM_SANDBOX_KUBERNETES_OPEN_NETWORK=1"
            )
        variables = [f"{name}={value}" for name, value in told["env"].items() if not name.startswith("KUBERNETES_")]
        variables = [one for one in variables if one.split("=", 1)[0] not in ("HOSTNAME", "HOME", "PWD", "SHLVL")]
        user = f"{told['uid']}:{told['gid']}" if told["uid"] else ""
        said = {"Env": variables, "User": user}
        return facts_of(_Files(told, spec.workdir), str(spec.image), said, spec.workdir, root=spec.root)

    def _one_more(self) -> bool | None:
        if self._num_pods >= self.settings.max_containers:
            return None
        self._num_pods += 1
        return True

    async def _give_back(self) -> None:
        self._num_pods -= 1
        await self.room.look_again()


class _Files:
    """An image as ``guest_facts.py`` told it."""

    def __init__(self, told: dict[str, Any], workdir: str) -> None:
        self._there, self._texts = set(told["there"]), told["texts"]
        self._owners = {workdir: told["owner"]}

    def owner(self, path: str) -> tuple[int, int] | None:
        return self._owners.get(path)

    def exists(self, path: str) -> bool:
        return path in self._there

    def text(self, path: str) -> str:
        return self._texts.get(path, "")


async def sweep(client: Client) -> int:
    """Delete the pods that dead processes of this machine have left, and those of anybody that ended long ago. Returns
    how many. Raises SandboxError."""
    found = await client.ask("looking for leftovers", "list_namespaced_pod", label_selector=manifest.SELECTOR)
    assert isinstance(found, dict)
    left = [pod["metadata"]["name"] for pod in found["items"] if _is_left(pod)]
    for name in left:
        await delete(client, name)
    return len(left)


async def sweep_namespace(settings: SandboxSettings) -> int:
    """``sweep`` where these settings lead. Raises SandboxError, also where a cluster is gone and nobody answers."""
    client = await Cluster(settings).client()
    try:
        async with asyncio.timeout(SWEEP_S):
            return await sweep(client)
    except TimeoutError:
        raise SandboxError(f"pods left in {client.namespace} were not all looked for within {SWEEP_S:g} s") from None
    finally:
        await client.aclose()


def _is_left(pod: dict[str, Any]) -> bool:
    if labels.is_dead((pod["metadata"].get("annotations") or {}).get(manifest.OWNER, "")):
        return True
    ends = [
        one["state"]["terminated"].get("finishedAt")
        for one in pod.get("status", {}).get("containerStatuses") or ()
        if one.get("state", {}).get("terminated")
    ]
    now = datetime.now(UTC)
    return any(now - datetime.fromisoformat(end) > timedelta(seconds=LEFT_S) for end in ends if end)


async def _ensure_policy(client: Client) -> None:
    """Raises SandboxError: there is no policy that takes our pods' network, and we may not make one."""
    wanted = manifest.policy()
    try:
        await client.ask("making a policy", "create_namespaced_network_policy", policies=True, body=wanted)
        return
    except Refused as refused:
        if refused.status not in (403, 409):
            raise
    try:
        found = await client.ask(
            "reading a policy", "read_namespaced_network_policy", policies=True, name=manifest.POLICY
        )
    except Refused as refused:
        if refused.status != 404:
            raise
        raise SandboxError(
            f"we may not make the NetworkPolicy {manifest.POLICY} in the namespace {client.namespace}, and it is not "
            f"there; let an administrator apply it: {json.dumps(wanted)}"
        ) from None
    spec = found["spec"] if isinstance(found, dict) else {}
    if any(spec.get(name) for name in ("ingress", "egress")) or spec.get("policyTypes") != ["Ingress", "Egress"]:
        raise SandboxError(f"the NetworkPolicy {manifest.POLICY} in {client.namespace} lets something through: mend it")


async def _end(pod: Pod) -> None:
    try:
        await pod.delete()
    finally:
        await pod.client.aclose()
