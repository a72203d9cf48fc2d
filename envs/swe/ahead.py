"""What of the standard library the tests' runner may have imported before it is asked for: what it has imported anyway
when pytest is loaded, which differs between versions and is told by the first run of an environment."""

from collections.abc import Iterable

IMPORTS = (
    *("copy", "dataclasses", "textwrap", "traceback", "html.entities", "html", "atexit", "platform", "uuid"),
    *("unicodedata", "pprint", "datetime", "numbers", "decimal", "importlib.resources.abc", "importlib.resources"),
    *("importlib.abc", "binascii", "struct", "threading", "zipfile", "importlib.resources.readers", "heapq", "gettext"),
    *("argparse", "glob", "csv", "email", "quopri", "selectors", "array", "socket", "locale", "calendar", "base64"),
    *("email.base64mime", "string", "email.quoprimime", "email.errors", "email.encoders", "email.charset"),
    *("email.utils", "email.header", "email.iterators", "email.message", "importlib.metadata", "bdb"),
    *("unittest.util", "unittest.result", "difflib", "unittest.case", "unittest.suite", "unittest.loader"),
    *("unittest.signals", "unittest.runner", "unittest.main", "unittest", "fcntl", "subprocess", "logging"),
)
"""What some pytest imports; no other name is believed."""

_noted: dict[str, tuple[str, ...]] = {}


def note(python: str, names: Iterable[str]) -> None:
    """Note what an environment's pytest has imported, said before anything of a repository could run."""
    _noted.setdefault(python, tuple(name for name in IMPORTS if name in set(names)))


def noted(python: str) -> tuple[str, ...] | None:
    """The same for an interpreter; None where no run has told."""
    return _noted.get(python)
