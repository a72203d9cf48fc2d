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
import itertools
import re
import types
import weakref

MARK = "..."
"""What was left out: of a container its further items; after a string its rest."""

_mro_of = type.__dict__["__mro__"].__get__
_dict_of = type.__dict__["__dict__"].__get__
_qualname = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_module_names = vars(types.ModuleType)["__dict__"].__get__
_args = BaseException.__dict__["args"].__get__
_GETSET, _MEMBER = types.GetSetDescriptorType, types.MemberDescriptorType


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
    """Texts of values, each within ``max_chars`` characters or so. ``cut`` tells whether one was not whole."""

    def __init__(self, max_chars=400, max_items=40, max_depth=6):
        self.max_chars, self.max_items, self.max_depth = max_chars, max_items, max_depth
        self.cut = False
        self.finalizer = False
        self._room = 0
        self._open = []
        self._by_type = {id(kind): show for kind, show in self._table()}
        self._classes = {}

    def text(self, value):
        self._room = self.max_chars
        self._open = []
        return self._show(value)

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
            found = show(value)
            self._room -= len(found)
            return found
        for place in self._open:
            if place is value:
                return MARK
        if self._room <= 0 or len(self._open) >= self.max_depth:
            self.cut = True
            return MARK
        self._open.append(value)
        try:
            found = self._built_in(value, kind)
            if found is None:
                found = self._derived(value, kind)
            return found
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
        yield types.FunctionType, lambda value: f"<function {value.__qualname__}>"
        yield types.BuiltinFunctionType, lambda value: f"<built-in function {value.__name__}>"
        yield types.ModuleType, lambda value: f"<module {self._module_name(value)}>"
        for kind in (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType):
            yield kind, lambda value: f"<{_qualname(type(value))} {value.__qualname__}>"
        yield type, lambda value: f"<class {_qualname(value)!r}>"
        yield re.Pattern, lambda value: f"re.compile({self._string(value.pattern)})"

    def _module_name(self, value):
        name = _module_names(value).get("__name__")
        return repr(name) if type(name) is str else "?"

    def _int(self, value):
        if value.bit_length() > 3 * self.max_chars:
            self.cut = True
            return f"<int of {value.bit_length()} bits>"
        return int.__repr__(value)

    def _string(self, value):
        most = max(8, self._room)
        if len(value) <= most:
            return repr(value)
        self.cut = True
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
        if kind is collections.OrderedDict or kind is collections.Counter:
            return self._pairs(kind.__name__ + "({", value, "})")
        if kind is collections.defaultdict:
            return self._pairs("defaultdict(" + self._show(value.default_factory) + ", {", value, "})")
        if kind is array.array:
            return "array({!r}, {})".format(value.typecode, self._items("[", iter(value), len(value), "]"))
        if kind is types.MethodType:
            function = value.__func__
            name = function.__qualname__ if type(function) is types.FunctionType else _qualname(type(function))
            return f"<bound method {name}>"
        if kind is datetime.datetime or kind is datetime.time:
            if value.tzinfo is None or type(value.tzinfo) is datetime.timezone:
                return repr(value)
            return f"<{kind.__name__} {value.replace(tzinfo=None).isoformat()}>"
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
            self.cut = True
            shown.append(MARK)
            end = end.lstrip(",")
        return start + ", ".join(shown) + end

    def _pairs(self, start, value, end):
        shown = []
        for key, one in itertools.islice(dict.items(value), self.max_items):
            if self._room <= 0:
                break
            shown.append(self._show(key) + ": " + self._show(one))
            self._room -= 4
        if len(shown) < dict.__len__(value):
            self.cut = True
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
            self.cut = True
            return f"<{name} of {size}>"
        items = list(base.__iter__(value))
        if all(type(item) is int for item in items):
            items.sort()
            shown = self._items("{", iter(items), size, "}")
        else:
            texts = self._in_any_order(items)
            left_out = size > self.max_items
            self.cut = self.cut or left_out
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
            return "<{}.{}: {}>".format(name, own["_name_"], self._show(own.get("_value_")))
        if made.is_exception:
            arguments = _args(value) or ()
            return self._items(name + "(", iter(arguments), len(arguments), ")")
        if made.fields is not None:
            return self._named(name + "(", zip(made.fields, tuple.__iter__(value)), ")")
        if made.plain is not None:
            return name + "(" + self._show(made.plain(value)) + ")"
        if type(made.module) is str and made.module == "numpy":
            return self._numpy(value, kind, name)
        if type(made.module) is str and made.module.startswith("pathlib"):
            return f"{name}({str(value)!r})"
        if made.is_dataclass:
            return self._named(name + "(", own.items(), ")")
        return self._named("<" + name + (" " if own else ""), own.items(), ">")

    def _named(self, start, pairs, end):
        shown = []
        for key, one in pairs:
            if self._room <= 0 or len(shown) >= self.max_items:
                self.cut = True
                shown.append(MARK)
                break
            shown.append((key if type(key) is str else "?") + "=" + self._show(one))
        return start + ", ".join(shown) + end

    def _numpy(self, value, kind, name):
        if name == "ndarray":
            if value.size > self.max_items:
                self.cut = True
                return f"<ndarray shape={value.shape!r} dtype={value.dtype}>"
            return "array(" + self._show(value.tolist()) + ")"
        plain = value.item() if hasattr(kind, "item") and hasattr(kind, "dtype") else None
        return name + "(" + repr(plain) + ")" if type(plain) in (bool, int, float, complex, str) else "<" + name + ">"


class _Class:
    """What is known of a class once it was looked at, which is dear: how its instances are taken apart."""

    def __init__(self, kind):
        bases = _mro(kind)
        dicts = [_class_dict(base) for base in bases]
        self.name, self.module = _qualname(kind), _module(kind)
        self.is_class = any(base is type for base in bases)
        self.is_enum = any(base is enum.Enum for base in bases)
        self.is_exception = any(base is BaseException for base in bases)
        self.is_dataclass = any("__dataclass_fields__" in one for one in dicts)
        self.has_finalizer = any(type(one.get("__del__")) is types.FunctionType for one in dicts)
        fields = next((one["_fields"] for one in dicts if "_fields" in one), None)
        self.fields = fields if type(fields) is tuple and any(base is tuple for base in bases) else None
        self.plain = next((plain for base, plain in _BARE if any(one is base for one in bases)), None)
        self._slots = [
            (key, found)
            for base in reversed(bases)
            if _module(base) != "builtins"
            for key, found in list(_class_dict(base).items())
            if type(found) is _MEMBER and _is_told(key)
        ]
        held = (one["__dict__"] for one in dicts if type(one.get("__dict__")) is _GETSET)
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


def _is_told(name):
    """Not the interpreter's own: C's __vectorcalloffset__ holds an address, a copied __doc__ is no state."""
    return type(name) is str and not name.startswith("__")


_KEYS, _VALUES, _ITEMS = type({}.keys()), type({}.values()), type({}.items())
_BARE = (
    (int, int.__pos__),
    (float, float.__pos__),
    (str, lambda value: str.__getitem__(value, slice(None))),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (list, lambda value: list(itertools.islice(list.__iter__(value), 1000))),
    (tuple, lambda value: tuple(itertools.islice(tuple.__iter__(value), 1000))),
    (dict, lambda value: dict(itertools.islice(dict.items(value), 1000))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
)
