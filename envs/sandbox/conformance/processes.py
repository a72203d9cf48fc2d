"""Processes beside the shell, callers that give up, and what is left at the end."""

import asyncio

from ....errors import SandboxError
from ..types import CommandResult, SandboxBackend, SandboxSpec
from .expect import fails, gives, new_mark, none_alive, opened, same


async def check_run(backend: SandboxBackend) -> None:
    """A process beside the shell: its own status, streams apart, nothing left behind but the shell's own jobs."""
    mark = new_mark()
    async with opened(backend) as sandbox:
        await gives(sandbox, f"export HERE=1; sleep {mark}1 & cd /", "")
        result = await sandbox.arun(
            ["sh", "-c", "cat; echo $A ${HERE-unset}; pwd >&2; exit 4"], stdin=b"in\n", env={"A": "b"}, cwd="/tmp"
        )
        same("arun", (result.stdout, result.stderr.strip(), result.exit_code), (b"in\nb unset\n", b"/tmp", 4))
        same("a signal", (await sandbox.arun(["sh", "-c", "kill -SEGV $$"])).exit_code, -11)
        same("unknown program", (await sandbox.arun(["no-such-program"])).exit_code, 127)
        same("unread input", (await sandbox.arun(["true"], stdin=b"x" * 5_000_000)).exit_code, 0)
        result = await sandbox.arun(["sh", "-c", f"(setsid sleep {mark}2 &) ; sleep {mark}3 & echo done"])
        same("arun with leftovers", (result.stdout, result.exit_code), (b"done\n", 0))
        await none_alive(sandbox, f"sleep {mark}[23]")
        result = await sandbox.arun(["sh", "-c", f"sleep {mark}4 & echo begun; sleep {mark}5"], timeout_s=0.4)
        same("deadline", (result.stdout, result.exit_code, result.killed), (b"begun\n", None, "timeout"))
        await none_alive(sandbox, f"sleep {mark}[45]")
        result = await sandbox.arun(["yes"], output_bytes=1000)
        same("too much output", (result.stdout, result.killed), (b"y\n" * 500, "output"))
        result = await sandbox.arun(["sh", "-c", f"kill -9 $PPID; sleep {mark}6; exit 0"], timeout_s=0.5)
        if result.exit_code == 0:
            raise AssertionError("a process that killed its parent passed")
        await none_alive(sandbox, f"sleep {mark}[2-6]")


async def check_run_beside_shell(backend: SandboxBackend) -> None:
    """Processes beside the shell run at the same time as its command, and leave its jobs alone."""
    mark = new_mark()
    async with opened(backend) as sandbox:
        await gives(sandbox, f"sleep {mark}7 & echo $! > job", "")
        command = asyncio.create_task(sandbox.aexec("until [ -e mark ]; do sleep 0.01; done; cat mark", timeout_s=20))
        runs = [sandbox.arun(["sh", "-c", f"sleep 0.05; echo {i}; exit {i}"]) for i in range(4)]
        for i, result in enumerate(await asyncio.gather(*runs)):
            same("parallel arun", (result.stdout, result.exit_code), (f"{i}\n".encode(), i))
        await sandbox.write_file("mark", b"seen")
        same("the shell's command", (await command).output, "seen")
        await gives(sandbox, "kill -0 $(cat job) && echo alive", "alive\n")


async def check_cancellation(backend: SandboxBackend) -> None:
    """A caller that gives up has what it started killed, and may go on using the sandbox."""
    mark = new_mark()
    async with opened(backend) as sandbox:
        await gives(sandbox, "export KEPT=1", "")
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
            await gives(sandbox, "echo $KEPT", "1\n")
            await asyncio.sleep(0.05)
            await none_alive(sandbox, f"sleep {mark}")
        waiting = [asyncio.create_task(sandbox.aexec(f"sleep 0.02; echo {i}")) for i in range(4)]
        await asyncio.sleep(0.01)
        waiting[2].cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        outputs = [one.output if isinstance(one, CommandResult) else type(one).__name__ for one in done]
        same("commands in turn", outputs, ["0\n", "1\n", "CancelledError", "3\n"])


async def check_parallel(backend: SandboxBackend) -> None:
    """Sandboxes at the same time do not meet, not even in files of the same name."""

    async def one(number: int) -> str:
        async with opened(backend) as sandbox:
            await sandbox.write_file("same", str(number).encode())
            await sandbox.aexec(f"sleep 0.05; echo {number} >> same")
            return (await sandbox.aexec("cat same")).output

    same("eight sandboxes", await asyncio.gather(*map(one, range(8))), [f"{i}{i}\n" for i in range(8)])


async def check_close(backend: SandboxBackend) -> None:
    """After ``aclose``, twice, calls raise SandboxError, and so does the call that was under way."""
    mark = new_mark()
    sandbox = await backend.create(SandboxSpec())
    running = asyncio.create_task(sandbox.aexec(f"sleep {mark}1"))
    await asyncio.sleep(0.05)
    await sandbox.aclose()
    await sandbox.aclose()
    await fails(SandboxError, running)
    await fails(SandboxError, sandbox.aexec("echo ok"))
    await fails(SandboxError, sandbox.read_file("x"))
