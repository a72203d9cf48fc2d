"""Patches inside a sandbox: applied as SWE-bench applies them, compared, and partly taken back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ...errors import SandboxError, TaskError
from ...model.chat.encoding import from_bytes, to_bytes
from ...rewards.patches import paths_of
from ..sandbox.types import Sandbox
from .worktree import RAW, STAGE, run_unjudged, said_by

if TYPE_CHECKING:
    from ..datasets.swe import SWERow

BROKEN, UNUSABLE = 99, 98
"""Exit codes of the script below: the checkout's own state, or what the patch made of it, cannot be recorded."""

MOST_PLAIN = 64 << 10
"""Bytes of a patch that cannot fill a disk."""

_APPLY = f"""
    aside=$(mktemp -d) && cat > "$aside/patch" || exit {BROKEN}
    {STAGE}
    {RAW}
    trap 'unraw; rm -rf "$aside"' EXIT
    raw || exit {BROKEN}
    git_dir=$(git rev-parse --absolute-git-dir) || exit {BROKEN}
    export GIT_INDEX_FILE="$aside/index" LC_ALL=C
    # Where attributes convert, what the index remembers of unchanged files is not their bytes.
    if [ -f "$git_dir/index" ]; then
        cp "$git_dir/index" "$aside/index" || exit {BROKEN}
        [ -z "$(git ls-files -- .gitattributes '*/.gitattributes')" ] || rm "$aside/index"
    fi
    fail() {{ cat "$aside/told" >&2; exit "$1"; }}
    ignored() {{ git ls-files --others --ignored --exclude-standard -z | sort -z; }}
    # What comes after needs a little of the disk: where a patch has taken it all, that is the patch's doing.
    has_room() {{ head -c 4194304 /dev/zero > "$aside/room" && rm "$aside/room"; }}
    has_room && stage || fail {BROKEN}
    base=$(git write-tree) || exit {BROKEN}
    ignored > "$aside/ignored"
    report() {{
        stage && has_room || fail {UNUSABLE}
        printf '%s\\0' "$base"
        git diff --cached --name-status --no-renames -z "$base" -- || exit {UNUSABLE}
        printf '\\0'
        ignored | comm -z -13 "$aside/ignored" -
        exit 0
    }}
    git apply --whitespace=nowarn "$aside/patch" 2> "$aside/why" && report
    git apply --whitespace=nowarn --3way "$aside/patch" > "$aside/said" 2>&1 && report
    git read-tree --reset -u "$base" || exit {UNUSABLE}
    # GNU patch would write into .git, where configuration can name programs: it is out of reach meanwhile.
    mv .git "$aside/git" || exit {UNUSABLE}
    patch --batch --forward --fuzz=5 --no-backup-if-mismatch -p1 -i "$aside/patch" > "$aside/said" 2>&1
    code=$?
    find . -name .git -prune -exec rm -rf {{}} +
    mv "$aside/git" .git || exit {UNUSABLE}
    [ $code != 0 ] || report
    git read-tree --reset -u "$base" && git clean -fdq || exit {UNUSABLE}
    git apply --check --reverse "$aside/patch" 2> "$aside/said" && report
    cat "$aside/why"
    exit 1
"""

_TAKE_BACK = f"""
    aside=$(mktemp -d) && cat > "$aside/all" || exit
    {RAW}
    trap 'unraw; rm -rf "$aside"' EXIT
    raw || exit
    head -z -n "$1" "$aside/all" > "$aside/doomed" || exit
    tail -z -n "+$(($1 + 1))" "$aside/all" | head -z -n "$2" > "$aside/emptied" || exit
    tail -z -n "+$(($1 + $2 + 1))" "$aside/all" > "$aside/back" || exit
    xargs -0 -r rm -rf -- < "$aside/doomed" && xargs -0 -r rm -rf -- < "$aside/back" || exit
    xargs -0 -r rmdir --ignore-fail-on-non-empty -- < "$aside/emptied" 2> /dev/null
    [ -s "$aside/back" ] || exit 0
    export GIT_INDEX_FILE="$aside/index"
    git read-tree "$3" && sed -z 's,^\\./,,' < "$aside/back" | git --literal-pathspecs checkout-index --force -z --stdin
"""


_APPLY_PLAINLY = """
    head -c "$1" | git apply --whitespace=nowarn - 2> /dev/null &&
    git status --porcelain=v1 -z --no-renames --untracked-files=all --ignored=traditional &&
    { [ "$2" = 0 ] || git apply --whitespace=nowarn - 2> /dev/null; }
"""
_RESTORE = "git read-tree HEAD && git checkout-index --force --all --quiet && git clean -ffdxq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a patch did to the work tree.

    Attributes:
        base: id of the tree before it.
        changed: paths that were there and are changed or gone.
        added: paths that were not there, ignored ones included.
    """

    base: str
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


async def apply_patch(sandbox: Sandbox, patch: str, *, root: str) -> tuple[str | None, Applied]:
    """Apply a patch to the work tree by SWE-bench's ladder: git, git with a three-way merge, ``patch`` with fuzz; a
    patch that is applied already is accepted too.

    Returns:
        (None, or why it does not apply, or leaves what cannot be graded; what it changed). Where it does not apply the
        tree is as it was.
    Raises:
        SandboxError: the sandbox failed, or the tree could not be recorded before anything was changed.
    """
    if not patch.strip():
        return None, Applied(base="")
    if not patch.endswith("\n"):
        patch += "\n"
    result = await run_unjudged(sandbox, _APPLY, root=root, stdin=to_bytes(patch))
    if result.exit_code == 0:
        return None, _applied(result.stdout)
    if result.exit_code == BROKEN:
        raise SandboxError(f"a patch could not be applied: {said_by(result)}")
    if result.exit_code == UNUSABLE or result.killed:
        return f"what it leaves cannot be recorded: {said_by(result)}", Applied(base="")
    said = result.stdout.decode("utf-8", errors="replace").strip().splitlines()
    return (said[0][:300] if said else f"exit code {result.exit_code}"), Applied(base="")


async def apply_plainly(
    sandbox: Sandbox, patch: str, tests: str, steers: Callable[[str], bool], *, root: str
) -> Applied | None:
    """The ordinary case in one step, on a tree that holds what its HEAD holds and nothing else (``prepared.is_clean``):
    git applies the patch to the byte, nothing that it changes steers tests, and the tests' own patch applies after it.

    Args:
        tests: the patch of the hidden tests; "" for none.
        steers: whether a patch may not touch a path.
    Returns:
        What the patch changed, as git sees the tree; None where the case is another one, and the tree is as it was.
    Raises:
        SandboxError: the tree could not be restored.
    """
    wanted = to_bytes(patch if patch.endswith("\n") else patch + "\n")
    if not patch.strip() or len(wanted) > MOST_PLAIN or any(steers(path) for two in paths_of(patch) for path in two):
        return None
    stdin = wanted + (to_bytes(tests) if tests.strip() else b"")
    counts = (str(len(wanted)), str(len(stdin) - len(wanted)))
    result = await run_unjudged(sandbox, _APPLY_PLAINLY, root=root, stdin=stdin, arguments=counts)
    if result.exit_code == 0:
        pairs = [(word[:2], word[3:]) for word in from_bytes(result.stdout).split("\0") if word]
        added = tuple(path for status, path in pairs if status in ("??", "!!"))
        changed = tuple(path for status, path in pairs if status not in ("??", "!!"))
        if not any(steers(path) for path in (*added, *changed)):
            return Applied(base="HEAD", changed=changed, added=added)
    restored = await run_unjudged(sandbox, _RESTORE, root=root)
    if restored.exit_code != 0:
        raise SandboxError(f"the base commit could not be restored: {said_by(restored)}")
    return None


def _applied(stdout: bytes) -> Applied:
    text = from_bytes(stdout)
    base, _, rest = text.partition("\0")
    listed, _, ignored = rest.partition("\0\0") if not rest.startswith("\0") else ("", "", rest[1:])
    words = [word for word in listed.split("\0") if word]
    pairs = list(zip(words[::2], words[1::2]))
    added = [path for status, path in pairs if status == "A"] + [path for path in ignored.split("\0") if path]
    return Applied(base=base, changed=tuple(path for status, path in pairs if status != "A"), added=tuple(added))


async def take_back(sandbox: Sandbox, applied: Applied, paths: frozenset[str], *, root: str) -> None:
    """Bring some of what a patch changed back to how it was; what it added there is deleted, with folders that are
    empty then. Any number of paths: they travel by standard input.

    Raises:
        SandboxError: the files could not be restored.
    """
    doomed = [path for path in applied.added if path in paths]
    back = [path for path in applied.changed if path in paths]
    if not doomed and not back:
        return
    lists = [doomed, _folders_of(doomed), back]
    counts = [str(len(one)) for one in lists[:2]]
    stdin = b"".join(to_bytes(f"./{path}") + b"\0" for one in lists for path in one)
    result = await run_unjudged(sandbox, _TAKE_BACK, root=root, stdin=stdin, arguments=(*counts, applied.base))
    if result.exit_code != 0:
        raise SandboxError(f"files of the base commit could not be restored: {said_by(result)}")


def _folders_of(paths: Iterable[str]) -> list[str]:
    """The folders that paths lie in, inner ones first."""
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return sorted(folders - {"."}, key=lambda folder: (-folder.count("/"), folder))


async def apply_start_patch(sandbox: Sandbox, row: "SWERow") -> None:
    """Apply a row's ``start_patch``. Raises TaskError where it does not fit."""
    if row.start_patch:
        problem, _ = await apply_patch(sandbox, row.start_patch, root=row.root)
        if problem is not None:
            raise TaskError(f"{row.instance_id}: its start patch does not fit the image {row.image}: {problem}")
