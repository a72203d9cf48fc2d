"""Base images made on this machine, for engines that no registry can be pulled from.

debootstrap fetches a minimal Debian or Ubuntu with the packages asked for, from the mirror that this machine's apt
uses; the engine imports it. The image's name says what is in it, so one that is there is never made again, and the
archive is kept in the cache for other engines.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SandboxError
from .image_import import import_image
from .python import cache_folder

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

BASE_PACKAGES = ("ca-certificates", "git", "patch", "python3", "python3-venv")
"""What repositories and their tests need: git, patch, and Python with pip to build environments."""

REPOSITORY = "verigym/base"
MAKE_S = 1800.0

LEFT_OUT = ("var/cache/apt/archives/*", "var/lib/apt/lists/*", "var/log/*", "usr/share/doc/*", "usr/share/man/*")
"""What no program needs, left out of the image."""


def ensure_base_image(
    client: "DockerClient", *, packages: Sequence[str] = BASE_PACKAGES, suite: str | None = None
) -> str:
    """The name of a minimal image with these packages, made now where the engine does not have it.

    Args:
        packages: Debian packages beside the essential ones.
        suite: release of the distribution ("bookworm"); None takes this machine's own.
    Raises:
        SandboxError: it cannot be made here; the message says what is missing.
    """
    from docker.errors import DockerException, ImageNotFound

    release, mirror = apt_source()
    suite = suite or release
    key = hashlib.sha256("\n".join((suite, *sorted(set(packages)), *LEFT_OUT)).encode()).hexdigest()[:12]
    name = f"{REPOSITORY}:{suite}-{key}"
    try:
        try:
            client.images.get(name)
        except ImageNotFound:
            archive = base_archive(packages, suite=suite, mirror=mirror, key=key)
            import_archive(client, archive, name)
    except (DockerException, OSError) as error:
        raise SandboxError(f"the engine could not take the base image {name}: {error}") from None
    return name


def import_archive(client: "DockerClient", archive: Path, name: str) -> None:
    """Have the engine make an image of a root file system's archive. Raises docker's errors."""
    with archive.open("rb") as data:
        import_image(client.api, data, name, changes=["ENV LANG=C.UTF-8", 'CMD ["/bin/sh"]'])


def base_archive(packages: Sequence[str], *, suite: str, mirror: str, key: str) -> Path:
    """The root file system as a tar file in the cache, made once. Raises SandboxError."""
    folder = cache_folder() / "images"
    archive = folder / f"base-{suite}-{key}.tar"
    if archive.exists():
        return archive
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise SandboxError(
            f"a base image of {suite} cannot be made here: that takes root and debootstrap (apt install debootstrap); "
            "or name an image that the engine has or can pull"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{archive.name}.lock"):
        if not archive.exists():
            _debootstrap(packages, suite, mirror, archive)
    return archive


def apt_source() -> tuple[str, str]:
    """(suite, mirror) of this machine's own distribution, Debian's stable mirror where that cannot be told."""
    try:
        release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    except OSError:
        release = {}
    suite = release.get("VERSION_CODENAME") or "bookworm"
    listed = re.compile(rf"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{re.escape(suite)}\s", re.MULTILINE)
    for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if match := listed.search(text):
            return suite, match[1]
        for stanza in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.+)$", stanza, re.MULTILINE))
            if suite in fields.get("Suites", "").split() and "URIs" in fields:
                return suite, fields["URIs"].split()[0]
    return suite, "http://deb.debian.org/debian"


def _debootstrap(packages: Sequence[str], suite: str, mirror: str, archive: Path) -> None:
    logger.info("making a base image of %s with %s; this takes a minute", suite, ", ".join(packages))
    with tempfile.TemporaryDirectory(prefix="verigym-base-", dir=archive.parent) as work:
        root = Path(work) / "root"
        include = [f"--include={','.join(packages)}"] if packages else []
        _run(["debootstrap", "--variant=minbase", *include, suite, str(root), mirror])
        made = Path(work) / "image.tar"
        left_out = [f"--exclude=./{pattern}" for pattern in LEFT_OUT]
        _run(["tar", "-cf", str(made), "-C", str(root), "--numeric-owner", "--exclude=./dev/*", *left_out, "."])
        made.replace(archive)


def _run(argv: Sequence[str]) -> None:
    env = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C"}
    env |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=MAKE_S, env=env
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(f"{argv[0]} did not end within {MAKE_S:g} s") from None
    if done.returncode != 0:
        last = "\n".join(done.stdout.strip().splitlines()[-5:])
        raise SandboxError(f"{argv[0]} failed (exit status {done.returncode}); its last lines:\n{last}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
