"""Inside the sandbox: the text of a value, without running any code of the program that is traced.

A ``__repr__`` may raise, take forever, print, or change what it shows; so none that is written in Python is called.
Values are taken apart by the slots of built-in types. Addresses are left out, sets are sorted, everything is bounded.
Standard library only, Python 3.8 and newer.
"""

import array
import collections
import datetime
import decimal
import fractions
import itertools
import pathlib
import re
import types
import weakref

from . import guest_numpy
from .guest_classes import Class, arguments_of, is_told, module_names, mro, pairs_of, qualname, says_all

MARK = "..."
"""What was left out: of a container its further items; after a string its rest; of an object what only C can see."""

_PATHS = (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)


class Values:
    """Texts of values, each within ``max_chars`` characters or so. ``cut`` tells whether one was too long, ``hidden``
    whether one has a state that cannot be seen from here, ``whole`` whether neither is so of the last one, and an
    exception is all that its text says: only then do equal texts mean that it has not changed. Functions, classes and
    modules are written by their names."""

    def __init__(self, max_chars=400, max_items=40, max_depth=6):
        self.max_chars, self.max_items, self.max_depth = max_chars, max_items, max_depth
        self.cut = self.hidden = False
        self.whole = True
        self.finalizer = False
        self._room = 0
        self._open = []
        self._by_type = {id(kind): show for kind, show in self._table()}
        self._classes = {}

    def text(self, value):
        self._room = self.max_chars
        self._open = []
        self.whole = True
        return self._show(value)

    def _cut(self):
        self.cut, self.whole = True, False

    def _hide(self):
        self.hidden, self.whole = True, False

    def raised(self, pair):
        """The text of an exception as (class, instance); old Pythons give what the instance would be made of."""
        kind, value = pair
        if value is not None and any(base is BaseException for base in mro(type(value))):
            return self.text(value)
        return "{}({})".format(qualname(kind), "" if value is None else self.text(value))

    def _show(self, value):
        kind = type(value)
        # By identity: a metaclass can write __hash__ and __eq__ for its classes.
        show = self._by_type.get(id(kind))
        if show is not None:
            try:
                found = show(value)
            except (AttributeError, TypeError, ValueError):
                # One that is being made, such as a Fraction without its numbers.
                self._hide()
                found = f"<{qualname(kind)} {MARK}>"
            self._room -= len(found)
            return found
        for place in self._open:
            if place is value:
                return MARK
        if self._room <= 0 or len(self._open) >= self.max_depth:
            self._cut()
            return MARK
        self._open.append(value)
        try:
            found = self._built_in(value, kind)
            if found is None:
                found = self._derived(value, kind)
            return found
        except (RecursionError, MemoryError):
            raise  # the program's own limits
        except Exception:
            # Code of a library that was asked, and could not say: one value is lost, not the trace.
            self._hide()
            return f"<{qualname(kind)} {MARK}>"
        finally:
            self._open.pop()

    def _table(self):
        for kind in (type(None), bool, float, complex, type(Ellipsis), type(NotImplemented), decimal.Decimal):
            yield kind, repr
        for kind in (datetime.date, datetime.timedelta, datetime.timezone):
            yield kind, repr
        yield int, self._int
        yield str, self._string
        yield bytes, self._string
        yield bytearray, lambda value: "bytearray(" + self._string(bytes(value[: self.max_chars + 1])) + ")"
        yield (
            fractions.Fraction,
            lambda value: f"Fraction({self._int(value._numerator)}, {self._int(value._denominator)})",
        )
        yield types.FunctionType, self._function
        yield types.BuiltinFunctionType, lambda value: f"<built-in function {value.__name__}>"
        yield types.ModuleType, lambda value: f"<module {self._module_name(value)}>"
        for kind in (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType):
            yield kind, self._suspended
        yield type, lambda value: f"<class {qualname(value)!r}>"
        yield re.Pattern, self._pattern
        yield object, lambda value: "<object>"

    def _function(self, value):
        own = [(name, one) for name, one in value.__dict__.items() if is_told(name)]
        return self._named(f"<function {value.__qualname__}" + (" " if own else ""), own, ">")

    def _suspended(self, value):
        """Where a generator stands is no part of what can be seen."""
        self._hide()
        return f"<{qualname(type(value))} {value.__qualname__} {MARK}>"

    def _pattern(self, value):
        plain = re.compile(value.pattern[:0]).flags
        flags = value.flags & ~plain
        return f"re.compile({self._string(value.pattern)}{f', {flags}' if flags else ''})"

    def _module_name(self, value):
        name = module_names(value).get("__name__")
        return repr(name) if type(name) is str else "?"

    def _int(self, value):
        if value.bit_length() > 3 * self.max_chars:
            self._cut()
            return f"<int of {value.bit_length()} bits {MARK}>"
        return int.__repr__(value)

    def _string(self, value):
        most = max(8, self._room)
        if len(value) <= most:
            return repr(value)
        self._cut()
        return repr(value[:most]) + MARK

    def _built_in(self, value, kind):
        """The text of an exact built-in container; None for anything else."""
        if kind is list:
            return self._items("[", list.__iter__(value), list.__len__(value), "]")
        if kind is tuple:
            size = tuple.__len__(value)
            return self._items("(", tuple.__iter__(value), size, ",)" if size == 1 else ")")
        if kind is dict:
            return self._pairs("{", value, "}")
        if kind is set or kind is frozenset:
            return self._set(value, kind)
        if kind is range or kind is slice:
            return self._items(kind.__name__ + "(", iter((value.start, value.stop, value.step)), 3, ")")
        if kind is collections.deque:
            end = ")" if value.maxlen is None else f", maxlen={value.maxlen})"
            return "deque(" + self._items("[", iter(value), len(value), "]") + end
        if (kind is collections.OrderedDict or kind is collections.Counter) and not value.__dict__:
            return self._pairs(kind.__name__ + "({", value, "})")
        if kind is collections.defaultdict:
            return self._pairs("defaultdict(" + self._show(value.default_factory) + ", {", value, "})")
        if kind is array.array:
            return "array({!r}, {})".format(value.typecode, self._items("[", iter(value), len(value), "]"))
        if kind is types.MethodType:
            function = value.__func__
            name = function.__qualname__ if type(function) is types.FunctionType else qualname(type(function))
            return f"<bound method {name} of {self._show(value.__self__)}>"
        if kind is datetime.datetime or kind is datetime.time:
            if value.tzinfo is None or type(value.tzinfo) is datetime.timezone:
                return repr(value)
            self._hide()
            return f"<{kind.__name__} {value.replace(tzinfo=None).isoformat()} {MARK}>"
        if kind is _KEYS or kind is _VALUES or kind is _ITEMS:
            return qualname(kind) + "(" + self._items("[", iter(value), len(value), "]") + ")"
        return None

    def _items(self, start, items, size, end):
        shown = []
        for item in itertools.islice(items, self.max_items):
            if self._room <= 0:
                break
            shown.append(self._show(item))
            self._room -= 2
        if len(shown) < size:
            self._cut()
            shown.append(MARK)
            end = end.lstrip(",")
        return start + ", ".join(shown) + end

    def _pairs(self, start, value, end):
        shown = []
        for key, one in itertools.islice(pairs_of(value), self.max_items):
            if self._room <= 0:
                break
            shown.append(self._show(key) + ": " + self._show(one))
            self._room -= 4
        if len(shown) < dict.__len__(value):
            self._cut()
            shown.append(MARK)
        return start + ", ".join(shown) + end

    def _set(self, value, kind):
        """Sorted, numbers by size: the order of a set is that of hashes."""
        base = set if set in mro(kind) else frozenset
        size = base.__len__(value)
        name = qualname(kind)
        if not size:
            return name + "()"
        if size > 10 * self.max_items:  # which ones would be shown is a matter of hashes
            self._cut()
            return f"<{name} of {size} {MARK}>"
        items = list(base.__iter__(value))
        if all(type(item) is int for item in items):
            items.sort()
            shown = self._items("{", iter(items), size, "}")
        else:
            texts = self._in_any_order(items)
            left_out = size > self.max_items
            if left_out:
                self._cut()
            shown = "{" + ", ".join(texts[: self.max_items] + [MARK] * left_out) + "}"
        return shown if kind is set else name + "(" + shown + ")"

    def _in_any_order(self, items):
        """Sorted texts that do not depend on which item comes first: where not all have room, each gets as much."""
        cut, room, self.cut = self.cut, self._room, False
        texts = [self._show(item) for item in items]
        if self.cut:
            texts = []
            for item in items:
                self._room = room // len(items)
                texts.append(self._show(item))
            self._room = room - sum(map(len, texts))
        self.cut = self.cut or cut
        return sorted(texts)

    def _derived(self, value, kind):
        """The text of an instance of a class that is no exact built-in."""
        known = self._classes.get(id(kind))
        if known is None or known[0]() is not kind:
            known = self._classes[id(kind)] = (weakref.ref(kind), Class(kind))
        made = known[1]
        name = made.name
        if made.is_class:
            return f"<class {qualname(value)!r}>"
        own = made.attributes(value)
        if made.has_finalizer:
            self.finalizer = True
        if made.is_enum and type(own.get("_name_")) is str:
            more = [(key, one) for key, one in own.items() if key not in _OF_ENUMS]
            start = "<{}.{}: {}".format(name, own["_name_"], self._show(own.get("_value_")))
            return self._named(start + (", " if more else ""), more, ">")
        if made.is_exception:
            arguments = arguments_of(value) or ()
            if made.is_opaque:
                self._hide()
                return f"<{name} {MARK}>"
            shown = self._also(self._items(name + "(", iter(arguments), len(arguments), ")"), own)
            self.whole = self.whole and says_all(value)
            return shown
        if made.fields is not None:
            return self._also(self._named(name + "(", zip(made.fields, tuple.__iter__(value)), ")"), own)
        if made.base is not None:
            shown = name + "(" + self._plain(value, made) + ")"
            if made.is_opaque:
                self._hide()
                shown = shown[:-1] + ", " + MARK + ")"
            return self._also(shown, own)
        array_type = guest_numpy.array_class()
        if array_type is not None and any(base is array_type for base in mro(kind)):
            start, plain, end = guest_numpy.array_parts(value, name, array_type, self.max_items)
            if plain is None:
                self._cut()
            return self._also(start + (MARK if plain is None else self._show(plain)) + end, own)
        if guest_numpy.is_scalar(kind):
            shown = guest_numpy.scalar_text(value, name)
            if shown is None:
                self._hide()
            return shown or f"<{name} {MARK}>"
        if any(kind is one for one in _PATHS):
            return f"{name}({str(value)!r})"
        if made.is_dataclass and not made.is_opaque:
            return self._named(name + "(", own.items(), ")")
        if made.is_opaque:
            self._hide()
            return self._named("<" + name + " ", own.items(), (", " if own else "") + MARK + ">")
        return self._named("<" + name + (" " if own else ""), own.items(), ">")

    def _plain(self, value, made):
        """An instance of a class derived from a built-in one, as that; nothing is hashed, for a key can write how."""
        if made.base is dict:
            return self._pairs("{", value, "}")
        if made.base is set or made.base is frozenset:
            return self._set(value, made.base)
        return self._show(made.plain(value))

    def _also(self, shown, own):
        """Attributes beside what a value is, before its closing bracket."""
        if not own:
            return shown
        start = shown[:-1] + ("" if shown[-2] == "(" else ", ")
        return self._named(start, own.items(), shown[-1])

    def _named(self, start, pairs, end):
        shown = []
        for key, one in pairs:
            if self._room <= 0 or len(shown) >= self.max_items:
                self._cut()
                shown.append(MARK)
                break
            shown.append((key if type(key) is str else "?") + "=" + self._show(one))
        return start + ", ".join(shown) + end


_KEYS, _VALUES, _ITEMS = type({}.keys()), type({}.values()), type({}.items())
_OF_ENUMS = ("_name_", "_value_", "_sort_order_", "_inverted_", "_boundary_", "__objclass__")
