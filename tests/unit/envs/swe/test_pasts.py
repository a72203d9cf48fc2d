"""What is kept of purged histories: it brings what a purge would, nothing that lies ahead, and stays while in use."""

import asyncio
import io
import json
import secrets
import shutil
import subprocess
import tarfile

import pytest

from verigym.envs.datasets.swe import parse_row
from verigym.envs.sandbox import labels
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.envs.swe import checkout, pasts
from verigym.envs.swe.checkout import open_workspace
from verigym.envs.swe.history import purge_history
from verigym.envs.swe.spool import Spool
from verigym.envs.swe.worktree import diff_of

SETUP = """
    git init -q -b main /workspace/tree && cd /workspace/tree && git config user.name a && git config user.email a@b
    for n in 1 2 3; do echo $n > a.py; git add .; git commit -qm $n; git tag v$n; done
    git update-ref refs/heads/future HEAD && git reset -q --hard HEAD~1 && git rev-parse HEAD future
"""
ALL = "git cat-file --batch-all-objects --batch-check='%(objectname)' | sort"


def test_a_kept_pack_stands_in_for_a_purge_of_that_commit_alone(local_backend):
    async def look() -> list[list[str]]:
        sandbox = await local_backend.create(SandboxSpec(workdir="/workspace"))

        async def said(command: str) -> list[str]:
            return (await sandbox.aexec(command)).output.split()

        try:
            base, fix = await said(SETUP)
            await said("cp -r /workspace/tree /workspace/other; cp -r /workspace/tree /workspace/third")
            purged = await purge_history(sandbox, "/workspace/tree", base_commit=base)
            own = await said(f"cd /workspace/tree; {ALL}")
            await said(f"mkdir -p /workspace/past/{base}; cp -r .git/objects/pack /workspace/past/{base}/")
            for place, commit in (("other", base), ("third", f"{base}~1")):
                await purge_history(sandbox, f"/workspace/{place}", base_commit=commit, past="/workspace/past")
            kept = await said(f"cd /workspace/other; {ALL}")
            alike = await said("cat .git/objects/info/alternates; ls .git/objects/pack; git log --oneline | wc -l")
            told = await said(
                f"git cat-file -e {fix} 2>/dev/null || echo gone; git fsck --full; git status --porcelain"
            )
            # The third is at a commit on top of the one that is asked for, and that is what its image was left at.
            third = await said("cd /workspace/third; git rev-parse HEAD; git log --oneline | wc -l")
            assert (purged, third) == (base, [base, "2"])
            return [own, kept, alike, told]
        finally:
            await sandbox.aclose()

    own, kept, alike, told = asyncio.run(look())
    assert own == kept
    assert len(own) == 6
    assert alike[0].startswith("/workspace/past/")
    assert alike[1:] == ["2"]
    assert told == ["gone"]


@pytest.mark.docker
def test_the_second_workspace_of_an_image_reads_what_the_first_has_purged(docker_backend, tmp_path, monkeypatch):
    import docker

    from verigym.envs.sandbox.images import ensure_base_image
    from verigym.envs.synthesis.engine_images import build

    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pasts, "LEAST_BYTES", 0)
    client = docker.from_env()
    name = f"verigym/test-past:{secrets.token_hex(4)}"
    steps = SETUP.replace("/workspace/tree", "/testbed").strip().replace("\n", " && ")
    safe = "git config --system --add safe.directory '*'"
    build(client, name, f"FROM {ensure_base_image(client)}\nRUN {safe} && {steps}\nWORKDIR /testbed\n", {}, tmp_path)
    row = parse_row(
        {
            "instance_id": "past",
            "problem_statement": "x",
            "FAIL_TO_PASS": ["t.py::t"],
            "image": name,
            "root": "/testbed",
        }
    )

    async def never(*arguments):
        raise AssertionError("the work tree was recorded once more")

    async def look() -> list[list[str]]:
        found = []
        for n in range(2):
            if n:  # as in another process
                monkeypatch.setattr(checkout, "_BASES", Spool())
                monkeypatch.setattr(checkout, "snapshot", never)
            sandbox = await open_workspace(docker_backend, row, limits=Limits())
            try:
                where = "cat .git/objects/info/alternates 2> /dev/null | wc -l"
                found.append((await sandbox.aexec(f"{where}; git status --porcelain; {ALL}")).output.split())
                await sandbox.aexec(f"echo {n} >> a.py")
                patch = await diff_of(sandbox, checkout.base_of(row), root=row.root)
                assert patch is not None
                assert f"+{n}\n" in patch
            finally:
                await sandbox.aclose()
        return found

    try:
        first, second = asyncio.run(look())
    finally:
        client.images.remove(name, force=True)
        client.close()
    assert (first[0], second[0]) == ("0", "1")
    assert first[1:] == second[1:]
    assert len(first) == 7


def packed(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("pack/pack-1.pack")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_what_is_kept_goes_when_others_need_the_room_but_not_while_a_process_uses_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
    monkeypatch.setattr(pasts, "MOST_IN_ALL", 35_000)
    rows = [
        parse_row({"instance_id": f"r{n}", "problem_statement": "x", "FAIL_TO_PASS": ["t"], "image": f"i:{n}"})
        for n in range(3)
    ]
    folders = [pasts._folder(row) for row in rows]
    pasts._put(folders[0], "tip", packed(b"x" * 10_000))
    (bind,) = pasts.past_of(rows[0])
    assert (bind.source / "tip/pack/pack-1.pack").read_bytes() == b"x" * 10_000
    assert pasts.past_of(rows[1]) == ()
    pasts._put(folders[1], "tip", packed(b"x" * 10_000))
    assert (folders[0].exists(), folders[1].exists()) == (True, True)
    pasts._put(folders[2], "tip", packed(b"x" * 10_000))  # we live, and have shown the first
    assert [folder.exists() for folder in folders] == [True, False, True]
    dead = {**labels.owner(), "pid": str(ended_pid()), "start": "1"}
    for path in (folders[0] / "users").iterdir():
        path.write_text(json.dumps(dead))
    pasts._put(folders[1], "tip", packed(b"x" * 10_000))
    assert [folder.exists() for folder in folders] == [False, True, True]
    pasts._put(folders[0], "tip", packed(b"x" * 40_000))  # larger than all that may be kept
    assert not folders[0].exists()
    shutil.rmtree(tmp_path / "pasts")


def test_a_record_is_kept_of_the_very_same_work_tree(local_backend, tmp_path, monkeypatch):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
    row = parse_row(
        {
            "instance_id": "r",
            "problem_statement": "x",
            "FAIL_TO_PASS": ["t"],
            "image": "i",
            "workdir": "/workspace/tree",
        }
    )
    changes = [
        "true",
        "touch -d @7 a.py",
        "echo x > b.py",
        "ln -s a.py c",
        "chmod +x a.py",
        "git reset -q v1",
    ]

    async def stamps() -> list[str]:
        sandbox = await local_backend.create(SandboxSpec(workdir="/workspace"))
        try:
            await sandbox.aexec(SETUP)
            found = [await pasts.stamp_of(sandbox, row)]
            for change in changes:
                await sandbox.aexec(change)
                found.append(await pasts.stamp_of(sandbox, row))
            return found
        finally:
            await sandbox.aclose()

    found = asyncio.run(stamps())
    assert "" not in found
    assert found[0] == found[1]
    assert len(set(found)) == len(changes)
    pasts.keep_base(row, found[0], b"base")
    assert pasts.base_in(row, found[0]) is None  # nothing of the row is kept
    pasts._put(pasts._folder(row), "tip", packed(b"x"))
    pasts.keep_base(row, found[0], b"base")
    assert [pasts.base_in(row, stamp) for stamp in (found[0], found[2], "")] == [b"base", None, None]


def ended_pid() -> int:
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def test_of_openings_that_begin_together_one_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
    row = parse_row(
        {
            "instance_id": "r",
            "problem_statement": "x",
            "FAIL_TO_PASS": ["t"],
            "image": secrets.token_hex(8),
            "root": "/t",
        }
    )
    inside, most = 0, []

    async def opening() -> None:
        nonlocal inside
        async with pasts.first_alone(row):
            inside += 1
            most.append(inside)
            await asyncio.sleep(0)
            inside -= 1

    async def together() -> None:
        await asyncio.gather(*(opening() for _ in range(4)))

    asyncio.run(together())
    assert most[:2] == [1, 1]
    most.clear()
    asyncio.run(together())
    assert most == [1, 2, 3, 4]
