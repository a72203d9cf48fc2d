"""What an image says of who runs in it and where, and what it lacks for that."""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import SandboxError
from . import launch
from .runtime import bash_argv

AGENT = "agent"

Furniture = tuple[str, int, int, int, str | None]
"""(path without its leading "/", user, group, mode, text of a file or None for a folder)."""


class ImageFiles(Protocol):
    """What is to be looked at of an image; links are followed inside of it."""

    def owner(self, path: str) -> tuple[int, int] | None:
        """(user, group) of a folder; None where there is none."""
        ...

    def exists(self, path: str) -> bool: ...

    def text(self, path: str) -> str:
        """A small text file; empty where there is none."""
        ...


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
        furniture: folders and files that it lacks.
    """

    id: str
    env: dict[str, str]
    user: str
    home: str
    bash: tuple[str, ...]
    furniture: tuple[Furniture, ...] = ()


ROOT_CAPABILITIES = {
    **{"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7},
    **{"NET_BIND_SERVICE": 10},
}
"""What root may do where a task asks for it: Docker's own list without devices, raw sockets, chroot, and capabilities
of files."""


def facts_of(
    files: ImageFiles, image_id: str, settings: Mapping[str, Any], workdir: str, *, root: bool = False
) -> ImageFacts:
    """What matters of an image.

    Args:
        root: who runs is root, whatever the image says.
        settings: what its configuration says of "Env" and "User".
    Raises:
        SandboxError: it names a user that it does not have.
    """
    env = dict(entry.split("=", 1) for entry in settings.get("Env") or () if "=" in entry)
    bash = next((path for path in ("/bin/bash", "/usr/bin/bash") if files.exists(path)), None)
    passwd, group = _lines(files.text("/etc/passwd")), _lines(files.text("/etc/group"))
    user, owner = str(settings.get("User") or ""), files.owner(workdir)
    uid, gid, home = _user("root", (0, 0), passwd) if root else _user(user, owner, passwd)
    wanted = [(workdir, uid, gid, 0o755), (home, uid, gid, 0o755), ("/tmp", 0, 0, 0o1777), ("/var/tmp", 0, 0, 0o1777)]
    members: list[Furniture] = list(_lacking(files, wanted))
    if not any(line.split(":")[2:3] == [str(uid)] for line in passwd.splitlines()):
        line = f"{AGENT}:x:{uid}:{gid}:{AGENT}:{home}:/bin/sh\n"
        members += [
            ("etc/passwd", 0, 0, 0o644, passwd + line),
            ("etc/group", 0, 0, 0o644, f"{group}{AGENT}:x:{gid}:\n"),
        ]
    return ImageFacts(
        id=image_id,
        env=env,
        user=f"{uid}:{gid}",
        home=env.get("HOME") or home,
        bash=(bash, "bash") if bash else (bash_argv()[0], *bash_argv()),
        furniture=tuple(members),
    )


def _user(user: str, folder: tuple[int, int] | None, passwd: str) -> tuple[int, int, str]:
    """(uid, gid, home) of who runs."""
    name, _, group = user.partition(":")
    if name in ("", "0", "root"):
        if folder is None:
            return launch.INSIDE_ID, launch.INSIDE_ID, launch.HOME
        name, group = str(folder[0]), str(folder[1])
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and name in (fields[0], fields[2]):
            return int(fields[2]), int(group) if group.isdigit() else int(fields[3]), fields[5] or "/"
    if not name.isdigit():
        raise SandboxError(f"the image's user {user!r} is not in its /etc/passwd; name a number in its Dockerfile")
    home = "/root" if name == "0" else launch.HOME
    return int(name), int(group) if group.isdigit() else int(name), home


def _lacking(files: ImageFiles, wanted: Sequence[tuple[str, int, int, int]]) -> Iterator[Furniture]:
    """Those of the folders that are not there, after the parents they lack."""
    seen: set[str] = set()
    for path, uid, gid, mode in wanted:
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            if part and part not in seen and not files.exists("/" + part):
                whole = depth == len(parts)
                yield part, uid if whole else 0, gid if whole else 0, mode if whole else 0o755, None
            seen.add(part)


def tar_of(members: Sequence[Furniture]) -> bytes:
    """A tar archive, for ``/``, without zeros after its end: podman reads no further, and fails where it is still
    written to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, uid, gid, mode, text in members:
            member, data = tarfile.TarInfo(name), (text or "").encode()
            member.uid, member.gid, member.mode, member.size = uid, gid, mode, len(data)
            member.type = tarfile.DIRTYPE if text is None else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()[: archive.offset]


def _lines(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
