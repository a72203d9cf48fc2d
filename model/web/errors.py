"""Errors in OpenAI's format."""

import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...errors import ChatFormatError, CheckpointError, PolicyError, QueueFull, RequestRefused
from .json_body import BodyError, json_response

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """What a client is told instead of an answer."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def to_json(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The HTTP answer; a client that was sent away is told when to come back."""
        headers = {"retry-after": "1"} if self.status in (429, 503) else None
        if self.status == 401:
            headers = {"www-authenticate": "Bearer"}
        if self.status in (408, 413):  # what is left of the body is not waited for
            headers = {"connection": "close"}
        return json_response(self.to_json(), status=self.status, headers=headers)


def refused(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """Status 400: the request can never be answered as it is."""
    return ApiError(400, message, param=param, code=code)


def api_error(error: BaseException) -> ApiError:
    """What to tell of an exception; the unexpected is logged and told without its words."""
    if isinstance(error, BaseExceptionGroup):  # of a request that needed several completions: the first speaks
        return api_error(error.exceptions[0])
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BodyError):
        return ApiError(error.status, str(error), param=error.param)
    if isinstance(error, QueueFull):
        return ApiError(429, str(error), code="rate_limit_exceeded")
    if isinstance(error, RequestRefused):
        return refused(str(error), param="prompt")
    if isinstance(error, CheckpointError):
        return refused(str(error), param="update_info")
    if isinstance(error, ChatFormatError):
        return refused(str(error), param="messages")
    if isinstance(error, PolicyError):
        return ApiError(500, str(error))
    logger.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed on this request; its log has the reason")


async def on_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of whatever a route raises."""
    return api_error(error).response()
