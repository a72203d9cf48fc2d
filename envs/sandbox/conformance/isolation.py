"""What cannot be seen or reached from inside."""

import os
from pathlib import Path

from ....errors import SandboxError
from ..launch import base_python
from ..types import Bind, SandboxBackend, SandboxSpec
from .expect import fails, gives, opened, python_of, same


async def check_network(backend: SandboxBackend) -> None:
    """No interface but a loopback of its own, which works."""
    script = (
        "import socket\n"
        "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()).close()\n"
        "print([n for _, n in socket.if_nameindex()])\n"
        "c = socket.socket(); c.settimeout(5); print(c.connect_ex(('1.1.1.1', 53)) != 0)\n"
    )
    async with opened(backend) as sandbox:
        result = await sandbox.arun([await python_of(sandbox), "-ISc", script])
        same("network", result.stdout + result.stderr, b"['lo']\nTrue\n")


async def check_invisible(backend: SandboxBackend) -> None:
    """The user's files and environment and the host's processes cannot be seen; the system cannot be changed."""
    home, here = Path.home(), Path.cwd()
    os.environ["VERIGYM_CONFORMANCE"] = "87701"
    try:
        async with opened(backend) as sandbox:
            await gives(
                sandbox, f"cat {here}/* {home}/.[a-z]* 2>/dev/null | head -c 100; env | grep -c 87701", "0\n", code=1
            )
            await gives(
                sandbox,
                f"grep -lz 87701 /proc/[0-9]*/environ 2>/dev/null; ls -d /proc/{os.getpid()}/exe 2>&1 | grep -c python",
                "0\n",
                code=1,
            )
            for path in ("/usr", "/bin", "/etc/ld.so.cache", "/proc/sys/kernel/hostname", base_python()[1]):
                await gives(
                    sandbox, f"[ -e {path} ] && {{ echo x > {path} || touch {path}/x; }} 2>/dev/null", "", code=1
                )
            await gives(
                sandbox,
                "grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status | tr -s '\\t0' ' '",
                "CapPrm: \nCapEff: \nNoNewPrivs: 1\n",
            )
            await gives(sandbox, "[ $(id -u) -ne 0 ] && [ -O . ] && mount -t tmpfs none /tmp 2>/dev/null", "", code=32)
            await gives(
                sandbox, "kill -9 1; kill -STOP 1; cat /proc/1/mem /proc/1/environ; ls /proc/1/fd; echo ok", None
            )
            await gives(sandbox, "echo ok", "ok\n")
    finally:
        del os.environ["VERIGYM_CONFORMANCE"]


async def check_binds(backend: SandboxBackend) -> None:
    """A bound folder is there, at another path, read-only."""
    source = Path(__file__).parents[1]
    sandbox = await backend.create(SandboxSpec(binds=(Bind(source=source, target="/opt/shown/here"),), workdir="/a/b"))
    try:
        result = await sandbox.aexec(
            "pwd; [ -e /opt/shown/here/types.py ] && ! touch /opt/shown/here/x 2>/dev/null && echo ok"
        )
        same("a bind", result.output, "/a/b\nok\n")
    finally:
        await sandbox.aclose()
    missing = Bind(source=source / "missing", target="/opt/x")
    await fails(SandboxError, backend.create(SandboxSpec(binds=(missing,))))
