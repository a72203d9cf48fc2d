"""Bytes that many episodes need and none of them holds: kept in a file without a name."""

import os
import tempfile
import threading
from collections.abc import Hashable
from typing import IO


class Spool:
    """Keeps bytes by key, outside the memory of the process.

    They lie in one temporary file that no folder names, so that it goes with the process, however that ends. Nothing is
    ever forgotten: what was kept may be asked for as long as the process lives.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._places: dict[Hashable, tuple[int, int]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._places

    def put(self, key: Hashable, content: bytes) -> None:
        """Keep bytes; on any thread. Raises OSError where the disk of temporary files is full."""
        with self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="verigym-")  # noqa: SIM115 (it is closed with the process)
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(content)
            self._file.flush()
            self._places[key] = start, len(content)

    def get(self, key: Hashable) -> bytes:
        """Raises KeyError where nothing was kept."""
        start, length = self._places[key]
        assert self._file is not None
        found = os.pread(self._file.fileno(), length, start)
        while len(found) < length:  # one call reads at most 2 GiB
            found += os.pread(self._file.fileno(), length - len(found), start + len(found))
        return found
