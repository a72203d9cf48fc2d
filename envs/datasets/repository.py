"""Repositories brought from a clone or an address: one commit of them, with its true id, as a row's archive."""

import gzip
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...errors import TaskError
from ...model.chat.encoding import from_bytes, to_bytes

ADDRESS = re.compile(r"(https?|file|ssh|git)://|[\w.-]+@[\w.-]+:")
GIT_TIMEOUT_S = 1800.0


def find_clone(repo: str, *, stated: str = "", folders: Sequence[Path] = ()) -> str:
    """Where a repository can be fetched from.

    Args:
        repo: "owner/name".
        stated: a row's own ``clone``; it wins.
        folders: looked through for owner/name, owner__name and name, bare or not.
    Returns:
        A path or an address; GitHub's where nothing else is known.
    Raises:
        TaskError: ``stated`` is no address and not there, or there is no repository to look for.
    """
    if stated:
        if not ADDRESS.match(stated) and not Path(stated).is_dir():
            raise TaskError(f"clone {stated!r} is neither an address nor a folder")
        return stated
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise TaskError(f"repo {repo!r} is not OWNER/NAME; name a 'clone' or an 'archive' in the row")
    for folder in folders:
        for name in (repo, repo.replace("/", "__"), repo.partition("/")[2]):
            for place in (folder / name, folder / f"{name}.git"):
                if (place / ".git").exists() or (place / "HEAD").exists():
                    return str(place)
    return f"https://github.com/{repo}"


def archive_of_commit(source: str, commit: str, archive: Path) -> None:
    """Write one commit of a repository, without its history, as a .tar.gz with .git.

    Raises:
        TaskError: there is no git, or no such commit (git's words are in the message).
    """
    with tempfile.TemporaryDirectory(prefix="verigym-commit-") as scratch:
        tree = Path(scratch) / "tree"
        _check_out(source, commit, tree)
        for name in ("FETCH_HEAD", "ORIG_HEAD", "logs", "hooks", "branches", "description"):
            path = tree / ".git" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (tree / ".git" / "index").unlink()
        run_git(tree, "read-tree", "HEAD")  # an index without this machine's times and inodes
        write_archive(tree, archive)


def files_of_commit(source: str, commit: str, folder: Path) -> None:
    """Bring the files of one commit of a repository to a folder, without .git, whole or not at all; one that is there
    stays as it is.

    Raises:
        TaskError: as ``archive_of_commit``. OSError: the folder cannot be made.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        tree = Path(scratch) / "tree"
        _check_out(source, commit, tree)
        shutil.rmtree(tree / ".git")
        try:
            tree.rename(folder)
        except OSError:
            if not folder.is_dir():  # nor did another process bring it meanwhile
                raise


def _check_out(source: str, commit: str, tree: Path) -> None:
    """One commit of a repository with its files and without its history, in a new folder."""
    address = source if ADDRESS.match(source) else Path(source).resolve().as_uri()
    tree.mkdir()
    run_git(tree, "init", "--quiet", "--initial-branch=main", "--template=")
    serve = "git -c uploadpack.allowAnySHA1InWant=true -c safe.directory=* upload-pack"
    local = ["--upload-pack", serve] if address.startswith("file://") else []
    run_git(tree, "fetch", "--quiet", "--depth=1", "--no-tags", *local, address, commit)
    run_git(tree, "-c", "core.autocrlf=false", "checkout", "--quiet", "-B", "main", "FETCH_HEAD")


def write_archive(tree: Path, archive: Path) -> None:
    """Write a folder as a .tar.gz without owners and times, whole or not at all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(tree.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(tree)), recursive=False, filter=_anonymous)
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(archive.name + ".partial")
    with partial.open("wb") as out, gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0) as packed:
        packed.write(buffer.getvalue())
    partial.replace(archive)


def run_git(folder: Path, *arguments: str, text: str | None = None) -> str:
    """Output of git in a folder, free of users' configuration.

    Raises:
        TaskError: it failed, is missing, or took too long.
    """
    env = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    env |= {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "proxy" in name.lower()}
    command = ["git", "-C", str(folder), "-c", "safe.directory=*", "-c", "core.quotePath=false", *arguments]
    given = None if text is None else to_bytes(text)
    try:
        done = subprocess.run(command, env=env, input=given, capture_output=True, timeout=GIT_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise TaskError("git is not installed; install it (apt-get install git)") from None
    except subprocess.TimeoutExpired:
        raise TaskError(f"git {arguments[0]} did not end within {GIT_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        words = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        told = next((line for line in words if line.startswith("fatal:")), words[-1] if words else "no message")
        raise TaskError(f"git {' '.join(arguments[:2])} failed in {folder}: {told}")
    return from_bytes(done.stdout)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 946684800
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member
