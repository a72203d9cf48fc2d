"""Who may ask: keys, and the two headers by which a browser shows that a foreign page is asking.

A page of any site can have a browser send requests to this machine: by a form or ``fetch`` across sites (``Origin``
tells), or under a name of its own that it lets point here (``Host`` tells; DNS rebinding). Neither needs a key where
the server has none, so both are checked always.
"""

import hmac
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..web.errors import ApiError

OPEN_PATHS = ("/health", "/metrics")
"""Asked without a key, by what watches the server."""
ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a server asks of its clients.

    Attributes:
        api_key: sent as ``Authorization: Bearer KEY`` with every request but those to ``OPEN_PATHS``; None: none is
            asked for.
        weights_key: sent in the same way to the routes that change weights, which ``api_key`` does not open.
        hosts: names of this server besides localhost, this machine's name and any address in numbers; "*": any name.
        origins: pages that may ask, such as "https://chat.example.org", besides those of the server itself; "*": any.
    """

    api_key: str | None = None
    weights_key: str | None = None
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()

    def check(self, path: str, headers: Headers, *, changes_weights: bool) -> None:
        """Raises ApiError: 403 for a foreign host or page, 401 for a missing or wrong key."""
        for host in headers.getlist("host"):
            self._check_host(host)
        for origin in headers.getlist("origin"):
            self._check_origin(origin, headers.get("host", ""))
        # A page that loads an address as an image or a script, or is left by a link to it, sends no Origin.
        sites = {site.strip().lower() for site in headers.getlist("sec-fetch-site")}
        if sites - {"same-origin", "none"} and "origin" not in headers and ANY not in self.origins:
            raise _foreign("a page of another site asks, and does not say which; pages ask by fetch, with an Origin")
        key, name = (self.weights_key, "weights") if changes_weights else (self.api_key, "API")
        if key is not None and path not in OPEN_PATHS and not _sent(headers, key):
            raise ApiError(
                401,
                f"this route asks for the {name} key; send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
            )

    def _check_host(self, host: str) -> None:
        name = _hostname(host)
        if ANY not in self.hosts and not _is_address(name) and name not in (*_own_names(), *map(_folded, self.hosts)):
            raise _foreign(
                f"the host {host!r} is no name of this server; start it with --allowed-host {name or 'NAME'}"
            )

    def _check_origin(self, origin: str, host: str) -> None:
        if ANY in self.origins or origin in self.origins:
            return
        if host and origin.partition("://")[2].lower() == host.lower():
            return
        raise _foreign(f"the page {origin!r} may not ask this server; start it with --allowed-origin to let it")


class AccessMiddleware:
    """Sends away whom ``Access`` does not let in, before anything of the body is read."""

    def __init__(self, app: ASGIApp, access: Access, weight_paths: Sequence[str]) -> None:
        self._app, self._access, self._weight_paths = app, access, frozenset(weight_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            try:
                self._access.check(path, Headers(scope=scope), changes_weights=path in self._weight_paths)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _sent(headers: Headers, key: str) -> bool:
    kind, _, sent = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(sent.strip().encode("latin-1"), key.encode())


# A name or an address, and nothing behind its port: "localhost:80.evil.example" is a name of somebody else's.
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:@/?#]*)(?::\d*)?")


def _hostname(host: str) -> str:
    if not _HOST.fullmatch(host):
        return ""
    try:
        return _folded(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return ""


def _folded(name: str) -> str:
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    """An address in numbers: a name that somebody else lets point here it is not."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _own_names() -> tuple[str, ...]:
    name = _folded(socket.gethostname())
    return ("localhost", name, name.partition(".")[0])


def _foreign(message: str) -> ApiError:
    return ApiError(403, message, code="forbidden")
