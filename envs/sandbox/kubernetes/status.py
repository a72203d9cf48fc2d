"""What the status of a pod says: whether a container runs, what it waits for, why it never will, why it ended."""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

BROKEN = {
    "InvalidImageName": "the name of the image is not one",
    "ErrImageNeverPull": "the node does not have the image, and may not pull it",
    "CreateContainerConfigError": "the cluster does not take a container of this image",
    "CreateContainerError": "the container cannot be made",
    "RunContainerError": "the container cannot be started; the image must be for Linux of this machine's architecture "
    "and have sh, head, tar and gzip",
}
"""Reasons for which a container waits in vain."""

PULLING = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable")
NO_SUCH_IMAGE = ("not found", "does not exist", "manifest unknown", "denied", "unauthorized", "forbidden")
BRING = (
    "see that its name is right and that nodes can reach its registry; credentials of a private one are "
    "imagePullSecrets, in the file that VERIGYM_SANDBOX_KUBERNETES_POD names"
)


def running(pod: Json, container: str) -> bool:
    """Whether a container runs, or has run."""
    return any(one["name"] == container and _state(one)[0] != "waiting" for one in _containers(pod))


def over(pod: Json) -> bool:
    """Whether it has ended, well or not."""
    return _status(pod).get("phase") in ("Succeeded", "Failed")


def why_not(pod: Json) -> str | None:
    """Why a pod that is being started never will run; None where it still may."""
    for one in _containers(pod):
        kind, state = _state(one)
        reason, message = state.get("reason", ""), state.get("message", "")
        if kind == "waiting" and reason in BROKEN:
            return f"{BROKEN[reason]} ({_image(pod)}: {reason}: {message})"
        if kind == "waiting" and reason in PULLING and any(sign in message.lower() for sign in NO_SUCH_IMAGE):
            return f"the image {_image(pod)} cannot be pulled ({message}); {BRING}"
        if kind == "terminated" and state.get("exitCode"):
            return f"container {one['name']} ended: {_end(state)}"
    return why_ended(pod) if _status(pod).get("phase") == "Failed" else None


def waits_for(pod: Json) -> str:
    """What a pod that is not running yet waits for."""
    for condition in _status(pod).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            told = condition.get("message") or condition.get("reason") or "no word of it"
            return (
                f"no node has room for it ({told}); ask for less in the task's limits, run fewer at once "
                "(VERIGYM_SANDBOX_MAX_CONTAINERS), or let the cluster grow"
            )
    for one in _containers(pod):
        kind, state = _state(one)
        if kind == "waiting" and state.get("reason") in PULLING:
            return f"the image {_image(pod)} ({state.get('message', state['reason'])}); {BRING}"
        if kind == "waiting" and state.get("message"):
            return f"{state['reason']}: {state['message']}"
    return "its node; kubectl describe pod tells more, and a longer time is VERIGYM_SANDBOX_KUBERNETES_START_S"


def why_ended(pod: Json | None) -> str | None:
    """Why a pod that had run does not any more; None where it runs, for all that is known."""
    if pod is None:
        return "its pod was deleted by somebody else (kubectl delete, a drained node)"
    status = _status(pod)
    if status.get("reason"):
        told = f"{status['reason']}: {status.get('message', '')}"
        remedy = {
            "Evicted": "; what tasks write is bounded by their disk limit, and nodes need so much of ephemeral storage",
            "DeadlineExceeded": "; a longer life is VERIGYM_SANDBOX_KUBERNETES_LIFE_S",
        }
        return f"its pod was ended by the cluster ({told}){remedy.get(status['reason'], '')}"
    for one in _containers(pod):
        kind, state = _state(one)
        if kind == "terminated" and one["name"] == MAIN:
            return f"its container ended: {_end(state)}"
    if pod["metadata"].get("deletionTimestamp"):
        return "its pod is being deleted by somebody else (kubectl delete, a drained node)"
    return "its pod failed" if status.get("phase") == "Failed" else None


MAIN, BRINGER = "sandbox", "bring"
"""Names of the containers: the box, and the one before it that takes in what we bring."""


def _end(state: Json) -> str:
    if state.get("reason") == "OOMKilled":
        return "OOMKilled, all together took more memory than the task's limit"
    told = " ".join(str(state[name]) for name in ("reason", "message") if state.get(name))
    return f"{told or 'no reason was given'} (exit code {state.get('exitCode')})"


def _status(pod: Json) -> Json:
    return pod.get("status") or {}


def _containers(pod: Json) -> Iterator[Json]:
    yield from _status(pod).get("initContainerStatuses") or ()
    yield from _status(pod).get("containerStatuses") or ()


def _state(container: Json) -> tuple[str, Json]:
    """("waiting", "running" or "terminated", what is said of it)."""
    return next(((kind, told or {}) for kind, told in (container.get("state") or {}).items()), ("waiting", {}))


def _image(pod: Json) -> str:
    return pod["spec"]["containers"][0]["image"]
