"""A sandbox as its user sees it: the ``Sandbox`` protocol over the guest's channel."""

import asyncio
import errno
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import SandboxError
from ...model.chat.encoding import path_text, to_bytes
from .frames import Frames
from .types import CommandResult, ProcessResult, SandboxSpec

GRACE_S = 30.0
"""So long after a deadline the guest may take to kill and to answer, before the sandbox itself counts as failed."""

LONGEST_S = 1e6
STDERR_BYTES = 65536
"""Of a process that is talked to: how long it may live, and how much of its stderr is kept."""

FILE_TIMEOUT_S = 120.0
FILE_BYTES = 256 << 20


class GuestSandbox:
    """A running sandbox.

    A cancelled ``aexec`` or ``arun`` leaves it usable: as at a deadline, ``aexec`` kills everything inside and a new
    shell starts in the last working directory; ``arun`` kills its own process and what that started. Commands of
    several callers run one after the other; ``arun`` and the file methods run beside them. Relative paths are
    relative to the working folder of the spec. The file methods act as the sandbox's user and raise the OSError that
    it would meet (also a full disk).
    """

    def __init__(
        self,
        channel: Frames,
        spec: SandboxSpec,
        *,
        locate: Callable[[str], str] = lambda path: path,
        end: Callable[[], Any] | None = None,
    ) -> None:
        """
        Args:
            locate: the path inside for a path the caller gives.
            end: awaited in place of a kill when the sandbox closes.
        """
        self._channel, self._spec, self._locate, self._end = channel, spec, locate, end
        self._shell = asyncio.Lock()

    async def aexec(self, command: str, *, timeout_s: float | None = None) -> CommandResult:
        limits = self._spec.limits
        timeout_s = limits.command_timeout_s if timeout_s is None else timeout_s
        request = {"do": "exec", "timeout": float(timeout_s), "keep": limits.output_bytes}
        async with self._shell:
            header, body = await self._ask(request, to_bytes(command), timeout_s=timeout_s + GRACE_S)
        return CommandResult(
            output=_text(body, header["sizes"][0], header["dropped"]),
            exit_code=header["exit_code"],
            killed=header["killed"],
            truncated=header["dropped"] > 0,
            duration_s=header["seconds"],
            cwd=header["cwd"] or None,
        )

    async def arun(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        output_bytes: int = 16 << 20,
    ) -> ProcessResult:
        if not argv:
            raise ValueError("arun needs a command: argv is empty")
        timeout_s = self._spec.limits.command_timeout_s if timeout_s is None else timeout_s
        request = {
            "do": "run",
            "argv": [path_text(str(word)) for word in argv],
            "cwd": self._path(cwd or self._spec.workdir),
            "env": _texts(env),
            "timeout": float(timeout_s),
            "output_bytes": output_bytes,
        }
        header, body = await self._ask(request, stdin, timeout_s=timeout_s + GRACE_S)
        size = header["sizes"][0]
        return ProcessResult(
            stdout=body[:size],
            stderr=body[size:],
            exit_code=header["exit_code"],
            killed=header["killed"],
            duration_s=header["seconds"],
        )

    async def astart(
        self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> "GuestProcess":
        if not argv:
            raise ValueError("astart needs a command: argv is empty")
        request = {
            "do": "run",
            "stream": True,
            "argv": [path_text(str(word)) for word in argv],
            "cwd": self._path(cwd or self._spec.workdir),
            "env": _texts(env),
            "timeout": LONGEST_S,
            "output_bytes": STDERR_BYTES,
        }
        return await self._open(request)

    async def read_file(self, path: str, *, most_bytes: int | None = None) -> bytes:
        return await self._file(("read", self._path(path), most_bytes), path, b"")

    async def write_file(self, path: str, data: bytes, *, mode: int | None = 0o644, new: bool = False) -> None:
        await self._file(("write", self._path(path), mode, new), path, data)

    async def put_archive(self, archive: bytes, dest: str) -> None:
        await self._file(("unpack", self._path(dest)), dest, archive)

    async def aclose(self) -> None:
        if self._end is not None:
            await self._end()
        await self._channel.aclose()

    async def _ask(self, request: dict[str, Any], stdin: bytes, *, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Whatever waits for one answer passes here, and ``_open`` what is talked to: what a carrier adds to every call
        it adds in these two."""
        return await self._channel.ask(request, stdin, timeout_s=timeout_s)

    async def _open(self, request: dict[str, Any]) -> "GuestProcess":
        return GuestProcess(self._channel, request)

    def _path(self, path: str) -> str:
        return self._locate(posixpath.join(self._spec.workdir, path_text(path)))

    async def _file(self, call: tuple[Any, ...], path: str, stdin: bytes) -> bytes:
        if "\0" in path:
            raise OSError(errno.EINVAL, "a path cannot hold NUL", path)
        request = {"do": "run", "call": call, "timeout": FILE_TIMEOUT_S, "output_bytes": FILE_BYTES + 1}
        header, body = await self._ask(request, stdin, timeout_s=FILE_TIMEOUT_S + GRACE_S)
        size, code = header["sizes"][0], header["exit_code"]
        said = body[size:].decode(errors="replace")
        if code is None or code < 0 or code == 255:
            raise SandboxError(f"{call[0]} {path!r}: the file operation was killed ({header['killed'] or code}) {said}")
        if code:
            raise OSError(code, said.strip() if code == errno.EINVAL and said else os.strerror(code), path)
        return body[:size]


class GuestProcess:
    """A process that is talked to while it runs; it ends with its sandbox."""

    def __init__(self, channel: Frames, request: dict[str, Any]) -> None:
        self._received = bytearray()
        self._arrived = asyncio.Event()
        self._stream = channel.open_stream(request, self._take)
        self._stream.answer.add_done_callback(lambda _: self._arrived.set())

    def _take(self, piece: bytes) -> None:
        self._received += piece
        self._arrived.set()

    def write(self, data: bytes) -> None:
        if data:
            self._stream.send("input", data)

    async def read(self) -> bytes:
        while not self._received:
            if self._stream.answer.done():
                self._stream.answer.result()
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._received)
        self._received.clear()
        return data

    async def wait(self) -> ProcessResult:
        header, body = await asyncio.shield(self._stream.answer)
        return ProcessResult(
            stdout=b"",
            stderr=body[header["sizes"][0] :],
            exit_code=header["exit_code"],
            killed=header["killed"],
            duration_s=header["seconds"],
        )

    def kill(self) -> None:
        self._stream.send("cancel")


def _texts(env: Mapping[str, str] | None) -> dict[str, str]:
    return {path_text(name): path_text(value) for name, value in (env or {}).items()}


def _text(body: bytes, num_head: int, num_dropped: int) -> str:
    """Head and tail of an output as text. A character that the cut has halved is left out with what was dropped."""
    if not num_dropped:
        return body.decode(errors="replace")
    head, tail = body[:num_head], body[num_head:]
    whole = _whole_end(head)
    begin = next((n for n, byte in enumerate(tail[:3]) if byte & 0xC0 != 0x80), min(3, len(tail)))
    if begin == 3:  # no UTF-8 at all
        begin = 0
    num_dropped += len(head) - whole + begin
    shown = head[:whole].decode(errors="replace"), tail[begin:].decode(errors="replace")
    return f"{shown[0]}\n[... {num_dropped} bytes left out ...]\n{shown[1]}"


def _whole_end(data: bytes) -> int:
    """How many bytes there are before a character that the end of the data cuts in half."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0xC0:
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < size else len(data)
        if byte < 0x80:
            break
    return len(data)
