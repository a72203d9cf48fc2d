"""What every sandbox must do, as checks that the author of a backend can run on it.

``CHECKS`` hold for every backend, ``ISOLATION_CHECKS`` for those that contain what runs in them. Each check is a
coroutine function that takes a backend, makes its own sandboxes, and raises AssertionError saying what differed::

    for check in (*CHECKS, *ISOLATION_CHECKS):
        asyncio.run(check(MyBackend()))
"""

import asyncio
import errno
import io
import os
import secrets
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import SandboxError
from .launch import base_python, base_python_binds
from .types import Bind, CommandResult, Limits, Sandbox, SandboxBackend, SandboxSpec

Check = Callable[[SandboxBackend], Awaitable[None]]


@asynccontextmanager
async def opened(backend: SandboxBackend, **limits: Any) -> AsyncIterator[Sandbox]:
    """A sandbox with the base interpreter inside, closed at the end."""
    sandbox = await backend.create(SandboxSpec(binds=base_python_binds(), limits=Limits(**limits)))
    try:
        yield sandbox
    finally:
        await sandbox.aclose()


class InImage:
    """A backend whose sandboxes are of one image where a check names none."""

    def __init__(self, backend: SandboxBackend, image: str) -> None:
        self.name, self._backend, self._image = f"{backend.name} ({image})", backend, image

    async def create(self, spec: SandboxSpec) -> Sandbox:
        binds = tuple(bind for bind in spec.binds if bind not in base_python_binds())  # the image has its own libc
        return await self._backend.create(replace(spec, image=spec.image or self._image, binds=binds))


async def python_of(sandbox: Sandbox) -> str:
    """An interpreter that runs inside: ours, or the image's.

    Raises:
        SandboxError: there is none.
    """
    for python in (base_python()[0], "python3"):
        if (await sandbox.arun([python, "-c", ""])).exit_code == 0:
            return python
    raise SandboxError("this check needs Python inside, and the image has none")


async def check_session(backend: SandboxBackend) -> None:
    """The shell lasts: directory, variables, functions, $?; ``exit`` ends the command alone."""
    async with opened(backend) as sandbox:
        await _gives(
            sandbox, "mkdir -p sub && cd sub && export WORD='two words' NEXT=$'a\\nb'; loose=1; f() { echo f; }", ""
        )
        await _gives(sandbox, 'basename "$PWD"; echo "$WORD" "$loose"; f', "sub\ntwo words 1\nf\n")
        await _gives(sandbox, "echo out; echo err >&2; (exit 7)", "out\nerr\n", code=7)
        await _gives(sandbox, "echo $?", "7\n")
        await _gives(sandbox, "cd ..; export WORD=later; exit 3", "", code=3)
        await _gives(sandbox, 'echo "$WORD" "$NEXT"; ls -d sub', "later a\nb\nsub\n")
        await _gives(sandbox, "false | true; echo ${PIPESTATUS[*]}", "1 0\n")
        await _gives(sandbox, "cat <<'END'\n'quoted' \"text\" $HOME\nEND", "'quoted' \"text\" $HOME\n")
        await _gives(sandbox, f": {'x' * 200_000}; echo long", "long\n")
        result = await sandbox.aexec("no-such-command-anywhere")
        _same("exit code of an unknown command", result.exit_code, 127)


DESYNC: tuple[tuple[str, int | None], ...] = (
    ("", 0),
    ("# only a comment", 0),
    ("echo 'exit 0'; echo __verigym_code=0; echo ok", 0),
    ("cat", 0),
    ("read line", 1),
    ("echo 'open", None),
    ("cat <<END\nnever ended", 0),
    ("if true; then", None),
    ("echo trailing \\", 0),
    ("exit 5", 5),
    ("exec sh -c 'exit 6'", 6),
    ("exec >/dev/null 2>&1 </dev/zero", 0),
    ("exec 0<&- 1>&- 2>&-", 0),
    ('for fd in $(seq 3 255); do eval "exec $fd>&-"; done', 0),
    ("exec 10>/dev/null 11>/dev/null 12>/dev/null 250>/dev/null", 0),
    ("kill -9 $$", 137),
    ("kill -TERM 0", 143),
    ("printf 'a\\0b\\0'", 0),
    ("printf '\\377\\376\\200'", 0),
    ("head -c 1000000 /dev/zero | tr '\\0' x", 0),
    ("(sleep 0.2; echo late) &", 0),
    ("yes &", 0),
    ("break", 0),
    ("return 4", None),
    ("set -e; false; echo no", 1),
    ("set -u; echo $undefined", None),
    ("trap 'echo bye' EXIT", 0),
    ("trap 'echo bye' EXIT; exit 8", 8),
    ("printf() { echo bad; }; pwd() { echo bad; }; eval() { echo bad; }; read() { echo bad; }", 0),
    ("ulimit -n 4", 0),
    ("echo \"$BASH_EXECUTION_STRING\"; set +o | head -1 >/dev/null; shopt -s expand_aliases; alias echo='echo bad'", 0),
    ("unalias echo; cd /; umask 000; IFS=x; set -f", 0),
    ("unset PATH HOME", 0),
)
"""(a command that could lose the session, its exit code; None: any but 0)."""


async def check_desync(backend: SandboxBackend) -> None:
    """After each of ``DESYNC``, ``echo ok`` gives exactly ``ok``, and 0, and the one after gives its own code."""
    async with opened(backend) as sandbox:
        for command, code in DESYNC:
            result = await sandbox.aexec(command, timeout_s=20)
            if result.killed or (result.exit_code != code if code is not None else not result.exit_code):
                raise AssertionError(f"{command!r} gave {result}, expected exit code {code}")
            if "alias" not in command:
                await _gives(sandbox, "echo ok", "ok\n", after=command)
            await _gives(sandbox, "builtin echo so; (builtin exit 9)", "so\n", code=9, after=command)


async def check_output(backend: SandboxBackend) -> None:
    """Output of any bytes and any size: head and tail are kept, invalid UTF-8 is replaced."""
    async with opened(backend, output_bytes=1000) as sandbox:
        await _gives(sandbox, "printf 'a\\0b\\377c'", "a\0b�c")
        result = await sandbox.aexec("echo first; seq 100000; echo last >&2")
        _same("truncated", result.truncated, True)
        if not (result.output.startswith("first\n1\n") and result.output.endswith("100000\nlast\n")):
            raise AssertionError(f"head and tail were not kept: {result.output!r}")
        if len(result.output) > 1100:
            raise AssertionError(f"{len(result.output)} characters of output with a cap of 1000 bytes")
        result = await sandbox.aexec("head -c 1000000000 /dev/zero", timeout_s=60)
        _same("1 GB of output", (result.exit_code, result.truncated), (0, True))
        result = await sandbox.aexec("echo before; sleep 600", timeout_s=0.3)
        _same("output of a killed command", (result.output, result.killed), ("before\n", "timeout"))


async def check_deadline(backend: SandboxBackend) -> None:
    """At the deadline every process goes, also orphans and daemons; the session goes on where it was."""
    mark = _mark()
    async with opened(backend) as sandbox:
        await _gives(sandbox, "mkdir -p deep && cd deep && export KEPT=yes", "")
        await _gives(sandbox, f"sleep {mark}1 &", "")
        commands = (
            f"(sleep {mark}2 & sleep {mark}3); wait",
            f"setsid sh -c 'sleep {mark}4 & sleep {mark}5' & cd /; sleep {mark}6",
        )
        for command in (*commands, "trap '' TERM INT; while :; do :; done", "kill -STOP $$"):
            result = await sandbox.aexec(command, timeout_s=0.4)
            _same(f"outcome of {command!r}", (result.exit_code, result.killed), (None, "timeout"))
            await _gives(sandbox, 'basename "$PWD"; echo "$KEPT"', "deep\nyes\n", after=command)
            await _none_alive(sandbox, f"sleep {mark}")


async def check_run(backend: SandboxBackend) -> None:
    """A process beside the shell: its own status, streams apart, nothing left behind but the shell's own jobs."""
    mark = _mark()
    async with opened(backend) as sandbox:
        await _gives(sandbox, f"export HERE=1; sleep {mark}1 & cd /", "")
        result = await sandbox.arun(
            ["sh", "-c", "cat; echo $A ${HERE-unset}; pwd >&2; exit 4"], stdin=b"in\n", env={"A": "b"}, cwd="/tmp"
        )
        _same("arun", (result.stdout, result.stderr.strip(), result.exit_code), (b"in\nb unset\n", b"/tmp", 4))
        _same("a signal", (await sandbox.arun(["sh", "-c", "kill -SEGV $$"])).exit_code, -11)
        _same("unknown program", (await sandbox.arun(["no-such-program"])).exit_code, 127)
        _same("unread input", (await sandbox.arun(["true"], stdin=b"x" * 5_000_000)).exit_code, 0)
        result = await sandbox.arun(["sh", "-c", f"(setsid sleep {mark}2 &) ; sleep {mark}3 & echo done"])
        _same("arun with leftovers", (result.stdout, result.exit_code), (b"done\n", 0))
        await _none_alive(sandbox, f"sleep {mark}[23]")
        result = await sandbox.arun(["sh", "-c", f"sleep {mark}4 & echo begun; sleep {mark}5"], timeout_s=0.4)
        _same("deadline", (result.stdout, result.exit_code, result.killed), (b"begun\n", None, "timeout"))
        await _none_alive(sandbox, f"sleep {mark}[45]")
        result = await sandbox.arun(["yes"], output_bytes=1000)
        _same("too much output", (result.stdout, result.killed), (b"y\n" * 500, "output"))
        result = await sandbox.arun(["sh", "-c", f"kill -9 $PPID; sleep {mark}6; exit 0"], timeout_s=0.5)
        if result.exit_code == 0:
            raise AssertionError("a process that killed its parent passed")
        await _none_alive(sandbox, f"sleep {mark}[2-6]")


async def check_run_beside_shell(backend: SandboxBackend) -> None:
    """Processes beside the shell run at the same time as its command, and leave its jobs alone."""
    mark = _mark()
    async with opened(backend) as sandbox:
        await _gives(sandbox, f"sleep {mark}7 & echo $! > job", "")
        command = asyncio.create_task(sandbox.aexec("until [ -e mark ]; do sleep 0.01; done; cat mark", timeout_s=20))
        runs = [sandbox.arun(["sh", "-c", f"sleep 0.05; echo {i}; exit {i}"]) for i in range(4)]
        for i, result in enumerate(await asyncio.gather(*runs)):
            _same("parallel arun", (result.stdout, result.exit_code), (f"{i}\n".encode(), i))
        await sandbox.write_file("mark", b"seen")
        _same("the shell's command", (await command).output, "seen")
        await _gives(sandbox, "kill -0 $(cat job) && echo alive", "alive\n")


async def check_files(backend: SandboxBackend) -> None:
    """Files and archives go in and out unchanged; errors are the file system's own."""
    async with opened(backend) as sandbox:
        data = bytes(range(256)) * 40_000
        await sandbox.write_file("new/folder/data.bin", data)
        _same("file", await sandbox.read_file("/workspace/new/folder/data.bin") == data, True)
        await sandbox.write_file("/workspace/tool.sh", b"#!/bin/sh\necho run\n", mode=0o755)
        await _gives(sandbox, "./tool.sh; stat -c %a tool.sh new/folder/data.bin", "run\n755\n644\n")
        await _gives(sandbox, "mkfifo fifo; ln -s /nowhere broken", "")
        await _fails(FileNotFoundError, sandbox.read_file("missing"))
        await _fails(FileNotFoundError, sandbox.read_file("broken"))
        await _fails(IsADirectoryError, sandbox.read_file("new"))
        await _fails(IsADirectoryError, sandbox.write_file("new", b""))
        await _fails(NotADirectoryError, sandbox.read_file("tool.sh/below"))
        await _fails(OSError, sandbox.read_file("fifo"))
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
            await _gives(
                sandbox, "cat repo/pkg/link.py repo/pkg/deep/b.py; [ -O repo/pkg/a.py ]; rm -r repo", "A = 1\nB = 2\n"
            )
        await _fails(OSError, sandbox.put_archive(b"not a tar", "repo"))
        await _gives(sandbox, "echo ok", "ok\n")


async def check_cancellation(backend: SandboxBackend) -> None:
    """A caller that gives up has what it started killed, and may go on using the sandbox."""
    mark = _mark()
    async with opened(backend) as sandbox:
        await _gives(sandbox, "export KEPT=1", "")
        for make in (
            lambda: sandbox.aexec(f"(sleep {mark}1 &) ; sleep {mark}2"),
            lambda: sandbox.arun(["sh", "-c", f"sleep {mark}3 & sleep {mark}4"]),
        ):
            try:
                async with asyncio.timeout(0.2):
                    await make()
            except TimeoutError:
                pass
            else:
                raise AssertionError("the caller's deadline did not end the call")
            await _gives(sandbox, "echo $KEPT", "1\n")
            await asyncio.sleep(0.05)
            await _none_alive(sandbox, f"sleep {mark}")
        waiting = [asyncio.create_task(sandbox.aexec(f"sleep 0.02; echo {i}")) for i in range(4)]
        await asyncio.sleep(0.01)
        waiting[2].cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        outputs = [one.output if isinstance(one, CommandResult) else type(one).__name__ for one in done]
        _same("commands in turn", outputs, ["0\n", "1\n", "CancelledError", "3\n"])


async def check_parallel(backend: SandboxBackend) -> None:
    """Sandboxes at the same time do not meet, not even in files of the same name."""

    async def one(number: int) -> str:
        async with opened(backend) as sandbox:
            await sandbox.write_file("same", str(number).encode())
            await sandbox.aexec(f"sleep 0.05; echo {number} >> same")
            return (await sandbox.aexec("cat same")).output

    _same("eight sandboxes", await asyncio.gather(*map(one, range(8))), [f"{i}{i}\n" for i in range(8)])


async def check_close(backend: SandboxBackend) -> None:
    """After ``aclose``, twice, calls raise SandboxError, and so does the call that was under way."""
    mark = _mark()
    sandbox = await backend.create(SandboxSpec())
    running = asyncio.create_task(sandbox.aexec(f"sleep {mark}1"))
    await asyncio.sleep(0.05)
    await sandbox.aclose()
    await sandbox.aclose()
    await _fails(SandboxError, running)
    await _fails(SandboxError, sandbox.aexec("echo ok"))
    await _fails(SandboxError, sandbox.read_file("x"))


async def check_memory(backend: SandboxBackend) -> None:
    """One process that takes too much fails or is killed; many that together do are killed, and the session lives."""
    hog = "x = bytearray(b'x' * ({} << 20)); import time; time.sleep(20)"
    async with opened(backend, memory_mib=256) as sandbox:
        python = await python_of(sandbox)
        result = await sandbox.arun([python, "-ISc", hog.format(400)])
        if result.exit_code == 0 and result.killed is None:
            raise AssertionError("400 MiB fit into 256")
        each = f'{python} -ISc "{hog.format(100)}" & '
        result = await sandbox.aexec(f"{each * 4} wait", timeout_s=30)
        _same("four of 100 MiB in 256", (result.exit_code, result.killed), (None, "memory"))
        await _none_alive(sandbox, "bytearray")
        await _gives(sandbox, "echo ok", "ok\n")


async def check_processes(backend: SandboxBackend) -> None:
    """A fork bomb ends, killed, and the next command is right."""
    mark = _mark()
    async with opened(backend, num_processes=64) as sandbox:
        for bomb in (
            "bomb() { bomb | bomb & }; bomb; sleep 20",
            f"for i in $(seq 200); do sleep {mark}1 & done; sleep 20",
        ):
            result = await sandbox.aexec(bomb, timeout_s=30)
            _same(f"outcome of {bomb!r}", (result.exit_code, result.killed), (None, "processes"))
            await _gives(sandbox, "echo ok", "ok\n", after=bomb)
            await _none_alive(sandbox, f"sleep {mark}1")
        # Where an image has bash, it is the better bomb: other shells give up when they cannot fork.
        shell = "bash" if (await sandbox.arun(["bash", "-c", ":"])).exit_code == 0 else "sh"
        result = await sandbox.arun([shell, "-c", "bomb() { bomb | bomb & }; bomb; sleep 20"], timeout_s=30)
        _same("fork bomb beside the shell", (result.exit_code, result.killed), (None, "processes"))
        await _gives(sandbox, "echo ok", "ok\n")


async def check_file_size(backend: SandboxBackend) -> None:
    """A file larger than the limit is not written."""
    async with opened(backend, file_mib=4) as sandbox:
        result = await sandbox.aexec("head -c 8000000 /dev/zero > big; echo $?; stat -c %s big; rm big")
        code, size = result.output.splitlines()[-2:]
        if int(code) == 0 or int(size) > 4 << 20:
            raise AssertionError(f"a file of {size} bytes with a limit of 4 MiB (exit code {code})")
        await _gives(sandbox, "echo ok", "ok\n")


async def check_full_disk(backend: SandboxBackend) -> None:
    """Everything written together is bounded, wherever it lies; a full disk breaks neither session nor file calls."""
    async with opened(backend, disk_mib=16, file_mib=12) as sandbox:
        fill = "for d in /tmp /var/tmp . ~ /dev/shm; do head -c 12000000 /dev/zero > $d/fill; done"
        result = await sandbox.aexec(
            f"{fill} 2>/dev/null; n=$(du -cm /tmp /var/tmp . ~ | tail -1 | cut -f1); [ $n -le 17 ] || sleep 5; echo $n"
        )
        # A backend that has no such limit of its storage may measure, and kill what wrote too much.
        if result.killed != "disk" and int(result.output) > 17:
            raise AssertionError(f"{result.output.strip()} MiB written with a limit of 16")
        await _gives(sandbox, "echo ok", "ok\n", after="a full disk")
        try:
            await sandbox.write_file("more", b"x" * 1_000_000)
        except OSError as error:
            _same("errno", error.errno, errno.ENOSPC)
        else:
            raise AssertionError("a file was written to a full disk")
        await _gives(sandbox, "rm -f */fill fill /tmp/fill /var/tmp/fill ~/fill; echo more > m; cat m", "more\n")


async def check_many_files(backend: SandboxBackend) -> None:
    """Empty files are bounded as well: each takes memory of the kernel."""
    script = "i = 0\nwhile i < 200_000: open(f'/tmp/{i}', 'w').close(); i += 1"
    async with opened(backend, disk_mib=16) as sandbox:
        result = await sandbox.arun([await python_of(sandbox), "-ISc", script], timeout_s=60)
        if result.exit_code == 0:
            raise AssertionError("200,000 empty files on a disk of 16 MiB")
        await _gives(sandbox, "cd /tmp && ls | xargs rm && ls | wc -l", "0\n")


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
        _same("network", result.stdout + result.stderr, b"['lo']\nTrue\n")


async def check_invisible(backend: SandboxBackend) -> None:
    """The user's files and environment and the host's processes cannot be seen; the system cannot be changed."""
    home, here = Path.home(), Path.cwd()
    os.environ["VERIGYM_CONFORMANCE"] = "87701"
    try:
        async with opened(backend) as sandbox:
            await _gives(
                sandbox, f"cat {here}/* {home}/.[a-z]* 2>/dev/null | head -c 100; env | grep -c 87701", "0\n", code=1
            )
            await _gives(
                sandbox,
                f"grep -lz 87701 /proc/[0-9]*/environ 2>/dev/null; ls -d /proc/{os.getpid()}/exe 2>&1 | grep -c python",
                "0\n",
                code=1,
            )
            for path in ("/usr", "/bin", "/etc/ld.so.cache", "/proc/sys/kernel/hostname", base_python()[1]):
                await _gives(
                    sandbox, f"[ -e {path} ] && {{ echo x > {path} || touch {path}/x; }} 2>/dev/null", "", code=1
                )
            await _gives(
                sandbox,
                "grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status | tr -s '\\t0' ' '",
                "CapPrm: \nCapEff: \nNoNewPrivs: 1\n",
            )
            await _gives(sandbox, "[ $(id -u) -ne 0 ] && [ -O . ] && mount -t tmpfs none /tmp 2>/dev/null", "", code=32)
            await _gives(
                sandbox, "kill -9 1; kill -STOP 1; cat /proc/1/mem /proc/1/environ; ls /proc/1/fd; echo ok", None
            )
            await _gives(sandbox, "echo ok", "ok\n")
    finally:
        del os.environ["VERIGYM_CONFORMANCE"]


async def check_binds(backend: SandboxBackend) -> None:
    """A bound folder is there, at another path, read-only."""
    source = Path(__file__).parent
    sandbox = await backend.create(SandboxSpec(binds=(Bind(source=source, target="/opt/shown/here"),), workdir="/a/b"))
    try:
        result = await sandbox.aexec(
            "pwd; [ -e /opt/shown/here/types.py ] && ! touch /opt/shown/here/x 2>/dev/null && echo ok"
        )
        _same("a bind", result.output, "/a/b\nok\n")
    finally:
        await sandbox.aclose()
    missing = Bind(source=source / "missing", target="/opt/x")
    await _fails(SandboxError, backend.create(SandboxSpec(binds=(missing,))))


CHECKS: tuple[Check, ...] = (
    check_session,
    check_desync,
    check_output,
    check_deadline,
    check_run,
    check_run_beside_shell,
    check_files,
    check_cancellation,
    check_parallel,
    check_close,
    check_memory,
    check_file_size,
)
ISOLATION_CHECKS: tuple[Check, ...] = (
    check_processes,
    check_full_disk,
    check_many_files,
    check_network,
    check_invisible,
    check_binds,
)


def _mark() -> int:
    """Seconds no other process on the machine sleeps: unsafe sandboxes see them all."""
    return 10_000_000 + secrets.randbelow(1_000_000)


def _same(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, expected {wanted!r}")


async def _gives(sandbox: Sandbox, command: str, output: str | None, *, code: int = 0, after: str = "") -> None:
    result = await sandbox.aexec(command, timeout_s=30)
    if result.exit_code != code or (output is not None and result.output != output):
        where = f" after {after!r}" if after else ""
        raise AssertionError(f"{command!r}{where} gave {result}, expected output {output!r} and exit code {code}")


async def _none_alive(sandbox: Sandbox, pattern: str) -> None:
    """No process whose command line matches; the pattern is split so that the search does not find itself."""
    look = f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '[{pattern[0]}]{pattern[1:]}[0-9]*'"
    await _gives(sandbox, look, "", code=1)


async def _fails(kind: type[BaseException], call: Awaitable[Any]) -> None:
    try:
        got = await call
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected, this was returned: {got!r}")
