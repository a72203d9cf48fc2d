"""A stand-in for the program ``apptainer``: its ``exec`` and ``build``, as far as the sandbox of that name uses them.

It reads the command line by the flags that Apptainer 1.5 has (each with or without a value, none after the image), and
refuses what that refuses: unknown flags, records of --mount that are none, an image that is not there, --fakeroot for a
root that has no line in /etc/subuid. Containers are made by ``unshare`` as Apptainer's manual describes them: a
read-only root with mount points over it, a small /dev, /tmp and /dev/shm in memory of 64 MiB, the variables of the
image and none of ours. A SIF file is its first line and a tar archive here, unpacked beside it.
"""

import csv
import ctypes
import json
import os
import shutil
import socket
import stat
import sys
import tarfile
import tomllib
from pathlib import Path

SHORT = {"B": "bind", "H": "home", "o": "overlay", "S": "scratch", "W": "workdir", "c": "contain", "C": "containall"}
SHORT |= {"e": "cleanenv", "f": "fakeroot", "i": "ipc", "n": "net", "p": "pid", "u": "userns", "w": "writable"}
SIF = b"#!/usr/bin/env run-singularity\n"
DEVICES = ("null", "zero", "random", "urandom", "tty")
SESSION = "size=64m"
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
libc = ctypes.CDLL(None, use_errno=True)


def fatal(text):
    sys.stderr.write(f"\x1b[31mFATAL:  \x1b[0m {text}\n")
    sys.exit(255)


def parsed(command, words):
    """({flag: [values]}, what follows the flags) of a command line of ``exec`` or ``build``."""
    known = tomllib.loads(Path(__file__).with_name("apptainer_flags.toml").read_text())[command]
    values, switches = known["values"].split(), known["switches"].split()
    told, rest = {}, list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        name = SHORT.get(name, name) if not word.startswith("--") else name
        if name in switches:
            told.setdefault(name, []).append(value or "true")
        elif name in values:
            if not equals and not rest:
                fatal(f"flag needs an argument: --{name}")
            told.setdefault(name, []).append(value if equals else rest.pop(0))
        else:
            fatal(f"unknown flag: --{name}")
    return told, rest


def mounts_of(told):
    """(source, target, read-only) of each --mount."""
    found = []
    for text in told.get("mount", []):
        for record in csv.reader([text]):
            fields = dict(field.partition("=")[::2] for field in record)
            source = fields.get("src") or fields.get("source")
            target = fields.get("dst") or fields.get("destination") or fields.get("target")
            unknown = set(fields) - {"type", "src", "source", "dst", "destination", "target", "ro", "readonly"}
            if unknown:
                fatal(f"while parsing mount {text!r}: invalid key {unknown.pop()!r} in mount specification")
            if fields.get("type", "bind") != "bind" or not source or not target:
                fatal(f"while parsing mount {text!r}: mounts must specify a source and a destination")
            if not os.path.exists(source):
                fatal(f"container creation failed: mount {source}->{target} error: while mounting {source}")
            found.append((source, target, "ro" in fields or "readonly" in fields))
    return found


def execute(words):
    told, rest = parsed("exec", words)
    if len(rest) < 2:
        fatal(f"requires at least 2 arg(s), only received {len(rest)}")
    image, command = rest[0], rest[1:]
    root = os.geteuid() == 0
    if "fakeroot" in told and root and "root:" not in _text("/etc/subuid"):
        fatal("could not use fakeroot: no mapping entry found in /etc/subuid for root")
    if "keep-privs" in told and not root:
        fatal("Could not configure --keep-privs: --keep-privs requires root privileges")
    if told.get("network", ["none"]) != ["none"] and not root:
        fatal("network requires root or a suid installation with /etc/subuid --fakeroot")
    rights = "fakeroot" in told or "userns" in told
    if not rights:
        fatal("this stand-in makes user namespaces only")
    folder = folder_of(image)
    contained = "containall" in told
    order = {"root": folder, "mounts": mounts_of(told), "command": command, "hostname": told.get("hostname", [""])[0]}
    order["env"] = {**variables_of(folder), "APPTAINER_CONTAINER": image, "HOME": "/root"}
    if not contained:
        order["env"] = {**os.environ, **order["env"]}
    kinds = ["--mount", "--uts"] if order["hostname"] else ["--mount"]
    kinds += ["--pid", "--fork", "--kill-child=SIGKILL"] if contained or "pid" in told else []
    kinds += ["--ipc"] if contained or "ipc" in told else []
    kinds += ["--net"] if "net" in told else []
    if contained and not {"no-init", "no-home"} <= told.keys():
        fatal("this stand-in has no first process and no home of its own; give --no-init and --no-home")
    inner = [sys.executable, "-I", __file__, ".inside", json.dumps(order)]
    os.execvp("unshare", ["unshare", "--user", "--map-root-user", *kinds, "--", *inner])


def folder_of(image):
    """The root file system of an image."""
    if os.path.isdir(image):
        return os.path.realpath(image)
    if "://" in image or ":" in os.path.basename(image):
        fatal(f"Unable to handle {image} uri: this stand-in builds first")
    try:
        with open(image, "rb") as file:
            first = file.read(len(SIF))
    except OSError:
        fatal(f"could not open image {os.path.abspath(image)}: failed to retrieve path: no such file or directory")
    if first != SIF:
        fatal(f"could not open image {os.path.abspath(image)}: image format not recognized")
    folder = f"{os.path.realpath(image)}.unpacked"
    if not os.path.isdir(folder):
        part = f"{folder}-{os.getpid()}"
        with open(image, "rb") as file:
            file.seek(len(SIF))
            with tarfile.open(fileobj=file, mode="r|") as tar:
                tar.extraction_filter = lambda member, path: member  # made by ourselves
                tar.extractall(part)
        try:
            os.rename(part, folder)
        except OSError:
            shutil.rmtree(part)
    return folder


def variables_of(folder):
    """What the image's script of the environment sets."""
    script = Path(folder, ".singularity.d/env/10-docker2singularity.sh")
    lines = script.read_text().splitlines() if script.is_file() else []
    return dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))


def inside(order):
    """In the new namespaces, as their root: the container's root as Apptainer makes it, then the command."""
    base, root_fd = "/tmp", os.open(order["root"], os.O_RDONLY)
    sources = [os.open(source, os.O_PATH) for source, _, _ in order["mounts"]]
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in DEVICES}
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", base, "tmpfs", options=SESSION)
    for name in ("upper", "work", "final"):
        os.mkdir(f"{base}/{name}")
    final = f"{base}/final"
    lower = f"lowerdir=/proc/self/fd/{root_fd},upperdir={base}/upper,workdir={base}/work,userxattr"
    mount("overlay", final, "overlay", options=lower)
    for path in ("proc", "dev", "tmp", "var/tmp", "old-root"):
        os.makedirs(f"{final}/{path}", exist_ok=True)
    mount("tmpfs", f"{final}/dev", "tmpfs", options=SESSION)
    for name, fd in devices.items():
        show(fd, f"{final}/dev/{name}")
    for path in ("dev/shm", "tmp", "var/tmp"):
        os.makedirs(f"{final}/{path}", exist_ok=True)
        mount("tmpfs", f"{final}/{path}", "tmpfs", options=f"{SESSION},mode=1777")
    for source, (_, target, read_only) in zip(sources, order["mounts"]):
        show(source, final + target)
        if read_only:
            flags = os.statvfs(final + target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
            mount("none", final + target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
    mount("proc", f"{final}/proc", "proc")
    mount("none", final, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    if order["hostname"]:
        socket.sethostname(order["hostname"])
    os.chdir(final)
    checked(libc.pivot_root(b".", b"old-root"), "pivot_root")
    os.chdir("/")
    checked(libc.umount2(b"/old-root", 2), "umount")
    os.closerange(3, 1024)
    try:
        os.execvpe(order["command"][0], order["command"], order["env"])
    except OSError as error:
        fatal(f"stat {order['command'][0]}: {error.strerror}")


def show(source, target):
    """Bind what a descriptor is of, making the place for it."""
    if stat.S_ISDIR(os.stat(source).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).touch()
    mount(f"/proc/self/fd/{source}", target, flags=MS_BIND | MS_REC)


def mount(source, target, kind=None, *, flags=0, options=""):
    done = libc.mount(source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode())
    checked(done, f"mount {source}->{target}")


def checked(result, what):
    if result != 0:
        fatal(f"container creation failed: {what}: {os.strerror(ctypes.get_errno())}")


def build(words):
    told, rest = parsed("build", words)
    if len(rest) != 2:
        fatal(f"accepts 2 arg(s), received {len(rest)}")
    target, source = rest
    if os.path.exists(target) and "force" not in told:
        fatal(f"While checking build target: build target '{os.path.basename(target)}' already exists. Use --force")
    if not source.startswith(("docker-archive:", "oci-archive:", "oci:")):
        fatal(f"While making image from oci registry: error fetching image to cache: {source}: dial tcp: no such host")
    from verigym.envs.sandbox.oci.flavor import AS_USER
    from verigym.envs.sandbox.oci.sources import opened
    from verigym.envs.sandbox.oci.streams import decompressed
    from verigym.envs.sandbox.oci.unpack import unpack_layer

    folder = Path(f"{target}.tmp")
    folder.mkdir()
    try:
        with opened(source) as found:
            (image,) = found
            for blob in image.blobs:
                with blob.open() as data:
                    unpack_layer(decompressed(data, what="a layer"), folder, AS_USER)
            (folder / ".singularity.d/env").mkdir(parents=True)
            lines = "".join(f"export {one}\n" for one in image.image.settings.get("Env") or ())
            (folder / ".singularity.d/env/10-docker2singularity.sh").write_text(lines)
        with open(target, "wb") as file:
            file.write(SIF)
            with tarfile.open(fileobj=file, mode="w|") as tar:
                tar.add(folder, arcname=".")
    finally:
        shutil.rmtree(folder)


def _text(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    commands = {"exec": execute, "build": build, ".inside": lambda words: inside(json.loads(words[0]))}
    if sys.argv[1:2] == ["--version"]:
        print("apptainer version 1.5.0 (a stand-in)")
    elif len(sys.argv) < 2 or sys.argv[1] not in commands:
        fatal(f"unknown command {sys.argv[1:2]} for apptainer")
    else:
        commands[sys.argv[1]](sys.argv[2:])
