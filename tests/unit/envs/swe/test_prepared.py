"""Kept trees are the trees that were made, and the plain way of a patch gives what the long one gives."""

import asyncio

import pytest

from verigym.envs.datasets.swe import row_of
from verigym.envs.sandbox.types import Limits
from verigym.envs.swe.checkout import open_checkout, open_workspace, placed
from verigym.envs.swe.grading import patch_sources, steers_tests
from verigym.envs.swe.patching import apply_plainly
from verigym.envs.swe.prepared import is_clean

from .conftest import GOLD, patch_of, vault_task

FILES = "find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 md5sum"
LOOK = "find . -path ./.git -prune -o -printf '%p %y %m %l\\n' -type f -printf '%p %Ts\\n' | sort; "
LOOK += "git rev-parse HEAD HEAD^{tree}; git status --porcelain --ignored; git count-objects -v | grep -v size; "
LOOK += "cat .git/info/exclude; git log | wc -l"

PATCHES = {
    "gold": patch_of({"pkg/calc.py": GOLD}),
    "new files, one ignored": patch_of({".gitignore": "*.log\n", "pkg/a.log": "x\n", "pkg/new/b.py": "y = 1\n"}),
    "a name with a blank": patch_of({"pkg/a b.py": "y = 1\n"}),
    "a file that goes": "diff --git a/pkg/__init__.py b/pkg/__init__.py\ndeleted file mode 100644\n"
    "--- a/pkg/__init__.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-VERSION = 1\n",
}
OTHERS = {
    "what steers tests": patch_of({"pkg/calc.py": GOLD, "conftest.py": "x = 1\n"}),
    "the hidden tests' file": patch_of({"tests/test_second.py": "x = 1\n"}),
    "a name that only git reads": "diff --git a/x.py b/x.py\nnew file mode 100644\n--- /dev/null\n"
    "+++ b/x.py\n@@ -0,0 +1 @@\n+x\ndiff --git a/conftest.py b/conftest.py\nnew file mode 100644\n"
    "index 0000000..e69de29\n",
    "what does not apply": patch_of({"pkg/calc.py": GOLD}).replace("return a - b", "return a * b"),
    "nothing": "",
}


@pytest.fixture(scope="module")
def task(local_backend, tmp_path_factory):
    """A task that nobody else opens."""
    return vault_task(tmp_path_factory.mktemp("prepared"))


async def with_box(backend, row, make, then):
    sandbox = await make(backend, row, limits=Limits())
    try:
        return await then(sandbox)
    finally:
        await sandbox.aclose()


@pytest.mark.parametrize("make", [open_workspace, open_checkout])
def test_the_third_tree_is_the_first(local_backend, task, make):
    row = placed(row_of(task), local_backend)

    async def look(sandbox):
        return (await sandbox.aexec(LOOK)).output

    seen = [asyncio.run(with_box(local_backend, row, make, look)) for _ in range(3)]
    assert seen[0] == seen[1] == seen[2]
    assert is_clean(row, "grading" if make is open_checkout else "workspace")


def test_the_plain_way_gives_what_the_long_one_gives(local_backend, task):
    row = placed(row_of(task), local_backend)

    async def both(sandbox):
        """Each patch both ways, in one sandbox that is put back between."""
        found = {}
        for name, patch in {**PATCHES, **OTHERS}.items():
            told = []
            for plain in (True, False):
                if plain:
                    steers = lambda path: bool(path) and steers_tests(path, row)  # noqa: E731
                    applied = await apply_plainly(sandbox, patch, row.test_patch, steers, root=row.root)
                else:
                    problem, applied = await patch_sources(sandbox, row, patch)
                    if problem is None:
                        await sandbox.arun(["git", "apply", "-"], cwd=row.root, stdin=row.test_patch.encode())
                tree = (
                    await sandbox.aexec("find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 md5sum")
                ).output
                told.append((applied and (set(applied.changed), set(applied.added)), tree))
                await sandbox.aexec("git read-tree HEAD; git checkout-index -fa; git clean -ffdxq")
            found[name] = told
        clean = (
            await sandbox.aexec("find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 md5sum")
        ).output
        return found, clean

    found, clean = asyncio.run(with_box(local_backend, row, open_checkout, both))
    for name in PATCHES:
        assert found[name][0] == found[name][1], name
    for name in OTHERS:
        assert found[name][0] == (None, clean), name
