"""New weights while the server runs: vLLM's routes, for trainers that this server trusts.

The order is pause, update_weights, resume. ``start_weight_update`` and ``finish_weight_update`` are there for clients
that speak vLLM's whole protocol.
"""

import asyncio
from pathlib import Path
from typing import Any, cast, get_args

from starlette.requests import Request

from ..engine.batch import OnWeightUpdate
from ..web.errors import ApiError, refused
from .gate import Gate, PauseMode
from .served import Served


class WeightRoutes:
    """The routes' handlers; each returns JSON."""

    def __init__(self, served: Served, gate: Gate) -> None:
        self._served, self._gate = served, gate
        # What becomes of the requests that a pause has frozen when the weights change; None: there are none.
        self._frozen: OnWeightUpdate | None = None

    async def pause(self, request: Request) -> dict[str, Any]:
        """Let no request in; "abort" (the default) ends those in work with what they have, "wait" lets them end, "keep"
        freezes them until ``resume``, over their old keys and values, or, with ``clear_cache``, new ones."""
        mode = request.query_params.get("mode", "abort")
        if mode not in get_args(PauseMode):
            raise refused(f"mode is {mode!r}; this server knows {', '.join(get_args(PauseMode))}", param="mode")
        clear = request.query_params.get("clear_cache", "false").lower()
        if clear not in ("true", "false"):
            raise refused(f"clear_cache is {clear!r}; it must be true or false", param="clear_cache")
        await self._gate.pause(cast("PauseMode", mode))
        self._frozen = None if mode != "keep" else "recompute" if clear == "true" else "keep"
        return {"status": "paused"}

    async def resume(self, request: Request) -> dict[str, Any]:
        """Let requests in again; those that waited go first."""
        self._frozen = None
        self._gate.resume()
        return {"status": "resumed"}

    async def is_paused(self, request: Request) -> dict[str, Any]:
        """Whether requests are kept waiting."""
        return {"is_paused": self._gate.is_paused}

    async def start(self, request: Request) -> dict[str, Any]:
        """Nothing is to be prepared."""
        self._check_paused()
        return {"message": "Weight update started"}

    async def update(self, body: dict[str, Any]) -> dict[str, Any]:
        """Read ``update_info.path``, a checkpoint's folder on this machine, as ``update_info.version``."""
        self._check_paused()
        info = body.get("update_info")
        path = info.get("path") if isinstance(info, dict) else None
        if not isinstance(info, dict) or not isinstance(path, str) or not path.strip() or "\0" in path:
            raise refused(
                f'update_info must be {{"path": a checkpoint\'s folder, "version": a number}}, not {info!r:.120}',
                param="update_info",
            )
        engine = self._served.model.engine
        version = _version_of(info.get("version", engine.policy_version + 1))
        await asyncio.to_thread(self._served.model.load_weights, Path(path), version, self._frozen)
        return {"message": "Weights updated", "weight_version": str(version)}

    async def finish(self, body: dict[str, Any]) -> dict[str, Any]:
        """Name the version, where ``update_weights`` did not."""
        self._check_paused()
        if body.get("weight_version") is not None:
            version = _version_of(body["weight_version"])
            engine = self._served.model.engine
            options = {"on_weight_update": self._frozen} if self._frozen else {}
            await asyncio.to_thread(engine.update_weights, version, **options)
        return {"message": "Weight update finished"}

    async def info(self, request: Request) -> dict[str, Any]:
        """The version of the weights."""
        return {"weight_version": str(self._served.model.engine.policy_version)}

    def _check_paused(self) -> None:
        if not self._gate.is_paused:
            raise ApiError(409, "the server is not paused; POST /pause first, and /resume when the weights are there")


def _version_of(value: Any) -> int:
    """A version from JSON: a number, or its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    raise refused(f"the version is {value!r}; it must be a whole number", param="weight_version")
