"""What a machine has that boxes are made of; runs here and, as source, on another machine in the guest's Python, which
has few modules."""

import marshal
import os
import shutil
import sys
import zlib


def digest(path):
    """A digest of what lies at a path: names, kinds, rights, sizes, times of change and links, not the bytes. It tells
    apart what differs, not what somebody makes alike."""
    crc, adler, length = 0, 1, 0
    pending = [(path, "")]
    while pending:
        here, name = pending.pop()
        state = os.lstat(here)
        link = os.readlink(here) if os.path.islink(here) else ""
        is_folder = os.path.isdir(here) and not link
        numbers = (0, 0) if is_folder else (state.st_size, int(state.st_mtime))
        line = repr((name, state.st_mode, *numbers, link)).encode("utf-8", "surrogateescape")
        crc, adler, length = zlib.crc32(line, crc), zlib.adler32(line, adler), length + len(line)
        if is_folder:
            entries = sorted(os.listdir(here), reverse=True)
            pending += [(os.path.join(here, one), name + "/" + one) for one in entries if one != "__pycache__"]
    return f"{crc:08x}{adler:08x}{length:x}"


def look(system_folders, etc, digests):
    """Facts of this machine.

    Args:
        digests: path -> digest of what lies there on the other one.
    """
    same = []
    for path, wanted in digests.items():
        try:
            if digest(path) == wanted:
                same.append(path)
        except OSError:
            continue
    return {
        "uid": os.geteuid(),
        "bash": shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin"),
        "unshare": shutil.which("unshare", path="/bin:/usr/bin:/usr/local/bin"),
        "links": [(os.readlink(path), path) for path in system_folders if os.path.islink(path)],
        "folders": [path for path in system_folders if os.path.isdir(path) and not os.path.islink(path)],
        "etc": ["/etc/" + name for name in etc if os.path.exists("/etc/" + name)],
        "same": same,
    }


if __name__ == "__main__":
    sys.stdout.buffer.write(marshal.dumps(look(**marshal.load(sys.stdin.buffer))))
