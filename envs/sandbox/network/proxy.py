"""The proxy of an allow-list: CONNECT and plain HTTP, by name and port; all else is refused, and everything is noted.

A name is looked up here, once, and the connection goes to an address that was looked at: so a name that answers with
an address of this machine or of a private network reaches nothing, however often its answer changes.
"""

import asyncio
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .forward import Connection, pass_bytes
from .policy import NetworkPolicy, host_name

HEAD_BYTES = 16_384
HEAD_LINES = 128
HEAD_S, CONNECT_S = 30.0, 30.0
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
NAT64 = ipaddress.ip_network("64:ff9b::/96")

_REQUEST = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]{1,8192}) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_TARGET = re.compile(r"http://([^/?#@\\]+)([/?][^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"([^:\[\]@/\\]+)(?::([0-9]{1,5}))?")
_STATUS = {400: "Bad Request", 403: "Forbidden", 431: "Request Header Fields Too Large", 502: "Bad Gateway"}

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Dial = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """One request to the proxy.

    Attributes:
        method: "CONNECT", or plain HTTP's; "" where there was no request line.
        host, port: that were asked for, as far as they could be read.
        allowed: whether a connection was made.
        why: it was refused, or failed; "" where it went well.
        sent, received: bytes that passed, without heads of plain HTTP.
        seconds: of the wall clock.
    """

    method: str
    host: str
    port: int
    allowed: bool
    why: str = ""
    sent: int = 0
    received: int = 0
    seconds: float = 0.0


class Refused(Exception):
    """A request that is answered with a status and nothing else."""

    def __init__(self, status: Literal[400, 403, 431, 502], why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


async def look_up(host: str, port: int) -> Sequence[str]:
    """Addresses of a name, by this machine's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=6)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def connect(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address, port)


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, whatever it wraps: no loopback, private, link-local, shared,
    multicast or reserved one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class Proxy:
    """Serves connections from one sandbox by its policy."""

    def __init__(
        self,
        policy: NetworkPolicy,
        note: Callable[[NetworkRequest], None],
        *,
        resolve: Resolve = look_up,
        dial: Dial = connect,
    ) -> None:
        """
        Args:
            note: gets each request when it has ended.
            resolve, dial: how names are looked up and connections made.
        """
        self._policy, self._note, self._resolve, self._dial = policy, note, resolve, dial

    async def __call__(self, connection: Connection) -> None:
        began = time.monotonic()
        request = _Exchange()
        try:
            await self._serve(connection, request)
        except Refused as refused:
            request.why = refused.why
            said = f"{refused.why}\n".encode()
            await connection.write(
                f"HTTP/1.1 {refused.status} {_STATUS[refused.status]}\r\nContent-Type: text/plain\r\n"
                f"Connection: close\r\nContent-Length: {len(said)}\r\n\r\n".encode()
                + said
            )
        finally:
            self._note(
                NetworkRequest(
                    method=request.method,
                    host=request.host,
                    port=request.port,
                    allowed=request.allowed,
                    why=request.why,
                    sent=request.sent,
                    received=request.received,
                    seconds=round(time.monotonic() - began, 3),
                )
            )

    async def _serve(self, connection: Connection, request: "_Exchange") -> None:
        source = _Source(connection)
        try:
            async with asyncio.timeout(HEAD_S):
                head = await source.head()
        except TimeoutError:
            raise Refused(400, f"no request within {HEAD_S:g} s") from None
        method, target, fields = read_head(head)
        request.method = method
        is_tunnel = method == "CONNECT"
        authority, path = (target, "") if is_tunnel else _absolute(target)
        request.host, request.port = read_authority(authority, 443 if is_tunnel else 80, needs_port=is_tunnel)
        self._check_host(fields, request)
        length = None if is_tunnel else body_length(fields)
        reader, writer = await self._open(request)
        request.allowed = True
        if is_tunnel:
            await connection.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            rest = source.rest()
            writer.write(rest)
            sent, request.received = await pass_bytes(connection, reader, writer)
            request.sent = sent + len(rest)
            return
        host = request.host if request.port == 80 else f"{request.host}:{request.port}"
        writer.write(rewritten(method, path, host, fields, length))
        await _pass_one(source, connection, reader, writer, length, request)

    def _check_host(self, fields: Sequence[tuple[str, str]], request: "_Exchange") -> None:
        """What a Host field names is what is asked for; else two servers would hold the request to be for two."""
        named = [value for name, value in fields if name.lower() == "host"]
        if len(named) > 1:
            raise Refused(400, "more than one Host field")
        asked = request.host, request.port
        for value in named:
            if read_authority(value, request.port, needs_port=False) != asked:
                raise Refused(400, f"the Host field names {value!r}, the request {request.host}:{request.port}")

    async def _open(self, request: "_Exchange") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self._policy.allows(request.host, request.port):
            raise Refused(403, f"{request.host}:{request.port} is not on the task's allow-list")
        try:
            async with asyncio.timeout(CONNECT_S):
                addresses = await self._resolve(request.host, request.port)
                bad = [one for one in addresses if not is_public(one)]
                if bad:
                    raise Refused(403, f"{request.host} leads to {bad[0]}, which is no public address")
                return await self._first(addresses, request)
        except (OSError, TimeoutError) as error:
            raise Refused(502, f"{request.host}:{request.port} cannot be reached: {error or 'timeout'}") from None

    async def _first(
        self, addresses: Sequence[str], request: "_Exchange"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        problem: OSError = OSError("the name has no address")
        for address in addresses:
            try:
                return await self._dial(address, request.port)
            except OSError as error:
                problem = error
        raise problem


class _Exchange:
    """What is known of a request so far."""

    def __init__(self) -> None:
        self.method, self.host, self.port, self.why = "", "", 0, ""
        self.allowed, self.sent, self.received = False, 0, 0


class _Source:
    """What comes from inside, in portions that the protocol asks for."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._held = connection, b""

    async def head(self) -> bytes:
        """Up to and without the empty line. Raises Refused."""
        return await self._until(b"\r\n\r\n", HEAD_BYTES)

    async def line(self) -> bytes:
        return await self._until(b"\r\n", 1024)

    async def some(self, most: int) -> bytes:
        """At least one byte and at most so many. Raises Refused at the end."""
        if not self._held:
            self._held = await self._connection.read()
        if not self._held:
            raise Refused(400, "the request ended early")
        data, self._held = self._held[:most], self._held[most:]
        return data

    def rest(self) -> bytes:
        data, self._held = self._held, b""
        return data

    async def _until(self, mark: bytes, most: int) -> bytes:
        while (place := self._held.find(mark)) < 0 and len(self._held) <= most:
            more = await self._connection.read()
            if not more:
                raise Refused(400, "the request ended early")
            self._held += more
        if place < 0 or place > most:
            raise Refused(431, f"a head of more than {most} bytes")
        data, self._held = self._held[:place], self._held[place + len(mark) :]
        return data


def read_head(head: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """(method, target, fields) of a request's head. Raises Refused: it is not exactly HTTP/1.0's or 1.1's."""
    first, *lines = head.split(b"\r\n")
    found = _REQUEST.fullmatch(first)
    if found is None:
        raise Refused(400, "no HTTP/1.1 request line")
    if len(lines) > HEAD_LINES:
        raise Refused(431, f"more than {HEAD_LINES} fields")
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:  # also a bare line break, a NUL, a folded line
            raise Refused(400, "a field of the head is none")
        fields.append((field[1].decode("ascii"), field[2].decode("latin-1")))
    return found[1].decode(), found[2].decode(), fields


def read_authority(text: str, default: int, *, needs_port: bool) -> tuple[str, int]:
    """(host, port) of NAME or NAME:PORT. Raises Refused: another form, or no DNS name."""
    found = _AUTHORITY.fullmatch(text)
    if found is None or (needs_port and found[2] is None):
        raise Refused(400, f"{text[:200]!r} is no host and port")
    name, port = host_name(found[1]), int(found[2] or default)
    if name is None:
        raise Refused(
            403, f"{found[1][:200]!r} is no DNS name; IP addresses and single labels are not on any allow-list"
        )
    if not 1 <= port <= 65535:
        raise Refused(400, f"{port} is no port")
    return name, port


def _absolute(target: str) -> tuple[str, str]:
    found = _TARGET.fullmatch(target)
    if found is None:
        raise Refused(400, "only CONNECT and http://HOST/… are served here")
    path = found[2] or "/"
    return found[1], path if path.startswith("/") else "/" + path


def body_length(fields: Sequence[tuple[str, str]]) -> int | None:
    """Bytes of a request's body; None where it comes in chunks. Raises Refused: it is said twice, or otherwise."""
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    codings = [value.lower() for name, value in fields if name.lower() == "transfer-encoding"]
    if len(lengths) > 1 or len(codings) > 1 or (lengths and codings) or codings not in ([], ["chunked"]):
        raise Refused(400, "the body's length is said in more than one way")
    if codings:
        return None
    if lengths and not re.fullmatch(r"[0-9]{1,15}", lengths[0]):
        raise Refused(400, "Content-Length is no number")
    return int(lengths[0]) if lengths else 0


def rewritten(method: str, path: str, host: str, fields: Sequence[tuple[str, str]], length: int | None) -> bytes:
    """The head of a plain request as the server gets it: one request a connection, to the host that was asked for."""
    dropped = HOP_BY_HOP | {"host", "content-length"}
    for name, value in fields:
        if name.lower() == "connection":
            dropped |= {one.strip().lower() for one in value.split(",")}
    kept = [
        (name, value) for name, value in fields if name.lower() not in dropped and not name.lower().startswith("proxy-")
    ]
    if length is None:
        kept.append(("Transfer-Encoding", "chunked"))
    elif length or any(name.lower() == "content-length" for name, _ in fields):
        kept.append(("Content-Length", str(length)))
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in kept)]
    return ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode("latin-1")


async def _pass_one(
    source: _Source,
    connection: Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    length: int | None,
    request: _Exchange,
) -> None:
    """One body there and one answer back; what else the client says is not read."""

    async def there() -> None:
        try:
            if length is None:
                await _pass_chunks(source, writer, request)
            else:
                await _pass_exactly(source, writer, length, request)
        except Refused as refused:
            request.why = refused.why
            writer.close()  # a body that ended early, or is none: the server gets no end that it could believe

    task = asyncio.ensure_future(there())
    try:
        while data := await reader.read(65536):
            request.received += len(data)
            await connection.write(data)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.close()


async def _pass_exactly(source: _Source, writer: asyncio.StreamWriter, length: int, request: _Exchange) -> None:
    while length:
        data = await source.some(length)
        length -= len(data)
        request.sent += len(data)
        writer.write(data)
        await writer.drain()


async def _pass_chunks(source: _Source, writer: asyncio.StreamWriter, request: _Exchange) -> None:
    """Chunks are read and written anew, without extensions and trailers, so that both sides see one end."""
    while True:
        size = await source.line()
        found = re.fullmatch(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;.*)?", size)
        if found is None:
            raise Refused(400, "a chunk's size is none")
        number = int(found[1], 16)
        writer.write(b"%x\r\n" % number)
        await _pass_exactly(source, writer, number, request)
        if not number:
            while await source.line():
                pass
            writer.write(b"\r\n")
            await writer.drain()
            return
        if await source.line():
            raise Refused(400, "a chunk is longer than its size")
        writer.write(b"\r\n")
