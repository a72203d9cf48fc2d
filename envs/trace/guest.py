"""The tracer as source for a sandbox: a prelude that makes its modules, and a program of two lines."""

from functools import lru_cache
from pathlib import Path

PACKAGE = "verigym_trace"
GUEST_FILES = (
    "guest_classes",
    "guest_room",
    "guest_numpy",
    "guest_values",
    "guest_tracer",
    "guest_main",
    "guest_library",
)
"""In the order of what imports what."""

BOOT = """\
import sys
_module = type(sys)
_package = sys.modules[{package!r}] = _module({package!r})
_package.__path__ = []
for _name, _source in {sources!r}:
    _one = sys.modules[{package!r} + "." + _name] = _module({package!r} + "." + _name)
    _one.__package__ = {package!r}
    setattr(_package, _name, _one)
    exec(compile(_source, _name + ".py", "exec"), _one.__dict__)
"""

PROGRAM = f"from {PACKAGE} import guest_main\nguest_main.main()\n"
LIBRARY_PROGRAM = f"from {PACKAGE} import guest_library\nguest_library.main(*sys.argv[1:])\n"


@lru_cache(maxsize=1)
def prelude() -> str:
    """Source that makes the tracer's modules; executed once before any number of programs."""
    folder = Path(__file__).parent
    sources = [(name, (folder / f"{name}.py").read_text(encoding="utf-8")) for name in GUEST_FILES]
    return BOOT.format(package=PACKAGE, sources=sources)
