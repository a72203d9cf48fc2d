"""Libraries that an adapter needs, and that verigym does not."""

import importlib
from types import ModuleType

from ...errors import ConfigError


def needed(module: str, package: str) -> ModuleType:
    """The module.

    Raises:
        ConfigError: its package is not installed here, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{module} cannot be imported ({error}); pip install {package!r}") from None
