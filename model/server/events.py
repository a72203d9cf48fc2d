"""Answers over HTTP: whole, or as server-sent events; ended when the client leaves."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .errors import api_error
from .json_body import dumps

T = TypeVar("T")


class ClientGone(Exception):
    """The client left before its answer was there."""


async def while_listening(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves. Raises ClientGone then."""
    task = asyncio.ensure_future(work)
    listener = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, listener), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for one in (task, listener):
            one.cancel()
        await asyncio.gather(task, listener, return_exceptions=True)


async def event_response(request: Request, events: AsyncGenerator[dict[str, Any], None]) -> Response:
    """Server-sent events. What fails before the first event is raised, and so gets its own status; what fails later is
    told as an event."""
    try:
        first = await while_listening(request, _first(events))
    except BaseException:
        await events.aclose()
        raise
    return StreamingResponse(
        _lines(first, events), media_type="text/event-stream", headers={"cache-control": "no-cache"}
    )


async def _first(events: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    return await anext(events)


async def _lines(first: dict[str, Any], events: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        yield f"data: {dumps(first)}\n\n"
        try:
            async for event in events:
                yield f"data: {dumps(event)}\n\n"
        except Exception as error:  # the status line is sent: the stream itself must say it
            yield f"data: {dumps(api_error(error).to_json())}\n\n"
    yield "data: [DONE]\n\n"


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
