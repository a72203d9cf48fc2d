"""Instance images without a registry: a base image, an environment of pinned wheels, a repository at its commit."""

import hashlib
import io
import json
import re
import shlex
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ...errors import SandboxError, TaskError
from ..datasets.eval_scripts import eval_script_of, shell_words
from ..datasets.repository import archive_of_commit, find_clone
from ..datasets.swe import SWERow, parse_row
from ..sandbox.launch import HOME, INSIDE_ID
from ..sandbox.pip import HOW_TO_BUILD, ONLY_WHEELS, pinned, pip_command
from ..sandbox.python import cache_folder
from ..swe.checkout import DEFAULT_REQUIREMENTS
from .engine_images import LABEL, build, exists, python_of
from .rows import archives_of

if TYPE_CHECKING:
    from docker import DockerClient


Progress = Callable[[str, int, int], None]

ROOT, VENV = "/testbed", "/opt/verigym/venv"
ENV_REPOSITORY, IMAGE_REPOSITORY = "verigym/env", "verigym/swe"
PIP_S = 1800.0

PUBLISHED = (
    *("repo", "instance_id", "base_commit", "patch", "test_patch", "problem_statement", "hints_text", "created_at"),
    *("version", "FAIL_TO_PASS", "PASS_TO_PASS", "environment_setup_commit", "difficulty", "eval_script"),
    *("log_parser", "eval_type", "image"),
)
"""The fields of SWE-bench 5's files."""


def build_images(
    rows: Sequence[Mapping[str, Any]],
    *,
    folder: Path,
    out: Path,
    client: "DockerClient",
    base: str,
    clones: Sequence[Path] = (),
    workers: int = 2,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Build the image of every row and complete the rows.

    Args:
        rows: SWE-bench rows with ``archive``, ``clone`` or a ``repo`` that can be cloned, and ``pip_requirements``.
        folder: of the rows file; relative archives are in it.
        out: the rows file to write; archives that are made go into ``archives_of(out)``, Dockerfiles too.
        base: an image with git and python3 with venv.
        clones: folders of clones; see ``find_clone``.
        workers: images built at once.
    Returns:
        The rows with ``archive``, ``image``, ``workdir``, ``interpreter``, ``eval_script``, ``log_parser`` and
        ``eval_type``, in their order.
    Raises:
        TaskError: a row cannot be used (its id is in the message). SandboxError: an image could not be built.
    """
    tell = progress or (lambda what, done, total: None)
    python = python_of(client, base)
    done = 0

    def one(raw: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal done
        row = parse_row(raw)
        archive = _archive(row, folder, out, clones)
        env_image = environment_image(
            client, base, row.pip_requirements or DEFAULT_REQUIREMENTS, python, archives_of(out)
        )
        image = _instance_image(client, env_image, row, archive, archives_of(out))
        done += 1
        tell("images built", done, len(rows))
        try:
            named = archive.relative_to(out.parent.resolve())
        except ValueError:
            named = archive
        return {**raw, "archive": str(named), **completed_fields(row, image), "python": python}

    # Environments first: rows share them, and two threads must not build one twice.
    environments = list(dict.fromkeys(tuple(parse_row(raw).pip_requirements) for raw in rows))
    for number, requirements in enumerate(environments):
        tell("environments made", number, len(environments))
        environment_image(client, base, requirements or DEFAULT_REQUIREMENTS, python, archives_of(out))
    tell("images built", 0, len(rows))
    with ThreadPoolExecutor(max_workers=workers) as threads:
        return list(threads.map(one, rows))


def as_published(row: Mapping[str, Any]) -> dict[str, Any]:
    """A completed row with nothing but SWE-bench 5's fields: it is graded as published rows are, by its script."""
    tests = {key: row[key] for key in ("FAIL_TO_PASS", "PASS_TO_PASS") if key in row}
    texts = {key: value if isinstance(value, str) else json.dumps(list(value)) for key, value in tests.items()}
    return {key: texts.get(key, row[key]) for key in PUBLISHED if key in row}


def completed_fields(row: SWERow, image: str) -> dict[str, str]:
    """SWE-bench 5's fields, and verigym's own, of a row with an image built here."""
    exports = {"PATH": f"{VENV}/bin:$PATH", **{name: shlex.quote(value) for name, value in row.env.items()}}
    files = dict.fromkeys(test.partition("::")[0] for test in row.tests)
    command = row.test_cmd
    if "-rA" not in command.split():  # without it the log names no test that passed, and nothing could resolve
        command = f"python -m pytest -rA -p no:cacheprovider -o addopts= --tb=short {shell_words(tuple(files))}"
    script = eval_script_of(
        root=ROOT,
        test_cmd=command,
        before="\n".join(f"export {name}={value}" for name, value in exports.items()),
        base_commit=row.base_commit,
        test_patch=row.test_patch,
        conda=False,
    )
    return {
        "image": image,
        "workdir": ROOT,
        "interpreter": f"{VENV}/bin/python",
        "eval_script": script,
        # Only this parser keeps ids whole that have blanks.
        "log_parser": "parse_log_pytest_v2",
        "eval_type": "pass_and_fail",
    }


def _archive(row: SWERow, folder: Path, out: Path, clones: Sequence[Path]) -> Path:
    if row.archive:
        archive = (folder / row.archive).resolve()
        if not archive.is_file():
            raise TaskError(f"{row.instance_id}: archive {archive} is not there")
        return archive
    if not row.base_commit:
        raise TaskError(f"{row.instance_id}: the row has no base_commit; no commit says what to put into the image")
    archive = (archives_of(out) / f"{row.instance_id}.tar.gz").resolve()
    stamp = archive.with_name(archive.name + ".commit")
    if not archive.exists() or not stamp.exists() or stamp.read_text() != row.base_commit:
        try:
            archive_of_commit(find_clone(row.repo, stated=row.clone, folders=clones), row.base_commit, archive)
        except TaskError as error:
            raise TaskError(f"{row.instance_id}: {error}") from None
        stamp.write_text(row.base_commit)
    return archive


def environment_image(client: "DockerClient", base: str, requirements: Sequence[str], python: str, notes: Path) -> str:
    """The name of an image of the base with a virtual environment, built once for each set of requirements.

    Args:
        python: the base's, as ``python_of`` says it.
        notes: folder for the Dockerfile.
    Raises:
        TaskError: a requirement is not pinned. SandboxError: the image could not be built.
    """
    wanted = pinned(requirements)
    # The agent is a user that the image knows: a container that lacks it is furnished at every start.
    passwd = f"agent:x:{INSIDE_ID}:{INSIDE_ID}:agent:{HOME}:/bin/bash"
    dockerfile = (
        f"FROM {base}\n"
        f"LABEL {LABEL}=environment\n"
        "COPY wheels /opt/verigym/wheels\n"
        f"RUN python3 -m venv {VENV} \\\n"
        f" && {VENV}/bin/pip install --no-index --no-cache-dir --disable-pip-version-check --no-deps"
        " /opt/verigym/wheels/*.whl \\\n"
        " && rm -rf /opt/verigym/wheels && git config --system --add safe.directory '*' \\\n"
        f" && (grep -q '^[^:]*:[^:]*:{INSIDE_ID}:' /etc/passwd || (echo '{passwd}' >> /etc/passwd"
        f" && echo 'agent:x:{INSIDE_ID}:' >> /etc/group && mkdir -p {HOME} && chown {INSIDE_ID}:{INSIDE_ID} {HOME}))\n"
        f"ENV PATH={VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8\n"
    )
    key = hashlib.sha256("\n".join((dockerfile, python, *wanted)).encode()).hexdigest()[:16]
    name = f"{ENV_REPOSITORY}:{key}"
    if exists(client, name):
        return name
    wheels = wheels_of(wanted, python)
    files = {f"wheels/{path.name}": path.read_bytes() for path in sorted(wheels.glob("*.whl"))}
    build(client, name, dockerfile, files, notes)
    return name


def _instance_image(client: "DockerClient", env_image: str, row: SWERow, archive: Path, notes: Path) -> str:
    data = archive.read_bytes()
    variables = {name: value for name, value in row.env.items() if name != "PYTHONPATH"}
    dockerfile = (
        f"FROM {env_image}\n"
        f"LABEL {LABEL}=instance verigym.instance={json.dumps(row.instance_id)}\n"
        f"ADD repository.tar {ROOT}/\n"
        f"RUN chown {INSIDE_ID}:{INSIDE_ID} {ROOT}\n"
        + "".join(f"ENV {name}={json.dumps(value)}\n" for name, value in sorted(variables.items()))
        + f"WORKDIR {ROOT}\n"
    )
    key = hashlib.sha256(dockerfile.encode() + data).hexdigest()[:12]
    name = f"{IMAGE_REPOSITORY}.{re.sub(r'[^a-z0-9._-]', '-', row.instance_id.lower()).replace('__', '_1776_')}:{key}"
    if not exists(client, name):
        build(client, name, dockerfile, {"repository.tar": _owned_by_agent(data)}, notes)
    return name


def _owned_by_agent(archive: bytes) -> bytes:
    """The archive as a plain tar file in which everything, folders that it does not name too, belongs to the user
    that commands run as."""
    buffer = io.BytesIO()
    folders: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for member in old:
            name = member.name.removeprefix("./").rstrip("/")
            for parent in reversed(PurePosixPath(name).parents[:-1]):
                if str(parent) not in folders:
                    folders.add(str(parent))
                    entry = tarfile.TarInfo(str(parent))
                    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, member.mtime
                    entry.uid = entry.gid = INSIDE_ID
                    new.addfile(entry)
            if member.isdir() and name in folders | {"", "."}:
                continue
            if member.isdir():
                folders.add(name)
            member.uid = member.gid = INSIDE_ID
            member.uname = member.gname = ""
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return buffer.getvalue()


def wheels_of(requirements: Sequence[str], python: str) -> Path:
    """A folder with wheels of the requirements and of all they need, for Linux and that Python; cached."""
    key = hashlib.sha256("\n".join((python, *requirements)).encode()).hexdigest()[:16]
    folder = cache_folder() / "wheels" / key
    if (folder / "complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    download = [*pip_command(), "--disable-pip-version-check", "download", "--quiet", f"--dest={folder}", ONLY_WHEELS]
    done = _pip([*download, f"--python-version={python}", *requirements])
    if done.returncode:
        last = "; ".join(done.stdout.strip().splitlines()[-3:])
        raise SandboxError(f"no wheels of {', '.join(requirements)} for Python {python}: {last}; {HOW_TO_BUILD}")
    (folder / "complete").write_text("\n".join(requirements))
    return folder


def _pip(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PIP_S
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(f"pip did not answer within {PIP_S:g} s; is the package index there?") from None
