"""The images of this machine's cache: each layer unpacked once, whatever images it is of.

    FOLDER/layers/FLAVOR/KEY/fs        a layer's files, KEY the first digits of its digest
    FOLDER/layers/FLAVOR/KEY/owners    who owns what in the image, JSON, of what is not root's
    FOLDER/images/DIGEST.json          an image's configuration, written when all its layers are there
    FOLDER/names/NAME                  the digest that a name stands for

What is being made bears another name until it is whole, so that a full disk or a kill leaves nothing half unpacked;
who makes it holds a lock, and what was left without one goes when the same layer is asked for again.
"""

import fcntl
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote

from ....errors import SandboxError
from ...runs.files import write_json, write_text
from ..python import cache_folder
from .flavor import Flavor, own_flavor
from .images import Image, normal_name
from .sources import Blob, Found, opened
from .streams import Hashed, decompressed
from .unpack import Owners, Unsafe, layer_error, remove_tree, unpack_layer

KEY_DIGITS = 24
"""Of a layer's digest: 96 bits, so that 127 of them fit into the one page that mount takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One image of the store.

    Attributes:
        names: that stand for it.
        num_bytes: of its layers on the disk, also of those that other images share.
    """

    image: Image
    names: tuple[str, ...]
    num_bytes: int


class ImageStore:
    """Its methods block. Any number of processes may use one folder at once."""

    def __init__(self, folder: Path | None = None, *, flavor: Flavor | None = None) -> None:
        """
        Args:
            folder: None is the cache's own.
            flavor: None: by the user that we are.
        """
        self.folder = Path(os.path.realpath(folder or cache_folder() / "oci"))
        self.flavor = flavor or own_flavor()
        self.layers = self.folder / "layers" / self.flavor.name

    def find(self, name: str) -> Image | None:
        """The image that a name or an id stands for, with all its layers here; None where there is none."""
        note = self._note(name)
        digest = name if name.startswith("sha256:") else note.read_text().strip() if note.is_file() else ""
        return self._image(digest) if digest else None

    def add(self, source: str, *, name: str | None = None) -> list[Image]:
        """Take the images of an archive or a layout (``sources.opened``).

        Args:
            name: that the image gets beside those that the source has; only for a source of one image.
        Raises:
            SandboxError: it cannot be read or checked, or the disk is full. Nothing is kept of an image that is not
            whole.
        """
        with opened(source) as found:
            if name is not None and len(found) != 1:
                told = ", ".join(one for image in found for one in image.names)
                raise SandboxError(f"{source} has {len(found)} images ({told}); name one: {source}:NAME")
            for one in found:
                self._take(one, source, (*one.names, *([name] if name else [])))
        return [one.image for one in found]

    def name(self, image: Image, name: str) -> None:
        """Have a name stand for an image of the store."""
        with self._lock("names"):
            write_text(self._made(self._note(name)), image.id)

    def owners(self, layer: str) -> Owners:
        """Who owns what in a layer, of what is not root's."""
        return _owners(self.place(layer) / "owners")

    def place(self, layer: str) -> Path:
        return self.layers / key_of(layer)

    def images(self) -> list[Kept]:
        """All images whose layers are here, by their names."""
        names: dict[str, list[str]] = {}
        for note in sorted((self.folder / "names").glob("*")):
            names.setdefault(note.read_text().strip(), []).append(unquote(note.name))
        kept = []
        for path in sorted((self.folder / "images").glob("*.json")):
            image = self._image(f"sha256:{path.stem}")
            if image is not None:
                size = sum(_size(self.place(layer)) for layer in dict.fromkeys(image.layers))
                kept.append(Kept(image=image, names=tuple(names.get(image.id, ())), num_bytes=size))
        return kept

    def remove(self, name: str) -> int:
        """Forget a name, and where it was the image's last one, the image and the layers that no other one has.

        Returns:
            How many layers went.
        Raises:
            SandboxError: there is no such image, or a process uses it.
        """
        image = self.find(name)
        if image is None:
            raise SandboxError(f"no image {name!r} is here; verigym images list names them")
        note = self._note(name)
        others = [one for kept in self.images() if kept.image.id == image.id for one in kept.names]
        if note.is_file() and len(others) > 1:
            note.unlink()
            return 0
        with self._using(image.id, fcntl.LOCK_EX):
            self._record(image.id).unlink(missing_ok=True)
            for other in others:
                self._note(other).unlink(missing_ok=True)
            needed = {layer for kept in self.images() for layer in kept.image.layers}
            doomed = [layer for layer in dict.fromkeys(image.layers) if layer not in needed]
            for layer in doomed:
                with self._locked(layer):
                    remove_tree(self.place(layer))
        return len(doomed)

    @contextmanager
    def used(self, image: Image) -> Iterator[None]:
        """While this is open nobody removes the image."""
        with self._using(image.id, fcntl.LOCK_SH):
            if self.find(image.id) is None:
                raise SandboxError(f"the image {image.id[:19]} was removed meanwhile; add it again")
            yield

    def _take(self, found: Found, source: str, names: tuple[str, ...]) -> None:
        for layer, blob in zip(found.image.layers, found.blobs):
            self._unpack(layer, blob)
        with self._lock("names"):
            write_json(self._made(self._record(found.image.id)), dict(found.image.config), indent=None)
        for name in names:
            if ":" in name or "/" in name:  # a layout's own "latest" is no name elsewhere
                self.name(found.image, name)

    def _unpack(self, layer: str, blob: Blob) -> None:
        """Unpack a layer where it is not here. Raises SandboxError."""
        done = self.place(layer)
        with self._locked(layer):
            making = done.with_name(f".making-{done.name}")
            remove_tree(making)
            if done.exists():
                return
            try:
                self._unpack_into(making, layer, blob)
                making.rename(done)
            except (OSError, tarfile.TarError, zlib.error, EOFError, Unsafe) as error:
                raise layer_error(error, layer[:19], done) from error
            finally:
                remove_tree(making)

    def _unpack_into(self, making: Path, layer: str, blob: Blob) -> None:
        (making / "fs").mkdir(parents=True)
        (making / "fs").chmod(0o755)
        making.chmod(0o711)
        with blob.open() as file:
            raw = Hashed(file)
            tar = Hashed(decompressed(raw, what=f"layer {layer[:19]}"))  # type: ignore[arg-type]
            owners = unpack_layer(tar, making / "fs", self.flavor)  # type: ignore[arg-type]
            tar.rest()
            raw.rest()
        for what, wanted, got in (("its blob", blob.digest, raw.digest), ("its archive", layer, tar.digest)):
            if wanted not in (None, got):
                raise Unsafe(f"{what} has the digest {got}, {wanted} was expected")
        (making / "owners").write_text(json.dumps(owners))

    def _image(self, digest: str) -> Image | None:
        path = self._record(digest)
        if not path.is_file():
            return None
        config = json.loads(path.read_text())
        image = Image(id=digest, config=config)
        return image if all(self.place(layer).is_dir() for layer in image.layers) else None

    def _record(self, digest: str) -> Path:
        return self.folder / "images" / f"{digest.removeprefix('sha256:')}.json"

    def _note(self, name: str) -> Path:
        return self.folder / "names" / quote(normal_name(name), safe="")

    def _made(self, path: Path) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # files in it have the modes of an image, also of programs that change the user
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _locked(self, layer: str) -> Iterator[None]:
        try:
            self._made(self.place(layer)).parent.chmod(0o711)
        except OSError as error:
            raise layer_error(error, layer[:19], self.layers) from error
        with self._lock(key_of(layer)):
            yield

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with self._made(self.folder / "locks" / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _using(self, image: str, kind: int) -> Iterator[None]:
        with self._made(self.folder / "locks" / f"image-{image[7:31]}").open("w") as lock:
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SandboxError(f"the image {image[:19]} is in use by another process; end that first") from None
            yield


def key_of(layer: str) -> str:
    return layer.removeprefix("sha256:")[:KEY_DIGITS]


@lru_cache(maxsize=512)
def _owners(path: Path) -> Owners:
    return {name: (uid, gid) for name, (uid, gid) in json.loads(path.read_text()).items()}


def _size(folder: Path) -> int:
    """Bytes on the disk, files of several names once."""
    seen, total = set(), 0
    for at, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(at, name))
            if status.st_nlink == 1 or status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total
