"""The gateway's HTTP application: whose episode a request is of, in which dialect it asks, and how it is answered."""

import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ...errors import ChatFormatError, PolicyError, QueueFull, RequestRefused
from ...model.chat.turns import Delta
from ...model.web.events import ClientGone, EventForm, event_response, while_listening
from ...model.web.json_body import BodyError, BodyLimits, json_object, json_response, read_bytes
from ..policy import ContextFull
from .asked import Answered, Asked, Dialect, GatewayError
from .chat_completions import ChatCompletions
from .drawing import Drawing
from .messages import Messages
from .responses import Responses
from .session import Session

logger = logging.getLogger(__name__)

MOST_BYTES = 32 << 20
DIALECTS: tuple[Dialect, ...] = (ChatCompletions(), Responses(), Messages())
Find = Callable[[str], Session | None]


def build_app(find: Find) -> Starlette:
    """The application.

    Args:
        find: the session of an episode's id; None where there is none.
    """
    routes = [Route(f"/{{episode}}{one.path}", _endpoint(one, find), methods=["POST"]) for one in DIALECTS]
    routes.append(Route("/{episode}/v1/models", _models(find), methods=["GET"]))
    routes.append(Route("/{episode}/mcp", _Tools(find)))
    return Starlette(routes=routes, exception_handlers={404: _no_route, 405: _no_route})


def _endpoint(dialect: Dialect, find: Find) -> Callable[[Request], Any]:
    form = EventForm(
        named=dialect.named_events,
        end=dialect.last_event,
        told=lambda error: dialect.error(told(error)),
    )

    async def endpoint(request: Request) -> Response:
        session: Session | None = None
        try:
            session = _admitted(request, find)
            held = await read_bytes(request, BodyLimits(most_bytes=MOST_BYTES))
            asked = dialect.read(json_object(held))
            again = request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
            drawing = session.draw(asked, dialect.path.encode() + held, again=again)
            if asked.stream:
                return await _streamed(request, dialect, asked, drawing, form)
            return await _whole(request, dialect, asked, drawing)
        except (ClientGone, ClientDisconnect):
            return Response(status_code=499)  # nobody reads it
        except Exception as error:  # whatever it is, it is told in the dialect's own form
            known = told(error)
            if session is not None and not isinstance(error, GatewayError):
                session.counts.refused += 1
            return _refusal(dialect, known)

    return endpoint


async def _whole(request: Request, dialect: Dialect, asked: Asked, drawing: Drawing) -> Response:
    delivered = False
    try:
        answered = await while_listening(request, drawing.whole())
        delivered = True
        return json_response(dialect.answer(asked, answered))
    finally:
        drawing.release(delivered=delivered)


async def _streamed(request: Request, dialect: Dialect, asked: Asked, drawing: Drawing, form: EventForm) -> Response:
    released = False

    def release(delivered: bool) -> None:
        nonlocal released
        if not released:
            released = True
            drawing.release(delivered=delivered)

    async def reading() -> AsyncGenerator[Delta | Answered, None]:
        async with aclosing(drawing.read()) as parts:
            async for part in parts:
                yield part

    async def events() -> AsyncGenerator[dict[str, Any], None]:
        try:
            async with aclosing(dialect.events(asked, drawing.id, drawing.created, reading())) as found:
                async for event in found:
                    yield event
            release(delivered=True)
        finally:
            release(delivered=False)

    try:
        return await event_response(request, events(), form)
    except BaseException:
        release(delivered=False)
        raise


class _Tools:
    """The tools of an episode's environment, by MCP, where whoever runs it offers them (``Session.tools_app``)."""

    def __init__(self, find: Find) -> None:
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            app = _admitted(request, self._find).tools_app
            if app is None:
                raise GatewayError(404, "this episode's environment offers no tools by MCP", code="unknown_url")
        except GatewayError as error:
            await _refusal(DIALECTS[0], error)(scope, receive, send)
            return
        await app(scope, receive, send)


def _models(find: Find) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            session = _admitted(request, find)
        except GatewayError as error:
            return _refusal(_dialect_of(request), error)
        row = {"id": session.model, "object": "model", "created": 0, "owned_by": "verigym"}
        row |= {"type": "model", "display_name": session.model, "max_model_len": session.limits.tokens}
        return json_response({"object": "list", "data": [row], "has_more": False})

    return endpoint


def _admitted(request: Request, find: Find) -> Session:
    """Raises GatewayError (401). Whether there is an episode of that name is not told."""
    session = find(request.path_params["episode"])
    key = _key_in(request.headers)
    if session is None or key is None or not session.admits(key):
        told = "the key is missing, wrong, or of another episode; send the episode's own as 'Authorization: Bearer KEY'"
        raise GatewayError(401, f"{told} or 'x-api-key: KEY'", code="invalid_api_key")
    return session


def _key_in(headers: Headers) -> str | None:
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" and key.strip() else headers.get("x-api-key")


def told(error: BaseException) -> GatewayError:
    """What a harness is told of an exception; the unexpected is logged and told without its words."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, BodyError):
        return GatewayError(error.status, str(error), param=error.param)
    if isinstance(error, ContextFull):
        words = f"This model's maximum context length is met: {error}; shorten the messages"
        return GatewayError(400, words, code="context_length_exceeded", param="messages")
    if isinstance(error, QueueFull):
        return GatewayError(429, str(error), code="rate_limit_exceeded")
    if isinstance(error, RequestRefused | ChatFormatError):
        return GatewayError(400, str(error), param="messages")
    if isinstance(error, PolicyError):
        return GatewayError(500, str(error), code="policy_failure")
    logger.error("a request failed", exc_info=error)
    return GatewayError(500, "the gateway failed on this request; its log has the reason", code="gateway_failure")


def _refusal(dialect: Dialect, error: GatewayError) -> Response:
    headers: Mapping[str, str] | None = {"retry-after": "1"} if error.status == 429 else None
    if error.status == 401 and error.code == "invalid_api_key":
        headers = {"www-authenticate": "Bearer"}
    if error.status in (408, 413):
        headers = {"connection": "close"}
    return json_response(dialect.error(error), status=error.status, headers=dict(headers or {}))


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    known = ", ".join(f"POST {one.path}" for one in DIALECTS)
    path = json.dumps(request.url.path[:200])
    told = f"{request.method} {path} is no route of the gateway; an episode has {known}, GET /v1/models"
    return _refusal(_dialect_of(request), GatewayError(status, told, code="unknown_url"))


def _dialect_of(request: Request) -> Dialect:
    """The one that a request to no route is likely to speak."""
    anthropic = "anthropic-version" in request.headers or "x-api-key" in request.headers
    return DIALECTS[2] if anthropic else DIALECTS[0]
