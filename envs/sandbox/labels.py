"""Whose a container is: labels that name the process that made it, so that only what dead ones left is removed."""

import json
import os
import secrets
from functools import lru_cache
from pathlib import Path

OWNER = "verigym.owner"
RUN = "verigym.run"


@lru_cache(maxsize=1)
def run_id() -> str:
    """Of this process; VERIGYM_RUN gives several processes the same."""
    return os.environ.get("VERIGYM_RUN") or secrets.token_hex(6)


def labels() -> dict[str, str]:
    """The labels of everything this process makes."""
    return {OWNER: json.dumps(owner(), sort_keys=True), RUN: run_id()}


def owner() -> dict[str, str]:
    """This process, told apart from every other one on any machine."""
    return {**_place(), "pid": str(os.getpid()), "start": start_of(os.getpid()) or ""}


def is_dead(label: str) -> bool:
    """Whether the process of an OWNER label is known to have ended. One that cannot be looked at is not."""
    try:
        told = json.loads(label)
        machine, boot, pids = (told[name] for name in ("machine", "boot", "pids"))
        pid, start = int(told["pid"]), told["start"]
    except (ValueError, KeyError, TypeError):
        return False
    here = _place()
    if machine != here["machine"]:
        return False
    if boot != here["boot"]:
        return True
    return pids == here["pids"] and start_of(pid) != start


def start_of(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None where there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


@lru_cache(maxsize=1)
def _place() -> dict[str, str]:
    """The machine, its boot, and the namespace in which process numbers mean something."""
    return {
        "machine": _text("/etc/machine-id") or os.uname().nodename,
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "pids": os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else "",
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
