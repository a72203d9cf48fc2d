"""The socket that the page is served from: on the loopback, and on no other address of the machine."""

import socket

from ...errors import ConfigError

HOST = "127.0.0.1"
TRIES = 20


def bound(port: int, *, is_default: bool) -> socket.socket:
    """A listening socket.

    Args:
        port: 0 takes any.
        is_default: where it is in use, one of those after it is taken.
    Raises:
        ConfigError: the port cannot be had.
    """
    ports = range(port, min(port + TRIES, 65536)) if is_default else (port,)
    problem: OSError | None = None
    for one in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, one))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            problem = error
    raise ConfigError(f"port {port} of {HOST} cannot be had ({problem}); give another --port, or 0 for any")
