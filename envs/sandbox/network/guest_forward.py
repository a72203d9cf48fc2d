"""Inside a sandbox: ports of its loopback, whose connections go through this process's standard streams.

Shipped as source and run by any Python 3; standard library only. A frame is a kind, the connection's number and a size
(1, 4 and 4 bytes, big-endian), and so many bytes. Neither side sends more of a connection than ``WINDOW`` bytes that
the other has not taken. Arguments are the ports to listen on; 0 is any.
"""

import os
import select
import socket
import struct
import sys

READY, OPEN, DATA, END, TOOK = range(5)
HEADER = ">BII"
WINDOW = 262144
MOST_CONNECTIONS = 64
PIECE = 65536


class Connection:
    """A client in the sandbox."""

    def __init__(self, number, client):
        self.number, self.client = number, client
        self.waiting, self.untaken = b"", 0
        self.read_done, self.write_done, self.write_ends = False, False, False

    def wants_to_read(self):
        return not self.read_done and self.untaken < WINDOW

    def wants_to_write(self):
        return bool(self.waiting) or (self.write_ends and not self.write_done)

    def is_over(self):
        return self.read_done and self.write_done

    def read(self):
        try:
            data = self.client.recv(min(PIECE, WINDOW - self.untaken))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.untaken += len(data)
            send(DATA, self.number, data)
        else:
            self.read_done = True
            send(END, self.number)

    def write(self):
        try:
            sent = self.client.send(self.waiting) if self.waiting else 0
        except BlockingIOError:
            return
        except OSError:  # the client is gone: whatever comes is taken and lost
            sent = len(self.waiting)
        self.waiting = self.waiting[sent:]
        if sent:
            send(TOOK, self.number, struct.pack(">I", sent))
        if self.write_ends and not self.waiting:
            self.write_done = True
            try:
                self.client.shutdown(socket.SHUT_WR)
            except OSError:
                if not self.read_done:
                    self.read_done = True
                    send(END, self.number)


def listeners(ports):
    found = []
    for port in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(MOST_CONNECTIONS)
        listener.setblocking(False)
        found.append(listener)
    return found


def serve(ports):
    listening = listeners(ports)
    send(READY, 0, " ".join(str(one.getsockname()[1]) for one in listening).encode())
    connections, held, count = {}, b"", 0
    while True:
        readable = [0] + [one.client for one in connections.values() if one.wants_to_read()]
        if len(connections) < MOST_CONNECTIONS:
            readable += listening
        writable = [one.client for one in connections.values() if one.wants_to_write()]
        ready, able, _ = select.select(readable, writable, [])
        if 0 in ready:
            data = os.read(0, PIECE)
            if not data:
                return
            held = take_frames(held + data, connections)
        for one in list(connections.values()):
            if one.client in able:
                one.write()
            if one.client in ready:
                one.read()
            if one.is_over():
                del connections[one.number]
                one.client.close()
        for route, listener in enumerate(listening):
            if listener in ready:
                try:
                    client, _ = listener.accept()
                except OSError:
                    continue
                count += 1
                client.setblocking(False)
                connections[count] = Connection(count, client)
                send(OPEN, count, str(route).encode())


def take_frames(held, connections):
    size_of_header = struct.calcsize(HEADER)
    while len(held) >= size_of_header:
        kind, number, size = struct.unpack(HEADER, held[:size_of_header])
        if len(held) < size_of_header + size:
            break
        piece, held = held[size_of_header : size_of_header + size], held[size_of_header + size :]
        one = connections.get(number)
        if one is None:
            continue
        if kind == DATA:
            one.waiting += piece
        elif kind == TOOK:
            one.untaken -= struct.unpack(">I", piece)[0]
        elif kind == END:
            one.write_ends = True
    return held


def send(kind, number, data=b""):
    frame = struct.pack(HEADER, kind, number, len(data)) + data
    while frame:
        frame = frame[os.write(1, frame) :]


if __name__ == "__main__":
    serve([int(port) for port in sys.argv[1:]])
