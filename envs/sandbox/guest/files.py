"""Inside the sandbox: files read and written, archives packed and unpacked, as the sandbox's user.

Part of the guest (see server.py): standard library only.
"""

import errno
import os
import stat

from .changes import changed, moment, written

READ_LIMIT = 256 << 20
"""Most bytes of one file that are read out at once."""


def perform(call: tuple) -> int:
    """One file operation, as the sandbox's user; its data on stdin or stdout. Returns 0 or an errno."""
    name, *arguments = call
    files = {"read": _read, "write": _write, "unpack": _unpack, "pack": _pack, "restore": _restore}
    looks = {"moment": moment, "written": written, "changed": changed}
    try:
        if name in looks:
            write_all(1, repr(looks[name](*arguments)).encode(errors="surrogateescape"))
        else:
            files[name](*arguments)
    except OSError as error:
        os.write(2, (error.strerror or str(error)).encode(errors="replace"))
        return error.errno or errno.EIO
    return 0


def _read(path: str, most: int | None) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kind = os.fstat(fd).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "not a regular file")
    left = READ_LIMIT if most is None else most
    while piece := os.read(fd, 1 << 20):
        if most is not None and len(piece) >= left:
            write_all(1, piece[:left])
            return
        left -= len(piece)
        if left < 0:
            raise OSError(errno.EFBIG, f"larger than {READ_LIMIT} bytes")
        write_all(1, piece)


def _write(path: str, mode: int | None, new: bool) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | (os.O_EXCL if new else os.O_TRUNC)
    fd = os.open(path, flags, 0o644 if mode is None else mode)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if mode is not None:
        os.fchmod(fd, mode)
    while piece := os.read(0, 1 << 20):
        write_all(fd, piece)
    os.close(fd)


def _unpack(dest: str) -> None:
    import tarfile

    os.makedirs(dest, exist_ok=True)
    try:
        with open(0, "rb") as stdin, tarfile.open(fileobj=stdin, mode="r|*") as archive:
            extract(archive, dest, (plain_member(member, dest) for member in archive))
    except (tarfile.TarError, EOFError) as error:
        raise OSError(errno.EINVAL, f"not a whole tar archive ({error})") from None


def plain_member(member, dest: str):  # type: ignore[no-untyped-def] - of tarfile, which takes long to import
    """A member as it may be unpacked: below ``dest``, without owner, special bits and rights of others to write.

    Raises:
        OSError: it would lie elsewhere.
    """
    name = member.name.lstrip("/")
    inside = os.path.realpath(dest)
    if os.path.commonpath((os.path.realpath(os.path.join(dest, name)), inside)) != inside:
        raise OSError(errno.EINVAL, f"not a tar archive to unpack ({member.name!r} lies outside)")
    kept = _without_owner(member)
    kept.name = name
    kept.mode = member.mode & 0o755
    return kept


def extract(archive, dest: str, members) -> None:  # type: ignore[no-untyped-def]
    """Unpack members as they are. Python before 3.11.4 has no filters; later ones want one."""
    filters = {"filter": "fully_trusted"} if _has_filters() else {}
    archive.extractall(dest, members=members, **filters)


def _has_filters() -> bool:
    import tarfile

    return hasattr(tarfile, "fully_trusted_filter")


def _without_owner(member):  # type: ignore[no-untyped-def]
    import copy

    kept = copy.copy(member)
    kept.uid, kept.gid, kept.uname, kept.gname = os.geteuid(), os.getegid(), "", ""
    return kept


def _pack(folders: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Write folders, with all that is in them, and single files as a tar archive to stdout; devices are left out."""
    import tarfile

    with open(1, "wb", closefd=False) as stdout, tarfile.open(fileobj=stdout, mode="w|") as archive:

        def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            archive.inodes.clear()  # type: ignore[attr-defined] - each name of a file can be unpacked alone
            return member if member.isfile() or member.isdir() or member.issym() else None

        for path in (*folders, *files):
            if os.path.lexists(path) and (path in folders or not os.path.isdir(path)):
                archive.add(path, filter=kept)


def _restore() -> None:
    """Unpack what ``_pack`` wrote, or a part of it, with the modes as they were."""
    import tarfile

    with open(0, "rb") as stdin, tarfile.open(fileobj=stdin, mode="r|") as archive:
        extract(archive, "/", (_without_owner(member) for member in archive))


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
