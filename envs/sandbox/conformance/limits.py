"""Bounds on memory, processes, files and disk."""

import errno

from ..types import SandboxBackend
from .expect import gives, new_mark, none_alive, opened, python_of, same


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
        same("four of 100 MiB in 256", (result.exit_code, result.killed), (None, "memory"))
        await none_alive(sandbox, "bytearray")
        await gives(sandbox, "echo ok", "ok\n")


async def check_processes(backend: SandboxBackend) -> None:
    """A fork bomb ends, killed, and the next command is right."""
    mark = new_mark()
    async with opened(backend, num_processes=64) as sandbox:
        for bomb in (
            "bomb() { bomb | bomb & }; bomb; sleep 20",
            f"for i in $(seq 200); do sleep {mark}1 & done; sleep 20",
        ):
            result = await sandbox.aexec(bomb, timeout_s=30)
            same(f"outcome of {bomb!r}", (result.exit_code, result.killed), (None, "processes"))
            await gives(sandbox, "echo ok", "ok\n", after=bomb)
            await none_alive(sandbox, f"sleep {mark}1")
        # Where an image has bash, it is the better bomb: other shells give up when they cannot fork.
        shell = "bash" if (await sandbox.arun(["bash", "-c", ":"])).exit_code == 0 else "sh"
        result = await sandbox.arun([shell, "-c", "bomb() { bomb | bomb & }; bomb; sleep 20"], timeout_s=30)
        same("fork bomb beside the shell", (result.exit_code, result.killed), (None, "processes"))
        await gives(sandbox, "echo ok", "ok\n")


async def check_file_size(backend: SandboxBackend) -> None:
    """A file larger than the limit is not written."""
    async with opened(backend, file_mib=4) as sandbox:
        result = await sandbox.aexec("head -c 8000000 /dev/zero > big; echo $?; stat -c %s big; rm big")
        code, size = result.output.splitlines()[-2:]
        if int(code) == 0 or int(size) > 4 << 20:
            raise AssertionError(f"a file of {size} bytes with a limit of 4 MiB (exit code {code})")
        await gives(sandbox, "echo ok", "ok\n")


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
        await gives(sandbox, "echo ok", "ok\n", after="a full disk")
        try:
            await sandbox.write_file("more", b"x" * 1_000_000)
        except OSError as error:
            same("errno", error.errno, errno.ENOSPC)
        else:
            raise AssertionError("a file was written to a full disk")
        await gives(sandbox, "rm -f */fill fill /tmp/fill /var/tmp/fill ~/fill; echo more > m; cat m", "more\n")


async def check_many_files(backend: SandboxBackend) -> None:
    """Empty files are bounded as well: each takes memory of the kernel."""
    script = "i = 0\nwhile i < 200_000: open(f'/tmp/{i}', 'w').close(); i += 1"
    async with opened(backend, disk_mib=16) as sandbox:
        result = await sandbox.arun([await python_of(sandbox), "-ISc", script], timeout_s=60)
        if result.exit_code == 0:
            raise AssertionError("200,000 empty files on a disk of 16 MiB")
        await gives(sandbox, "cd /tmp && ls | xargs rm && ls | wc -l", "0\n")
