"""What a pod is told to be, and the policy that takes its network."""

import json
import os
import re
from typing import Any

import yaml

from ....errors import SandboxError
from .. import labels, launch
from ..container_config import MEMORY_FOR_GUEST, SCRATCH
from ..image_facts import ROOT_CAPABILITIES, ImageFacts
from ..runtime import INSIDE
from ..settings import SandboxSettings
from ..types import SandboxSpec
from .bring import Load, taking
from .status import BRINGER, MAIN

Json = dict[str, Any]

OURS = {"app.kubernetes.io/managed-by": "verigym"}
SELECTOR = "app.kubernetes.io/managed-by=verigym"
RUN = "verigym.dev/run"
OWNER = "verigym.dev/owner"
"""An annotation: a label cannot hold what tells a process from every other one."""

POLICY = "verigym-no-network"
STORAGE_FOR_GUEST = 256 << 20
"""Of a node's disk: what is brought, and what the node keeps of the guest's answers as the container's log."""

REQUESTED_CPU = 0.25
"""Share of the processor time of a box that its node must have free: mostly it waits for a model."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
TEMPLATE = ("metadata", "spec")
FORBIDDEN = ("containers", "initContainers", "ephemeralContainers", "hostNetwork", "hostPID", "hostIPC")


def pod(
    name: str, spec: SandboxSpec, facts: ImageFacts | None, load: Load, command: list[str], settings: SandboxSettings
) -> Json:
    """A pod of a spec with an image, in the API's own words.

    Args:
        facts: None while the image is not known: it runs as whom the image says.
        load: what it is brought, by its first container.
        command: of the second one.
    Raises:
        SandboxError: the settings' own part of it cannot be read.
    """
    ours: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "activeDeadlineSeconds": settings.kubernetes_life_s,
        "terminationGracePeriodSeconds": 1,
        "hostname": "sandbox",
        # There is no network: names fail at once, and do not wait for servers that cannot be reached.
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [
            {"name": "brought", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": str(launch.SCRATCH_BYTES)}},
        ],
        "initContainers": [_bringer(spec, facts, load)],
        "containers": [_box(spec, facts, load, command)],
    }
    theirs = _template(settings)
    selected = {"kubernetes.io/os": "linux", "kubernetes.io/arch": ARCHITECTURES.get(os.uname().machine, "")}
    metadata, wanted = theirs.get("metadata") or {}, theirs.get("spec") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {**(metadata.get("labels") or {}), **OURS, RUN: run_word()},
            "annotations": {**(metadata.get("annotations") or {}), OWNER: json.dumps(labels.owner(), sort_keys=True)},
        },
        "spec": {
            **wanted,
            **ours,
            "nodeSelector": selected | (wanted.get("nodeSelector") or {}),
            "volumes": [*(wanted.get("volumes") or ()), *ours["volumes"]],
        },
    }


def run_word() -> str:
    """This run, as names and labels may have it."""
    return re.sub(r"[^a-z0-9]+", "-", labels.run_id().lower())[:40].strip("-") or "run"


def policy() -> Json:
    """No way in or out for our pods."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": POLICY, "labels": OURS},
        "spec": {"podSelector": {"matchLabels": OURS}, "policyTypes": ["Ingress", "Egress"]},
    }


def _bringer(spec: SandboxSpec, facts: ImageFacts | None, load: Load) -> Json:
    return {
        "name": BRINGER,
        "image": spec.image,
        "command": ["sh", "-c", taking(len(load.archive))],
        "stdin": True,
        "stdinOnce": True,
        "resources": _resources(spec),
        "securityContext": _security(facts, root=False),
        "volumeMounts": [{"name": "brought", "mountPath": INSIDE}],
    }


def _box(spec: SandboxSpec, facts: ImageFacts | None, load: Load, command: list[str]) -> Json:
    mounts = [
        {"name": "brought", "subPath": place.name, "mountPath": place.target, "readOnly": place.read_only}
        for place in load.places
    ]
    return {
        "name": MAIN,
        "image": spec.image,
        "command": command,
        # The guest ends with its input, and that with our connection, however it ends.
        "stdin": True,
        "stdinOnce": True,
        "resources": _resources(spec),
        "securityContext": _security(facts, root=spec.root),
        "volumeMounts": [*mounts, {"name": "scratch", "mountPath": SCRATCH}],
    }


def _resources(spec: SandboxSpec) -> Json:
    limits = spec.limits
    memory = str((limits.memory_mib << 20) + MEMORY_FOR_GUEST)
    disk = str((limits.disk_mib << 20) + STORAGE_FOR_GUEST)
    found = {"memory": memory, "ephemeral-storage": disk}
    if not limits.cpus:
        return {"limits": found, "requests": {**found, "cpu": "100m"}}
    return {
        "limits": {**found, "cpu": f"{int(limits.cpus * 1000)}m"},
        "requests": {**found, "cpu": f"{max(1, int(limits.cpus * 1000 * REQUESTED_CPU))}m"},
    }


def _security(facts: ImageFacts | None, *, root: bool) -> Json:
    capabilities: Json = {"drop": ["ALL"]}
    if root:
        capabilities["add"] = list(ROOT_CAPABILITIES)
    found: Json = {"allowPrivilegeEscalation": False, "privileged": False, "capabilities": capabilities}
    if facts is not None:
        user, group = map(int, facts.user.split(":"))
        found |= {"runAsUser": user, "runAsGroup": group, "runAsNonRoot": user != 0}
    return found


def _template(settings: SandboxSettings) -> Json:
    path = settings.kubernetes_pod
    if path is None:
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        strange = [name for name in found if name not in TEMPLATE]
        strange += [f"spec.{name}" for name in found.get("spec") or {} if name in FORBIDDEN]
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise SandboxError(f"VERIGYM_SANDBOX_KUBERNETES_POD: {path} is no part of a pod ({error})") from None
    if strange:
        raise SandboxError(f"VERIGYM_SANDBOX_KUBERNETES_POD: {path} may not say {', '.join(strange)}")
    return found
