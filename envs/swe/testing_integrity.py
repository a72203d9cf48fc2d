"""Whether what decides an outcome is still what it was: pytest, unittest, builtins, and a repository's test support.

Part of the program that runs in the sandbox (``testing_guest.py``): standard library only.
"""

import builtins
import contextlib
import functools
import inspect
import math
import operator
import sys
from types import BuiltinFunctionType, FunctionType

REPLACED = ("_getini_unknown_type", "isgenerator", "init_worker")
"""By pytest's own legacypath plugin; in ``inspect`` by any module that Cython compiled, numpy's and pandas' too; and by
Django's own script (4.1) what begins a process that runs tests beside others, of which there are none here."""

KINDS = (FunctionType, BuiltinFunctionType, type, property, staticmethod, classmethod)


def snapshot():
    """[(members, name, object, function, code)] of what decides an outcome: pytest, unittest, the builtins they use."""
    modules = [builtins, operator, math, inspect, functools, contextlib]
    prefixes = ("_pytest.", "pluggy.", "unittest.")
    modules += [m for name, m in list(sys.modules.items()) if f"{name}.".startswith(prefixes) or name == "pytest"]
    return of_modules(modules)


def of_modules(modules):
    """The same of modules, and of the classes that they define."""
    seen, found = set(), []
    for module in modules:
        # By their types: a lazy object answers for what it stands for, and makes it.
        own = [v for v in list(vars(module).values()) if issubclass(type(v), type)]
        own = [v for v in own if v.__module__ == module.__name__]
        for owner in (module, *own):
            if id(owner) in seen:
                continue
            seen.add(id(owner))
            for name, value in list(vars(owner).items()):
                if issubclass(type(value), KINDS) and name not in REPLACED:
                    function = function_in(value)
                    code = getattr(function, "__code__", None)
                    found.append((vars(owner), name, value, function if code else None, code))
    return found


def function_in(value):
    return getattr(value, "__func__", None) or getattr(value, "fget", None) or value


def changed(found, is_pristine=None):
    """The name of something in a snapshot that is no longer what it was, or None.

    Args:
        is_pristine: says of code that it is of a file that was read first; functions with such code may take the place
            of others (a repository's own script gives its test support what it needs).
    """
    for members, name, value, function, code in found:
        if members.get(name) is not value or (function is not None and function.__code__ is not code):
            now = getattr(function_in(members.get(name)), "__code__", None)
            if is_pristine is not None and now is not None and is_pristine(now):
                continue
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', name)}"
    return None


def matters_most(found):
    """The part of a snapshot that is small enough to be looked at after every test."""
    modules = (
        "unittest.case",
        "_pytest.runner",
        "_pytest.python_api",
        "_pytest.raises",
        "_pytest.reports",
        "_pytest.python",
    )
    names = vars(builtins)
    return [entry for entry in found if entry[0] is names or getattr(entry[2], "__module__", "") in modules]
