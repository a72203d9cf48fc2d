"""What leaves the server: JSON whose every text is printable, and headers that forbid all that a page does not need.

Everything shown was written by models and by programs they ran.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from ...agent.transcript import printable

MAX_CHARS = 200_000
"""Most characters of one text; of a longer one the head and the tail are sent."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def plain(value: Any) -> Any:
    """JSON in which every text is printable (control characters, lone surrogates and changes of direction spelled out)
    and every number finite, else None."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value  # here, not at the end: what follows asks abstract classes, and columns of tokens are long
    if isinstance(value, Mapping):
        return {shown(str(name)): plain(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [plain(one) for one in value]
    return value


def shown(text: str) -> str:
    """A text as it is sent."""
    left_out = len(text) - MAX_CHARS
    if left_out > 0:
        half = MAX_CHARS // 2
        text = f"{text[:half]}\n[… {left_out} characters left out …]\n{text[-half:]}"
    return printable(text)


def answer(value: Any, status: int = 200) -> Response:
    """A JSON response."""
    body = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Response(body, status, media_type="application/json", headers=HEADERS)
