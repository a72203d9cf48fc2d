"""Files of a run that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast


@contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """A file to write text into; on leaving it takes the place of ``path``. Where the block raises nothing changes."""
    with _beside(path, "x") as out:
        yield out


@contextmanager
def bytes_written_whole(path: Path) -> Iterator[IO[bytes]]:
    """``written_whole`` of bytes."""
    with _beside(path, "xb") as out:
        yield out


@contextmanager
def _beside(path: Path, mode: str) -> Iterator[IO[Any]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # left by a crash; or a link, which would lead elsewhere
    try:
        with partial.open(mode, encoding=None if "b" in mode else "utf-8") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_whole(path) as out:
        out.write(text)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Have ``write`` write a file beside ``path``, of the same ending, then put it in its place."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def mend_lines(path: Path) -> None:
    """Cut off the beginning of a row at the end of a JSON Lines file, as a process leaves it that is killed in the
    middle of one; whole rows stay, and the last ends its line. Where no file is, and where what stands at the end is
    no object's beginning, nothing is done."""
    if not path.exists():
        return
    with path.open("rb") as file:
        begin = _last_line(file)
        last = file.read()
    if not last.startswith(b"{"):
        return
    with path.open("rb+") as file:
        try:
            json.loads(last)
        except ValueError:
            file.truncate(begin)
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")


def _last_line(file: BinaryIO, block: int = 1 << 16) -> int:
    """Where a file's last line begins, which has no end: behind the last line feed. The file stands there then."""
    at = file.seek(0, os.SEEK_END)
    found = -1
    while at > 0 and found < 0:
        size = min(block, at)
        at = file.seek(at - size)
        found = file.read(size).rfind(b"\n")
    return file.seek(at + found + 1)


def read_object(path: Path, what: str, remedy: str, error: type[Exception]) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        what: the file is, for the message.
        remedy: for the message.
        error: raised where the file is empty, cut, no JSON, or holds something other than an object.
    """
    try:
        if path.exists() and not path.is_file():  # to read from a FIFO would be to wait
            raise OSError("it is no file")
        content = path.read_bytes()
        value = json.loads(content) if content.strip() else None
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path}, {what}, cannot be read ({problem}); {remedy}") from None
    if not isinstance(value, dict):
        found = "is empty" if not content.strip() else f"holds {type(value).__name__}, no object"
        raise error(f"{path}, {what}, {found}; {remedy}")
    return cast("dict[str, Any]", value)
