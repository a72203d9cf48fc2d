"""What a pod is brought: the guest's runtime, folders that tasks see, folders that the image lacks."""

import gzip
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ....errors import SandboxError
from .. import guest_look
from ..image_facts import Furniture
from ..runtime import INSIDE, runtime_folder

MOST_BYTES = 1 << 30
"""Most bytes of bound folders: each pod is sent its own."""

HELD = 4
"""Archives that are kept, each of some 15 MB and what is bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A part of what is brought: its name in the archive, and where the box has it."""

    name: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """An archive (tar, gzip) and the places of its parts."""

    archive: bytes
    places: tuple[Place, ...]


def load(binds: Mapping[str, str], furniture: tuple[Furniture, ...]) -> Load:
    """What is brought to a pod. Blocking.

    Args:
        binds: target -> source on this machine.
        furniture: what the image lacks. Whoever runs in the pod owns it.
    Raises:
        SandboxError: a source cannot be read, or all are too large.
    """
    try:
        sources = tuple((target, source, guest_look.digest(source)) for target, source in sorted(binds.items()))
        return _load(str(runtime_folder()), sources, furniture)
    except OSError as error:
        raise SandboxError(f"what the task binds cannot be read: {error}") from None


@lru_cache(maxsize=HELD)
def _load(runtime: str, sources: tuple[tuple[str, str, str], ...], furniture: tuple[Furniture, ...]) -> Load:
    places = [Place(name="runtime", target=INSIDE, read_only=True)]
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        archive.add(runtime, arcname="runtime")
        for number, (target, source, _) in enumerate(sources):
            archive.add(source, arcname=f"bind{number}")
            places.append(Place(name=f"bind{number}", target=target, read_only=True))
            if archive.offset > MOST_BYTES:
                raise SandboxError(
                    f"what the task binds ({source} -> {target}) is more than {MOST_BYTES >> 30} GiB, which each pod "
                    "would be sent; have it in the image"
                )
        for number, (path, _, _, mode, text) in enumerate(furniture):
            member, data = tarfile.TarInfo(f"made{number}"), (text or "").encode()
            member.type = tarfile.DIRTYPE if text is None else tarfile.REGTYPE
            member.mode, member.size = mode, len(data)
            archive.addfile(member, io.BytesIO(data))
            deeper = any(one[0].startswith(path + "/") for one in furniture)
            if not deeper:  # what holds another one is made with it
                places.append(Place(name=member.name, target="/" + path, read_only=text is not None))
    return Load(archive=buffer.getvalue(), places=tuple(places))


def taking(num_bytes: int) -> str:
    """What takes in an archive of so many bytes, in the words of any image's shell; it ends with the last one. Where
    ``head`` reads on there is nothing, and ``tar`` sees the end that not every server can send."""
    return f"head -c {num_bytes} | tar -xzpof - -C {os.path.join('/', INSIDE)}"
