"""What an API server refuses of a pod: what its schema does not know, by the client's own models, and what validation
says beyond that (pkg/apis/core/validation of Kubernetes)."""

import re
from decimal import Decimal

from pydantic import ValidationError

LABEL_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
UNITS = {"m": Decimal("0.001"), "": Decimal(1)}
UNITS |= {unit: Decimal(1000) ** (n + 1) for n, unit in enumerate("kMGTPE")}
UNITS |= {unit + "i": Decimal(1024) ** (n + 1) for n, unit in enumerate("KMGTPE")}
RESOURCES = ("cpu", "memory", "ephemeral-storage")
CAPABILITIES = {"ALL", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "NET_BIND_SERVICE"}
CAPABILITIES |= {"AUDIT_WRITE", "MKNOD", "SETFCAP", "SETPCAP", "SYS_CHROOT"}
"""Those that the level baseline of Pod Security lets be added, and ALL."""


def quantity(text):
    """A number of a resource. Raises ValueError."""
    match = QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"quantities must match the regular expression, not {text!r}")
    return Decimal(match[1]) * UNITS[match[2] or ""]


def check_policy(body):
    """Raises ValueError: not what the API takes as a NetworkPolicy."""
    from kubernetes.aio.client import V1NetworkPolicy

    _schema(V1NetworkPolicy, body)
    _metadata(body["metadata"])
    if "podSelector" not in body["spec"]:
        raise ValueError("spec.podSelector: Required value")


def check_pod(body):
    """Raises ValueError: not what the API takes as a pod."""
    from kubernetes.aio.client import V1Pod

    _schema(V1Pod, body)
    if (body.get("apiVersion"), body.get("kind")) != ("v1", "Pod"):
        raise ValueError("the object is not a v1 Pod")
    _metadata(body["metadata"])
    spec = body["spec"]
    _one_of("restartPolicy", spec.get("restartPolicy", "Always"), ("Always", "OnFailure", "Never"))
    _one_of("dnsPolicy", spec.get("dnsPolicy", "ClusterFirst"), ("ClusterFirst", "Default", "None"))
    if spec.get("dnsPolicy") == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        raise ValueError("spec.dnsConfig.nameservers: must provide at least one DNS nameserver when dnsPolicy is None")
    if not 1 <= spec.get("activeDeadlineSeconds", 1) <= 2**31 - 1:
        raise ValueError("spec.activeDeadlineSeconds: must be between 1 and 2147483647, inclusive")
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        raise ValueError("spec.terminationGracePeriodSeconds: must be greater than or equal to 0")
    if not DNS_LABEL.fullmatch(spec.get("hostname", "a")):
        raise ValueError("spec.hostname: must be a DNS label")
    for name, value in (spec.get("nodeSelector") or {}).items():
        _label(name, value)
    volumes = _volumes(spec.get("volumes") or [])
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    _unique("spec.containers", [one["name"] for one in containers])
    for one in containers:
        _container(one, volumes)


def _container(one, volumes):
    if not DNS_LABEL.fullmatch(one["name"]):
        raise ValueError(f"name: {one['name']!r} must be a DNS label")
    if not one.get("image") or one["image"] != one["image"].strip():
        raise ValueError("image: must not be empty nor have leading or trailing whitespace")
    if one.get("stdinOnce") and not one.get("stdin"):
        raise ValueError("stdinOnce: the stand-in wants stdin with it")
    resources = one.get("resources") or {}
    numbers = {}
    for kind in ("limits", "requests"):
        for name, text in (resources.get(kind) or {}).items():
            _one_of(f"resources.{kind}", name, RESOURCES)
            numbers[kind, name] = quantity(text)
            if name != "cpu" and numbers[kind, name] != int(numbers[kind, name]):
                raise ValueError(f"resources.{kind}[{name}]: must be an integer of bytes")
    for (kind, name), number in numbers.items():
        if kind == "requests" and number > numbers.get(("limits", name), number):
            raise ValueError(f"resources.requests: must be less than or equal to {name} limit")
    security = one.get("securityContext") or {}
    if security.get("privileged") and security.get("allowPrivilegeEscalation") is False:
        raise ValueError("cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
    for name in (security.get("capabilities") or {}).get("add") or []:
        _one_of("securityContext.capabilities.add", name, CAPABILITIES)
    mounts = one.get("volumeMounts") or []
    _unique("volumeMounts.mountPath", [mount["mountPath"] for mount in mounts])
    for mount in mounts:
        _one_of("volumeMounts.name", mount["name"], volumes)
        if not mount["mountPath"].startswith("/") or ":" in mount["mountPath"]:
            raise ValueError(f"mountPath: {mount['mountPath']!r} must be absolute and hold no ':'")
        sub = mount.get("subPath", "")
        if sub.startswith("/") or ".." in sub.split("/"):
            raise ValueError(f"subPath: {sub!r} must be a relative path without '..'")


def _volumes(volumes):
    _unique("spec.volumes", [one["name"] for one in volumes])
    for one in volumes:
        if len(one) != 2:
            raise ValueError(f"volume {one['name']}: may have one type and must have it")
        empty = one.get("emptyDir")
        if empty is not None:
            _one_of("emptyDir.medium", empty.get("medium", ""), ("", "Memory"))
            quantity(empty.get("sizeLimit", "0"))
    return [one["name"] for one in volumes]


def _metadata(metadata):
    if not SUBDOMAIN.fullmatch(metadata["name"]) or len(metadata["name"]) > 253:
        raise ValueError(f"metadata.name: {metadata['name']!r} must be a lowercase RFC 1123 subdomain")
    for name, value in (metadata.get("labels") or {}).items():
        _label(name, value)
    for name in metadata.get("annotations") or {}:
        _label(name, "")


def _label(name, value):
    if not LABEL_NAME.fullmatch(name) or not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
        raise ValueError(f"metadata.labels: {name!r}: {value!r} is not a label")


def _schema(model, body):
    try:
        model.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f'strict decoding error: field "{place}": {first["msg"]}') from None


def _one_of(place, value, allowed):
    if value not in allowed:
        raise ValueError(f"{place}: Unsupported value: {value!r}: supported values: {', '.join(map(repr, allowed))}")


def _unique(place, values):
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{place}: Duplicate value: {value!r}")
