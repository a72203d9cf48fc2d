"""How a program of ours starts in a sandbox: its modules come over standard input, so no file of it is seen inside."""

import marshal
from collections.abc import Sequence
from importlib.util import MAGIC_NUMBER
from types import CodeType

_BOOT = """\
import os, sys, marshal
def take(n):
    data = b""
    while len(data) < n:
        piece = os.read(0, n - len(data))
        if not piece: os._exit(0)
        data += piece
    return data
module = type(sys)
magic = getattr(sys.modules.get("_frozen_importlib_external"), "MAGIC_NUMBER", None)
package = sys.modules[{package!r}] = module({package!r})
package.__path__ = []
sys.path += {path!r}
for name, code in marshal.loads(take(int.from_bytes(take(4), "big"))):
    one = sys.modules[{package!r} + "." + name] = module({package!r} + "." + name)
    one.__package__ = {package!r}
    setattr(package, name, one)
    if isinstance(code, tuple):
        code = marshal.loads(code[1]) if code[0] == magic else code[2]
    exec(compile(code, name + ".py", "exec") if isinstance(code, str) else code, one.__dict__)
sys.modules[{package!r} + "." + name].main()
"""


def boot_line(package: str, *, path: Sequence[str] = ()) -> str:
    """What ``python -c`` is given: it reads ``modules`` and calls ``main`` of the last one.

    Args:
        package: the name that the modules get as their package.
        path: folders inside that are added to sys.path.
    """
    return _BOOT.format(package=package, path=list(path))


Portable = tuple[bytes, bytes, str]
"""A module for any Python: whose byte code it is, the byte code, and the source for the others."""


def portable(name: str, source: str) -> Portable:
    """A module's source, compiled for a Python of this version."""
    return MAGIC_NUMBER, marshal.dumps(compile(source, f"{name}.py", "exec", dont_inherit=True)), source


def modules(sources: Sequence[tuple[str, CodeType | Portable]]) -> bytes:
    """What the boot line reads: (name, code) of each module."""
    return sized(marshal.dumps(list(sources), 4))


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
