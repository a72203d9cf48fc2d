"""The HTTP application: its routes, and what happens around each of them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ..web.errors import api_error
from ..web.events import ClientGone, event_response, while_listening
from ..web.json_body import BODY_SECONDS, BodyLimits, json_response, read_json, validated
from .access import Access, AccessMiddleware
from .bodies import ChatBody, CompletionBody
from .chat import Chat
from .completions import Completions
from .errors import on_unknown_route
from .gate import Gate
from .metrics import Metrics
from .served import Served
from .weights import WeightRoutes

MAX_BODY_BYTES = 32 * 2**20
Handler = Callable[[Request], Awaitable[Response]]


def build_app(
    served: Served,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    body_seconds: float = BODY_SECONDS,
    allow_weight_updates: bool = False,
    access: Access | None = None,
) -> Starlette:
    """The application; at its end it closes the engine.

    Args:
        max_body_bytes: larger bodies are refused with 413.
        body_seconds: bodies that have not come whole by then are refused with 408.
        allow_weight_updates: add the routes that pause the server and change its weights. Whoever reaches them can
            load any checkpoint of this machine.
        access: which clients are let in; None: everyone who is no foreign page or name (see ``Access``).
    """
    access = access or Access()
    gate = Gate(served.model.engine, abortable=allow_weight_updates)
    routes = _Routes(served, gate, BodyLimits(most_bytes=max_body_bytes, seconds=body_seconds))
    changing = routes.weights() if allow_weight_updates else []
    middleware = [Middleware(AccessMiddleware, access=access, weight_paths=[route.path for route in changing])]
    if access.origins:  # it answers a browser's questions, which bear no key
        cors = Middleware(CORSMiddleware, allow_origins=list(access.origins), allow_methods=["*"], allow_headers=["*"])
        middleware.insert(0, cors)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        yield
        await served.model.engine.aclose()

    return Starlette(
        routes=[*routes.public(), *changing],
        middleware=middleware,
        exception_handlers={404: on_unknown_route, 405: on_unknown_route},
        lifespan=lifespan,
    )


class _Routes:
    def __init__(self, served: Served, gate: Gate, limits: BodyLimits) -> None:
        self._served, self._gate, self._limits = served, gate, limits
        self._metrics = Metrics(served.model.engine)

    def public(self) -> list[Route]:
        return [
            self._route("/v1/models", self._models),
            self._route("/v1/models/{name:path}", self._model),
            self._route("/v1/completions", self._completions, "POST"),
            self._route("/v1/chat/completions", self._chat, "POST"),
            self._route("/health", self._health),
            Route("/metrics", self._prometheus, methods=["GET"]),
        ]

    def weights(self) -> list[Route]:
        handlers = WeightRoutes(self._served, self._gate)

        def plain(handler: Callable[[Request], Awaitable[dict[str, Any]]]) -> Handler:
            async def respond(request: Request) -> Response:
                return json_response(await handler(request))

            return respond

        def with_body(handler: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> Handler:
            async def respond(request: Request) -> Response:
                # Not cancelled when the client leaves: weights half read would be of no version.
                return json_response(await handler(await read_json(request, self._limits)))

            return respond

        return [
            self._route("/pause", plain(handlers.pause), "POST"),
            self._route("/resume", plain(handlers.resume), "POST"),
            self._route("/is_paused", plain(handlers.is_paused)),
            self._route("/start_weight_update", plain(handlers.start), "POST"),
            self._route("/update_weights", with_body(handlers.update), "POST"),
            self._route("/finish_weight_update", with_body(handlers.finish), "POST"),
            self._route("/weight_info", plain(handlers.info)),
        ]

    def _route(self, path: str, handler: Handler, method: str = "GET") -> Route:
        async def endpoint(request: Request) -> Response:
            started = perf_counter()
            try:
                response = await handler(request)
            except (ClientGone, ClientDisconnect):
                response = Response(status_code=499)  # nobody reads it
            except Exception as error:
                response = api_error(error).response()
            self._metrics.count(path, response.status_code)
            if isinstance(response, StreamingResponse):
                response.body_iterator = self._metrics.timed(path, started, aiter(response.body_iterator))
            else:
                self._metrics.time(path, started)
            return response

        return Route(path, endpoint, methods=[method])

    async def _models(self, request: Request) -> Response:
        return json_response({"object": "list", "data": [self._served.to_json()]})

    async def _model(self, request: Request) -> Response:
        self._served.check_name(request.path_params["name"])
        return json_response(self._served.to_json())

    async def _completions(self, request: Request) -> Response:
        body = validated(CompletionBody, await read_json(request, self._limits))
        return await self._answer(request, bool(body.stream), lambda: Completions(self._served, self._gate, body))

    async def _chat(self, request: Request) -> Response:
        body = validated(ChatBody, await read_json(request, self._limits))
        return await self._answer(request, bool(body.stream), lambda: Chat(self._served, self._gate, body))

    async def _answer(
        self, request: Request, stream: bool, make: Callable[[], Completions] | Callable[[], Chat]
    ) -> Response:
        made = await asyncio.to_thread(make)  # a long prompt takes the tokenizer a while
        if stream:
            return await event_response(request, made.events())
        return json_response(await while_listening(request, made.answer()))

    async def _health(self, request: Request) -> Response:
        stats = self._served.model.engine.stats()
        return json_response({"status": "ok", "num_running": stats.num_running, "num_waiting": stats.num_waiting})

    async def _prometheus(self, request: Request) -> Response:
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
