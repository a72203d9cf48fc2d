"""Heads of HTTP requests, read so strictly that there is one way to read them, and written anew for a server."""

import re
from collections.abc import Sequence
from typing import Literal

from .policy import host_name

HEAD_LINES = 128
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}

_REQUEST = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]{1,8192}) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
_TARGET = re.compile(r"http://([^/?#@\\]+)([/?][^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"([^:\[\]@/\\]+)(?::([0-9]{1,5}))?")


class Refused(Exception):
    """A request that is answered with a status and nothing else."""

    def __init__(self, status: Literal[400, 403, 431, 502], why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


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
        fields.append((field[1].decode("ascii"), field[2].strip(b" \t").decode("latin-1")))
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


def read_absolute(target: str) -> tuple[str, str]:
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
