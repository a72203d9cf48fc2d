"""Patches inside a sandbox: applied as SWE-bench applies them, compared, and partly taken back."""

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import SandboxError, TaskError
from ...model.chat.encoding import from_bytes, has_halves, to_bytes
from ..sandbox.types import ProcessResult, Sandbox
from .history import IGNORED

if TYPE_CHECKING:
    from ..datasets.swe import SWERow

GIT_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    # Files of an image keep their times and sizes and nothing else: without these git would read every one again.
    "GIT_CONFIG_COUNT": "5",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "core.quotePath",
    "GIT_CONFIG_VALUE_1": "false",
    "GIT_CONFIG_KEY_2": "core.hooksPath",
    "GIT_CONFIG_VALUE_2": "/dev/null",
    "GIT_CONFIG_KEY_3": "core.checkStat",
    "GIT_CONFIG_VALUE_3": "minimal",
    "GIT_CONFIG_KEY_4": "core.trustctime",
    "GIT_CONFIG_VALUE_4": "false",
}

SCRIPT_TIMEOUT_S = 300.0
SNAPSHOT_BYTES = 512 << 20

_APPLY = """
    aside=$(mktemp -d) && trap 'rm -rf "$aside"' EXIT && cat > "$aside/patch" || exit 99
    export GIT_INDEX_FILE="$aside/index" LC_ALL=C
    [ ! -f .git/index ] || cp .git/index "$aside/index" || exit 99
    git add --all && base=$(git write-tree) || exit 99
    git ls-files --others --ignored --exclude-standard -z | sort -z > "$aside/ignored"
    report() {
        git add --all || exit 99
        printf '%s\\0' "$base"
        git diff --cached --name-status --no-renames -z "$base" -- || exit 99
        printf '\\0'
        git ls-files --others --ignored --exclude-standard -z | sort -z | comm -z -13 "$aside/ignored" -
        exit 0
    }
    git apply --whitespace=nowarn "$aside/patch" 2> "$aside/why" && report
    git apply --whitespace=nowarn --3way "$aside/patch" > "$aside/said" 2>&1 && report
    git read-tree --reset -u "$base" || exit 99
    # GNU patch would write into .git, where configuration can name programs: it is out of reach meanwhile.
    mv .git "$aside/git" || exit 99
    patch --batch --forward --fuzz=5 --no-backup-if-mismatch -p1 -i "$aside/patch" > "$aside/said" 2>&1
    code=$?
    find . -name .git -prune -exec rm -rf {} +
    mv "$aside/git" .git || exit 99
    [ $code != 0 ] || report
    git read-tree --reset -u "$base" && git clean -fdq || exit 99
    git apply --check --reverse "$aside/patch" 2> "$aside/said" && report
    cat "$aside/why"
    exit 1
"""


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


async def run_script(sandbox: Sandbox, script: str, *, root: str, stdin: bytes = b"", **env: str) -> ProcessResult:
    """Run a shell script in ``root`` with a git that reads no configuration of users.

    Raises:
        SandboxError: it was killed, which no script of ours is unless the sandbox is in trouble.
    """
    result = await sandbox.arun(
        ["sh", "-c", script], cwd=root, env={**GIT_ENV, **env}, stdin=stdin, timeout_s=SCRIPT_TIMEOUT_S
    )
    if result.killed and result.killed != "output":
        lines = script.strip().splitlines()
        raise SandboxError(f"a step in the sandbox was killed ({result.killed}): {lines[0][:200]}")
    return result


async def apply_patch(sandbox: Sandbox, patch: str, *, root: str) -> tuple[str | None, Applied]:
    """Apply a patch to the work tree by SWE-bench's ladder: git, git with a three-way merge, ``patch`` with fuzz; a
    patch that is applied already is accepted too.

    Returns:
        (None, or why it does not apply; what it changed). Where it does not apply the tree is as it was.
    Raises:
        SandboxError: the sandbox failed.
    """
    if not patch.strip():
        return None, Applied(base="")
    if not patch.endswith("\n"):
        patch += "\n"
    result = await run_script(sandbox, _APPLY, root=root, stdin=to_bytes(patch))
    if result.exit_code == 0:
        return None, _applied(result.stdout)
    if result.exit_code == 99:
        raise SandboxError(f"a patch could not be applied: {result.stderr.decode('utf-8', errors='replace')[-500:]}")
    said = result.stdout.decode("utf-8", errors="replace").strip().splitlines()
    return (said[0][:300] if said else f"exit code {result.exit_code}"), Applied(base="")


def _applied(stdout: bytes) -> Applied:
    text = from_bytes(stdout)
    base, _, rest = text.partition("\0")
    listed, _, ignored = rest.partition("\0\0") if not rest.startswith("\0") else ("", "", rest[1:])
    words = [word for word in listed.split("\0") if word]
    pairs = list(zip(words[::2], words[1::2]))
    added = [path for status, path in pairs if status == "A"] + [path for path in ignored.split("\0") if path]
    return Applied(base=base, changed=tuple(path for status, path in pairs if status != "A"), added=tuple(added))


async def take_back(sandbox: Sandbox, applied: Applied, paths: frozenset[str], *, root: str) -> None:
    """Bring some of what a patch changed back to how it was; what it added there is deleted.

    Raises:
        SandboxError: the files could not be restored.
    """
    doomed = " ".join(shlex.quote(f"./{path}") for path in applied.added if path in paths)
    back = "\0".join(path for path in applied.changed if path in paths)
    if not doomed and not back:
        return
    script = f"rm -rf -- {doomed} || exit\n" if doomed else ""
    if back:
        script += f"""
            aside=$(mktemp -d) && trap 'rm -rf "$aside"' EXIT && cat > "$aside/paths" || exit
            export GIT_INDEX_FILE="$aside/index"
            git read-tree {applied.base} && while IFS= read -r -d '' path; do rm -rf -- "./$path"; done < "$aside/paths"
            git --literal-pathspecs checkout-index --force -z --stdin < "$aside/paths"
        """
    result = await sandbox.arun(
        ["bash", "-c", script],
        cwd=root,
        env=GIT_ENV,
        stdin=to_bytes(back) + (b"\0" if back else b""),
        timeout_s=SCRIPT_TIMEOUT_S,
    )
    if result.exit_code != 0:
        said = result.stderr.decode("utf-8", errors="replace").strip()
        raise SandboxError(f"files of the base commit could not be restored: {said[-500:]}")


async def apply_start_patch(sandbox: Sandbox, row: "SWERow") -> None:
    """Apply a row's ``start_patch``. Raises TaskError where it does not fit."""
    if row.start_patch:
        problem, _ = await apply_patch(sandbox, row.start_patch, root=row.root)
        if problem is not None:
            raise TaskError(f"{row.instance_id}: its start patch does not fit the image {row.image}: {problem}")


async def snapshot(sandbox: Sandbox, root: str) -> bytes:
    """The work tree as a repository of one commit: a tar archive of its .git.

    Raises:
        SandboxError: git failed, or the archive is larger than 512 MiB.
    """
    script = """
        aside=$(mktemp -d) && trap 'rm -rf "$aside"' EXIT || exit
        export GIT_DIR="$aside/.git" GIT_WORK_TREE="$PWD"
        export GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL=base@localhost GIT_COMMITTER_NAME=base
        export GIT_COMMITTER_EMAIL=base@localhost
        git init --quiet && mkdir -p "$GIT_DIR/info" && cat > "$GIT_DIR/info/exclude" || exit
        git add --all && git commit --quiet --allow-empty --no-verify -m base || exit
        tar -cf - -C "$aside" .git
    """
    result = await sandbox.arun(
        ["sh", "-c", script],
        cwd=root,
        env=GIT_ENV,
        stdin=IGNORED.encode(),
        timeout_s=SCRIPT_TIMEOUT_S,
        output_bytes=SNAPSHOT_BYTES,
    )
    if result.exit_code != 0:
        said = result.killed or result.stderr.decode("utf-8", errors="replace").strip()[-500:]
        raise SandboxError(f"the state of {root} could not be recorded: {said}")
    return result.stdout


async def diff_of(sandbox: Sandbox, base: bytes, *, root: str) -> str | None:
    """The work tree as a patch against base: new, deleted and binary files included, ignored ones not.

    The comparison uses a .git of its own, so nothing done to the one in the work tree (commits, attributes, filters,
    its removal) changes what is handed in.

    Args:
        base: ``checkout.base_of`` of the row.
    Returns:
        The patch, such that ``to_bytes`` gives git's own bytes; ASCII or UTF-8, but where a link's target is neither.
        None where it is larger than 16 MiB.
    Raises:
        SandboxError: the comparison failed.
    """
    diff = "diff --cached --binary --no-color --no-ext-diff --no-textconv --no-renames HEAD"
    text = ""
    # Text or names in no known encoding are compared again, as binary and with quoted names, which is ASCII.
    for attributes, git in (("", "git"), ("* binary", "git -c core.quotePath=true")):
        script = f"""
            base=$(mktemp -d) && trap 'rm -rf "$base"' EXIT && tar -xf - -C "$base" --no-same-owner || exit
            export GIT_DIR="$base/.git" GIT_WORK_TREE="$PWD"
            mkdir -p "$GIT_DIR/info" && echo "{attributes}" > "$GIT_DIR/info/attributes"
            git add --all && {git} {diff}
        """
        result = await run_script(sandbox, script, root=root, stdin=base)
        if result.killed == "output":
            return None
        if result.exit_code != 0:
            said = result.stderr.decode("utf-8", errors="replace").strip()
            raise SandboxError(f"the work tree could not be compared with its base: {said[-500:]}")
        text = from_bytes(result.stdout)
        if not has_halves(text):
            break
    return text
