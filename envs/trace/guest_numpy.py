"""Inside the sandbox: the text of numpy's arrays and scalars, by what numpy's own classes say; nothing is imported.

Standard library only, Python 3.8 and newer.
"""

import sys
import types

from .guest_classes import METHOD, class_dict, module_names, mro, qualname


def array_class():
    """numpy's own class of arrays, where the program has imported it; a class that only says so is not asked."""
    found = _names().get("ndarray")
    return found if type(found) is type and type(class_dict(found).get("tolist")) is METHOD else None


def is_scalar(kind):
    """Whether a class is one of numpy's own: derived ones run code of the program."""
    names = _names()
    base = names.get("generic")
    if base is None or not any(one is base for one in mro(kind)) or names.get(qualname(kind)) is not kind:
        return False
    return type(class_dict(base).get("item")) is METHOD


def array_parts(value, name, array_class, max_items):
    """(before the values, these as a list, after them) of an array, by what its own class says of it: a derived one may
    say something else, or raise. None in place of a list of more than ``max_items``."""
    shape, size, kind = (array_class.__dict__[key].__get__(value) for key in ("shape", "size", "dtype"))
    start = "array(" if name == "ndarray" else name + "("
    if size > max_items:
        return start, None, f", shape={tuple(shape)!r}, dtype={kind})"
    plain = array_class.__dict__["tolist"].__get__(value)()
    told = "" if (size and str(kind) in ("int64", "bool")) or str(kind) == "float64" else f", dtype={kind}"
    empty = f", shape={tuple(shape)!r}" if not size and tuple(shape) != (0,) else ""
    return start, plain, empty + told + ")"


def scalar_text(value, name):
    """The text of a scalar; None where its value is nothing plain."""
    plain = value.item()
    return name + "(" + repr(plain) + ")" if type(plain) in (bool, int, float, complex, str, bytes) else None


def _names():
    module = sys.modules.get("numpy")
    return module_names(module) if type(module) is types.ModuleType else {}
