"""Repositories of SWE tasks: opened in a local sandbox, changed, compared and taken down."""

import asyncio
import subprocess
from pathlib import Path

from verigym.envs.datasets.swe import SWERow, pack_repository
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import Limits
from verigym.envs.swe.checkout import base_of, checkout, open_workspace, placed
from verigym.envs.swe.history import purge_history
from verigym.envs.swe.patching import apply_patch
from verigym.envs.swe.worktree import diff_of

from .harness import Subject, Work

_TEXTS, _SHORT = (320_000, 1_280_000, 5_120_000, 20_480_000), (20_000, 80_000, 320_000, 1_280_000)
_LIMITS = Limits(disk_mib=8192, file_mib=4096)


def _row(folder: Path, files: Path) -> SWERow:
    commit = pack_repository(files, folder / "repo.tar.gz")
    return SWERow(
        instance_id="a", base_commit=commit, problem_statement="", patch="", test_patch="",
        FAIL_TO_PASS=("t.py::test",), PASS_TO_PASS=(), test_cmd="true", archive=str(folder / "repo.tar.gz"),
    )  # fmt: skip


def _episode(row: SWERow) -> Work:
    """A workspace opened, a file changed, the patch taken."""

    async def work() -> None:
        backend = make_backend("local")
        here = placed(row, backend)
        box = await open_workspace(backend, here, limits=_LIMITS)
        try:
            await box.aexec(f"cd {here.root} && echo changed > changed.txt")
            patch = await diff_of(box, base_of(here), root=here.root, disk_mib=_LIMITS.disk_mib)
            assert patch is not None
            assert "changed.txt" in patch
        finally:
            await box.aclose()

    return lambda: asyncio.run(work())


def files(size: int, folder: Path) -> Work:
    """``size`` files of 100 bytes in folders of 100."""
    for number in range(size):
        path = folder / "files" / f"d{number // 100}" / f"f{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"x = {number}\n" * 8)
    return _episode(_row(folder, folder / "files"))


def large(size: int, folder: Path) -> Work:
    """``size`` MiB of files of 1 MiB that hardly compress."""
    import random

    draw = random.Random(0)
    (folder / "files").mkdir()
    for number in range(size):
        (folder / "files" / f"f{number}.bin").write_bytes(draw.randbytes(1 << 20))
    return _episode(_row(folder, folder / "files"))


def one_line(size: int, folder: Path) -> Work:
    """A file of one line of ``size`` characters."""
    (folder / "files").mkdir()
    (folder / "files" / "line.txt").write_text("x" * size + "\n")
    return _episode(_row(folder, folder / "files"))


def commits(size: int, folder: Path) -> Work:
    """The history of ``size`` commits purged of what is ahead of its middle."""
    repository = folder / "repo"
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    stream = []
    for number in range(1, size + 1):
        data = f"x = {number}\n"
        stream.append(f"commit refs/heads/main\nmark :{number}\ncommitter a <a@b> {number} +0000\ndata 1\nc\n")
        stream.append(f"M 100644 inline f{number % 100}.py\ndata {len(data)}\n{data}\n")
    stream.append(f"reset refs/heads/middle\nfrom :{size // 2}\n\n")
    subprocess.run(["git", "fast-import", "--quiet"], input="".join(stream).encode(), cwd=repository, check=True)
    subprocess.run(["git", "checkout", "-q", "middle"], cwd=repository, check=True)
    subprocess.run(["tar", "-czf", str(folder / "repo.tar.gz"), "-C", str(repository), "."], check=True)

    async def work() -> None:
        from verigym.envs.sandbox.types import SandboxSpec

        box = await make_backend("local").create(SandboxSpec(workdir="/testbed", limits=_LIMITS))
        try:
            await box.put_archive((folder / "repo.tar.gz").read_bytes(), "/testbed")
            await purge_history(box, "/testbed")
        finally:
            await box.aclose()

    return lambda: asyncio.run(work())


def printed(size: int, folder: Path) -> Work:
    """A command that prints ``size`` characters in lines, as a tool's answer."""

    async def work() -> None:
        from verigym.envs.sandbox.types import SandboxSpec

        box = await make_backend("local").create(SandboxSpec(workdir="/testbed", limits=_LIMITS))
        try:
            result = await box.aexec(f"seq -w 10000000 | head -c {size}")
            assert len(result.shown) <= 40_000
        finally:
            await box.aclose()

    return lambda: asyncio.run(work())


def large_patch(size: int, folder: Path) -> Work:
    """A new file of ``size`` characters in lines handed in as a patch, and the patch applied to a fresh checkout."""
    (folder / "files").mkdir()
    (folder / "files" / "a.txt").write_text("a\n")
    row = _row(folder, folder / "files")

    async def work() -> None:
        backend = make_backend("local")
        here = placed(row, backend)
        box = await open_workspace(backend, here, limits=_LIMITS)
        try:
            await box.aexec(f"cd {here.root} && seq -w 10000000 | head -c {size} > new.txt")
            patch = await diff_of(box, base_of(here), root=here.root, disk_mib=_LIMITS.disk_mib)
        finally:
            await box.aclose()
        assert patch is not None
        async with checkout(backend, here, limits=_LIMITS) as fresh:
            problem, _ = await apply_patch(fresh, patch, root=here.root)
            assert problem is None

    return lambda: asyncio.run(work())


SUBJECTS = {
    "files": Subject(make=files, sizes=(1_563, 6_250, 25_000, 100_000), quick=(100, 400, 1_600, 6_400), unit="files"),
    "MiB": Subject(make=large, sizes=(16, 64, 256, 1_024), quick=(1, 4, 16, 64), unit="MiB"),
    "one line": Subject(
        make=one_line,
        sizes=_TEXTS,
        quick=_SHORT,
        unit="characters",
    ),
    "commits": Subject(make=commits, sizes=(781, 3_125, 12_500, 50_000), quick=(50, 200, 800, 3_200), unit="commits"),
    "printed": Subject(make=printed, sizes=_TEXTS, quick=_SHORT, unit="characters"),
    "patch": Subject(
        make=large_patch, sizes=(160_000, 640_000, 2_560_000, 10_240_000), quick=_SHORT, unit="characters"
    ),
}
