"""Where an image is read from: an archive of ``docker save``, an OCI layout in a folder or in an archive.

Each gives the image's configuration and its layers, the lowest first; what is compressed is found out by its first
bytes. Nothing is unpacked to a place that an archive names.
"""

import errno
import gzip
import hashlib
import json
import posixpath
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from ....errors import SandboxError
from .images import MACHINES, Image, is_digest, parse_image

MAX_JSON = 16 << 20
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A layer as it lies in a source.

    Attributes:
        open: its bytes, compressed or not.
        digest: "sha256:..." of these bytes; None where the source does not say it.
    """

    open: Callable[[], IO[bytes]]
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image in a source.

    Attributes:
        names: what the source calls it.
        blobs: of its layers, in their order.
    """

    image: Image
    names: tuple[str, ...]
    blobs: tuple[Blob, ...]


class Reader(Protocol):
    """The files of a source."""

    where: str

    def open(self, name: str) -> IO[bytes]:
        """Raises SandboxError where there is none of that name."""
        ...

    def has(self, name: str) -> bool: ...


@contextmanager
def opened(source: str) -> Iterator[list[Found]]:
    """The images of a source; their blobs can be read until the end.

    Args:
        source: "docker-archive:FILE[:NAME]", "oci:FOLDER[:NAME]", "oci-archive:FILE[:NAME]", or a path alone.
    Raises:
        SandboxError: there is none, it is broken, or is for another machine.
    """
    path, name = split_source(source)
    if path.is_dir():
        yield _of_layout(_Folder(path), name)
        return
    if not path.is_file():
        raise SandboxError(
            f"{source}: {path} is no file and no folder; give an archive of docker save, or an OCI layout"
        )
    with _archive(path) as reader:
        found = _of_docker(reader) if reader.has("manifest.json") else _of_layout(reader, name)
        yield [one for one in found if not name or name in one.names or name == one.image.id] or _none(source, found)


def split_source(source: str) -> tuple[Path, str]:
    """(path, name of the image or "") of a source."""
    kind, colon, rest = source.partition(":")
    text = rest if colon and kind in ("docker-archive", "oci", "oci-archive") else source
    if Path(text).exists():
        return Path(text), ""
    path, colon, name = text.partition(":")
    return (Path(path), name) if colon and Path(path).exists() else (Path(text), "")


def stamp_of(source: str) -> tuple[int, int]:
    """What changes when a source does: (nanoseconds of its last change, bytes), of a layout its index's. Raises
    SandboxError where it cannot be read."""
    path, _ = split_source(source)
    marker = path / "index.json" if path.is_dir() else path
    try:
        status = marker.stat()
    except OSError as error:
        raise SandboxError(f"the image {source} cannot be read ({error.strerror}: {marker})") from None
    return status.st_mtime_ns, status.st_size


def _none(source: str, found: list[Found]) -> list[Found]:
    names = ", ".join(name for one in found for name in one.names or (one.image.id[:19],))
    raise SandboxError(f"{source}: no image of that name; there are {names}")


@contextmanager
def _archive(path: Path) -> Iterator["_Archive"]:
    """A tar archive that can be read anywhere: one that is compressed as a whole is decompressed first."""
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        if not compressed:
            with tarfile.open(path, mode="r:") as tar:
                yield _Archive(str(path), tar)
            return
        with tempfile.TemporaryFile(prefix="verigym-image-") as plain:
            _decompress(path, plain)
            with tarfile.open(fileobj=plain, mode="r:") as tar:
                yield _Archive(str(path), tar)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise SandboxError(f"{path} is no whole tar archive ({error}); write it again with docker save") from None


def _decompress(path: Path, plain: IO[bytes]) -> None:
    """Into a temporary file, and back to its beginning. Raises SandboxError: the disk is full."""
    try:
        with gzip.open(path) as data:
            shutil.copyfileobj(data, plain, 1 << 20)
        plain.seek(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SandboxError(
            f"the disk is full: {path} is decompressed into {tempfile.gettempdir()} before it is read, and nothing "
            "of it was kept; free some space, set TMPDIR to a folder on another disk, or bring the archive decompressed"
        ) from None


class _Archive:
    def __init__(self, where: str, tar: tarfile.TarFile) -> None:
        self.where, self._tar = where, tar
        self._members = {posixpath.normpath(member.name): member for member in tar}

    def has(self, name: str) -> bool:
        return name in self._members

    def open(self, name: str) -> IO[bytes]:
        member = self._members.get(posixpath.normpath(name))
        for _ in range(8):  # older engines write a layer that comes again as a link
            if member is None or not (member.issym() or member.islnk()):
                break
            at = posixpath.join(posixpath.dirname(member.name), member.linkname) if member.issym() else member.linkname
            member = self._members.get(posixpath.normpath(at))
        data = self._tar.extractfile(member) if member is not None and member.isreg() else None
        if data is None:
            raise SandboxError(f"{self.where}: no file {name!r} in it; write it again with docker save")
        return data


class _Folder:
    def __init__(self, path: Path) -> None:
        self.where, self._path = str(path), path

    def has(self, name: str) -> bool:
        return (self._path / name).is_file()

    def open(self, name: str) -> IO[bytes]:
        if not self.has(name):
            raise SandboxError(f"{self.where}: no file {name!r} in it; an OCI layout has oci-layout, index.json, blobs")
        return (self._path / name).open("rb")


def _of_docker(reader: Reader) -> list[Found]:
    found = []
    for entry in _json(reader, "manifest.json", list):
        try:
            config, layers, tags = entry["Config"], entry["Layers"], entry.get("RepoTags") or ()
        except (KeyError, TypeError):
            raise SandboxError(f"{reader.where}: its manifest.json is none of docker save's") from None
        named = re.search(r"[0-9a-f]{64}", config)
        image = parse_image(_read(reader, config), where=reader.where, digest=f"sha256:{named[0]}" if named else None)
        blobs = tuple(Blob(open=lambda name=name: reader.open(name), digest=None) for name in layers)
        found.append(_checked(reader.where, image, tuple(tags), blobs))
    return found


def _of_layout(reader: Reader, name: str) -> list[Found]:
    """The images of an OCI layout that are for this machine, or the one of that name."""
    if not reader.has("oci-layout"):
        raise SandboxError(f"{reader.where}: neither an archive of docker save (manifest.json) nor an OCI layout")
    entries = _json(reader, "index.json", dict).get("manifests") or []
    chosen = [one for one in entries if not name or (one.get("annotations") or {}).get(REF_NAME) == name]
    if not chosen:
        raise SandboxError(f"{reader.where}: no image {name!r} in its index.json; it has {len(entries)}")
    return [_of_manifest(reader, entry) for entry in chosen]


def _of_manifest(reader: Reader, entry: Mapping[str, Any]) -> Found:
    names = tuple(name for name in ((entry.get("annotations") or {}).get(REF_NAME),) if name)
    manifest = _blob_json(reader, entry)
    if manifest.get("mediaType", entry.get("mediaType")) in INDEXES or "manifests" in manifest:
        manifest = _blob_json(reader, _for_this_machine(reader.where, manifest["manifests"]))
    digest = _digest(reader.where, manifest.get("config"))
    image = parse_image(_read(reader, _blob_path(digest)), where=reader.where, digest=digest)
    blobs = []
    for layer in manifest.get("layers") or []:
        at = _digest(reader.where, layer)
        blobs.append(Blob(open=lambda at=at: reader.open(_blob_path(at)), digest=at))
    return _checked(reader.where, image, names, tuple(blobs))


def _for_this_machine(where: str, entries: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    import os

    here = os.uname().machine
    platforms = [one.get("platform") or {} for one in entries]
    for entry, platform in zip(entries, platforms):
        if platform.get("architecture") in MACHINES.get(here, (here,)) and platform.get("os", "linux") == "linux":
            return entry
    there = ", ".join(f"{one.get('os')}/{one.get('architecture')}" for one in platforms)
    raise SandboxError(f"{where}: the image is for {there}, this machine is linux/{here}; get one for this machine")


def _checked(where: str, image: Image, names: tuple[str, ...], blobs: tuple[Blob, ...]) -> Found:
    if len(blobs) != len(image.layers):
        raise SandboxError(f"{where}: {len(blobs)} layers where the image has {len(image.layers)}; get it again")
    return Found(image=image, names=names, blobs=blobs)


def _blob_json(reader: Reader, entry: Mapping[str, Any]) -> dict[str, Any]:
    digest = _digest(reader.where, entry)
    data = _read(reader, _blob_path(digest))
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise SandboxError(f"{reader.where}: the blob {digest} holds something else; get the image again")
    return _parsed(reader.where, digest, data, dict)


def _digest(where: str, entry: Any) -> str:
    digest = entry.get("digest") if isinstance(entry, Mapping) else None
    if not isinstance(digest, str) or not is_digest(digest):
        raise SandboxError(f"{where}: a blob is named {digest!r}; only sha256 digests can be checked")
    return digest


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _json(reader: Reader, name: str, kind: type) -> Any:
    return _parsed(reader.where, name, _read(reader, name), kind)


def _parsed(where: str, name: str, data: bytes, kind: type) -> Any:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise SandboxError(f"{where}: {name} is no JSON ({error}); get the image again") from None
    if not isinstance(value, kind):
        raise SandboxError(f"{where}: {name} is no JSON {kind.__name__}; get the image again")
    return value


def _read(reader: Reader, name: str) -> bytes:
    with reader.open(name) as file:
        data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise SandboxError(f"{reader.where}: {name} is larger than {MAX_JSON >> 20} MiB; get the image again")
    return data
