"""New weights while the server runs: vLLM's routes, for trainers that this server trusts.

The order is pause, update_weights, resume. ``start_weight_update`` and ``finish_weight_update`` are there for clients
that speak vLLM's whole protocol.
"""

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request

from .errors import ApiError, refused
from .gate import Gate
from .served import Served


class WeightRoutes:
    """The routes' handlers; each returns JSON."""

    def __init__(self, served: Served, gate: Gate) -> None:
        self._served, self._gate = served, gate

    async def pause(self, request: Request) -> dict[str, Any]:
        """Let no request in; "abort" (the default) ends those in work with what they have, "wait" lets them end."""
        mode = request.query_params.get("mode", "abort")
        if mode not in ("abort", "wait"):
            raise refused(f"mode is {mode!r}; this server knows abort and wait", param="mode")
        await self._gate.pause(mode)
        return {"status": "paused"}

    async def resume(self, request: Request) -> dict[str, Any]:
        """Let requests in again; those that waited go first."""
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
        if not isinstance(info, dict) or not isinstance(path, str):
            raise refused(
                'update_info must be {"path": a checkpoint\'s folder, "version": a number}', param="update_info"
            )
        engine = self._served.model.engine
        version = _version_of(info.get("version", engine.policy_version + 1))
        await asyncio.to_thread(self._served.model.load_weights, Path(path), version)
        return {"message": "Weights updated", "weight_version": str(version)}

    async def finish(self, body: dict[str, Any]) -> dict[str, Any]:
        """Name the version, where ``update_weights`` did not."""
        self._check_paused()
        if body.get("weight_version") is not None:
            version = _version_of(body["weight_version"])
            await asyncio.to_thread(self._served.model.engine.update_weights, version)
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
