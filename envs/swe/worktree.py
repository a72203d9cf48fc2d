"""What a work tree inside a sandbox holds: every file of it, recorded, and compared with its base.

Who worked there may have left anything: repositories inside the repository, files that nobody may read, attributes that
git cannot follow, names that it cannot hold, a full disk. All of it is recorded as far as git can; what makes recording
impossible is the doing of who worked there (``Unusable``), never a failure of the sandbox.
"""

from collections.abc import Sequence

from ...errors import SandboxError
from ...model.chat.encoding import from_bytes, has_halves
from ..sandbox.types import Limits, ProcessResult, Sandbox
from .history import IGNORED

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

RAW_ATTRIBUTES = "* -text !eol !ident !filter !working-tree-encoding"
"""Files as they are: no conversion, whatever a work tree's own attributes ask for."""

RAW = f"""
    # raw: git converts nothing until `unraw`, which this script's end must call. $aside is a folder of ours.
    attributes=$(git rev-parse --git-path info/attributes) || exit
    raw() {{
        [ ! -e "$attributes" ] || mv "$attributes" "$aside/attributes" || return 1
        mkdir -p "${{attributes%/*}}" && echo "{RAW_ATTRIBUTES}" > "$attributes"
    }}
    unraw() {{ rm -f "$attributes"; [ ! -e "$aside/attributes" ] || mv "$aside/attributes" "$attributes"; }}
"""
"""For scripts that work in a repository which others use after them."""

STAGE = f"""
    # stage: every file below into the index, those of inner repositories too. $aside is a folder of ours.
    # In the ordinary case one command; git says where it is not ordinary.
    export LC_ALL=C
    stage() {{
        git add --all > "$aside/told" 2>&1 && [ ! -s "$aside/told" ] && ! has_links && return 0
        # git knows of a file's mode only whether it can be run.
        ! grep -qi 'permission denied' "$aside/told" || chmod -R u+rwX . 2> /dev/null
        if add_what_can; then stage_inner; else return 1; fi
    }}
    add_what_can() {{
        git add --all --ignore-errors > "$aside/told" 2>&1; code=$?
        [ $code -gt 1 ] || return 0
        # What is fatal to git is an attribute that it cannot follow; a repository of others has them.
        attributes=$(git rev-parse --git-path info/attributes) || return 1
        mkdir -p "${{attributes%/*}}" && echo "{RAW_ATTRIBUTES}" >> "$attributes" || return 1
        git add --all --ignore-errors > "$aside/told" 2>&1; code=$?
        [ $code -le 1 ]
    }}
    has_links() {{ git ls-files --stage | grep -q '^160000 '; }}
    links() {{ git ls-files --stage -z | grep -z '^160000 ' | sed -z 's/^[^\\t]*\\t//'; }}
    # A repository inside is a link to a commit for git, and nothing where it has none: its files are added by an index
    # of its own, whose work tree is the folder, and put in the link's place.
    stage_inner() {{
        links > "$aside/links"
        find . -path ./.git -prune -o -name .git -prune -print0 | sed -z 's,^\\./,,; s,/\\.git$,,' > "$aside/inner"
        cat "$aside/links" "$aside/inner" | sort -z -u > "$aside/roots"
        while IFS= read -r -d '' inner; do
            is_filled "$inner" || continue
            forget "$inner"
            ! git check-ignore --quiet "./$inner" || continue
            rm -f "$aside/inner-index"
            tree=$(cd "$inner" && export GIT_DIR="$git_dir" GIT_WORK_TREE="$PWD" GIT_INDEX_FILE="$aside/inner-index" \\
                && add_what_can && git write-tree) || return 1
            GIT_LITERAL_PATHSPECS=1 git ls-files -z -- "$inner/" | git update-index -z --force-remove --stdin
            [ "$tree" = "$(git hash-object -t tree /dev/null)" ] || git read-tree --prefix="$inner/" "$tree" || return 1
        done < "$aside/roots"
    }}
    is_filled() {{ [ -d "$1" ] && [ ! -L "$1" ] && [ -n "$(find "$1" -mindepth 1 ! -name .git -print -quit)" ]; }}
    forget() {{ printf '%s\\0' "$1" | git update-index -z --force-remove --stdin; }}
"""


class Unusable(Exception):
    """What was left in a work tree, or a patch, cannot be recorded: the doing of who left it, and worth 0."""


async def run_script(sandbox: Sandbox, script: str, *, root: str, stdin: bytes = b"") -> ProcessResult:
    """Run a shell script in ``root`` with a git that reads no configuration of users.

    Raises:
        SandboxError: it was killed, which no script of ours is unless the sandbox is in trouble.
    """
    result = await run_unjudged(sandbox, script, root=root, stdin=stdin)
    if result.killed and result.killed != "output":
        lines = script.strip().splitlines()
        raise SandboxError(f"a step in the sandbox was killed ({result.killed}): {lines[0][:200]}")
    return result


async def run_unjudged(
    sandbox: Sandbox, script: str, *, root: str, stdin: bytes = b"", arguments: Sequence[str] = ()
) -> ProcessResult:
    """``run_script`` where it is the caller who says whose fault it is that the script was killed.

    Args:
        arguments: few and short; what an agent has a say in travels by ``stdin``.
    """
    command = ["bash", "-c", script, "bash", *arguments]
    return await sandbox.arun(command, cwd=root, env=GIT_ENV, stdin=stdin, timeout_s=SCRIPT_TIMEOUT_S)


def said_by(result: ProcessResult) -> str:
    """Why a script failed, in its last words."""
    if result.killed:
        return f"killed: {result.killed}"
    said = result.stderr.decode("utf-8", errors="replace").strip() or f"exit code {result.exit_code}"
    return said[-500:]


async def snapshot(sandbox: Sandbox, root: str) -> bytes:
    """The work tree as a repository of one commit: a tar archive of its .git.

    Raises:
        SandboxError: git failed, or the archive is larger than 512 MiB.
    """
    script = f"""
        aside=$(mktemp -d) && trap 'rm -rf "$aside"' EXIT || exit
        {STAGE}
        git_dir="$aside/.git"
        # What the repository holds need not be written once more, a file each; what is told is one pack.
        objects=$(cd "$(git rev-parse --git-path objects 2> /dev/null)" 2> /dev/null && pwd)
        export GIT_ALTERNATE_OBJECT_DIRECTORIES="$objects"
        export GIT_DIR="$git_dir" GIT_WORK_TREE="$PWD"
        export GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL=base@localhost GIT_COMMITTER_NAME=base
        export GIT_COMMITTER_EMAIL=base@localhost
        git init --quiet && mkdir -p "$GIT_DIR/info" && cat > "$GIT_DIR/info/exclude" || exit
        echo "{RAW_ATTRIBUTES}" > "$GIT_DIR/info/attributes"
        stage || {{ cat "$aside/told" >&2; exit 1; }}
        git commit --quiet --allow-empty --no-verify -m base || exit
        git rev-list --objects --no-object-names HEAD > "$aside/wanted" || exit
        git pack-objects --quiet --window=0 "$aside/pack" < "$aside/wanted" > /dev/null || exit
        rm -rf "$GIT_DIR/objects" && mkdir -p "$GIT_DIR/objects/pack" || exit
        mv "$aside"/pack-* "$GIT_DIR/objects/pack/" || exit
        tar -cf - -C "$aside" .git
    """
    result = await sandbox.arun(
        ["bash", "-c", script],
        cwd=root,
        env=GIT_ENV,
        stdin=IGNORED.encode(),
        timeout_s=SCRIPT_TIMEOUT_S,
        output_bytes=SNAPSHOT_BYTES,
    )
    if result.exit_code != 0:
        raise SandboxError(f"the state of {root} could not be recorded: {said_by(result)}")
    return result.stdout


async def diff_of(sandbox: Sandbox, base: bytes, *, root: str, disk_mib: int = Limits().disk_mib) -> str | None:
    """The work tree as a patch against base: new, deleted and binary files included, those of repositories inside it
    too, ignored ones not.

    The comparison uses a .git of its own, so nothing done to the one in the work tree (commits, attributes, filters,
    its removal) changes what is handed in. Files that nobody may read are made readable; names that git cannot hold
    (".GIT") are left out.

    Args:
        base: ``checkout.base_of`` of the row.
        disk_mib: of the sandbox's limits: a full disk that is larger is the host's.
    Returns:
        The patch, such that ``to_bytes`` gives git's own bytes; ASCII or UTF-8, but where a link's target is neither.
        None where it is larger than 16 MiB.
    Raises:
        Unusable: what is there cannot be compared. SandboxError: the sandbox failed.
    """
    diff = "diff --cached --binary --no-color --no-ext-diff --no-textconv --no-renames HEAD"
    text = ""
    # Text or names in no known encoding are compared again, as binary and with quoted names, which is ASCII.
    for attributes, git in ((RAW_ATTRIBUTES, "git"), (f"{RAW_ATTRIBUTES} -diff", "git -c core.quotePath=true")):
        script = f"""
            aside=$(mktemp -d) && trap 'rm -rf "$aside"' EXIT && tar -xf - -C "$aside" --no-same-owner || exit
            {STAGE}
            git_dir="$aside/.git"
            export GIT_DIR="$git_dir" GIT_WORK_TREE="$PWD"
            mkdir -p "$GIT_DIR/info" && echo "{attributes}" > "$GIT_DIR/info/attributes"
            stage || {{ cat "$aside/told" >&2; exit 1; }}
            {git} {diff}
        """
        result = await run_unjudged(sandbox, script, root=root, stdin=base)
        if result.killed in ("memory", "processes"):  # what held them was killed with it
            result = await run_unjudged(sandbox, script, root=root, stdin=base)
        if result.killed == "output":
            return None
        if result.exit_code != 0:
            told = f"the work tree could not be compared with its base: {said_by(result)}"
            raise SandboxError(told) if await _lacks_the_hosts_disk(sandbox, result, disk_mib) else Unusable(told)
        text = from_bytes(result.stdout)
        if not has_halves(text):
            break
    return text


async def _lacks_the_hosts_disk(sandbox: Sandbox, result: ProcessResult, disk_mib: int) -> bool:
    """Whether a script failed for a disk that is full and is not the sandbox's own."""
    if result.killed or b"No space left" not in result.stderr:
        return False
    full = await sandbox.arun(["bash", "-c", "df -Pk . /tmp | awk 'NR > 1 && $4 < 1024 { print $2 }'"])
    sizes = [int(size) for size in full.stdout.split() if size.isdigit()]
    return bool(sizes) and min(sizes) > (disk_mib << 10) * 2
