"""The node of the stand-in for a cluster: pods as a kubelet runs them, their containers in Docker, without network."""

import asyncio
import os
import re
import secrets
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from docker.errors import APIError, NotFound
from docker.types import Mount

from .kubernetes_rules import quantity

IMAGE_NAME = re.compile(r"[a-z0-9]+([._/:@-]+[A-Za-z0-9]+)*")
LABEL = "verigym.test-kubernetes"


def now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Node:
    """Runs pods of a server, which is told of each change of their status."""

    def __init__(self, engine):
        self.api, self.name = engine.api, secrets.token_hex(6)
        self.containers = {}  # (pod's uid, container's name) -> Docker's id
        self.folders = {}  # pod's uid -> where its volumes lie
        self.has_room, self.port = True, None
        self.has_open_network = False
        self.most_starting = self.num_starting = 0

    async def call(self, function, *args, **kwargs):
        return await asyncio.to_thread(function, *args, **kwargs)

    async def run(self, pod, changed):
        """From its place on the node to its end; cancelled where it is deleted."""
        status = pod["status"]
        folder = self.folders[pod["metadata"]["uid"]] = Path(tempfile.mkdtemp(prefix="kubelet-"))
        self.num_starting += 1
        self.most_starting = max(self.most_starting, self.num_starting)
        starting = True
        try:
            await self._find_room(status, changed)
            status["initContainerStatuses"] = [_waiting(one) for one in pod["spec"].get("initContainers", [])]
            status["containerStatuses"] = [_waiting(one) for one in pod["spec"]["containers"]]
            changed()
            deadline = pod["spec"].get("activeDeadlineSeconds")
            async with asyncio.timeout(deadline):
                for spec, told in zip(pod["spec"].get("initContainers", []), status["initContainerStatuses"]):
                    if await self._run_one(pod, spec, told, folder, changed) != 0:
                        self._over(status, "Failed", changed)
                        return
                running = asyncio.create_task(
                    self._run_one(pod, pod["spec"]["containers"][0], status["containerStatuses"][0], folder, changed)
                )
                while not running.done() and "running" not in status["containerStatuses"][0]["state"]:
                    await asyncio.wait([running], timeout=0.02)
                self.num_starting, starting = self.num_starting - 1, False
                status["phase"] = "Running"
                changed()
                try:
                    code = await running
                finally:
                    running.cancel()
            self._over(status, "Succeeded" if code == 0 else "Failed", changed)
        except TimeoutError:
            await self.kill(pod)
            message = "Pod was active on the node longer than the specified deadline"
            status |= {"reason": "DeadlineExceeded", "message": message}
            self._over(status, "Failed", changed)
        finally:
            self.num_starting -= starting

    def _over(self, status, phase, changed):
        status["phase"] = status.pop("ends_as", phase)
        changed()

    async def _find_room(self, status, changed):
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        unscheduled["message"] = "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available."
        while not self.has_room:
            if status.get("conditions") != [unscheduled]:
                status["conditions"] = [unscheduled]
                changed()
            await asyncio.sleep(0.05)
        status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
        changed()

    async def _run_one(self, pod, spec, told, folder, changed):
        """A container from its image to its end; its exit code."""
        if not await self._has_image(spec["image"], told, changed):
            await asyncio.Event().wait()
        user = (spec.get("securityContext") or {}).get("runAsUser")
        if (spec.get("securityContext") or {}).get("runAsNonRoot") and user == 0:
            message = "container's runAsUser breaks non-root policy"
            told["state"] = {"waiting": {"reason": "CreateContainerConfigError", "message": message}}
            changed()
            await asyncio.Event().wait()
        key = pod["metadata"]["uid"], spec["name"]
        made = await self.call(self._create, pod, spec, folder)
        self.containers[key] = made
        try:
            await self.call(self.api.start, made)
        except APIError as error:
            terminated = {"exitCode": 128, "reason": "StartError", "message": str(error.explanation)}
            told["state"] = {"terminated": {**terminated, "finishedAt": now()}}
            changed()
            return 128
        told["state"] = {"running": {"startedAt": now()}}
        changed()
        code = (await self.call(self.api.wait, made, timeout=3600))["StatusCode"]
        killed = (await self.call(self.api.inspect_container, made))["State"]["OOMKilled"]
        reason = "OOMKilled" if killed else "Completed" if code == 0 else "Error"
        told["state"] = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}}
        changed()
        return code

    async def _has_image(self, image, told, changed):
        try:
            if IMAGE_NAME.fullmatch(image):
                await self.call(self.api.inspect_image, image)
                return True
            reason, message = (
                "InvalidImageName",
                f'Failed to apply default image tag "{image}": invalid reference format',
            )
        except NotFound:
            reason = "ErrImagePull"
            message = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": not found'
        told["state"] = {"waiting": {"reason": reason, "message": message}}
        changed()
        return False

    def _create(self, pod, spec, folder):
        security = spec.get("securityContext") or {}
        limits = {name: quantity(text) for name, text in ((spec.get("resources") or {}).get("limits") or {}).items()}
        volumes = {one["name"]: one for one in pod["spec"].get("volumes") or []}
        mounts, tmpfs = [], {}
        for mount in sorted(spec.get("volumeMounts") or [], key=lambda one: one["mountPath"].count("/")):
            empty = volumes[mount["name"]]["emptyDir"]
            if empty.get("medium") == "Memory":
                tmpfs[mount["mountPath"]] = f"size={int(quantity(empty['sizeLimit']))},mode=1777"
                continue
            place = folder / mount["name"]
            if not place.exists():
                place.mkdir()
                place.chmod(0o777)
            place = place / mount.get("subPath", "")
            place.mkdir(exist_ok=True) if not place.exists() else None
            mounts.append(Mount(mount["mountPath"], str(place), type="bind", read_only=mount.get("readOnly", False)))
        user = security.get("runAsUser")
        capabilities = security.get("capabilities") or {}
        host = self.api.create_host_config(
            network_mode="host" if self.has_open_network else "none",
            mounts=mounts,
            tmpfs=tmpfs,
            mem_limit=int(limits["memory"]),
            memswap_limit=int(limits["memory"]),
            nano_cpus=min(int(limits["cpu"] * 10**9), os.cpu_count() * 10**9) if "cpu" in limits else None,
            cap_drop=capabilities.get("drop"),
            cap_add=capabilities.get("add"),
            security_opt=[] if security.get("allowPrivilegeEscalation", True) else ["no-new-privileges:true"],
            pids_limit=1024,
        )
        config = self.api.create_container_config(
            image=spec["image"],
            command=spec["command"],
            user=None if user is None else f"{user}:{security.get('runAsGroup', 0)}",
            hostname=None if self.has_open_network else pod["spec"].get("hostname", pod["metadata"]["name"]),
            stdin_open=spec.get("stdin", False),
            environment={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)},
            labels={LABEL: self.name},
            host_config=host,
        )
        config |= {"Entrypoint": [], "StdinOnce": spec.get("stdinOnce", False), "AttachStdin": True}
        return self.api.create_container_from_config(config)["Id"]

    def container(self, pod, name):
        return self.containers.get((pod["metadata"]["uid"], name))

    async def kill(self, pod):
        for name in [name for uid, name in self.containers if uid == pod["metadata"]["uid"]]:
            try:
                await self.call(self.api.kill, self.container(pod, name))
            except APIError:
                pass

    async def remove(self, pod):
        """Everything of a pod that is being deleted."""
        uid = pod["metadata"]["uid"]
        for key in [key for key in self.containers if key[0] == uid]:
            try:
                await self.call(self.api.remove_container, self.containers.pop(key), force=True, v=True)
            except APIError:
                pass
        if uid in self.folders:
            await self.call(shutil.rmtree, self.folders.pop(uid), ignore_errors=True)


def _waiting(spec):
    return {"name": spec["name"], "image": spec["image"], "state": {"waiting": {"reason": "PodInitializing"}}}
