"""Outside of sandboxes: what makes a nursery (guest/nursery.py) of an interpreter that has a program of ours loaded.

It is the last module of that program, and its body ends in a process of a sandbox alone, from which all that is the
guest's is gone: the boot line then calls the program's ``main``, in the frames that a started process has.
``LOADED`` is put before its text: (module whose ``main`` is the program's, names of modules to import, descriptor of
the owner's socket, package of the guest). Standard library only.
"""

import importlib
import marshal
import os
import sys
from types import ModuleType
from typing import Any

LOADED: Any = globals().get("LOADED")


def take(fd, num_bytes):
    data = b""
    while len(data) < num_bytes:
        piece = os.read(fd, num_bytes - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def boot(name_of_package, control):
    """The guest's modules, as the boot line makes them; returns the last one."""
    package = sys.modules[name_of_package] = ModuleType(name_of_package)
    package.__path__ = []
    one = package
    for name, code in marshal.loads(take(control, int.from_bytes(take(control, 4), "big"))):
        one = sys.modules[f"{name_of_package}.{name}"] = ModuleType(f"{name_of_package}.{name}")
        one.__package__ = name_of_package
        setattr(package, name, one)
        exec(code, one.__dict__)
    return one


def forget(name):
    """Undo an import."""
    module = sys.modules.pop(name)
    parent, _, last = name.rpartition(".")
    holder = sys.modules.get(parent)
    if holder is not None and getattr(holder, last, None) is module:
        delattr(holder, last)


def serve(imports, control, guest):
    """Make sandboxes. Returns in the process of one of them that is to run the program."""
    path = list(sys.path)
    sys.path[:] = [entry for entry in path if not entry.startswith(sys.prefix + "/")]  # nothing of the environment
    for name in imports:
        importlib.import_module(name)
    before = frozenset(sys.modules)
    nursery: Any = boot(guest, control)
    try:
        nursery.main(control)
    except nursery.Reborn:
        pass
    for name in sorted(sys.modules.keys() - before, reverse=True):
        forget(name)
    sys.path[:] = path


if LOADED is not None:
    serve(*LOADED[1:])
    take(0, int.from_bytes(take(0, 4), "big"))  # the program, which a started process would load now
    main = sys.modules[LOADED[0]].main
