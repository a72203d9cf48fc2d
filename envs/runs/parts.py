"""JSON Lines in numbered parts: appended to, and cut back to where a resume goes on."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

PART_BYTES = 32 << 20
"""A part that has as many is followed by another."""


class LineParts:
    """``FOLDER/000001.jsonl`` and on. One process writes; any number read meanwhile.

    Rows come in the order of what ``drop_from`` asks of them, so that what is dropped is the end of the last parts.
    """

    def __init__(self, folder: Path, *, part_bytes: int = PART_BYTES) -> None:
        self._folder, self._part_bytes = folder, part_bytes
        self._file: IO[bytes] | None = None
        self._number, self.num_bytes = 0, 0
        self._count()

    def paths(self) -> list[Path]:
        """The parts, in order."""
        return sorted(path for path in self._folder.glob("*.jsonl") if path.stem.isdigit())

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, which readers see when this returns. In ASCII: an agent's text may hold lone surrogates."""
        file = self._opened()
        for row in rows:
            line = json.dumps(row).encode("ascii") + b"\n"
            file.write(line)
            self.num_bytes += len(line)
        file.flush()
        if file.tell() >= self._part_bytes:
            self.close()
            self._number += 1

    def drop_from(self, is_dropped: Callable[[Mapping[str, Any]], bool]) -> None:
        """Remove the first row of which ``is_dropped`` is true and all behind it, and a last line that was cut off."""
        for path in reversed(self.paths()):
            end, size = _end_of(path, is_dropped), path.stat().st_size
            if end == size and end:
                break
            if end:
                with path.open("r+b") as file:
                    file.truncate(end)
                break
            path.unlink()
        self._count()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _count(self) -> None:
        paths = self.paths()
        self._number = max((int(path.stem) for path in paths), default=0)
        self.num_bytes = sum(path.stat().st_size for path in paths)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._number = max(self._number, 1)
            self._file = (self._folder / f"{self._number:06d}.jsonl").open("ab")
        return self._file


def _end_of(path: Path, is_dropped: Callable[[Mapping[str, Any]], bool]) -> int:
    """Bytes of a part up to the first row that is dropped, or that is cut off or broken."""
    end = 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                if not line.endswith(b"\n") or is_dropped(json.loads(line)):
                    break
            except (ValueError, KeyError, TypeError):
                break
            end += len(line)
    return end
