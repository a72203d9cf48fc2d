"""The proxy of an allow-list against a client that wants elsewhere. Names and addresses are the test's own."""

import asyncio
import struct
import time

import pytest

from verigym.envs.sandbox.network.forward import Breach, Connection
from verigym.envs.sandbox.network.guest_forward import DATA, END, TOOK, WINDOW
from verigym.envs.sandbox.network.heads import Refused, read_head
from verigym.envs.sandbox.network.policy import NetworkPolicy
from verigym.envs.sandbox.network.proxy import HEAD_BYTES, Proxy, is_public

POLICY = NetworkPolicy.parse({"hosts": ["good.org", "api.good.org:8443", "*.cdn.org", "rebound.org", "mixed.org"]})
PUBLIC = "93.184.216.34"


class World:
    """A resolver, servers that keep what they are sent, and a client of the proxy."""

    def __init__(self, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"):
        self.answer, self.got, self.dialled, self.notes = answer, bytearray(), [], []
        self.addresses = {"rebound.org": ["127.0.0.1"], "mixed.org": [PUBLIC, "10.0.0.7"]}
        self.lookups = []

    async def resolve(self, host, port):
        self.lookups.append(host)
        return self.addresses.get(host, [PUBLIC])

    async def dial(self, address, port):
        self.dialled.append((address, port))
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def serve(self, reader, writer):
        while data := await reader.read(65536):
            self.got += data
            if self.answer is None and self.got.endswith(b"0\r\n\r\n"):
                break
            if b"\r\n\r\n" in self.got and self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
                if self.answer.startswith(b"HTTP"):
                    break
        writer.close()

    async def _ask(self, said):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        back = bytearray()

        def send(kind, number, data):
            if kind == DATA:
                back.extend(data)
                connection.take(TOOK, struct.pack(">I", len(data)))

        connection = Connection(1, send)
        proxy = Proxy(POLICY, self.notes.append, resolve=self.resolve, dial=self.dial)
        async with server:
            serving = asyncio.ensure_future(proxy(connection))
            for start in range(0, len(said), 50_000):
                connection.take(DATA, said[start : start + 50_000])
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            connection.take(END, b"")
            await asyncio.wait_for(serving, 60)
        return bytes(back)

    def ask(self, said):
        return asyncio.run(self._ask(said))


def status_of(answer):
    return int(answer.split(b" ")[1])


def test_a_plain_request_reaches_its_host_alone_and_is_noted():
    world = World()
    answer = world.ask(
        b"GET http://good.org/simple/?q=1 HTTP/1.1\r\nHost: good.org\r\nAccept: */*\r\nProxy-Authorization: Basic x\r\n"
        b"Connection: keep-alive, X-Odd\r\nX-Odd: 1\r\nKeep-Alive: 5\r\n\r\n"
    )
    assert answer.endswith(b"\r\n\r\nok")
    assert bytes(world.got) == (
        b"GET /simple/?q=1 HTTP/1.1\r\nHost: good.org\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    assert world.dialled == [(PUBLIC, 80)]
    (note,) = world.notes
    assert (note.method, note.host, note.port, note.allowed, note.why) == ("GET", "good.org", 80, True, "")
    assert note.received == len(answer)


def test_a_tunnel_passes_bytes_both_ways():
    world = World(answer=b"\x16\x03server")
    answer = world.ask(b"CONNECT api.good.org:8443 HTTP/1.1\r\nHost: api.good.org:8443\r\n\r\n\x16\x03client\r\n\r\n")
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03server"
    assert bytes(world.got) == b"\x16\x03client\r\n\r\n"
    assert world.dialled == [(PUBLIC, 8443)]
    assert world.notes[0].method == "CONNECT"
    assert world.notes[0].sent == len(world.got)


REFUSED = {
    "another host": (b"CONNECT evil.org:443", 403),
    "a host below": (b"CONNECT x.good.org:443", 403),
    "a host that ends so": (b"CONNECT evilgood.org:443", 403),
    "the name above a wildcard": (b"CONNECT cdn.org:443", 403),
    "another port": (b"CONNECT good.org:22", 403),
    "an address": (b"CONNECT 93.184.216.34:443", 403),
    "loopback": (b"CONNECT 127.0.0.1:80", 403),
    "loopback, short": (b"CONNECT 127.1:80", 403),
    "loopback, hexadecimal": (b"CONNECT 0x7f000001:80", 403),
    "loopback, one number": (b"CONNECT 2130706433:80", 403),
    "loopback by name": (b"CONNECT localhost:80", 403),
    "loopback, version 6": (b"CONNECT [::1]:80", 400),
    "a name that leads to loopback": (b"CONNECT rebound.org:443", 403),
    "a name of which one address is private": (b"CONNECT mixed.org:443", 403),
    "no port": (b"CONNECT good.org", 400),
    "port 0": (b"CONNECT good.org:0", 400),
    "a large port": (b"CONNECT good.org:99999", 400),
    "somebody's password": (b"GET http://good.org@evil.org/", 400),
    "a backslash": (b"GET http://good.org\\@evil.org/", 400),
    "https in plain": (b"GET https://good.org/", 400),
    "another scheme": (b"GET file:///etc/passwd", 400),
    "no host": (b"GET /simple/", 400),
    "small letters": (b"get http://good.org/", 400),
    "a NUL": (b"GET http://good.org\0.evil.org/", 400),
    "a tab": (b"GET\thttp://good.org/", 400),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_not_allowed_is_refused_without_a_connection(line):
    world, (first, status) = World(), REFUSED[line]
    assert status_of(world.ask(first + b" HTTP/1.1\r\n\r\n")) == status
    assert world.dialled == []
    (note,) = world.notes
    assert not note.allowed
    assert note.why


ODD_HEADS = {
    "another Host than CONNECT's": (b"CONNECT good.org:443 HTTP/1.1\r\nHost: evil.org:443\r\n\r\n", 400),
    "another port in Host": (b"CONNECT good.org:443 HTTP/1.1\r\nHost: good.org:80\r\n\r\n", 400),
    "another Host than the target's": (b"GET http://good.org/ HTTP/1.1\r\nHost: evil.org\r\n\r\n", 400),
    "an address as Host": (b"GET http://good.org/ HTTP/1.1\r\nHost: 10.0.0.7\r\n\r\n", 403),
    "two Hosts": (b"GET http://good.org/ HTTP/1.1\r\nHost: good.org\r\nHost: good.org\r\n\r\n", 400),
    "a folded Host": (b"GET http://good.org/ HTTP/1.1\r\nHost: good.org\r\n evil.org\r\n\r\n", 400),
    "a bare line break": (b"GET http://good.org/ HTTP/1.1\r\nA: b\nHost: evil.org\r\n\r\n", 400),
    "a blank before the colon": (b"GET http://good.org/ HTTP/1.1\r\nHost : evil.org\r\n\r\n", 400),
    "two lengths": (b"POST http://good.org/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (
        b"POST http://good.org/ HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks in disguise": (b"POST http://good.org/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "a signed length": (b"POST http://good.org/ HTTP/1.1\r\nContent-Length: +1\r\n\r\na", 400),
    "many fields": (b"GET http://good.org/ HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    "a large field": (b"GET http://good.org/ HTTP/1.1\r\nA: " + b"b" * HEAD_BYTES + b"\r\n\r\n", 431),
    "a head without end": (b"GET http://good.org/ HTTP/1.1\r\nA: " + b"b" * 3 * HEAD_BYTES, 431),
    "half a head": (b"GET http://good.org/ HTTP/1.1\r\nA: b", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
}


@pytest.mark.parametrize("head", ODD_HEADS)
def test_a_head_that_could_be_read_in_two_ways_is_refused(head):
    world, (said, status) = World(), ODD_HEADS[head]
    assert status_of(world.ask(said)) == status
    assert world.dialled == []


def test_blanks_around_a_value_are_no_part_of_it_and_cost_nothing():
    method, target, fields = read_head(b"GET http://good.org/ HTTP/1.1\r\nHost: \t good.org \t\r\nA:")
    assert (method, target, fields) == ("GET", "http://good.org/", [("Host", "good.org"), ("A", "")])
    began = time.process_time()
    with pytest.raises(Refused):
        read_head(b"GET http://good.org/ HTTP/1.1\r\nA: " + b" " * 16_000 + b"\0")
    assert time.process_time() - began < 0.2  # a pattern that tries every end of the value takes seconds


def test_a_second_request_behind_the_first_is_not_passed_on():
    world = World()
    world.ask(
        b"POST http://good.org/ HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: evil.good.org\r\n\r\n"
    )
    assert bytes(world.got).endswith(b"\r\n\r\nabc")
    assert world.notes[0].sent == 3


def test_chunks_are_written_anew_and_end_where_they_end():
    world = World(answer=None)
    world.ask(
        b"POST http://good.org/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;ext=1\r\nabc\r\n02\r\nde\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    )
    assert bytes(world.got).endswith(
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )


@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n", b"3\r\nabcd\r\n", b"-1\r\n"])
def test_a_body_that_is_none_ends_the_request_without_an_end(body):
    world = World(answer=None)
    world.ask(b"POST http://good.org/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert not bytes(world.got).endswith(b"0\r\n\r\n")
    assert world.notes[0].why


def test_a_redirect_is_the_clients_to_follow_and_its_host_is_asked_for_anew():
    world = World(answer=b"HTTP/1.1 302 Found\r\nLocation: http://evil.org/\r\nContent-Length: 0\r\n\r\n")
    assert status_of(world.ask(b"GET http://good.org/ HTTP/1.1\r\n\r\n")) == 302
    assert [host for host, _ in world.dialled] == [PUBLIC]
    assert status_of(world.ask(b"GET http://evil.org/ HTTP/1.1\r\n\r\n")) == 403
    assert len(world.dialled) == 1


def test_a_name_is_looked_up_once_and_the_address_that_was_looked_at_is_dialled():
    world = World()
    turns = iter([[PUBLIC], ["127.0.0.1"]])

    async def rebinding(host, port):
        world.lookups.append(host)
        return next(turns)

    world.resolve = rebinding
    world.ask(b"GET http://good.org/ HTTP/1.1\r\n\r\n")
    assert world.lookups == ["good.org"]
    assert world.dialled == [(PUBLIC, 80)]
    assert status_of(world.ask(b"GET http://good.org/ HTTP/1.1\r\n\r\n")) == 403


def test_a_host_that_cannot_be_reached_is_said_so():
    world = World()

    async def gone(host, port):
        raise OSError("no such name")

    world.resolve = gone
    assert status_of(world.ask(b"GET http://good.org/ HTTP/1.1\r\n\r\n")) == 502
    assert not world.notes[0].allowed


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fc00::1"),
        *("ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
        *("2001:db8::1", "fe80::1%eth0", "not an address"),
        *("fec0::1", "192.0.0.8", "192.88.99.1", "3fff::1", "5f00::1", "64:ff9b:1::a00:1", "100:0:0:1::1"),
    ],
)
def test_addresses_that_are_not_of_the_open_internet_are_known(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:1.1.1.1"])
def test_public_addresses_are_known(address):
    assert is_public(address)


def test_nobody_is_sent_more_than_he_takes():
    async def main():
        sent = []
        connection = Connection(1, lambda kind, number, data: sent.append((kind, data)))
        writing = asyncio.ensure_future(connection.write(b"x" * (WINDOW + 10)))
        await asyncio.sleep(0.01)
        assert not writing.done()
        assert sum(len(data) for kind, data in sent if kind == DATA) == WINDOW
        connection.take(TOOK, struct.pack(">I", 10))
        await asyncio.wait_for(writing, 60)
        connection.take(DATA, b"y" * WINDOW)
        with pytest.raises(Breach):
            connection.take(DATA, b"z")
        with pytest.raises(Breach):
            connection.take(TOOK, struct.pack(">I", WINDOW + 1))

    asyncio.run(main())
