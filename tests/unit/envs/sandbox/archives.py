"""Images for tests, made without an engine: layers of what a test says, and one of this machine's own programs."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

PROGRAMS = [
    "awk",
    "base64",
    "basename",
    "bash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "id",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mount",
    "mv",
    "nohup",
    "printf",
    "ps",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
    "whoami",
    "xargs",
    "yes",
    "git",
]
PYTHON = '#!/bin/bash\nexec {} "$@"\n'


def member(name, data=b"", *, kind=None, link="", mode=0o644, uid=0, gid=0):
    """(header, data) of a tar archive's entry; a name with "/" at its end is a folder."""
    one = tarfile.TarInfo(name.rstrip("/"))
    one.type = kind or (tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE)
    one.mode = 0o755 if one.isdir() else mode
    one.uid, one.gid, one.linkname, one.size, one.mtime = uid, gid, link, len(data), 1_600_000_000
    return one, data


def layer(*members):
    """A layer's tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for one, data in members:
            tar.addfile(one, io.BytesIO(data) if data else None)
    return buffer.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def configuration(layers, *, machine=None, **settings):
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    return json.dumps(
        {
            "architecture": machine or names.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(one)}" for one in layers]},
        }
    ).encode()


def docker_archive(path, layers, *, names=("test/small:1",), config=None, **settings):
    """Write what ``docker save`` writes. Returns the path."""
    config = config or configuration(layers, **settings)
    entry = {"Config": f"{digest(config)}.json", "RepoTags": list(names), "Layers": []}
    with tarfile.open(path, "w") as tar:
        for number, one in enumerate(layers):
            entry["Layers"].append(f"{number}/layer.tar")
            _add(tar, f"{number}/layer.tar", one)
        _add(tar, entry["Config"], config)
        _add(tar, "manifest.json", json.dumps([entry]).encode())
    return path


def oci_layout(folder, layers, *, name="latest", config=None, compressed=True, **settings):
    """Write an OCI layout into a folder. Returns it."""
    config = config or configuration(layers, **settings)
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data, kind):
        (blobs / digest(data)).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest(data)}", "size": len(data)}

    kind = "layer.v1.tar+gzip" if compressed else "layer.v1.tar"
    packed = [gzip.compress(one, 1) if compressed else one for one in layers]
    manifest = {
        "schemaVersion": 2,
        "config": put(config, "config.v1+json"),
        "layers": [put(one, kind) for one in packed],
    }
    entry = put(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


def programs_layer(python):
    """A layer of this machine's programs with their libraries, and a python3 that is what ``python`` says.

    Args:
        python: the command line that runs Python inside.
    """
    found = {name: shutil.which(name) for name in PROGRAMS}
    paths = {f"usr/bin/{name}": path for name, path in found.items() if path}
    said = subprocess.run(["ldd", *filter(None, found.values())], capture_output=True, text=True).stdout
    paths |= {f"usr/lib/{name}": path for name, path in re.findall(r"(\S+) => (/\S+) \(0x", said)}
    loaders = set(re.findall(r"^\s(/\S+) \(0x", said, re.MULTILINE))
    folders = ("usr/", "usr/bin/", "usr/lib/", "etc/", "root/", "usr/lib64/", "var/")
    members = [member(name) for name in folders]
    members += [member(name, kind=tarfile.SYMTYPE, link=f"usr/{name}") for name in ("bin", "lib", "lib64")]
    members += [member(name, Path(path).read_bytes(), mode=0o755) for name, path in sorted(paths.items())]
    members += [member(f"usr{one}", Path(one).read_bytes(), mode=0o755) for one in loaders]
    members.append(member("usr/bin/python3", PYTHON.format(" ".join(python)).encode(), mode=0o755))
    members.append(member("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n"))
    members.append(member("etc/group", b"root:x:0:\n"))
    return layer(*members)


def _add(tar, name, data):
    one = tarfile.TarInfo(name)
    one.size = len(data)
    tar.addfile(one, io.BytesIO(data))
