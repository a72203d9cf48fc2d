"""A layer's bytes on their way from a source to the disk: decompressed, counted into digests."""

import hashlib
import io
import zlib
from typing import IO

from ....errors import SandboxError

GZIP, ZSTD, BZIP2, XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"
PIECE = 1 << 20


class Hashed(io.RawIOBase):
    """A stream that hashes what is read of it."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner, self._hash = inner, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self._hash.update(data)
        return len(data)

    def rest(self) -> None:
        """Read to the end: what comes after a tar archive's end belongs to the digest too."""
        while self.read(PIECE):
            pass

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def decompressed(raw: IO[bytes], *, what: str) -> IO[bytes]:
    """The bytes of a layer that may be compressed.

    Raises:
        SandboxError: by a way that cannot be read here.
    """
    buffered = io.BufferedReader(raw, PIECE)  # type: ignore[arg-type] - Hashed is a RawIOBase
    first = buffered.peek(6)[:6]
    if first.startswith(GZIP):
        return io.BufferedReader(_Gunzip(buffered), PIECE)
    if first.startswith(ZSTD):
        return _zstd(buffered, what)
    if first.startswith((BZIP2, XZ)):
        raise SandboxError(f"{what} is compressed by bzip2 or xz; write the image again with gzip")
    return buffered


class _Gunzip(io.RawIOBase):
    """gzip's members one after the other; in large pieces faster than the standard library's."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner, self._zlib, self._ready = inner, zlib.decompressobj(31), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        while not self._ready:
            if self._zlib.eof:
                left = self._zlib.unused_data or self._inner.read(PIECE)
                if not left.strip(b"\0"):
                    return 0
                self._zlib = zlib.decompressobj(31)
            else:
                left = self._zlib.unconsumed_tail or self._inner.read(PIECE)
                if not left:
                    raise EOFError("its compressed data end too early")
            self._ready = memoryview(self._zlib.decompress(left, 4 * PIECE))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _zstd(raw: IO[bytes], what: str) -> IO[bytes]:
    try:
        import zstandard  # type: ignore[import-not-found]
    except ImportError:
        raise SandboxError(f"{what} is compressed by zstd; pip install zstandard") from None
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
