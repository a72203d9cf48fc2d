"""Inside the sandbox: the text of a value, without running any code of the program that is traced.

A ``__repr__`` may raise, take forever, print, or change what it shows; so none that is written in Python is called.
Values are taken apart by the slots of built-in types. Addresses are left out, sets are sorted, everything is bounded.
Standard library only, Python 3.8 and newer.
"""

import array
import collections
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import pathlib
import re
import sys
import types
import weakref

MARK = "..."
"""What was left out: of a container its further items; after a string its rest; of an object what only C can see."""

_mro_of = type.__dict__["__mro__"].__get__
_dict_of = type.__dict__["__dict__"].__get__
_qualname = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_module_names = vars(types.ModuleType)["__dict__"].__get__
_args = BaseException.__dict__["args"].__get__
_base_of, _size_of, _item_size_of, _dict_offset, _weak_offset = (
    type.__dict__[name].__get__
    for name in ("__base__", "__basicsize__", "__itemsize__", "__dictoffset__", "__weakrefoffset__")
)
_GETSET, _MEMBER, _METHOD = types.GetSetDescriptorType, types.MemberDescriptorType, types.MethodDescriptorType
_PATHS = (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)


def _mro(kind):
    return _mro_of(kind) or (kind,)  # Python 3.8 has types of its own that it never made ready


def _class_dict(kind):
    return _dict_of(kind) or {}


def _module(kind):
    """The name of a class's module, as far as one is known; a metaclass is not asked."""
    try:
        return _module_of(kind)
    except AttributeError:
        return None


class Values:
    """Texts of values, each within ``max_chars`` characters or so. ``cut`` tells whether one was too long, ``hidden``
    whether one has a state that cannot be seen from here, ``whole`` whether neither is so of the last one: only then do
    equal texts mean that it has not changed. Functions, classes and modules are written by their names."""

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
        if value is not None and any(base is BaseException for base in _mro(type(value))):
            return self.text(value)
        return "{}({})".format(_qualname(kind), "" if value is None else self.text(value))

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
                found = f"<{_qualname(kind)} {MARK}>"
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
            return f"<{_qualname(kind)} {MARK}>"
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
        yield type, lambda value: f"<class {_qualname(value)!r}>"
        yield re.Pattern, self._pattern
        yield object, lambda value: "<object>"

    def _function(self, value):
        own = [(name, one) for name, one in value.__dict__.items() if _is_told(name)]
        return self._named(f"<function {value.__qualname__}" + (" " if own else ""), own, ">")

    def _suspended(self, value):
        """Where a generator stands is no part of what can be seen."""
        self._hide()
        return f"<{_qualname(type(value))} {value.__qualname__} {MARK}>"

    def _pattern(self, value):
        plain = re.compile(value.pattern[:0]).flags
        flags = value.flags & ~plain
        return f"re.compile({self._string(value.pattern)}{f', {flags}' if flags else ''})"

    def _module_name(self, value):
        name = _module_names(value).get("__name__")
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
            name = function.__qualname__ if type(function) is types.FunctionType else _qualname(type(function))
            return f"<bound method {name} of {self._show(value.__self__)}>"
        if kind is datetime.datetime or kind is datetime.time:
            if value.tzinfo is None or type(value.tzinfo) is datetime.timezone:
                return repr(value)
            self._hide()
            return f"<{kind.__name__} {value.replace(tzinfo=None).isoformat()} {MARK}>"
        if kind is _KEYS or kind is _VALUES or kind is _ITEMS:
            return _qualname(kind) + "(" + self._items("[", iter(value), len(value), "]") + ")"
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
        for key, one in itertools.islice(_pairs_of(value), self.max_items):
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
        base = set if set in _mro(kind) else frozenset
        size = base.__len__(value)
        name = _qualname(kind)
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
            known = self._classes[id(kind)] = (weakref.ref(kind), _Class(kind))
        made = known[1]
        name = made.name
        if made.is_class:
            return f"<class {_qualname(value)!r}>"
        own = made.attributes(value)
        if made.has_finalizer:
            self.finalizer = True
        if made.is_enum and type(own.get("_name_")) is str:
            more = [(key, one) for key, one in own.items() if key not in _OF_ENUMS]
            start = "<{}.{}: {}".format(name, own["_name_"], self._show(own.get("_value_")))
            return self._named(start + (", " if more else ""), more, ">")
        if made.is_exception:
            arguments = _args(value) or ()
            if made.is_opaque:
                self._hide()
                return f"<{name} {MARK}>"
            return self._also(self._items(name + "(", iter(arguments), len(arguments), ")"), own)
        if made.fields is not None:
            return self._also(self._named(name + "(", zip(made.fields, tuple.__iter__(value)), ")"), own)
        if made.base is not None:
            shown = name + "(" + self._plain(value, made) + ")"
            if made.is_opaque:
                self._hide()
                shown = shown[:-1] + ", " + MARK + ")"
            return self._also(shown, own)
        array_type = _numpy_array()
        if array_type is not None and any(base is array_type for base in _mro(kind)):
            return self._also(self._array(value, name, array_type), own)
        if _is_numpy_scalar(kind):
            return self._scalar(value, name)
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

    def _array(self, value, name, array_type):
        """An array of numpy, by what its own class says of it: a derived one may say something else, or raise."""
        shape, size, kind = (array_type.__dict__[key].__get__(value) for key in ("shape", "size", "dtype"))
        start = "array(" if name == "ndarray" else name + "("
        if size > self.max_items:
            self._cut()
            return f"{start}{MARK}, shape={tuple(shape)!r}, dtype={kind})"
        plain = array_type.__dict__["tolist"].__get__(value)()
        told = "" if (size and str(kind) in ("int64", "bool")) or str(kind) == "float64" else f", dtype={kind}"
        empty = f", shape={tuple(shape)!r}" if not size and tuple(shape) != (0,) else ""
        return start + self._show(plain) + empty + told + ")"

    def _scalar(self, value, name):
        plain = value.item()
        if type(plain) in (bool, int, float, complex, str, bytes):
            return name + "(" + repr(plain) + ")"
        self._hide()
        return f"<{name} {MARK}>"


def _numpy_array():
    """numpy's own class of arrays, where the program has imported it; a class that only says so is not asked."""
    found = _numpy_names().get("ndarray")
    return found if type(found) is type and type(_class_dict(found).get("tolist")) is _METHOD else None


def _is_numpy_scalar(kind):
    """Whether a class is one of numpy's own: derived ones run code of the program."""
    names = _numpy_names()
    base = names.get("generic")
    if base is None or not any(one is base for one in _mro(kind)) or names.get(_qualname(kind)) is not kind:
        return False
    return type(_class_dict(base).get("item")) is _METHOD


def _numpy_names():
    module = sys.modules.get("numpy")
    return _module_names(module) if type(module) is types.ModuleType else {}


def _hides_state(kind):
    """Whether instances hold more than what ``_Class`` takes apart: some base lays out memory that no slot, dictionary
    or known type accounts for."""
    while kind is not None and not any(kind is one for one in _KNOWN):
        base = _base_of(kind)
        if base is None:
            return True
        size = _size_of(kind) - _size_of(base)
        size -= 8 * sum(type(one) is _MEMBER and key != "__dict__" for key, one in _class_dict(kind).items())
        offset = _dict_offset(kind)
        size -= 8 * (not _dict_offset(base) and (offset > 0 or (offset < 0 and _item_size_of(kind) > 0)))
        size -= 8 * (_weak_offset(kind) > 0 and not _weak_offset(base))
        if size > 0 and not (_is_exception(kind) and _module(kind) == "builtins"):
            return True
        kind = base
    return False


def _is_exception(kind):
    return any(base is BaseException for base in _mro(kind))


class _Class:
    """What is known of a class once it was looked at, which is dear: how its instances are taken apart."""

    def __init__(self, kind):
        bases = _mro(kind)
        dicts = [_class_dict(base) for base in bases]
        self.name, self.module = _qualname(kind), _module(kind)
        self.is_class = any(base is type for base in bases)
        self.is_enum = any(base is enum.Enum for base in bases)
        self.is_exception = _is_exception(kind)
        self.is_opaque = _hides_state(kind)
        self.is_dataclass = any("__dataclass_fields__" in one for one in dicts)
        self.has_finalizer = any(type(one.get("__del__")) is types.FunctionType for one in dicts)
        fields = next((one["_fields"] for one in dicts if "_fields" in one), None)
        self.fields = fields if type(fields) is tuple and any(base is tuple for base in bases) else None
        found = ((base, plain) for base, plain in _BARE if any(one is base for one in bases))
        self.base, self.plain = next(found, (None, None))
        self._slots = [
            (key, found)
            for base in reversed(bases)
            if _module(base) != "builtins"
            for key, found in list(_class_dict(base).items())
            if type(found) is _MEMBER and _is_told(key)
        ]
        held = (one["__dict__"] for one in dicts if _is_descriptor(one.get("__dict__")))
        self._dict = next(held, None)

    def attributes(self, value):
        """What an instance holds, by the descriptors of its slots and its dictionary; properties are not asked."""
        own = {}
        for key, found in self._slots:
            try:
                own[key] = found.__get__(value)
            except AttributeError:
                pass  # a slot without a value
        held = None if self._dict is None else self._dict.__get__(value)
        if type(held) is dict:
            own.update((key, one) for key, one in dict.items(held) if _is_told(key))
        return own


def _pairs_of(value):
    """Items of a dictionary. Those of an ordered one stand in an order of its own, which ``dict.items`` does not know;
    looking keys up would hash them."""
    if not any(base is collections.OrderedDict for base in _mro(type(value))):
        return dict.items(value)
    places = {id(key): place for place, key in enumerate(collections.OrderedDict.__iter__(value))}
    return sorted(dict.items(value), key=lambda pair: places[id(pair[0])])


def _is_descriptor(found):
    """Whether it is one that C defines."""
    return type(found) is _GETSET or type(found) is _MEMBER


def _is_told(name):
    """Not the interpreter's own: C's __vectorcalloffset__ holds an address, a copied __doc__ is no state."""
    return type(name) is str and (not name.startswith("__") or name == "__notes__")


_KEYS, _VALUES, _ITEMS = type({}.keys()), type({}.values()), type({}.items())
_BARE = (
    (int, int.__pos__),
    (float, float.__pos__),
    (str, lambda value: str.__getitem__(value, slice(None))),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (list, lambda value: list(itertools.islice(list.__iter__(value), 1000))),
    (tuple, lambda value: tuple(itertools.islice(tuple.__iter__(value), 1000))),
    (dict, None),
    (set, None),
    (frozenset, None),
    (complex, complex.__pos__),
    (bytearray, lambda value: bytes(bytearray.__getitem__(value, slice(0, 1000)))),
    (array.array, lambda value: array.array(_type_code(value), itertools.islice(array.array.__iter__(value), 1000))),
    (collections.deque, lambda value: list(itertools.islice(collections.deque.__iter__(value), 1000))),
)
_type_code = array.array.__dict__["typecode"].__get__
_KNOWN = (object, *(base for base, _ in _BARE), BaseException, collections.OrderedDict, collections.defaultdict)
_KNOWN += (functools.partial,)
_OF_ENUMS = ("_name_", "_value_", "_sort_order_", "_inverted_", "_boundary_", "__objclass__")
