"""The suites there are: those of the modules of this folder."""

import difflib
import importlib
import pkgutil
from functools import lru_cache

from ...errors import ConfigError
from .spec import Suite


@lru_cache(maxsize=1)
def known_suites() -> dict[str, Suite]:
    """Name -> suite, of every module here that has ``SUITES``; sorted by name."""
    package = importlib.import_module(__package__ or "")
    found: dict[str, Suite] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{__package__}.{info.name}")
        for suite in getattr(module, "SUITES", ()):
            if suite.name in found:
                raise ValueError(f"two suites are named {suite.name!r}; one of them is in {module.__name__}")
            found[suite.name] = suite
    return dict(sorted(found.items()))


def suite_named(name: str, *, also: str = "") -> Suite:
    """The suite of that name.

    Args:
        also: what else the caller takes, for the message.
    Raises:
        ConfigError: there is none; the message has the nearest and all names.
    """
    suites = known_suites()
    if name in suites:
        return suites[name]
    near = difflib.get_close_matches(name, suites, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"no suite {name!r}{hint} Known: {', '.join(suites)}{also}")
