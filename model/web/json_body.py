"""JSON in and out of HTTP."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

Body = TypeVar("Body", bound=BaseModel)
BODY_SECONDS = 60.0


class BodyError(ValueError):
    """A body that cannot be used. ``status`` is HTTP's, ``param`` the field, where it is one."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """``most_bytes`` of a body, which must come whole within ``seconds``."""

    most_bytes: int
    seconds: float = BODY_SECONDS


async def read_json(request: Request, limits: BodyLimits) -> dict[str, Any]:
    """The JSON object of a request; no more than its limit is ever held.

    Raises:
        BodyError: not said to be JSON (415), too large (413), too slow (408), or no JSON object (400).
    """
    return json_object(await read_bytes(request, limits))


async def read_bytes(request: Request, limits: BodyLimits) -> bytearray:
    """The body of a request that is said to be JSON. Raises BodyError as ``read_json``."""
    # A browser asks nobody before it sends text, a form, or bytes without a type to another site; of JSON it asks.
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise BodyError(415, f"the content-type is {kind!r}; send application/json")
    try:
        async with asyncio.timeout(limits.seconds):
            return await _read(request, limits.most_bytes)
    except TimeoutError:
        raise BodyError(408, f"the body has not come whole within {limits.seconds:g} s") from None


def json_object(held: bytes | bytearray) -> dict[str, Any]:
    """The object that a body is. Raises BodyError (400)."""
    try:
        value = json.loads(held)
    except (ValueError, RecursionError) as error:
        raise BodyError(400, f"the body is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise BodyError(400, f"the body must be a JSON object, not {type(value).__name__}")
    return value


async def _read(request: Request, most_bytes: int) -> bytearray:
    too_large = BodyError(413, f"the body is larger than {most_bytes} bytes, which is the most this server takes")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and len(told) < 20 and int(told) > most_bytes:
        raise too_large
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) > most_bytes:
            raise too_large
    return held


def validated(kind: type[Body], value: dict[str, Any]) -> Body:
    """The body as its type. Raises BodyError (400) that names the first field that is wrong."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Of a union pydantic names the branch too, such as "list[int]", "str" or a class.
        place = [
            str(part) for part in first["loc"] if isinstance(part, int) or (part.islower() and part.isidentifier())
        ]
        param = ".".join(part for part in place if part != "str") or None
        if first["type"] == "extra_forbidden":
            raise BodyError(400, f"{param} is no parameter of this route; leave it out", param) from None
        told = f", not {first['input']!r}"[:120] if not isinstance(first["input"], dict | list) else ""
        message = first["msg"].removeprefix("Value error, ")
        raise BodyError(400, f"{param or 'the body'}: {message}{told}", param) from None


def dumps(value: Any) -> str:
    """Compact JSON; what is no text in UTF-8 is escaped, so that any text can be sent."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An HTTP answer of JSON."""
    return Response(dumps(value), status_code=status, media_type="application/json", headers=headers)
