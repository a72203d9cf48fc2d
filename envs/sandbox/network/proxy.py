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

from .forward import Connection, pass_bytes
from .heads import Refused, body_length, read_absolute, read_authority, read_head, rewritten
from .policy import NetworkPolicy

HEAD_BYTES = 16_384
HEAD_S, CONNECT_S = 30.0, 30.0
NAT64 = ipaddress.ip_network("64:ff9b::/96")
SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "100:0:0:1::/64", "3fff::/20", "5f00::/16", "fec0::/10"),
    )
)
"""Of IANA's registries of special-purpose addresses, what ``is_global`` of some Python counts as global."""

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
    special = any(ip in network for network in SPECIAL)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not special


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
        authority, path = (target, "") if is_tunnel else read_absolute(target)
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
