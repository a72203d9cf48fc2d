"""What an image says of who runs in it and where, and what it lacks for that."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...errors import SandboxError
from . import launch
from .engine import Engine
from .runtime import bash_argv

AGENT = "agent"
PROBE_LABEL = "verigym.probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What matters of an image for one working folder.

    Attributes:
        id: the engine's id of the image.
        env: its environment variables.
        user: "uid:gid" of who runs: the image's own user; where that is root, the owner of the working folder; where
            the image has no such folder, 1000.
        home: that user's home.
        bash: argv of bash inside, without its options.
        furniture: a tar archive, for ``/``, of folders and files that it lacks; empty where it lacks none.
    """

    id: str
    env: dict[str, str]
    user: str
    home: str
    bash: tuple[str, ...]
    furniture: bytes = b""


def read_facts(engine: Engine, found: dict[str, Any], workdir: str, labels: dict[str, str]) -> ImageFacts:
    """Look into an image through a container that is never started. Blocking; raises docker's errors."""
    config = found.get("Config") or {}
    env = dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry)
    api = engine.api
    probe = api.create_container(found["Id"], command=["/"], labels={**labels, PROBE_LABEL: "1"})["Id"]
    try:
        bash = next((path for path in ("/bin/bash", "/usr/bin/bash") if _first(api, probe, path)), None)
        folder = _first(api, probe, f"{workdir}/.")
        passwd, group = _read(api, probe, "/etc/passwd"), _read(api, probe, "/etc/group")
        uid, gid, home = _user(str(config.get("User") or ""), folder, passwd)
        wanted = [
            (workdir, uid, gid, 0o755),
            (home, uid, gid, 0o755),
            ("/tmp", 0, 0, 0o1777),
            ("/var/tmp", 0, 0, 0o1777),
        ]
        members = list(_lacking(api, probe, wanted))
    finally:
        api.remove_container(probe, force=True, v=True)
    if not any(line.split(":")[2:3] == [str(uid)] for line in passwd.splitlines()):
        line = f"{AGENT}:x:{uid}:{gid}:{AGENT}:{home}:/bin/sh\n"
        members += [
            ("etc/passwd", 0, 0, 0o644, passwd + line),
            ("etc/group", 0, 0, 0o644, f"{group}{AGENT}:x:{gid}:\n"),
        ]
    return ImageFacts(
        id=found["Id"],
        env=env,
        user=f"{uid}:{gid}",
        home=env.get("HOME") or home,
        bash=(bash, "bash") if bash else (bash_argv()[0], *bash_argv()),
        furniture=_tar(members) if members else b"",
    )


def _user(user: str, folder: tarfile.TarInfo | None, passwd: str) -> tuple[int, int, str]:
    """(uid, gid, home) of who runs."""
    name, _, group = user.partition(":")
    if name in ("", "0", "root"):
        if folder is None:
            return launch.INSIDE_ID, launch.INSIDE_ID, launch.HOME
        name, group = str(folder.uid), str(folder.gid)
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and name in (fields[0], fields[2]):
            return int(fields[2]), int(group) if group.isdigit() else int(fields[3]), fields[5] or "/"
    if not name.isdigit():
        raise SandboxError(f"the image's user {user!r} is not in its /etc/passwd; name a number in its Dockerfile")
    home = "/root" if name == "0" else launch.HOME
    return int(name), int(group) if group.isdigit() else int(name), home


def _lacking(
    api: Any, container: str, wanted: list[tuple[str, int, int, int]]
) -> Iterator[tuple[str, int, int, int, str | None]]:
    """Those of the folders that are not there, after the parents they lack."""
    seen: set[str] = set()
    for path, uid, gid, mode in wanted:
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            if part and part not in seen and _first(api, container, "/" + part) is None:
                whole = depth == len(parts)
                yield part, uid if whole else 0, gid if whole else 0, mode if whole else 0o755, None
            seen.add(part)


def _tar(members: list[tuple[str, int, int, int, str | None]]) -> bytes:
    """(name, uid, gid, mode, text of a file or None for a folder) of each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, uid, gid, mode, text in members:
            member, data = tarfile.TarInfo(name), (text or "").encode()
            member.uid, member.gid, member.mode, member.size = uid, gid, mode, len(data)
            member.type = tarfile.DIRTYPE if text is None else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _first(api: Any, container: str, path: str) -> tarfile.TarInfo | None:
    """The entry of a path; None where there is none. With ``/.`` at its end, links are followed to a folder."""
    with _archive(api, container, path) as archive:
        return archive.next() if archive is not None else None


def _read(api: Any, container: str, path: str) -> str:
    """A small text file, ending with a newline; empty where there is none."""
    with _archive(api, container, path) as archive:
        first = archive.next() if archive is not None else None
        file = archive.extractfile(first) if archive is not None and first is not None else None
        text = file.read().decode(errors="replace") if file is not None else ""
    return text if not text or text.endswith("\n") else text + "\n"


@contextmanager
def _archive(api: Any, container: str, path: str) -> Iterator[tarfile.TarFile | None]:
    """The tar archive that the engine makes of a path, read only as far as is needed; docker-py has no such call."""
    url = api._url("/containers/{0}/archive", container)
    with api.get(url, params={"path": path}, stream=True, headers={"Accept-Encoding": "identity"}) as answer:
        if answer.status_code == 404:
            yield None
        else:
            api._raise_for_status(answer)
            with tarfile.open(fileobj=answer.raw, mode="r|") as archive:
                yield archive
