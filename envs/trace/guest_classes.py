"""Inside the sandbox: what the instances of a class hold, found without asking the class: a metaclass, a property or a
method could run code of the program that is traced.

Standard library only, Python 3.8 and newer.
"""

import array
import collections
import enum
import functools
import itertools
import types

_mro_of = type.__dict__["__mro__"].__get__
_dict_of = type.__dict__["__dict__"].__get__
qualname = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
module_names = vars(types.ModuleType)["__dict__"].__get__
arguments_of = BaseException.__dict__["args"].__get__
_base_of, _size_of, _item_size_of, _dict_offset, _weak_offset = (
    type.__dict__[name].__get__
    for name in ("__base__", "__basicsize__", "__itemsize__", "__dictoffset__", "__weakrefoffset__")
)
_GETSET, _MEMBER, METHOD = types.GetSetDescriptorType, types.MemberDescriptorType, types.MethodDescriptorType
_owner_of, _name_of = (_MEMBER.__dict__[name].__get__ for name in ("__objclass__", "__name__"))


def mro(kind):
    return _mro_of(kind) or (kind,)  # Python 3.8 has types of its own that it never made ready


def class_dict(kind):
    return _dict_of(kind) or {}


def _module(kind):
    """The name of a class's module, as far as one is known; a metaclass is not asked."""
    try:
        return _module_of(kind)
    except AttributeError:
        return None


def _hides_state(kind):
    """Whether instances hold more than what ``Class`` takes apart: some base lays out memory that no slot, dictionary
    or known type accounts for."""
    while kind is not None and not any(kind is one for one in _KNOWN):
        base = _base_of(kind)
        if base is None:
            return True
        size = _size_of(kind) - _size_of(base)
        size -= 8 * len(_slots_of(kind))
        offset = _dict_offset(kind)
        size -= 8 * (not _dict_offset(base) and (offset > 0 or (offset < 0 and _item_size_of(kind) > 0)))
        size -= 8 * (_weak_offset(kind) > 0 and not _weak_offset(base))
        if size > 0 and not (_is_exception(kind) and _module(kind) == "builtins"):
            return True
        kind = base
    return False


def _slots_of(kind):
    """(name, descriptor) of the slots that a class itself has. C's with two underscores are no attributes: offsets,
    addresses, what another name tells."""
    own = class_dict(kind)
    in_python = "__slots__" in own
    return [
        (key, found)
        for key, found in own.items()
        if type(found) is _MEMBER and _owner_of(found) is kind and _name_of(found) == key
        if in_python or not key.startswith("__")
    ]


def _is_exception(kind):
    return any(base is BaseException for base in mro(kind))


class Class:
    """What is known of a class once it was looked at, which is dear: how its instances are taken apart."""

    def __init__(self, kind):
        bases = mro(kind)
        dicts = [class_dict(base) for base in bases]
        self.name, self.module = qualname(kind), _module(kind)
        self.is_class = any(base is type for base in bases)
        self.is_enum = any(base is enum.Enum for base in bases)
        self.is_exception = _is_exception(kind)
        self.is_opaque = _hides_state(kind)
        self.is_dataclass = any("__dataclass_fields__" in one for one in dicts)
        self.has_finalizer = any(type(one.get("__del__")) is types.FunctionType for one in dicts)
        fields = next((one["_fields"] for one in dicts if "_fields" in one), None)
        self.fields = fields if type(fields) is tuple and any(base is tuple for base in bases) else None
        found = ((base, plain) for base, plain in BARE if any(one is base for one in bases))
        self.base, self.plain = next(found, (None, None))
        self._slots = [slot for base in reversed(bases) if _module(base) != "builtins" for slot in _slots_of(base)]
        held = (one["__dict__"] for one in dicts if _is_descriptor(one.get("__dict__")))
        self._dict = next(held, None)

    def attributes(self, value):
        """({name: value}, whether that is all) of what an instance holds, by the descriptors of its slots and its
        dictionary; properties are not asked."""
        own, is_all = {}, True
        for key, found in self._slots:
            try:
                is_all = is_all and key not in own  # a base's slot under the same name
                own[key] = found.__get__(value)
            except AttributeError:
                pass  # a slot without a value
        held = None if self._dict is None else self._dict.__get__(value)
        if type(held) is dict:
            more = own_of(held)
            is_all = is_all and len(more) == dict.__len__(held) and not any(key in own for key in more)
            own.update(more)
        if own.get("__wrapped__") is not None:
            _leave_out_copies(own)
        return own, own.pop("__doc__", None) is None and is_all and (held is None or type(held) is dict)


def own_of(held):
    """Names and values of an instance's dictionary; a key that is no plain text could write its hash."""
    return {key: one for key, one in dict.items(held) if type(key) is str}


_COPIED = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__", "__type_params__")


def _leave_out_copies(own):
    """What ``functools.update_wrapper`` has copied is no state of its own."""
    wrapped, getters = own["__wrapped__"], class_dict(types.FunctionType)
    if type(wrapped) is types.FunctionType:
        for key in _COPIED:
            if key in own and key in getters and getters[key].__get__(wrapped) is own[key]:
                del own[key]


_LINKS = [BaseException.__dict__[name].__get__ for name in ("__cause__", "__context__")]
_is_suppressed = BaseException.__dict__["__suppress_context__"].__get__
_SAID = (int, float, str, bytes, bool, type(None))


def says_all(value):
    """Whether the arguments and attributes of an exception are all of it: it is raised from no other, and what C keeps
    of it (a code, a name, a place) is what its arguments make."""
    if any(link(value) is not None for link in _LINKS) or _is_suppressed(value):
        return False
    native = next(base for base in mro(type(value)) if _module(base) == "builtins")
    kept = [
        found.__get__
        for base in mro(native)
        for key, found in class_dict(base).items()
        if (type(found) is _MEMBER or type(found) is _GETSET) and key[:2] != "__" and key != "args"
    ]
    if not kept:
        return True
    arguments = arguments_of(value) or ()
    if not all(_is_plain(one) for one in arguments):
        return False  # making another could run code of theirs
    try:
        fresh = native.__new__(native, *arguments)
        native.__init__(fresh, *arguments)
        return type(fresh) is native and all(_same(get, value, fresh) for get in kept)
    except Exception:  # arguments that it could not have been made of
        return False


def _is_plain(value):
    return any(type(value) is one for one in _SAID) or (type(value) is tuple and all(map(_is_plain, value)))


def _same(get, value, other):
    found = []
    for one in (value, other):
        try:
            found.append(get(one))
        except AttributeError:
            found.append(_LINKS)
    left, right = found
    return left is right or (_is_plain(left) and type(left) is type(right) and left == right)


def pairs_of(value):
    """Items of a dictionary. Those of an ordered one stand in an order of its own, which ``dict.items`` does not know;
    looking keys up would hash them."""
    if not any(base is collections.OrderedDict for base in mro(type(value))):
        return dict.items(value)
    places = {id(key): place for place, key in enumerate(collections.OrderedDict.__iter__(value))}
    return sorted(dict.items(value), key=lambda pair: places[id(pair[0])])


def _is_descriptor(found):
    """Whether it is one that C defines."""
    return type(found) is _GETSET or type(found) is _MEMBER


BARE = (
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
_KNOWN = (object, *(base for base, _ in BARE), BaseException, collections.OrderedDict, collections.defaultdict)
_KNOWN += (functools.partial,)
