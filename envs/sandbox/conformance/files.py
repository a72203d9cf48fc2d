"""Files and archives, in and out."""

import io
import tarfile

from ..types import SandboxBackend
from .expect import fails, gives, opened, same


async def check_files(backend: SandboxBackend) -> None:
    """Files and archives go in and out unchanged; errors are the file system's own."""
    async with opened(backend) as sandbox:
        data = bytes(range(256)) * 40_000
        await sandbox.write_file("new/folder/data.bin", data)
        same("file", await sandbox.read_file("/workspace/new/folder/data.bin") == data, True)
        await sandbox.write_file("/workspace/tool.sh", b"#!/bin/sh\necho run\n", mode=0o755)
        await gives(sandbox, "./tool.sh; stat -c %a tool.sh new/folder/data.bin", "run\n755\n644\n")
        await gives(sandbox, "mkfifo fifo; ln -s /nowhere broken", "")
        await fails(FileNotFoundError, sandbox.read_file("missing"))
        await fails(FileNotFoundError, sandbox.read_file("broken"))
        await fails(IsADirectoryError, sandbox.read_file("new"))
        await fails(IsADirectoryError, sandbox.write_file("new", b""))
        await fails(NotADirectoryError, sandbox.read_file("tool.sh/below"))
        await fails(OSError, sandbox.read_file("fifo"))
        for mode in ("w", "w:gz"):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
                for name, text in (("pkg/a.py", b"A = 1\n"), ("pkg/deep/b.py", b"B = 2\n")):
                    member = tarfile.TarInfo(name)
                    member.size, member.uid, member.mtime = len(text), 4242, 1_600_000_000
                    archive.addfile(member, io.BytesIO(text))
                link = tarfile.TarInfo("pkg/link.py")
                link.type, link.linkname = tarfile.SYMTYPE, "a.py"
                archive.addfile(link)
            await sandbox.put_archive(packed.getvalue(), "repo")
            await gives(
                sandbox, "cat repo/pkg/link.py repo/pkg/deep/b.py; [ -O repo/pkg/a.py ]; rm -r repo", "A = 1\nB = 2\n"
            )
        await fails(OSError, sandbox.put_archive(b"not a tar", "repo"))
        await gives(sandbox, "echo ok", "ok\n")
