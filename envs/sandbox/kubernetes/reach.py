"""Whether the API server of the cluster can be reached from inside of a pod, where it always listens; runs there."""

import os
import socket
import time

TRIES, WAIT_S = 4, 3.0
"""A policy that was just made may take a moment."""


def reaches():
    where = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not all(where):
        return False
    for number in range(TRIES):
        try:
            socket.create_connection(where, timeout=WAIT_S).close()
        except OSError:
            return False
        if number < TRIES - 1:
            time.sleep(WAIT_S)
    return True


if __name__ == "__main__":
    print(repr(reaches()))
