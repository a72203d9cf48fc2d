"""Trap 12: what lies ahead of the base commit is not to be had from git, wherever it was left."""

import asyncio
import subprocess
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from verigym.envs.datasets.repository import write_archive
from verigym.envs.datasets.swe import parse_row, task_of
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.envs.swe.checkout import open_checkout, open_workspace, placed
from verigym.envs.swe.grading import grade_patch
from verigym.envs.swe.history import purge_history, purge_past

from .conftest import GOLD, built, patch_of, vault_row

SECRET = "answer = 42  # the fix"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Planted:
    archive: Path
    base: str
    fix: str
    ancestors: frozenset[str]


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Planted:
    """A repository whose future is on a branch, a tag, a stash, in a worktree, a reflog, ORIG_HEAD, packed and loose,
    in a replacement, a note, another repository's objects, the index, and on a remote's branch."""
    folder = tmp_path_factory.mktemp("planted") / "tree"
    folder.mkdir()
    git(folder, "init", "-q")
    for text in ("answer = 1\n", "answer = 2\n"):
        (folder / "a.py").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "-qm", text)
    base = git(folder, "rev-parse", "HEAD")
    git(folder, "tag", "-a", "v1", "-m", "of the past", "HEAD~1")
    ancestors = frozenset(git(folder, "rev-list", "HEAD").split())
    (folder / "a.py").write_text(SECRET + "\n")
    git(folder, "commit", "-qam", "the fix")
    fix = git(folder, "rev-parse", "HEAD")
    git(folder, "branch", "future")
    git(folder, "tag", "-a", "v2", "-m", "the fix")
    git(folder, "notes", "add", "-m", SECRET, base)
    git(folder, "update-ref", "refs/remotes/origin/main", fix)
    git(folder, "remote", "add", "origin", "https://example.org/a/b")
    git(folder, "repack", "-adq")
    (pack,) = (folder / ".git/objects/pack").glob("*.pack")
    pack.with_suffix(".keep").touch()
    (folder / "a.py").write_text(SECRET + " loose\n")
    git(folder, "stash", "-q")
    git(folder, "reset", "-q", "--hard", base)  # leaves ORIG_HEAD and reflogs
    git(folder, "worktree", "add", "-q", str(folder / "elsewhere"), "future")
    git(folder, "replace", base, fix)
    (folder / ".git/FETCH_HEAD").write_text(f"{fix}\tbranch\n")
    (folder / "staged.py").write_text(SECRET + " staged\n")
    git(folder, "add", "staged.py")
    (folder / "staged.py").unlink()
    archive = folder.parent / "planted.tar.gz"
    write_archive(folder, archive)
    return Planted(archive, base, fix, ancestors)


def looked_at(backend, planted: Planted, commands: list[str], opened=open_workspace) -> list[str]:
    row = {
        "instance_id": "planted",
        "problem_statement": "x",
        "base_commit": planted.base,
        "FAIL_TO_PASS": ["t.py::t"],
        "archive": str(planted.archive),
    }

    async def look():
        placed_row = placed(parse_row(row), backend)
        sandbox = await opened(backend, placed_row, limits=Limits())
        try:
            return [(await sandbox.aexec(command)).output for command in commands]
        finally:
            await sandbox.aclose()

    return asyncio.run(look())


WAYS = {"an agent's": open_workspace, "a grading's": open_checkout}


@pytest.mark.parametrize("way", WAYS)
def test_the_fix_is_nowhere_in_git_and_the_past_is(any_backend, planted, way):
    objects = "git cat-file --batch-all-objects --batch-check"
    fix, kinds, commits, found, named, log, status, fsck, head = looked_at(
        any_backend,
        planted,
        [
            f"git cat-file -e {planted.fix}; echo $?",
            f"{objects}='%(objecttype)' | sort | uniq -c",
            f"{objects}='%(objecttype) %(objectname)' | grep ^commit | cut -d' ' -f2",
            "grep -rl 'the fix' .; "
            f"for o in $({objects}='%(objectname)'); do git cat-file -p $o; done | grep 'the fix'",
            f"grep -rl {planted.fix} .; ls .git/logs 2>/dev/null",
            "git log --format=%H --all",
            "git status --porcelain",
            "git fsck --full 2>&1",
            "git rev-parse HEAD; git remote; git reflog; git stash list; git branch --all; git worktree list; git tag",
        ],
        WAYS[way],
    )
    assert fix.rstrip().endswith(("1", "128")), fix
    assert set(commits.split()) == planted.ancestors
    assert [line.split() for line in kinds.splitlines()] == [["2", "blob"], ["2", "commit"], ["2", "tree"]]
    assert (found, named) == ("", "")
    assert set(log.split()) == planted.ancestors
    assert (status, "error" in fsck or "missing" in fsck) == ("", False), (status, fsck)
    lines = head.splitlines()
    tags = [] if way == "an agent's" else ["v1"]  # versions come from them, where a script installs the repository
    assert (lines[0], lines[1], lines[3:]) == (planted.base, "* main", tags), head


def test_other_work_trees_go_with_their_files(any_backend, planted):
    """Where a repository stands as it was made, git itself says where its other work trees are."""

    async def look():
        sandbox = await any_backend.create(SandboxSpec(workdir="/workspace"))
        try:
            setup = [
                "mkdir tree && cd tree && git init -q && git config user.name a && git config user.email a@b",
                "echo 1 > a.py && git add . && git commit -qm base",
                f"git checkout -qb future && echo '{SECRET}' > a.py && git commit -qam fix && git checkout -q -",
                "git worktree add -q /workspace/elsewhere future && cat /workspace/elsewhere/a.py",
            ]
            made = await sandbox.aexec(" && ".join(setup))
            await purge_history(sandbox, "/workspace/tree")
            after = await sandbox.aexec("cd /workspace; ls; cat tree/a.py; git -C tree status --porcelain")
            return made.output, after.output
        finally:
            await sandbox.aclose()

    made, after = asyncio.run(look())
    assert made.strip() == SECRET
    assert after.split() == ["tree", "1"]


FETCHED = """import os
import subprocess

found = subprocess.run(["git", "show", "FIX:pkg/calc.py"], cwd=os.path.dirname(__file__) or ".", capture_output=True)
if found.returncode == 0:
    exec(found.stdout.decode())
else:
    def add(a, b):
        return a - b

    def twice(x):
        return 2 * x
"""


def test_a_patch_that_asks_git_for_the_fix_scores_zero(any_backend, tmp_path):
    """In the first sandbox and in the second, in repositories whose fix is on another branch."""
    row = vault_row(tmp_path)
    folder = tmp_path / "tree"
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    base = git(folder, "rev-parse", "HEAD")
    git(folder, "checkout", "-qb", "future")
    (folder / "pkg/calc.py").write_text(GOLD)
    git(folder, "commit", "-qam", "the fix")
    fix = git(folder, "rev-parse", "HEAD")
    git(folder, "checkout", "-q", base)
    write_archive(folder, tmp_path / "vault.tar.gz")
    row = {**row, "base_commit": base}
    patch = patch_of({"pkg/calc.py": FETCHED.replace("FIX", fix)})
    with built(tmp_path, row) if any_backend.name == "docker" else nullcontext(row) as made:
        task = task_of(made, folder=tmp_path)
        score, _ = asyncio.run(grade_patch(any_backend, task, patch))
        gold, _ = asyncio.run(grade_patch(any_backend, task, row["patch"]))
    assert score.value == 0.0, score
    assert not score.detail.startswith("the patch does not apply")
    assert gold.value == 1.0, gold


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("purge", [purge_history, purge_past])
def test_what_a_build_edited_is_base_and_undoing_it_hands_in_nothing(local_backend, committed, purge):
    async def look():
        sandbox = await local_backend.create(SandboxSpec(workdir="/workspace"))
        try:
            setup = [
                "mkdir tree && cd tree && git init -q -b main && git config user.name a && git config user.email a@b",
                "echo plain > tox.ini && git add . && git commit -qm base && git branch base",
                f"git checkout -qb future && echo '{SECRET}' > a.py && git add . && git commit -qm fix",
                "git checkout -q main && echo edited > tox.ini",
                "git commit -qam built" if committed else ":",
                "git rev-parse base future",
            ]
            base, fix = (await sandbox.aexec(" && ".join(setup))).output.split()
            await purge(sandbox, "/workspace/tree", base_commit=base)
            undone = await sandbox.aexec("git checkout -q . && cat tox.ini && git status --porcelain | wc -l")
            gone = await sandbox.aexec(f"git cat-file -e {fix} 2>/dev/null || echo gone; git log --oneline | wc -l")
            return undone.output.split(), gone.output.split()
        finally:
            await sandbox.aclose()

    undone, gone = asyncio.run(look())
    # For a grading, which nobody works in, what was not committed stays as it is.
    assert undone == (["edited", "0"] if committed or purge is purge_history else ["plain", "0"])
    assert gone == ["gone", "1" if purge is purge_past else "2"]
