"""Inside a sandbox: a port of its loopback, whose connections go through this process's standard streams.

Shipped as source and run by any Python 3; standard library only. A frame is the connection's number and a length (4
bytes each, big-endian), and so many bytes; none end the connection. The first frame tells the port, as connection 0.
"""

import os
import select
import socket
import struct

MOST_CONNECTIONS = 64
PIECE = 65536


def serve():
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(MOST_CONNECTIONS)
    listener.setblocking(False)
    send(0, str(listener.getsockname()[1]).encode())
    connections, waiting, numbers, held = {}, {}, {}, b""
    count = 0

    def end(number, tell):
        connection = connections.pop(number, None)
        if connection is not None:
            numbers.pop(connection.fileno(), None)
            waiting.pop(number, None)
            connection.close()
            if tell:
                send(number, b"")

    while True:
        readable = [0, *numbers]
        if len(connections) < MOST_CONNECTIONS:
            readable.append(listener.fileno())
        writable = [connections[number].fileno() for number, data in waiting.items() if data]
        ready, able, _ = select.select(readable, writable, [])
        if 0 in ready:
            data = os.read(0, PIECE)
            if not data:
                return
            held += data
            while len(held) >= 8:
                number, size = struct.unpack(">II", held[:8])
                if len(held) < 8 + size:
                    break
                piece, held = held[8 : 8 + size], held[8 + size :]
                if number in connections:
                    if size:
                        waiting[number] = waiting.get(number, b"") + piece
                    else:
                        waiting[number] = waiting.get(number, b"")
                        flush_and_end(connections[number], waiting[number])
                        end(number, False)
        for file in able:
            number = numbers.get(file)
            if number is not None:
                try:
                    sent = connections[number].send(waiting[number])
                    waiting[number] = waiting[number][sent:]
                except BlockingIOError:
                    pass
                except OSError:
                    end(number, True)
        for file in ready:
            if file == listener.fileno():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    continue
                count += 1
                connection.setblocking(False)
                connections[count], numbers[connection.fileno()] = connection, count
            elif file in numbers:
                number = numbers[file]
                try:
                    data = connections[number].recv(PIECE)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if data:
                    send(number, data)
                else:
                    end(number, True)


def flush_and_end(connection, data):
    """What is left of an answer, to a client that reads it."""
    try:
        connection.settimeout(5.0)
        connection.sendall(data)
    except OSError:
        pass


def send(number, data):
    frame = struct.pack(">II", number, len(data)) + data
    while frame:
        frame = frame[os.write(1, frame) :]


serve()
