"""What an environment's hooks left in ``evidence``, as JSON."""

import json
from collections.abc import Mapping
from typing import Any

from ..rewards.score import plain
from .tools.hooks import text_of


def as_json(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence as JSON has it. It is for people alone: what is of another kind is shown as its text, and fails no
    episode."""
    return {str(name): _as_json(value) for name, value in evidence.items()}


def _as_json(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, default=_shown))
    except (TypeError, ValueError, RecursionError) as error:  # odd keys, a list within itself
        return f"cannot be shown: {error}"


def _shown(value: Any) -> Any:
    try:
        simple = plain(value)
    except Exception:  # of an object that only looks like a scalar
        simple = value
    return simple if isinstance(simple, bool | int | float | str) else text_of(value)
