"""The image of tasks that name none: empty but for links and folders, over which this machine's are bound."""

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

from . import launch
from .image_import import import_image

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY = "verigym/host"

ID = launch.INSIDE_ID
FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nagent:x:{ID}:{ID}:agent:{launch.HOME}:/bin/bash\n",
    "etc/group": f"root:x:0:\nagent:x:{ID}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
FOLDERS = {"tmp": 0o1777, "var": 0o755, "var/tmp": 0o1777, "etc": 0o755, "run": 0o755, "home": 0o755}


def ensure(client: "DockerClient") -> str:
    """The image's name, made now where the engine does not have it. Blocking; raises docker's errors."""
    from docker.errors import ImageNotFound

    data = archive()
    name = f"{REPOSITORY}:{hashlib.sha256(data).hexdigest()[:12]}"
    try:
        client.images.get(name)
    except ImageNotFound:
        import_image(client.api, data, name)
    return name


def archive() -> bytes:
    """Its root file system as a tar archive, the same bytes every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in FOLDERS.items():
            tar.addfile(_member(name, tarfile.DIRTYPE, mode))
        for target, path in launch.system_links():
            link = _member(path.lstrip("/"), tarfile.SYMTYPE, 0o777)
            link.linkname = target
            tar.addfile(link)
        for name, text in FILES.items():
            member = _member(name, tarfile.REGTYPE, 0o644)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = kind, mode
    return member
