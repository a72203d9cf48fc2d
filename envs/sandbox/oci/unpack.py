"""One layer of an image, unpacked into a folder as overlayfs takes it.

A layer is a tar archive that a stranger made. Every path is resolved by us, component by component, within the folder:
``..`` is refused, a symbolic link leads where it would lead inside. Nothing is written through a link, no device is
made, no extended attribute is taken over.
"""

import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import IO

from ....errors import SandboxError
from .flavor import Flavor

WHITEOUT, OPAQUE, OTHER_MARKS = ".wh.", ".wh..wh..opq", ".wh..wh."
MAX_LINKS = 40
PIECE = 1 << 20

Owners = dict[str, tuple[int, int]]
"""Path in a layer -> (user, group) in the image, of what is not root's."""


class Unsafe(ValueError):
    """An entry that has no place in a layer."""


def unpack_layer(tar: IO[bytes], folder: Path, flavor: Flavor) -> Owners:
    """Unpack a layer's tar archive (not compressed) into an empty folder.

    Returns:
        Who owns what, as the archive says it.
    Raises:
        Unsafe: an entry leads out of the folder, or cannot be one of a layer. tarfile.TarError, EOFError: the archive
        is damaged. OSError.
    """
    unpacking = _Unpacking(folder, flavor)
    with tarfile.open(fileobj=tar, mode="r|") as archive:
        for member in archive:
            unpacking.add(archive, member)
            archive.members = []  # type: ignore[attr-defined] - a stream never goes back; it would keep every header
    unpacking.finish()
    return unpacking.owners


class _Unpacking:
    def __init__(self, folder: Path, flavor: Flavor) -> None:
        self._root, self._flavor = os.fspath(folder), flavor
        self._folders: dict[str, str] = {}
        self._later: dict[str, tuple[int, float]] = {}
        self.owners: Owners = {}
        self._own(self._root, 0, 0)

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if not parts:
            self._describe(self._root, member)
            return
        parent, name = self._folder(parts[:-1], member.name), parts[-1]
        path = os.path.join(parent, name)
        if name.startswith(WHITEOUT):
            self._mark(parent, name, member.name)
        elif member.isdir():
            self._make_folder(path)
            self._describe(path, member)
        elif member.isreg() or member.issym() or member.islnk() or member.isfifo():
            self._clear(path)
            self._make(archive, member, path)
        # Devices are left out: a sandbox has its own, and those of others are not for it.

    def finish(self) -> None:
        """Folders get their rights and times when nothing is written into them any more."""
        for path, (mode, mtime) in sorted(self._later.items(), reverse=True):
            os.chmod(path, mode)
            os.utime(path, (mtime, mtime))

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        if member.islnk():
            os.link(self._target(member), path, follow_symlinks=False)
            self._same_owner(member, path)
            return
        if member.issym():
            os.symlink(member.linkname, path)
        elif member.isfifo():
            os.mkfifo(path)
        else:
            data = archive.extractfile(member)
            assert data is not None
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(fd, "wb") as out:
                shutil.copyfileobj(data, out, PIECE)
        self._own(path, member.uid, member.gid)
        if not member.issym():
            os.chmod(path, stat.S_IMODE(member.mode))
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)

    def _describe(self, path: str, member: tarfile.TarInfo) -> None:
        self._own(path, member.uid, member.gid)
        self._later[path] = stat.S_IMODE(member.mode), member.mtime

    def _own(self, path: str, uid: int, gid: int) -> None:
        if self._flavor.first_id is not None:
            os.chown(path, self._flavor.outside(uid), self._flavor.outside(gid), follow_symlinks=False)
        if uid or gid:
            self.owners[self._inside(path)] = uid, gid
        else:
            self.owners.pop(self._inside(path), None)

    def _same_owner(self, member: tarfile.TarInfo, path: str) -> None:
        known = self.owners.get(self._inside(self._target(member)))
        if known is not None:
            self.owners[self._inside(path)] = known

    def _inside(self, path: str) -> str:
        return path[len(self._root) + 1 :]

    def _target(self, member: tarfile.TarInfo) -> str:
        """The file that a hard link is of. Raises Unsafe."""
        parts = _parts(member.linkname)
        found = os.path.join(self._folder(parts[:-1], member.name), parts[-1]) if parts else self._root
        kind = _kind(found)
        if kind is None or stat.S_ISDIR(kind) or stat.S_ISCHR(kind):
            raise Unsafe(f"{member.name!r} is a hard link to {member.linkname!r}, which is no file of the same layer")
        return found

    def _mark(self, parent: str, name: str, entry: str) -> None:
        """Note that something of the layers below is gone."""
        if name == OPAQUE:
            self._hide_below(parent)
        elif not name.startswith(OTHER_MARKS):
            gone = name.removeprefix(WHITEOUT)
            if gone in ("", ".", ".."):
                raise Unsafe(f"{entry!r} removes nothing that has a name")
            path = os.path.join(parent, gone)
            kind = _kind(path)
            if kind is None:
                os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            elif stat.S_ISDIR(kind):
                self._hide_below(path)

    def _hide_below(self, folder: str) -> None:
        os.setxattr(folder, self._flavor.opaque, b"y")

    def _make_folder(self, path: str) -> None:
        kind = _kind(path)
        if kind is not None and stat.S_ISDIR(kind):
            return
        self._clear(path)
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)  # whatever our umask is
        if kind is not None and stat.S_ISCHR(kind):  # it was marked as gone: what is new does not show what was
            self._hide_below(path)

    def _clear(self, path: str) -> None:
        kind = _kind(path)
        if kind is None:
            return
        if stat.S_ISDIR(kind):
            shutil.rmtree(path)
            below = path + os.sep
            self._later = {one: told for one, told in self._later.items() if one != path and not one.startswith(below)}
        else:
            os.unlink(path)
        self._folders.clear()  # what led through it leads elsewhere now

    def _folder(self, parts: list[str], entry: str) -> str:
        """The folder of an entry, made where the archive has left it out. Raises Unsafe."""
        key = "/".join(parts)
        if key not in self._folders:
            self._folders[key] = self._walk(parts, entry)
        return self._folders[key]

    def _walk(self, parts: list[str], entry: str) -> str:
        walked: list[str] = []
        ahead, num_links = parts[::-1], 0
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":  # of a link's target: from the root it leads to the root
                del walked[-1:]
                continue
            path = os.path.join(self._root, *walked, part)
            kind = _kind(path)
            if kind is not None and stat.S_ISLNK(kind):
                num_links += 1
                if num_links > MAX_LINKS:
                    raise Unsafe(f"{entry!r} leads through links without end")
                target = os.readlink(path)
                walked = [] if target.startswith("/") else walked
                ahead += target.split("/")[::-1]
                continue
            if kind is not None and not stat.S_ISDIR(kind) and not stat.S_ISCHR(kind):
                raise Unsafe(f"{entry!r} lies below a file")
            if kind is None or stat.S_ISCHR(kind):
                self._make_folder(path)
                self._own(path, 0, 0)
            walked.append(part)
        return os.path.join(self._root, *walked)


def _parts(name: str) -> list[str]:
    """The components of an entry's name; a leading ``/`` is the layer's root. Raises Unsafe."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Unsafe(f"{name!r} leads out of the layer")
    return parts


def _kind(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


def layer_error(error: BaseException, layer: str, folder: Path) -> SandboxError:
    """What a user is told of a layer that could not be unpacked."""
    import errno

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SandboxError(
            f"the disk is full: layer {layer} could not be unpacked into {folder}, and nothing of it was kept; free "
            "some space (verigym images remove NAME), or set VERIGYM_CACHE to a folder on another disk"
        )
    why = "an entry that is not to be trusted: " if isinstance(error, Unsafe) else ""
    return SandboxError(
        f"layer {layer} could not be unpacked, and nothing of it was kept ({why}{error}); get the image again"
    )


def remove_tree(path: Path) -> None:
    """Remove a folder of ours whatever the rights of the folders in it are. Raises OSError."""
    if path.is_symlink() or not path.exists():
        path.unlink(missing_ok=True)
        return
    if os.geteuid() != 0:
        for folder, names, _ in os.walk(path):
            os.chmod(folder, 0o700)
            for name in names:
                inner = os.path.join(folder, name)
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
    shutil.rmtree(path)
