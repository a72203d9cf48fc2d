"""A repository's past without its future: what an agent, and a patch that is graded, may see of git.

An image or a clone can hold the fix: on another branch, a tag, a stash, in a reflog, ORIG_HEAD, another worktree, or
as an object that nothing points to. After ``purge_history`` git holds the base commit, its ancestors, and nothing else.
"""

from ...errors import SandboxError
from ..sandbox.types import Sandbox

# What running Python leaves behind is no one's work.
IGNORED = "__pycache__/\n*.pyc\n.pytest_cache/\n.hypothesis/\n*.egg-info/\n"

PURGE_TIMEOUT_S = 600.0

_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "4",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "core.logAllRefUpdates",
    "GIT_CONFIG_VALUE_1": "false",
    "GIT_CONFIG_KEY_2": "core.checkStat",
    "GIT_CONFIG_VALUE_2": "minimal",
    "GIT_CONFIG_KEY_3": "core.trustctime",
    "GIT_CONFIG_VALUE_3": "false",
    "GIT_NO_REPLACE_OBJECTS": "1",
}

# Refs, logs, other worktrees, alternates and the index all keep objects alive, and packs may be marked to be kept:
# so the wanted objects go into one new pack, and every other place is emptied. Where a pack of just these was kept, it
# is the only alternate.
_PURGE = """
    if [ -f .git ]; then  # a linked worktree: a copy of its repository takes the place of the link
        inside=$(git rev-parse --path-format=absolute --git-common-dir) && head=$(git rev-parse HEAD) || exit
        cp -R "$inside" .git.own && rm .git && mv .git.own .git && git update-ref --no-deref HEAD "$head" || exit
    fi
    git worktree list --porcelain | sed -n 's/^worktree //p' | tail -n +2 | while IFS= read -r other; do
        [ "$other" = "$PWD" ] || rm -rf -- "$other"
    done
    find . -path ./.git -prune -o -name .git -type f -print | while IFS= read -r link; do
        ! grep -q '/worktrees/' "$link" || rm -rf -- "${link%/.git}"
    done
    base=$(git rev-parse --quiet --verify "$1^{commit}") || base=$(git rev-parse --verify HEAD) || exit
    # What an image's build edited and committed on top of base is the image's: where its files are those of HEAD, HEAD
    # is the base. Times that a layer of an image does not keep are no reason to read every file.
    head=$(git rev-parse --verify HEAD) && git update-index -q --refresh > /dev/null
    if git merge-base --is-ancestor "$base" "$head" && git diff-index --quiet HEAD --; then base=$head; fi
    tags= form='%(objectname) %(*objectname) %(refname)'
    [ -z "$2" ] || tags=$(git for-each-ref --merged="$base" --format="$form" refs/tags) || exit
    kept=$(mktemp -d "$PWD/.git/keep-XXXXXX") || exit
    past=
    if [ -n "$4" ] && [ -d "$4/$base" ]; then
        past=$4/$base
    else
        git rev-list --objects --no-object-names $3 "$base" > "$kept/wanted" || exit
        # Deltas are taken over as they are; new ones are not looked for.
        git pack-objects --quiet --window=0 --delta-base-offset "$kept/pack" < "$kept/wanted" > /dev/null || exit
    fi
    git diff-index --cached --quiet "$base" -- || rm -f .git/index
    cd .git || exit
    rm -rf logs refs packed-refs shallow worktrees hooks rebase-apply rebase-merge sequencer lfs info/grafts info/refs
    rm -f *_HEAD AUTO_MERGE BISECT_* COMMIT_EDITMSG MERGE_MSG MERGE_MODE SQUASH_MSG gc.log index.lock description
    rm -rf objects && mkdir -p objects/pack objects/info refs/heads refs/tags || exit
    if [ -n "$past" ]; then echo "$past" > objects/info/alternates; else mv "$kept"/pack-* objects/pack/; fi || exit
    rm -rf "$kept" keep-*
    printf 'ref: refs/heads/main\\n' > HEAD && cd .. || exit
    [ -z "$3" ] || echo "$base" > .git/shallow
    git update-ref refs/heads/main "$base" || exit
    [ -z "$tags" ] || echo "$tags" | awk '{ print "create", $NF, $(NF - 1) }' | git update-ref --stdin || exit
    for name in $(git remote); do git remote remove "$name"; done
    git config --unset extensions.partialClone
    [ -f .git/index ] || git read-tree HEAD
    git update-index -q --refresh > /dev/null
    git rev-parse --quiet --verify HEAD > /dev/null && echo "$base"
"""

# What a build edited and did not commit would be undone by `git checkout .`, and be handed in so.
_KEEP_EDITS = """
    [ -z "$1" ] || git diff-index --quiet HEAD -- || {
        export GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL=base@localhost GIT_AUTHOR_DATE=2000-01-01T00:00:00Z
        export GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL=base@localhost GIT_COMMITTER_DATE=2000-01-01T00:00:00Z
        git commit --quiet --all --no-verify -m 'the image, as it was built' && rm -f .git/COMMIT_EDITMSG
    }
"""

# Where every object there is belongs to base or its past, and nothing else brings objects, nothing is to be purged.
# Counting them is not worth it where a commit is ahead.
_NOTHING_AHEAD = """
    [ -d .git ] && [ -z "$(git rev-list -n 1 --all --not "$1" 2>/dev/null)" ] &&
    [ ! -e .git/worktrees ] && [ ! -e .git/objects/info/alternates ] && [ ! -e .git/shallow ] &&
    base=$(git rev-parse --quiet --verify "$1^{commit}" || git rev-parse --verify HEAD) &&
    past=$(git rev-list --objects "$base" | wc -l) &&
    [ "$past" = "$(git cat-file --batch-all-objects --batch-check='%(objectname)' | wc -l)" ] && exit 0
"""

_FRESH = """
    rm -rf .git && git init --quiet --initial-branch=main --template= && mkdir -p .git/info || exit
    cat > .git/info/exclude
    export GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL=base@localhost GIT_AUTHOR_DATE=2000-01-01T00:00:00Z
    export GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL=base@localhost GIT_COMMITTER_DATE=2000-01-01T00:00:00Z
    # A folder that is a repository without a commit is no reason not to begin.
    git add --all --ignore-errors; [ $? -le 1 ] || exit
    git commit --quiet --allow-empty --no-verify -m base && rm -f .git/COMMIT_EDITMSG
"""


async def purge_history(sandbox: Sandbox, root: str, *, base_commit: str = "", past: str = "") -> str:
    """Make the base commit the only branch, and remove every object that is no ancestor of it. The work tree stays.

    Args:
        root: the repository's folder.
        base_commit: a commit there; where it is empty or not there, HEAD is the base.
        past: a folder of the sandbox that may hold a folder with the name of the commit, and in it the pack of all
            its objects (``pasts.py``); the repository then reads that one, and none is made.
    Returns:
        The commit that the history now ends with, but for one that keeps what a build has edited.
    Raises:
        SandboxError: git failed.
    """
    return await _run(sandbox, root, _PURGE + _KEEP_EDITS, base_commit, past=past)


async def purge_for_grading(sandbox: Sandbox, root: str, *, base_commit: str = "") -> None:
    """``purge_history``, which does nothing where git holds no object that is not base's or its past's, and keeps the
    names of tags in the past: scripts of images install the repository, and its version may come from them.

    Raises:
        SandboxError: git failed.
    """
    await _run(sandbox, root, _NOTHING_AHEAD + _PURGE, base_commit, "tags")


async def purge_past(sandbox: Sandbox, root: str, *, base_commit: str = "") -> None:
    """``purge_history`` that leaves base alone, as a clone of depth 1: a fraction of the work, for tests that
    no script installs anything for.

    Raises:
        SandboxError: git failed.
    """
    await _run(sandbox, root, _PURGE, base_commit, shallow=True)


async def fresh_repository(sandbox: Sandbox, root: str) -> None:
    """Make the work tree the one commit of a new repository, for bases that no commit of the image is.

    Raises:
        SandboxError: git failed.
    """
    await _run(sandbox, root, _FRESH, "", stdin=IGNORED.encode())


async def _run(
    sandbox: Sandbox,
    root: str,
    script: str,
    base: str,
    keep: str = "",
    *,
    shallow: bool = False,
    past: str = "",
    stdin: bytes = b"",
) -> str:
    command = ["sh", "-c", script, "sh", base or "HEAD", keep, "--max-count=1" if shallow else "", past]
    result = await sandbox.arun(command, cwd=root, env=_ENV, stdin=stdin, timeout_s=PURGE_TIMEOUT_S)
    if result.exit_code != 0:
        said = result.stderr.decode("utf-8", errors="replace").strip()
        raise SandboxError(f"the history of {root} could not be purged ({result.killed or said[-500:]})")
    return result.stdout.decode().strip()
