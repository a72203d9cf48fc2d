"""A repository at its base commit inside a sandbox: from an image, or put there from an archive."""

import asyncio
import hashlib
import io
import posixpath
import re
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ...errors import SandboxError, TaskError
from ...model.chat.encoding import to_bytes
from ..datasets.swe import SWERow, require_repository
from ..datasets.swe_sources import CONDA_PYTHON
from ..sandbox.background import on_thread, on_thread_to_its_end
from ..sandbox.choose import make_backend
from ..sandbox.oci.backend import OciBackend
from ..sandbox.python import PythonEnvironment, python_environment
from ..sandbox.types import Limits, ReusingBackend, Sandbox, SandboxBackend, SandboxSpec
from .history import IGNORED, fresh_repository, purge_for_grading, purge_history, purge_past
from .pasts import PLACE, base_in, first_alone, keep, keep_base, past_of, stamp_of
from .patching import apply_start_patch
from .prepared import bring, changed_ns, key_of
from .spool import Spool
from .worktree import run_script, snapshot

DEFAULT_REQUIREMENTS = ("pytest==8.3.4",)

HOST_BACKENDS = ("local", "ssh", "unsafe")
"""Backends without images: they take a row's archive and its pinned requirements."""

NO_IMAGE = {"image": "", "interpreter": "", "workdir": ""}

_BASES = Spool()
"""(image, digest of what else makes the base) -> the .git that an agent's work is compared with. It may have 512 MiB,
and an environment that is used again is not taken apart again: it is kept, but not in memory."""

_GIT_DIRS = Spool()
"""(archive, when it was last written) -> its .git."""

_HAS_LINKS: dict[tuple[str, str], bool] = {}
"""Key of ``_BASES`` -> whether an archive's base commit has submodules."""


def placed(row: SWERow, backend: SandboxBackend) -> SWERow:
    """The row as this backend holds it: its image, or, on a backend without images, or without this one, its archive.

    Raises:
        TaskError: the row has neither, or an image alone and the backend has none.
    """
    require_repository(row)
    if row.image and backend.name not in HOST_BACKENDS:
        missing = row.archive and isinstance(backend, OciBackend) and not backend.has(row.image)
        return row.model_copy(update=NO_IMAGE) if missing else row
    if row.archive:
        return row.model_copy(update=NO_IMAGE)
    raise TaskError(
        f"{row.instance_id}: the row names the image {row.image} and no archive; the {backend.name} sandbox has no "
        "images, use --sandbox docker or oci"
    )


def backend_for(row: SWERow, choice: str) -> SandboxBackend:
    """The backend of a choice; "auto" is local for a row without an image.

    Raises:
        SandboxError, ConfigError: it does not work here.
    """
    return make_backend("local" if choice == "auto" and not row.image else choice)


async def environment_of(row: SWERow) -> PythonEnvironment:
    """The Python of a placed row: its image's, or one built of its pinned requirements (pytest alone without any).

    Raises:
        TaskError: a requirement is not pinned. SandboxError: the environment could not be built.
    """
    if row.image:
        return PythonEnvironment(python=row.interpreter or CONDA_PYTHON, binds=(), requirements=())
    return await on_thread(_environment, row.pip_requirements or DEFAULT_REQUIREMENTS)


@lru_cache(maxsize=256)
def _environment(requirements: tuple[str, ...]) -> PythonEnvironment:
    return python_environment(requirements)


def shell_env(row: SWERow, environment: PythonEnvironment) -> dict[str, str]:
    """The row's variables for a shell, with its Python first on PATH; where PATH is the image's, and PYTHONPATH, are
    ``_prepare_shell``'s."""
    env = {"PYTHONDONTWRITEBYTECODE": "1", **row.env}
    if not row.image:
        folder = posixpath.dirname(environment.python)
        env = {"PATH": f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **env}
    env.pop("PYTHONPATH", None)
    return env


@asynccontextmanager
async def checkout(
    backend: SandboxBackend,
    row: SWERow,
    *,
    limits: Limits,
    env: Mapping[str, str] | None = None,
    with_past: bool = True,
) -> AsyncIterator[Sandbox]:
    """A fresh sandbox with a placed row's repository, for grading; closed at the end. Raises as ``open_checkout``."""
    sandbox = await open_checkout(backend, row, limits=limits, env=env, with_past=with_past)
    try:
        yield sandbox
    finally:
        await sandbox.aclose()


async def open_checkout(
    backend: SandboxBackend,
    row: SWERow,
    *,
    limits: Limits,
    env: Mapping[str, str] | None = None,
    with_past: bool = True,
) -> Sandbox:
    """A fresh sandbox with a placed row's repository in ``row.root``, and nothing of the hidden tests but what an
    image itself carries.

    Args:
        with_past: of an image's history all that is base's past stays; else base alone.
    Raises:
        TaskError: the archive is gone, the image has no repository, or the start patch does not fit it.
        SandboxError: the sandbox cannot be made, or not be filled.
    """
    return await _prepared(
        backend, await _spec(row, limits, env), lambda sandbox: fill_for_grading(sandbox, row, with_past)
    )


@asynccontextmanager
async def checkout_ahead(
    backend: SandboxBackend, row: SWERow, *, limits: Limits
) -> AsyncIterator[Callable[[], Awaitable[Sandbox]]]:
    """``checkout`` by a call that may come or not: where a sandbox takes a while to start and is not lost when it was
    not used, it is made meanwhile. Called at most once."""
    spec = await _spec(row, limits, None)
    making: asyncio.Future[Sandbox] | None = None
    if isinstance(backend, ReusingBackend):
        making = asyncio.ensure_future(backend.create(spec))

    async def get() -> Sandbox:
        nonlocal making
        if making is None:
            making = asyncio.ensure_future(backend.create(spec))
        sandbox = await asyncio.shield(making)
        await fill_for_grading(sandbox, row)
        return sandbox

    try:
        yield get
    finally:
        if making is not None:
            await asyncio.wait([making])
            if not making.cancelled() and making.exception() is None:
                await making.result().aclose()


async def open_workspace(
    backend: SandboxBackend, row: SWERow, *, limits: Limits, env: Mapping[str, str] | None = None
) -> Sandbox:
    """``open_checkout`` for an agent: hidden files are gone, and git holds nothing but base and its ancestors.

    Raises: as ``open_checkout``.
    """
    if not row.image:
        return await _open_workspace(backend, row, limits, env)
    async with first_alone(row):
        return await _open_workspace(backend, row, limits, env)


async def _open_workspace(
    backend: SandboxBackend, row: SWERow, limits: Limits, env: Mapping[str, str] | None
) -> Sandbox:
    spec = await _spec(row, limits, env)
    if row.image:
        spec = replace(spec, binds=(*spec.binds, *past_of(row)))

    async def make(sandbox: Sandbox) -> None:
        await _fill(sandbox, row)
        await _hide(sandbox, row)

    async def prepare(sandbox: Sandbox) -> None:
        if row.image or base_is_unknown(row):
            await make(sandbox)
        else:
            await bring(sandbox, row, "workspace", make)
        await _prepare_shell(sandbox, row)

    if isinstance(backend, ReusingBackend):
        return await backend.reuse(spec, key_of(row), prepare)
    return await _prepared(backend, spec, prepare)


async def _prepared(
    backend: SandboxBackend, spec: SandboxSpec, prepare: Callable[[Sandbox], Awaitable[None]]
) -> Sandbox:
    sandbox = await backend.create(spec)
    try:
        await prepare(sandbox)
    except BaseException:
        await sandbox.aclose()
        raise
    return sandbox


async def _spec(row: SWERow, limits: Limits, env: Mapping[str, str] | None) -> SandboxSpec:
    binds = tuple((await environment_of(row)).binds)
    return SandboxSpec(image=row.image or None, workdir=row.root, binds=binds, env=dict(env or {}), limits=limits)


async def _fill(sandbox: Sandbox, row: SWERow) -> None:
    if not row.image:
        await sandbox.put_archive(await on_thread(_archive, row), row.root)
    await _check_repository(sandbox, row)
    await apply_start_patch(sandbox, row)


async def fill_for_grading(sandbox: Sandbox, row: SWERow, with_past: bool = True) -> None:
    """What grades a placed row, in a fresh sandbox. A patch is code, and what it runs could ask git for the fix.

    Raises: as ``open_checkout``.
    """

    async def make(sandbox: Sandbox) -> None:
        await _fill(sandbox, row)
        if row.start_patch:  # HEAD is the state without the bug
            await fresh_repository(sandbox, row.root)
        elif row.image and not with_past:
            await purge_past(sandbox, row.root, base_commit=row.base_commit)
        else:
            await purge_for_grading(sandbox, row.root, base_commit=row.base_commit)

    if row.image:
        await make(sandbox)
    else:
        await bring(sandbox, row, "grading", make)


async def _hide(sandbox: Sandbox, row: SWERow) -> None:
    """Make a checkout an agent's workspace; its ``git status`` is silent about caches."""
    if row.hidden_files:
        listed = b"".join(to_bytes(path) + b"\0" for path in row.hidden_files)
        result = await run_script(sandbox, "xargs -0 -r rm -rf --", root=row.root, stdin=listed)
        if result.exit_code != 0:
            said = result.stderr.decode("utf-8", errors="replace").strip()[-300:]
            raise TaskError(f"{row.instance_id}: its hidden files cannot be removed from {row.image}: {said}")
    made_here = bool(row.start_patch or row.hidden_files)
    stamp = ""
    if await _is_recorded(sandbox, row) and _base_key(row) not in _BASES:
        stamp = await stamp_of(sandbox, row) if row.image and not made_here else ""
        base = await on_thread(base_in, row, stamp) or await snapshot(sandbox, row.root)
        try:
            await on_thread_to_its_end(_BASES.put, _base_key(row), base)
        except OSError as error:
            raise SandboxError(f"the base of {row.instance_id} cannot be kept ({error}); free some space") from error
    if made_here:
        await fresh_repository(sandbox, row.root)
    else:
        tip = await purge_history(sandbox, row.root, base_commit=row.base_commit, past=PLACE if row.image else "")
        if row.image:
            await keep(sandbox, row, tip)
            if stamp:
                await on_thread(keep_base, row, stamp, _BASES.get(_base_key(row)))
    await sandbox.write_file(f"{row.root}/.git/info/exclude", IGNORED.encode())


def base_of(row: SWERow) -> bytes:
    """A tar archive of the .git that a workspace of the row is compared with. Seconds of a large repository: to be
    called on a thread.

    Raises:
        SandboxError: no workspace of the row was opened in this process.
    """
    if _base_key(row) in _BASES:
        return _BASES.get(_base_key(row))
    if row.archive and not _HAS_LINKS.get(_base_key(row)):
        key = row.archive, changed_ns(row)
        if key not in _GIT_DIRS:
            _GIT_DIRS.put(key, _git_dir(row.archive))
        return _GIT_DIRS.get(key)
    if _base_key(row) not in _BASES:
        raise SandboxError(f"{row.instance_id}: its workspace was not opened in this process")
    return _BASES.get(_base_key(row))


def base_is_unknown(row: SWERow) -> bool:
    """Whether ``base_of`` cannot tell yet: the next workspace has to be made step by step."""
    return bool(_HAS_LINKS.get(_base_key(row), True)) and _base_key(row) not in _BASES


async def _is_recorded(sandbox: Sandbox, row: SWERow) -> bool:
    """Whether a workspace is compared with a record of itself: images, and archives whose base commit has submodules,
    of whose files it says nothing."""
    if not row.archive:
        return True
    key = _base_key(row)
    if key not in _HAS_LINKS:
        script = "git ls-tree -r HEAD | grep -q '^160000 '"
        _HAS_LINKS[key] = (await run_script(sandbox, script, root=row.root)).exit_code == 0
    return _HAS_LINKS[key]


def _base_key(row: SWERow) -> tuple[str, str]:
    parts = (row.start_patch, *row.hidden_files, row.archive, str(changed_ns(row)))
    return row.image, hashlib.sha256(to_bytes("\0".join(parts))).hexdigest()


def _archive(row: SWERow) -> bytes:
    try:
        return Path(row.archive).read_bytes()
    except OSError as error:
        raise TaskError(f"{row.instance_id}: its archive cannot be read ({error}); load the rows again") from None


async def _check_repository(sandbox: Sandbox, row: SWERow) -> None:
    result = await run_script(sandbox, "command -v git || exit 3; git rev-parse --verify HEAD^{tree}", root=row.root)
    where = f"the image {row.image}" if row.image else f"the archive {row.archive}"
    if result.exit_code == 3:
        raise TaskError(f"{row.instance_id}: {where} has no git; install it there")
    if result.exit_code != 0:
        said = result.stderr.decode("utf-8", errors="replace").strip()[-300:]
        raise TaskError(f"{row.instance_id}: {where} has no git repository with a commit in {row.root} ({said})")


def _git_dir(archive: str) -> bytes:
    """The .git of an archive as a tar archive of its own, ``info/exclude`` added."""
    buffer = io.BytesIO()
    with tarfile.open(archive) as whole, tarfile.open(fileobj=buffer, mode="w") as part:
        for member in whole:
            if re.match(r"(\./)?\.git(/|$)", member.name):
                part.addfile(member, whole.extractfile(member) if member.isfile() else None)
        for name, text in ((".git/info/exclude", IGNORED),):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            part.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


async def _prepare_shell(sandbox: Sandbox, row: SWERow) -> None:
    """Make the agent's shell find the tests' Python and import the repository."""
    exports = []
    if row.image and "PATH" not in row.env:
        python = (await environment_of(row)).python
        exports.append(f'export PATH="{posixpath.dirname(python)}:$PATH"')
    folders = [part for part in row.env.get("PYTHONPATH", "").split(":") if part]
    if folders:
        absolute = ":".join(part if part.startswith("/") else f"$PWD/{part}".removesuffix("/.") for part in folders)
        exports.append(f'export PYTHONPATH="{absolute}"')
    if exports:
        await sandbox.aexec("\n".join(exports))
