"""Our side of the guest's protocol: requests and answers by number, whatever carries the bytes.

A frame is the lengths of its header and its body (4 bytes each, big-endian), the header, the body. Ours have headers
in marshal; the guest's are literals, because what comes out of a sandbox is never unmarshalled.
"""

import ast
import asyncio
import itertools
import marshal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...errors import SandboxError

MAX_HEADER = 4096
PIECE = 1 << 18
"""Most bytes that a carrier is given at once: what it cannot pass on it copies."""

Answer = tuple[dict[str, Any], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A request that is answered in pieces. ``answer`` is done when its process has ended, or the sandbox failed."""

    frames: "Frames"
    number: int
    answer: "asyncio.Future[Answer]"

    def send(self, what: str, body: bytes = b"") -> None:
        """Tell the guest "input" for the process, or "cancel"; nothing where either is gone."""
        self.frames.tell({"id": self.number, "do": what}, body)


class Frames:
    """Requests and answers; a carrier of bytes is made by a subclass, which calls ``feed``, ``fail`` and, where it can
    take no more for a while, ``pause_writing`` and ``resume_writing`` (asyncio's names).

    What waits to be sent is the callers' own bytes, of which there is no copy.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count(1)
        self._outgoing: deque[memoryview] = deque()
        self._is_full = False
        self._received = bytearray()
        self._errors = bytearray()
        self._lost: str | None = None
        self._gone = asyncio.Event()
        self.ready: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[0] = self.ready
        self._pieces: dict[int, Callable[[bytes], None]] = {}
        self.on_notice: Callable[[dict[str, Any]], None] | None = None
        """Called with the header of a frame that answers no request."""

    @property
    def lost(self) -> str | None:
        """Why nothing can be asked any more, or None."""
        return self._lost

    async def begin(self, first_input: bytes, *, timeout_s: float) -> None:
        """Send the guest and its settings, and wait for its first answer; closed where that fails.

        Raises:
            SandboxError: it ended, or did not answer in time; the message has what it said.
        """
        try:
            self._put(first_input)
            async with asyncio.timeout(timeout_s):
                header, _ = await self.ready
            if header["exit_code"] != 0:
                raise SandboxError(f"bash does not run in the sandbox (exit status {header['exit_code']})")
        except TimeoutError:
            await self.aclose()
            raise SandboxError(f"the sandbox did not start within {timeout_s:g} s{self._said()}") from None
        except BaseException:
            await self.aclose()
            raise

    async def ask(self, request: dict[str, Any], body: bytes, *, timeout_s: float) -> Answer:
        """Send a request and wait for its answer. A cancelled caller cancels the request inside as well.

        Raises:
            SandboxError: the guest ended, or did not answer within ``timeout_s`` (it is then closed).
        """
        if self._lost is not None:
            raise SandboxError(self._lost)
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        limit = asyncio.timeout(timeout_s)
        try:
            self._send({"id": number, **request}, body)
            async with limit:
                return await answer
        except TimeoutError:
            if not limit.expired():
                raise
            self.kill("it did not answer in time")
            raise SandboxError(f"the sandbox did not answer within {timeout_s:g} s; it was closed") from None
        except asyncio.CancelledError:
            self.tell({"id": number, "do": "cancel"})
            raise
        finally:
            self._waiting.pop(number, None)
            answer.cancel()

    def open_stream(self, request: dict[str, Any], told: Callable[[bytes], None]) -> Stream:
        """Send a request whose answer comes in pieces.

        Args:
            told: called with each piece as it comes.
        Raises:
            SandboxError: the guest has ended.
        """
        if self._lost is not None:
            raise SandboxError(self._lost)
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        answer.add_done_callback(lambda done: self._ended(number, done))
        self._pieces[number] = told
        self._send({"id": number, **request}, b"")
        return Stream(frames=self, number=number, answer=answer)

    def _ended(self, number: int, answer: "asyncio.Future[Answer]") -> None:
        self._waiting.pop(number, None)
        self._pieces.pop(number, None)
        if not answer.cancelled():
            answer.exception()  # looked at: whoever reads the stream meets it there

    def tell(self, request: dict[str, Any], body: bytes = b"") -> None:
        """Send a request that is not answered; nothing where the guest is gone."""
        if self._lost is None:
            self._send(request, body)

    def kill(self, why: str) -> None:
        """End the guest and everything in the sandbox; open requests fail."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Kill, and wait until it is gone. May be called twice."""
        raise NotImplementedError

    async def wait_gone(self, timeout_s: float) -> bool:
        """Whether the carrier has ended within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    def feed(self, data: bytes) -> None:
        """Bytes of the guest's answers, as they came."""
        self._received += data
        while len(self._received) >= 8:
            num_header = int.from_bytes(self._received[:4], "big")
            end = 8 + num_header + int.from_bytes(self._received[4:8], "big")
            if num_header > MAX_HEADER:
                self.kill("it broke its protocol")
            if self._lost is not None or len(self._received) < end:
                return
            header = ast.literal_eval(self._received[8 : 8 + num_header].decode())
            body = bytes(memoryview(self._received)[8 + num_header : end])
            del self._received[:end]
            if "piece" in header:
                if (told := self._pieces.get(header["id"])) is not None:
                    told(body)
                continue
            waiting = self._waiting.get(header["id"])
            if waiting is not None and not waiting.done():
                waiting.set_result((header, body))
            elif header["id"] < 0 and self.on_notice is not None:
                self.on_notice(header)

    def feed_error(self, data: bytes) -> None:
        """What the guest says before it fails."""
        self._errors += data
        del self._errors[:-MAX_HEADER]

    def fail(self, why: str | None) -> None:
        """Nothing more will come; None: nobody wished it."""
        if self._lost is None:
            self._lost = why or f"the sandbox ended unexpectedly{self._said()}"
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(SandboxError(self._lost))
            self._waiting.clear()
            self._outgoing.clear()

    def _said(self) -> str:
        text = self._errors.decode(errors="replace").strip()
        return f": {text}" if text else ""

    def pause_writing(self) -> None:
        """The carrier can take no more."""
        self._is_full = True

    def resume_writing(self) -> None:
        """The carrier takes more."""
        self._is_full = False
        while self._outgoing and not self._is_full:
            view = self._outgoing.popleft()
            self._write(view[:PIECE])
            if len(view) > PIECE:
                self._outgoing.appendleft(view[PIECE:])

    def _send(self, request: dict[str, Any], body: bytes) -> None:
        header = marshal.dumps(request)
        self._put(len(header).to_bytes(4, "big") + len(body).to_bytes(4, "big") + header)
        if body:
            self._put(body)

    def _put(self, data: bytes) -> None:
        """Send behind what waits already."""
        if data:
            self._outgoing.append(memoryview(data))
        if not self._is_full:
            self.resume_writing()

    def _write(self, data: memoryview) -> None:
        """Give bytes to the carrier, which calls ``pause_writing`` where it keeps some of them."""
        raise NotImplementedError
