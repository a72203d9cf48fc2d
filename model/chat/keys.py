"""Names of the environment variables in which servers and clients find the keys of ``verigym serve``."""

import os
from collections.abc import Sequence

API_KEY = "VERIGYM_API_KEY"
WEIGHTS_KEY = "VERIGYM_WEIGHTS_KEY"
"""Asked for by the routes that change weights."""


def key_in(names: str | Sequence[str], given: str | None = None) -> str | None:
    """``given``, or else the value of the first variable that is set; without blanks around it, and an empty one is
    none."""
    found = (given, *(os.environ.get(name) for name in ([names] if isinstance(names, str) else names)))
    return next((key.strip() for key in found if key and key.strip()), None)
