"""Whatever a policy leaves in its work tree, or puts into its patch, is graded, or is 0 by rule: never a failure of the
infrastructure, which is not counted and tried again."""

# ruff: noqa: E501 (a command is easier to read in one line)

import asyncio
import subprocess
import tarfile
from dataclasses import replace

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.datasets.swe import row_of, task_of
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.sandbox.types import Limits, ProcessResult
from verigym.envs.swe import worktree
from verigym.envs.swe.checkout import _hide, base_of, checkout, open_workspace, placed
from verigym.envs.swe.env import SWEEnv
from verigym.envs.swe.grading import grade_patch
from verigym.envs.swe.patching import apply_patch, take_back
from verigym.envs.swe.worktree import Unusable, diff_of
from verigym.errors import GradingError, SandboxError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling

COMMIT = "git -c user.name=a -c user.email=a@b commit -qm x"
LEFT = {  # a command, and what a patch of it must hold
    "a repository without a commit": ("git init -q scratch", ""),
    "one with files and no commit": ("git init -q scratch && echo inner > scratch/f", "+inner"),
    "one with a commit": (f"git init -q s && cd s && echo inner > f && git add f && {COMMIT}", "+inner"),
    "one with changes on a commit": (f"git init -q s && cd s && echo o > f && git add f && {COMMIT}; echo inner > f", "+inner"),
    "repositories in repositories": ("git init -q a && git init -q a/b && echo inner > a/b/f && git init -q a/b/c", "+inner"),
    "one around tracked files": ("cd tests && git init -q && echo inner > f", "+inner"),
    "a clone": (f"git init -q /tmp/o && cd /tmp/o && echo inner > f && git add f && {COMMIT} && git clone -q /tmp/o /workspace/o", "+inner"),
    "one with a blank in its name": ("git init -q 'a b' && echo inner > 'a b/c d'", "+inner"),
    "one with signs of patterns in its name": ("git init -q '[ab]*' && echo inner > '[ab]*/f' && echo x > b", "+inner"),
    "an ignored one": ("echo ign/ > .gitignore && git init -q ign && echo inner > ign/f", "+ign/"),
    "a link of a worktree": ("mkdir w && echo 'gitdir: /nowhere' > w/.git && echo inner > w/f", "+inner"),
    "a submodule": (f"git init -q /tmp/o && cd /tmp/o && echo inner > f && git add f && {COMMIT} && cd /workspace && git -c protocol.file.allow=always submodule add -q /tmp/o sub; echo more >> sub/f", "+more"),
    "a file that nobody may read": ("echo inner > f && chmod 000 f", "+inner"),
    "a folder that nobody may read": ("mkdir -p d/e && echo inner > d/e/f && chmod 000 d/e && chmod 000 d", "+inner"),
    "a tracked file that nobody may read": ("echo 'VERSION = 2' > pkg/__init__.py && chmod 000 pkg/__init__.py", "+VERSION = 2"),
    "an encoding": ("echo '*.x working-tree-encoding=UTF-16' > .gitattributes && echo inner > a.x", "+inner"),
    "an encoding that is none": ("echo '* working-tree-encoding' > .gitattributes && echo inner > f", "+inner"),
    "an unknown encoding": ("echo '* working-tree-encoding=none-such' > .gitattributes && echo inner > f", "+inner"),
    "ends of lines": ("printf '* text\\n*.bat eol=crlf\\n' > .gitattributes && printf 'inner\\r\\nlone\\n' > f && echo lf > a.bat", "+inner\r\n+lone\n"),
    "a filter": ("echo '* filter=f' > .gitattributes && git config filter.f.clean false && git config filter.f.required true && echo inner > f", "+inner"),
    "a name like .git": ("mkdir .GIT && echo x > .GIT/config && echo inner > f", "+inner"),
    "a pipe in a file's place": ("rm pkg/__init__.py && mkfifo pkg/__init__.py && mkfifo p && echo inner > f", "+inner"),
    "a socket": ("python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('s')\"; echo inner > f", "+inner"),
    "a link to itself": ("ln -s l l && ln -s / root && echo inner > f", "+inner"),
    "no .git": ("rm -rf .git && echo inner > f", "+inner"),
    "a file .git": ("rm -rf .git && echo x > .git && echo inner > f", "+inner"),
    "a lock": ("touch .git/index.lock .git/HEAD.lock && echo inner > f", "+inner"),
    "an index that is none": ("echo x > .git/index && echo inner > f", "+inner"),
    "many files": ("mkdir many && cd many && for n in $(seq 1500); do echo > $(printf 'f%0200d' $n); done; echo inner > f", "+inner"),
}  # fmt: skip


def bash(command):
    return Message(role="assistant", content="", calls=(ToolCall(name="bash", arguments={"command": command}),))


def episode(env, task, commands):
    *gold, submit = env.gold(task)
    messages = [*gold, *map(bash, commands), submit]
    policy = ScriptedPolicy(play(messages))
    return asyncio.run(rollout(env, policy, task, budget=Budget(turns=99), sampling=Sampling()))


def left_behind(vault, command):
    """The patch of what a command leaves, whether a fresh checkout takes it, and the patch of that checkout then."""
    row = placed(row_of(vault.task), vault.backend)

    async def run():
        box = await open_workspace(vault.backend, row, limits=Limits())
        try:
            await box.aexec(f"({command.replace('/workspace', row.root)})")
            patch = await diff_of(box, base_of(row), root=row.root)
        finally:
            await box.aclose()
        async with checkout(vault.backend, row, limits=Limits()) as fresh:
            problem, _ = await apply_patch(fresh, patch or "", root=row.root)
            return patch, problem, await diff_of(fresh, base_of(row), root=row.root)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_left_is_a_patch_that_brings_the_same_files(kind, vault):
    """Nothing that git can hold is lost, and what is handed in applies to base and is then the same again."""
    command, held = LEFT[kind]
    patch, problem, again = left_behind(vault, command)
    assert held in patch
    assert "Subproject" not in patch
    assert problem is None
    assert again == patch


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind, marks=() if kind in ("one with changes on a commit", "a name like .git") else pytest.mark.slow
        )
        for kind in LEFT
    ],
)
def test_what_is_left_beside_the_fix_is_graded(kind, vault):
    """The fix is worth 1 whatever else is there."""
    command, held = LEFT[kind]
    env = SWEEnv(sandbox=vault.backend, reuse_verdicts=False)
    root = placed(row_of(vault.task), vault.backend).root
    found = episode(env, vault.task, [f"cd {root}; ({command.replace('/workspace', root)})"])
    assert (found.ending, found.reward) == ("submitted", 1.0), found.detail
    assert held in env.patch
    env.close()


def test_changes_of_a_submodule_that_base_has_are_a_patch_of_its_files(vault, tmp_path):
    """Base with a filled submodule: what is compared is its files; what is not changed is not in the patch."""

    async def run():
        row = placed(row_of(vault.task), vault.backend)
        async with checkout(vault.backend, row, limits=Limits()) as box:
            setup = f"git init -q sub && cd sub && echo one > f && echo two > g && git add . && {COMMIT} && cd .. && "
            setup += f"git init -q empty && git add sub && {COMMIT}"
            assert (await box.aexec(setup)).exit_code == 0
            base = await worktree.snapshot(box, row.root)
            assert await diff_of(box, base, root=row.root) == ""
            assert (await box.aexec("echo changed > sub/f; rm sub/g; echo new > sub/h")).exit_code == 0
            patch = await diff_of(box, base, root=row.root)
            await box.aexec("cd sub && git checkout -q . && rm h && cd ..")
            problem, applied = await apply_patch(box, patch or "", root=row.root)
            state = (await box.aexec("cat sub/f sub/h; ls sub; git -C sub status --short")).output
            await take_back(box, applied, frozenset(("sub/f", "sub/g", "sub/h")), root=row.root)
            return patch, problem, applied, state, (await box.aexec("cat sub/f sub/g; ls sub")).output

    patch, problem, applied, state, back = asyncio.run(run())
    assert "sub/f" in patch
    assert "Subproject" not in patch
    assert problem is None
    assert (set(applied.changed), applied.added) == ({"sub/f", "sub/g"}, ("sub/h",))
    assert state.split()[:4] == ["changed", "new", "f", "h"]
    assert back.split() == ["one", "two", "f", "g"]


def test_a_workspace_of_an_archive_with_a_filled_submodule_is_compared_with_its_files(vault, local_backend, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    script = f"cd sub && git init -q && echo one > f && git add f && {COMMIT} && cd .. && git init -q && git add . && {COMMIT}"
    subprocess.run(["bash", "-c", script], cwd=tree, check=True, capture_output=True)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(tree, arcname=".")
    task = task_of({**vault.task.hidden, "archive": str(tmp_path / "x.tar.gz"), "image": ""}, folder=tmp_path)

    async def run():
        row = placed(row_of(task), local_backend)
        box = await open_workspace(local_backend, row, limits=Limits())
        try:
            clean = await diff_of(box, base_of(row), root=row.root)
            await box.aexec("echo two > sub/f")
            return clean, await diff_of(box, base_of(row), root=row.root)
        finally:
            await box.aclose()

    clean, changed = asyncio.run(run())
    assert clean == ""
    assert "-one\n+two\n" in (changed or "")


def test_a_workspace_begins_where_the_repository_holds_another_one(local_backend, tmp_path):
    """With and without hidden files, of which git begins anew; the agent's change of it is handed in."""
    tree = tmp_path / "tree"
    (tree / "scratch").mkdir(parents=True)
    (tree / "a.py").write_text("x = 1\n")
    script = f"git init -q && git add a.py && {COMMIT} && cd scratch && git init -q && echo one > f"
    subprocess.run(["bash", "-c", script], cwd=tree, check=True, capture_output=True)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(tree, arcname=".")
    raw = {
        "instance_id": "i",
        "problem_statement": "x",
        "archive": str(tmp_path / "x.tar.gz"),
        "FAIL_TO_PASS": ["t.py::t"],
    }

    async def patch_of(hidden):
        row = placed(row_of(task_of({**raw, "hidden_files": hidden}, folder=tmp_path)), local_backend)
        box = await open_workspace(local_backend, row, limits=Limits())
        try:
            assert (await box.aexec("git log --oneline | wc -l")).output == "1\n"
            await box.aexec("echo two > scratch/f; echo y > a.py")
            return await diff_of(box, base_of(row), root=row.root)
        finally:
            await box.aclose()

    for hidden in ([], ["none.py"]):
        patch = asyncio.run(patch_of(hidden)) or ""
        assert "+two" in patch
        assert "+y" in patch


def test_a_full_disk_is_the_agents_own_and_worth_nothing(local_backend, tmp_path):
    env = SWEEnv(sandbox=local_backend, limits=Limits(disk_mib=64, file_mib=64))
    fill = "for n in 1 2 3 4 5 6 7 8; do head -c 16M /dev/zero > /tmp/fill$n; done; i=0; while echo x > /tmp/s$i; do i=$((i+1)); done"
    found = episode(env, example_tasks()[0], [fill])
    assert (found.ending, found.reward) == ("submitted", 0.0)
    assert "could not be compared with its base" in found.detail


@pytest.mark.parametrize(
    ("stderr", "sizes", "expected"),
    [(b"No space left on device", b"65536\n", Unusable), (b"No space left on device", b"900000000\n", SandboxError)],
)
def test_a_full_disk_of_the_host_is_no_fault_of_the_agent(stderr, sizes, expected):
    class Box:
        async def arun(self, argv, **options):
            listing = "df -Pk" in argv[-1]
            return ProcessResult(stdout=sizes if listing else b"", stderr=stderr, exit_code=0 if listing else 1)

    with pytest.raises(expected):
        asyncio.run(diff_of(Box(), b"", root="/", disk_mib=64))  # type: ignore[arg-type]


def new_file(path, text="x\n"):
    lines = "".join(f"+{line}\n" for line in text.splitlines())
    return f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{text.count(chr(10))} @@\n{lines}"


PATCHES = {
    "1,500 files with long names under tests": "".join(new_file(f"tests/data/{'x' * 120}{n}") for n in range(1500)),
    "6,000 small files under tests": "".join(new_file(f"tests/data/case_{n:05}_with_a_long_name.json") for n in range(6000)),
    "3,000 long names": "".join(new_file(f"tests/{'x' * 200}{n}") for n in range(3000)),
    "a folder in the hidden file's place": new_file("tests/test_second.py/x.txt") + new_file("tests/test_second.py/y/z.py"),
    "a file in a test folder's place": new_file("tests/deep") + new_file("tests/deeper/test_x.py"),
    "an encoding": new_file(".gitattributes", "*.py working-tree-encoding=UTF-16\n"),
    "an encoding for tests alone": new_file("tests/.gitattributes", "* working-tree-encoding=UTF-32 eol=crlf\n"),
    "an encoding that is none": new_file(".gitattributes", "* working-tree-encoding\n"),
    "a name like .git": "--- /dev/null\n+++ b/.GIT/config\n@@ -0,0 +1 @@\n+x\n",
    "a link to a commit": "diff --git a/s b/s\nnew file mode 160000\n--- /dev/null\n+++ b/s\n@@ -0,0 +1 @@\n+Subproject commit "
    + "1" * 40
    + "\n",
    "a link for tests": "diff --git a/tests/l b/tests/l\nnew file mode 120000\n--- /dev/null\n+++ b/tests/l\n@@ -0,0 +1 @@\n+../pkg\n\\ No newline at end of file\n",
}  # fmt: skip


QUICK = ("1,500 files with long names under tests", "a folder in the hidden file's place", "an encoding that is none")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in PATCHES]
)
def test_a_patch_with_more_than_the_fix_is_graded(kind, vault, gold):
    fix = vault.patch({"pkg/calc.py": gold})
    score, _ = asyncio.run(grade_patch(vault.backend, vault.task, fix + PATCHES[kind], timeout_s=60))
    assert score.passed, score.detail
    score, _ = asyncio.run(grade_patch(vault.backend, vault.task, PATCHES[kind], timeout_s=60))
    assert (score.value, score.passed) == (0.0, False)


def test_no_room_for_the_hidden_tests_is_worth_nothing_and_a_broken_row_is_nobodys_fault(vault, gold):
    hidden = dict(vault.task.hidden)
    hidden["test_patch"] += new_file("pkg/checked/data.py")
    task = replace(vault.task, hidden=hidden)
    fix = vault.patch({"pkg/calc.py": gold})
    assert asyncio.run(grade_patch(vault.backend, task, fix, timeout_s=60))[0].passed
    for other in (new_file("pkg/checked/data.py/x"), new_file("pkg/checked")):
        score, _ = asyncio.run(grade_patch(vault.backend, task, fix + other, timeout_s=60))
        assert (score.value, score.passed) == (0.0, False)
        assert "no room for the hidden tests" in score.detail
    hidden["test_patch"] = "--- a/none.py\n+++ b/none.py\n@@ -1 +1 @@\n-a\n+b\n"
    with pytest.raises(GradingError, match="test_patch does not apply to the base commit"):
        asyncio.run(grade_patch(vault.backend, replace(vault.task, hidden=hidden), fix, timeout_s=60))


def test_a_patch_that_takes_the_disk_is_worth_nothing(local_backend, tmp_path, vault):
    """40 MB of zeros are a patch of some kilobytes; what is left of 64 MiB is too little to go on with."""
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    for n in range(3):
        (tree / f"zeros{n}").write_bytes(b"\0" * (20 << 20))
    subprocess.run(["git", "add", "."], cwd=tree, check=True)
    command = ["git", "diff", "--cached", "--binary", "4b825dc642cb6eb9a060e54bf8d69288fbee4904"]
    bomb = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout
    assert len(bomb) < 1 << 20
    task = example_tasks()[0]
    limits = Limits(disk_mib=64)
    score, _ = asyncio.run(grade_patch(local_backend, task, row_of(task).patch + bomb, timeout_s=60, limits=limits))
    assert (score.value, score.passed) == (0.0, False)


def test_no_list_of_paths_stands_on_a_command_line(vault):
    """Whatever is added, changed or hidden: the words of a command do not grow with it."""
    row = placed(row_of(vault.task), vault.backend)
    names = [f"d/{n}_{'y' * 100}" for n in range(3000)]

    async def run():
        async with checkout(vault.backend, row, limits=Limits()) as box:
            words, arun = [], box.arun

            async def counted(argv, **options):
                words.append(sum(map(len, argv)))
                return await arun(argv, **options)

            box.arun = counted
            problem, applied = await apply_patch(box, "".join(map(new_file, names)), root=row.root)
            await take_back(box, applied, frozenset(names), root=row.root)
            left = (await box.aexec("ls")).output
            hidden = row.model_copy(update={"hidden_files": tuple(names)})
            await _hide(box, hidden)
            return problem, len(applied.added), left.split(), max(words)

    problem, added, left, longest = asyncio.run(run())
    assert (problem, added) == (None, 3000)
    assert "d" not in left
    assert longest < 20_000
