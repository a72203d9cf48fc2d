"""Answers over HTTP: whole, or as server-sent events; ended when the client leaves."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
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


async def event_response(
    request: Request, events: AsyncGenerator[dict[str, Any], None], form: "EventForm | None" = None
) -> Response:
    """Server-sent events. What fails before the first event is raised, and so gets its own status; what fails later is
    told as an event."""
    form = form or EventForm()
    try:
        first = await while_listening(request, _first(events))
    except BaseException:
        await events.aclose()
        raise
    return StreamingResponse(
        _lines(first, events, form), media_type="text/event-stream", headers={"cache-control": "no-cache"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventForm:
    """How events are written.

    Attributes:
        named: each has its "type" as the event's name.
        end: the last line's data; None: the last event is the end.
        told: what is said of an exception.
    """

    named: bool = False
    end: str | None = "[DONE]"
    told: Callable[[BaseException], dict[str, Any]] = lambda error: api_error(error).to_json()

    def line(self, event: dict[str, Any]) -> str:
        """The text of an event."""
        name = f"event: {event['type']}\n" if self.named else ""
        return f"{name}data: {dumps(event)}\n\n"


async def _first(events: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    return await anext(events)


async def _lines(
    first: dict[str, Any], events: AsyncGenerator[dict[str, Any], None], form: EventForm
) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        yield form.line(first)
        try:
            async for event in events:
                yield form.line(event)
        except Exception as error:  # the status line is sent: the stream itself must say it
            yield form.line(form.told(error))
    if form.end is not None:
        yield f"data: {form.end}\n\n"


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
