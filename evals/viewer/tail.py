"""JSON Lines that grow: what is new of a file since it was last read, and whether it was cut back meanwhile."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

MARK_BYTES = 256
"""Bytes before the place read up to by which a file is known again: what was cut and written anew has others there."""


@dataclass(slots=True)
class Place:
    """How far a file has been read.

    Attributes:
        offset: bytes.
        mark: the last of them, in hexadecimal.
    """

    offset: int = 0
    mark: str = ""

    def holds(self, file: IO[bytes]) -> bool:
        """Whether the file still begins with what was read."""
        if os.fstat(file.fileno()).st_size < self.offset:
            return False
        return mark_at(file, self.offset) == self.mark


def mark_at(file: IO[bytes], offset: int) -> str:
    start = max(0, offset - MARK_BYTES)
    file.seek(start)
    return file.read(offset - start).hex()


def new_lines(file: IO[bytes], offset: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the whole lines from a place on; a last one without an end is left for later."""
    file.seek(offset)
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield offset, line
        offset += len(line)


@dataclass(slots=True)
class Rows:
    """The rows of one file of metrics, kept while it grows. Safe between threads."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    generation: int = 0
    """Rises when rows that were there are gone: a resume makes their steps again."""
    _place: Place = field(default_factory=Place)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> list[dict[str, Any]]:
        """All rows so far."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    self._read(file)
            except OSError:
                pass
            return self.rows

    def _read(self, file: IO[bytes]) -> None:
        if not self._place.holds(file):
            self.rows, self._place = [], Place()
            self.generation += 1
        offset = self._place.offset
        if os.fstat(file.fileno()).st_size == offset:
            return
        rows = list(self.rows)
        for start, line in new_lines(file, offset):
            offset = start + len(line)
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
        self.rows, self._place = rows, Place(offset, mark_at(file, offset))
