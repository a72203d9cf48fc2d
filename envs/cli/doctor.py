"""``verigym doctor``: what this machine can and cannot do, each found out by doing it. Heavy imports wait."""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing the machine can or cannot do.

    Attributes:
        name: what was looked at.
        kind: "machine" or "package".
        ok: whether it can be used.
        value: what was found: a version, a size, an answer.
        remedy: what to do where it is not ok; empty where nothing is needed.
    """

    name: str
    ok: bool
    value: str
    remedy: str = ""
    kind: str = "machine"


def register(commands: Any) -> None:
    """Add ``doctor`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="say what this machine can and cannot do",
        description="Look at Python, packages, GPUs, sandboxes, git and disk; say what is missing and how to get it.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="also look at every machine of the Ray cluster at ADDRESS (HOST:PORT, or auto): versions, this folder, "
        "what is free, a sandbox",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; what is missing is told, and is no failure of this command."""
    findings = examine()
    if args.ray is not None:
        findings += args.examine_cluster(args.ray, Path.cwd())
    if args.json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
        return 0
    _print(findings)
    return 0


def examine() -> list[Finding]:
    """Everything, in the order it is told."""
    return [
        _python(),
        _machine(),
        _gpu(),
        try_sandbox("local"),
        _images(),
        _bounds(),
        _docker(),
        *([try_sandbox("docker")] if _docker().ok else []),
        *([try_sandbox("podman")] if shutil.which("podman") else []),
        *([try_sandbox("apptainer")] if shutil.which("apptainer") else []),
        *([try_sandbox("kubernetes")] if os.environ.get("VERIGYM_SANDBOX_KUBERNETES_IMAGE") else []),
        *([try_sandbox("ssh")] if os.environ.get("VERIGYM_SANDBOX_SSH_HOSTS") else []),
        _git(),
        _disk("temporary folder", tempfile.gettempdir()),
        _disk("this folder", os.getcwd()),
        *_packages(),
    ]


def _print(findings: list[Finding]) -> None:
    """A table; the packages that are there share one row."""
    from rich.table import Table
    from rich.text import Text

    from ...terminal import console

    table, yes = Table("", "what", "found"), Text("yes", style="green")
    there = [finding for finding in findings if finding.kind == "package" and finding.ok]
    for finding in [finding for finding in findings if finding not in there]:
        sign = yes if finding.ok else Text("no", style="red")
        remedy = Text(f"\n{finding.remedy}" if finding.remedy else "", style="dim")
        table.add_row(sign, finding.name, Text(finding.value) + remedy)
    versions = ", ".join(f"{finding.name} {finding.value}" for finding in there)
    table.add_row(yes, f"{len(there)} packages", versions)
    console().print(table)


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "" if ok else "verigym needs Python 3.11, 3.12 or 3.13"
    return Finding(name="python", ok=ok, value=f"{platform.python_version()} at {sys.executable}", remedy=remedy)


def _machine() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(
        name="machine", ok=True, value=f"{platform.system()} {platform.machine()}, {cores} cores, {memory:.1f} GiB"
    )


def _gpu() -> Finding:
    remedy = "training and evaluation run on the CPU; for a GPU install NVIDIA's driver and a CUDA build of torch"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = _output_of(query)
    if answer is None:
        return Finding(name="gpu", ok=False, value="nvidia-smi finds none", remedy=remedy)
    return Finding(name="gpu", ok=True, value="; ".join(answer.splitlines()))


def try_sandbox(name: str) -> Finding:
    """Starts a sandbox of that kind and runs a command in it."""
    from ...errors import VerigymError
    from ..sandbox.choose import make_backend
    from ..sandbox.types import SandboxSpec

    async def probe() -> str:
        sandbox = await make_backend(name).create(SandboxSpec())
        try:
            result = await sandbox.aexec("echo ok", timeout_s=20)
        finally:
            await sandbox.aclose()
        return result.output.strip()

    title = f"sandbox {name}"
    try:
        answer = asyncio.run(asyncio.wait_for(probe(), timeout=60))
    except TimeoutError:
        return Finding(name=title, ok=False, value="no answer within 60 s", remedy="see whether the machine is busy")
    except VerigymError as error:
        found, _, remedy = str(error).partition("Remedy: ")
        return Finding(name=title, ok=False, value=found.strip(), remedy=remedy or "choose another --sandbox")
    if answer != "ok":
        return Finding(name=title, ok=False, value=f"answered {answer[:80]!r}", remedy="choose another --sandbox")
    return Finding(name=title, ok=True, value="a command ran in it")


def _images() -> Finding:
    """Whether images can be mounted without an engine: one that is nothing but the guest's own Python and bash."""
    from ...errors import VerigymError
    from ..sandbox.oci.probe import probe_images

    try:
        asyncio.run(asyncio.wait_for(probe_images(), timeout=60))
    except TimeoutError:
        return Finding(name="sandbox oci", ok=False, value="no answer within 60 s", remedy="see whether it is busy")
    except (VerigymError, OSError) as error:
        remedy = "images need overlayfs: Linux 5.11 as root, 6.6 as a user; or take --sandbox docker or podman"
        return Finding(name="sandbox oci", ok=False, value=str(error)[:200], remedy=remedy)
    pulls = "skopeo pulls" if shutil.which("skopeo") else "skopeo, which would pull, is not installed"
    return Finding(name="sandbox oci", ok=True, value=f"a command ran in an image; {pulls}")


def _bounds() -> Finding:
    """What bounds the local sandbox: a control group where there is one, and a filter of system calls."""
    from ..sandbox import control_group, seccomp

    found = control_group.place()
    remedy = "take --sandbox docker, or start verigym in a group of its own: systemd-run --user --scope -p Delegate=yes"
    missing = (
        [] if found else ["the buffers of sockets and pipes are not bounded; no files in memory, no System V memory"]
    )
    if not seccomp.filter_of(counted=True) or not _kernel_filters():
        missing.append("system calls are not filtered, files in memory not bounded")
    if missing:
        return Finding(name="local sandbox's limits", ok=False, value="; ".join(missing), remedy=remedy)
    assert found is not None
    value = f"memory is counted by control groups (version {found[1]}), system calls are filtered"
    return Finding(name="local sandbox's limits", ok=True, value=value)


def _kernel_filters() -> bool:
    try:
        return "errno" in Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        return False


def _docker() -> Finding:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=5)
        try:
            version = client.version()["Version"]
        finally:
            client.close()
    except (DockerException, OSError) as error:
        remedy = "start a Docker engine, or give its address as DOCKER_HOST; the local sandbox does without"
        return Finding(name="docker engine", ok=False, value=f"none answers ({str(error)[:120]})", remedy=remedy)
    return Finding(name="docker engine", ok=True, value=f"version {version}")


def _git() -> Finding:
    answer = _output_of(["git", "--version"])
    if answer is None:
        return Finding(name="git", ok=False, value="not found", remedy="install git; tasks of the family swe need it")
    return Finding(name="git", ok=True, value=answer)


def _disk(name: str, folder: str) -> Finding:
    free = shutil.disk_usage(folder).free / GIB
    ok = free >= 2
    remedy = "" if ok else "free some space: checkpoints and sandboxes need 2 GiB or more"
    return Finding(name=f"disk, {name}", ok=ok, value=f"{free:.1f} GiB free at {folder}", remedy=remedy)


def _packages() -> list[Finding]:
    """The packages that verigym requires, by their metadata: nothing is imported."""
    findings = []
    for requirement in metadata.requires("verigym") or ():
        if "extra ==" in requirement:
            continue
        match = re.match(r"[\w.-]+", requirement)
        assert match is not None
        name = match.group()
        try:
            findings.append(Finding(name=name, ok=True, value=metadata.version(name), kind="package"))
        except metadata.PackageNotFoundError:
            remedy = f"pip install '{requirement}'"
            findings.append(Finding(name=name, ok=False, value="not installed", remedy=remedy, kind="package"))
    return findings


def _output_of(argv: list[str]) -> str | None:
    """What a program prints; None where it is missing or fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
