"""What a client is told of a route that is none."""

from starlette.requests import Request
from starlette.responses import Response

from ..web.errors import ApiError


async def on_unknown_route(request: Request, error: Exception) -> Response:
    """404 and 405."""
    status = getattr(error, "status_code", 404)
    told = "is no route of this server" if status == 404 else "is not what this route takes"
    message = (
        f"{request.method} {request.url.path} {told}; GET /v1/models, POST /v1/completions, POST /v1/chat/completions"
    )
    return ApiError(status, message, code="unknown_url" if status == 404 else "method_not_allowed").response()
