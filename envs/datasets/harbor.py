"""Folders of Harbor tasks as rows, and back to what a task needs of its folder."""

import hashlib
import io
import tarfile
from pathlib import Path

from ...errors import TaskError
from ..task import Task
from .files import SourceRow
from .harbor_config import HarborConfig, read_config

FAMILY = "harbor"
PREFIX = "harbor:"
IMAGES = "verigym/harbor"
POINTER = b"version https://git-lfs.github.com/spec/"


def harbor_rows(source: str | Path) -> list[SourceRow]:
    """Every task in a folder: itself one, or of folders at any depth; rows as ``Task.to_json`` writes them.

    Args:
        source: the folder, or "harbor:FOLDER".
    Raises:
        TaskError: there is none, or one cannot be used.
    """
    folder = Path(str(source).removeprefix(PREFIX)).expanduser().resolve()
    if not folder.is_dir():
        raise TaskError(f"{folder} is no folder; give one of Harbor tasks, each with its task.toml")
    found = [folder] if (folder / "task.toml").is_file() else sorted(one.parent for one in folder.rglob("task.toml"))
    if not found:
        raise TaskError(f"{folder}: no task.toml in it or below; give a folder of Harbor tasks")
    return [SourceRow(where=str(one), value=_task(one, folder).to_json()) for one in found]


def folder_of(task: Task) -> Path:
    """Raises TaskError where the task's folder is gone."""
    folder = Path(str(task.hidden.get("folder", "")))
    if not (folder / "task.toml").is_file():
        raise TaskError(f"{task.id}: its folder {folder} is not there; load the tasks again")
    return folder


def image_of(folder: Path, config: HarborConfig) -> str:
    """The image that a task names, or the name of what its Dockerfile makes, which tells it by what it is made of."""
    if config.environment.docker_image:
        return config.environment.docker_image
    digest = hashlib.sha256()
    environment = folder / "environment"
    for path in sorted(one for one in environment.rglob("*") if one.is_file() or one.is_symlink()):
        data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        digest.update(f"{path.relative_to(environment)}\0{len(data)}\0".encode(errors="surrogateescape") + data)
    return f"{IMAGES}:{digest.hexdigest()[:16]}"


def packed(folder: Path) -> bytes:
    """A folder's files as a tar archive; links that lead out of it are left out."""
    buffer, inside = io.BytesIO(), folder.resolve()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.resolve().is_relative_to(inside):
                tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    return buffer.getvalue()


def step_folder(folder: Path, step: str) -> Path:
    """Where a step's instruction, tests and solution are; "" is a task of one step."""
    return folder / "steps" / step if step else folder


def instruction(folder: Path, step: str) -> str:
    return (step_folder(folder, step) / "instruction.md").read_text(encoding="utf-8", errors="replace")


def _task(folder: Path, root: Path) -> Task:
    config = read_config(folder)
    first = config.steps[0].name if config.steps else ""
    name = folder.relative_to(root).as_posix() if folder != root else folder.name
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(POINTER):
            raise TaskError(f"{path} stands for a file that is not here; run `git lfs pull` in the clone")
    metadata = {key: config.metadata[key] for key in ("difficulty", "category", "tags") if key in config.metadata}
    return Task(
        id=name,
        family=FAMILY,
        prompt=instruction(folder, first),
        image=image_of(folder, config),
        hidden={"folder": str(folder)},
        metadata=metadata,
    )
