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
import pathlib
import re
import types
import weakref

from . import guest_numpy
from .guest_classes import Class, arguments_of, module_names, mro, own_of, qualname, says_all
from .guest_room import MARK, Bounded

_PATHS = (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)


class Values(Bounded):
    """Texts of values. What an exception keeps beside its arguments is not written: ``whole`` is False then, too.
    Functions, classes and modules are written by their names: they are references."""

    def __init__(self, max_chars=400, max_items=40, max_depth=6):
        super().__init__(max_chars, max_items, max_depth)
        self.finalizer = False
        self._open = []
        self._by_type = {id(kind): show for kind, show in self._table()}
        self._classes = {}

    def text(self, value):
        self._room = self.max_chars
        self._open = []
        self.whole = True
        found = self._show(value)
        most = 2 * self.max_chars + 200
        if len(found) > most:  # names, paths and numbers of C's are as long as the program likes
            self._cut()
            found = found[:most] + MARK
        return found

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
        if any(place is value for place in self._open):
            self._hide()  # which of those around it is not said
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
        yield types.ModuleType, lambda value: f"<module {self._module_name(value)}>"
        for kind in _OF_CLASSES:
            yield kind, repr
        for kind in (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType):
            yield kind, self._suspended
        yield type, lambda value: f"<class {qualname(value)!r}>"
        yield re.Pattern, self._pattern
        yield object, lambda value: "<object>"

    def _function(self, value):
        own = own_of(value.__dict__)
        return self._named(f"<function {value.__qualname__}" + (" " if own else ""), own.items(), ">")

    def _built_in_function(self, value):
        """A module's by its name; one of an object is a method, whatever it is called by."""
        of = value.__self__
        if of is None or type(of) is types.ModuleType:
            return f"<built-in function {value.__name__}>"
        return f"<built-in method {value.__name__} of {self._show(of)}>"

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
        if kind is types.FunctionType:
            return self._function(value)
        if kind is types.BuiltinFunctionType:
            return self._built_in_function(value)
        if kind is types.MethodType:
            function = value.__func__
            is_plain = type(function) is types.FunctionType
            name = function.__qualname__ if is_plain else self._show(function)
            return f"<bound method {name} of {self._show(value.__self__)}>"
        if kind is datetime.datetime or kind is datetime.time:
            if value.tzinfo is None or type(value.tzinfo) is datetime.timezone:
                return repr(value)
            self._hide()
            return f"<{kind.__name__} {value.replace(tzinfo=None).isoformat()} {MARK}>"
        if kind is _KEYS or kind is _VALUES or kind is _ITEMS:
            return qualname(kind) + "(" + self._items("[", iter(value), len(value), "]") + ")"
        return None

    def _derived(self, value, kind):
        """The text of an instance of a class that is no exact built-in: what it is, and its attributes."""
        known = self._classes.get(id(kind))
        if known is None or known[0]() is not kind:
            known = self._classes[id(kind)] = (weakref.ref(kind), Class(kind))
        made = known[1]
        if made.is_class:
            return f"<class {qualname(value)!r}>"
        self.finalizer = self.finalizer or made.has_finalizer
        if any(kind is one for one in _PATHS):
            return f"{made.name}({str(value)!r})"
        if guest_numpy.is_scalar(kind):
            return self._number(value, made.name)
        shown = self._numpy_array(value, kind, made.name)
        own, is_all = made.attributes(value)
        hides = not is_all or (made.is_opaque and shown is None)
        if hides:
            self._hide()
        if shown is None:
            shown = self._plain(value, made, own)
        if shown is None and made.is_dataclass and not hides:
            shown = made.name + "()"
        if shown is not None:
            return self._also(shown, own, hides)
        start = "<" + made.name + (" " if own or hides else "")
        return self._named(start, own.items(), (", " if own and hides else "") + MARK * hides + ">")

    def _number(self, value, name):
        shown = guest_numpy.scalar_text(value, name)
        if shown is None:
            self._hide()
        return shown or f"<{name} {MARK}>"

    def _numpy_array(self, value, kind, name):
        array_type = guest_numpy.array_class()
        if array_type is None or not any(base is array_type for base in mro(kind)):
            return None
        start, plain, end = guest_numpy.array_parts(value, name, array_type, self.max_items)
        if plain is None:
            self._cut()
        return start + (MARK if plain is None else self._show(plain)) + end

    def _plain(self, value, made, own):
        """What an instance is beside its attributes, by the built-in class that its own is derived from; None where it
        is nothing more. Nothing is hashed, for a key can write how."""
        name = made.name
        if made.is_enum and type(own.get("_name_")) is str:
            shown = "<{}.{}: {}>".format(name, own["_name_"], self._show(own.get("_value_")))
            for key in _OF_ENUMS:
                own.pop(key, None)
            return shown
        if made.is_exception:
            arguments = arguments_of(value) or ()
            shown = self._items(name + "(", iter(arguments), len(arguments), ")")
            self.whole = self.whole and says_all(value)
            return shown
        if made.fields is not None:
            return self._named(name + "(", zip(made.fields, tuple.__iter__(value)), ")")
        if made.base is dict:
            return name + "(" + self._pairs("{", value, "}") + ")"
        if made.base is set or made.base is frozenset:
            return name + "(" + self._set(value, made.base) + ")"
        return None if made.base is None else name + "(" + self._show(made.plain(value)) + ")"


_KEYS, _VALUES, _ITEMS = type({}.keys()), type({}.values()), type({}.items())
_OF_ENUMS = ("_name_", "_value_", "_sort_order_", "_inverted_", "_boundary_", "__objclass__")
_OF_CLASSES = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)
_OF_CLASSES += (types.GetSetDescriptorType, types.MemberDescriptorType)
"""What C defines in classes: written by name, in the interpreter's own words."""
