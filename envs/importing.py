"""Modules that users name: "MODULE:CLASS" in recipes and on the command line."""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from ..errors import ConfigError, VerigymError


def import_named(module: str) -> ModuleType:
    """The module that a user names; one that is nowhere else is looked for in the working folder, as Python does.

    Raises:
        ImportError: there is none, or none of what it imports. ConfigError: its own code fails.
    """
    try:
        return _imported(module)
    except (ImportError, VerigymError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        raise ConfigError(f"{module!r} cannot be imported: {type(error).__name__}: {error}{place}; mend it") from error


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        here, top = Path.cwd(), module.partition(".")[0]
        if error.name != top or str(here) in sys.path or not ((here / f"{top}.py").exists() or (here / top).is_dir()):
            raise
        sys.path.append(str(here))
        importlib.invalidate_caches()
        return importlib.import_module(module)
