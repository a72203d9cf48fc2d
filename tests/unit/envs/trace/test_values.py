"""What a value is written as: its whole state, or a mark; ".." only where it has not changed."""

import sys

import pytest

from verigym.envs.trace import guest_tracer, guest_values
from verigym.model.chat.trace import Frame, unfold

SETUP = """
import array, codecs, collections, contextvars, csv, ctypes, datetime, decimal, enum, fractions, functools, graphlib
import hashlib, io, itertools, pathlib, queue, random, re, sqlite3, threading, types, typing, weakref, zlib
import xml.etree.ElementTree
from dataclasses import dataclass

class L(list): pass
class D(dict): pass
class S(str): pass
class I(int): pass
class F(float): pass
class C(complex): pass
class T(tuple): pass
class B(bytes): pass
class BA(bytearray): pass
class Set(set): pass
class Frozen(frozenset): pass
class Q(collections.deque): pass
class DD(collections.defaultdict): pass
class OD(collections.OrderedDict): pass
class Count(collections.Counter): pass
class Arr(array.array): pass
class E(ValueError): pass
class P(functools.partial): pass
class N(collections.namedtuple("N", "a")): pass
class Slots:
    __slots__ = ("a",)
class SlotsOfList(list):
    __slots__ = ("a",)
class Plain: pass
class Meth:
    def __init__(self): self.n = 0
    def go(self): pass
class Color(enum.Enum):
    RED = 1
class Names(types.SimpleNamespace): pass
class R(random.Random): pass
class Date(datetime.date): pass
class Local(threading.local): pass
@dataclass
class Data:
    a: int = 0
class Dunder:
    __slots__ = ("__a__",)
class Base:
    __slots__ = ("a",)
class Again(Base):
    __slots__ = ("a",)
class Keys:
    def __init__(self): self.__dict__ = {1: 1}
class Zone(datetime.tzinfo):
    def utcoffset(self, when): return datetime.timedelta(0)
class St(ctypes.Structure):
    _fields_ = [("a", ctypes.c_int)]
T1 = typing.TypeVar("T1")
class Box(typing.Generic[T1]):
    def __init__(self): self.a = 1
class Call:
    def __call__(self): pass
def around(f):
    @functools.wraps(f)
    def inner(): return f()
    return inner
def gen():
    for i in range(9):
        yield i
def func(): pass
"""

MUTATED = {
    # name: (how it is made, how it changes). Python's own repr changes, or some state that it does not show.
    "SimpleNamespace": ("types.SimpleNamespace(a=1)", "v.a = 2"),
    "derived SimpleNamespace": ("Names(a=1)", "v.a = 2"),
    "list": ("[1]", "v.append(2)"),
    "dict": ("{1: 2}", "v[1] = 3"),
    "set": ("{1}", "v.add(2)"),
    "deque": ("collections.deque([1])", "v.append(2)"),
    "defaultdict": ("collections.defaultdict(int)", "v[1]"),
    "Counter": ("collections.Counter('a')", "v['a'] += 1"),
    "OrderedDict": ("collections.OrderedDict(a=1)", "v['a'] = 2"),
    "order": ("collections.OrderedDict(a=1, b=2)", "v.move_to_end('a')"),
    "array": ("array.array('i', [1])", "v[0] = 2"),
    "bytearray": ("bytearray(b'a')", "v[0] = 98"),
    "a list's attribute": ("L([1])", "v.a = 1"),
    "a dict's attribute": ("D(a=1)", "v.a = 1"),
    "a str's attribute": ("S('a')", "v.a = 1"),
    "an int's attribute": ("I(1)", "v.a = 1"),
    "a float's attribute": ("F(1)", "v.a = 1"),
    "a complex's attribute": ("C(1)", "v.a = 1"),
    "a tuple's attribute": ("T((1,))", "v.a = 1"),
    "a bytes' attribute": ("B(b'a')", "v.a = 1"),
    "a bytearray's attribute": ("BA(b'a')", "v.a = 1"),
    "a derived bytearray's items": ("BA(b'a')", "v[0] = 98"),
    "a set's attribute": ("Set([1])", "v.a = 1"),
    "a frozenset's attribute": ("Frozen([1])", "v.a = 1"),
    "a deque's attribute": ("Q([1])", "v.a = 1"),
    "a derived deque's items": ("Q([1])", "v.append(1)"),
    "a defaultdict's attribute": ("DD(int)", "v.a = 1"),
    "a defaultdict's factory": ("collections.defaultdict(int)", "v.default_factory = str"),
    "a derived defaultdict's factory": ("DD(int)", "v.default_factory = str"),
    "an OrderedDict's attribute": ("OD(a=1)", "v.a = 1"),
    "a plain OrderedDict's attribute": ("collections.OrderedDict(a=1)", "v.a = 1"),
    "a Counter's attribute": ("Count('a')", "v.a = 1"),
    "a derived array's items": ("Arr('i', [1])", "v[0] = 2"),
    "an array's attribute": ("Arr('i', [1])", "v.a = 1"),
    "an exception's arguments": ("ValueError(1)", "v.args = (2,)"),
    "an exception's attribute": ("ValueError(1)", "v.code = 2"),
    "a derived exception's attribute": ("E(1)", "v.code = 2"),
    "an exception's notes": ("E(1)", "v.__notes__ = ['a']"),
    "a partial's attribute": ("functools.partial(func)", "v.a = 1"),
    "a partial's state": ("functools.partial(func, 1)", "v.__setstate__((func, (2,), {}, None))"),
    "a derived partial's attribute": ("P(func)", "v.a = 1"),
    "a namedtuple's attribute": ("N(1)", "v.b = 1"),
    "slots": ("Slots()", "v.a = 1"),
    "a list's slots": ("SlotsOfList([1])", "v.a = 1"),
    "an instance": ("Plain()", "v.a = 1"),
    "a dataclass": ("Data()", "v.a = 1"),
    "a dataclass's other attribute": ("Data()", "v.b = 1"),
    "a member of an enum": ("Color.RED", "v.note = 1"),
    "a function's attribute": ("func", "v.a = 1"),
    "a bound method": ("Meth().go", "v.__self__.n += 1"),
    "a view": ("d.items()", "d[1] = 2"),
    "a generator": ("gen()", "next(v)"),
    "a list's iterator": ("iter([1, 2])", "next(v)"),
    "a dict's iterator": ("iter({1: 2})", "next(v)"),
    "itertools.count": ("itertools.count()", "next(v)"),
    "itertools.cycle": ("itertools.cycle('ab')", "next(v)"),
    "enumerate": ("enumerate('ab')", "next(v)"),
    "zip": ("zip('ab')", "next(v)"),
    "map": ("map(str, [1, 2])", "next(v)"),
    "StringIO": ("io.StringIO()", "v.write('a')"),
    "BytesIO": ("io.BytesIO()", "v.write(b'a')"),
    "random.Random": ("random.Random(0)", "v.random()"),
    "a derived Random": ("R(0)", "v.random()"),
    "a lock": ("threading.Lock()", "v.acquire()"),
    "threading.local": ("Local()", "v.a = 1"),
    "a mapping proxy": ("types.MappingProxyType(d)", "d[1] = 2"),
    "a memoryview": ("memoryview(bytearray(b'a'))", "v[0] = 98"),
    "a context variable": ("contextvars.ContextVar('a')", "v.set(1)"),
    "a weak reference": ("weakref.ref(thing)", "thing = 0"),
    "a queue": ("queue.SimpleQueue()", "v.put(1)"),
    "a derived date's attribute": ("Date(2020, 1, 1)", "v.a = 1"),
    "a list in a tuple": ("([1],)", "v[0].append(2)"),
    "deep": ("[[[[[[[[1]]]]]]]]", "v[0][0][0][0][0][0][0].append(2)"),
    "long": ("list(range(100))", "v[99] = 0"),
    "a long text in a list": ("['a' * 999]", "v[0] += 'b'"),
    "a large set": ("set(range(999))", "v.add(1000)"),
    "a large dict": ("dict.fromkeys(range(100))", "v[99] = 1"),
    "a name of two underscores": ("Plain()", "setattr(v, '__x', 1)"),
    "a special name": ("Plain()", "v.__x__ = 1"),
    "a docstring": ("Plain()", "v.__doc__ = 'a'"),
    "a key that is no text": ("Keys()", "v.__dict__[1] = 2"),
    "a slot with a special name": ("Dunder()", "v.__a__ = 1"),
    "a slot that another hides": ("Again()", "Base.a.__set__(v, 1)"),
    "an attribute that a slot hides": ("Again()", "v.a = 1"),
    "another class": ("Plain()", "v.__class__ = Call"),
    "another dictionary": ("Plain()", "v.__dict__ = {'a': 1}"),
    "a stream that is closed": ("io.IOBase()", "v.close()"),
    "what is wrapped": ("around(func)", "v.__wrapped__ = gen"),
    "an alias": ("typing.List[int]", "v = typing.List[str]"),
    "C's alias": ("list[int]", "v = list[str]"),
    "a type's name": ("typing.NewType('A', int)", "v.__supertype__ = str"),
    "a type variable": ("typing.TypeVar('A')", "v = typing.TypeVar('A', bound=int)"),
    "a generic class's arguments": ("Box[int]()", "v = Box[str]()"),
    "a class method": ("classmethod(func)", "v.__init__(gen)"),
    "a property": ("property(func)", "v.__init__(gen)"),
    "a superclass's view": ("super(L, L([1]))", "v.append(2)"),
    "a method of a list": ("[1].append", "v(2)"),
    "a method of a list by another name": ("[1].__len__", "v.__self__.append(2)"),
    "a method of a class": ("dict.fromkeys", "v = D.fromkeys"),
    "a method of a method": ("types.MethodType(Call(), 1)", "v.__func__.a = 1"),
    "itself": ("[[0]]", "v[0][0] = v[0] if v[0][0] is v else v"),
    "itself, and then another": ("types.SimpleNamespace(a=[0])", "v.a[0] = v; v.a[0] = v.a"),
    "a number of ctypes": ("ctypes.c_int(1)", "v.value = 2"),
    "an array of ctypes": ("(ctypes.c_int * 2)(1, 2)", "v[0] = 9"),
    "a structure of ctypes": ("St(1)", "v.a = 2"),
    "a database's cursor": ("sqlite3.connect(':memory:').execute('select 1 union select 2')", "v.fetchone()"),
    "a digest": ("hashlib.sha256()", "v.update(b'a')"),
    "a compressor": ("zlib.compressobj()", "v.compress(b'a' * 99999)"),
    "a decimal context": ("decimal.Context(prec=3)", "v.prec = 5"),
    "flags of a decimal context": ("decimal.Context(prec=3)", "v.divide(1, 3)"),
    "an incremental decoder": ("codecs.getincrementaldecoder('shift_jis')()", "v.decode(bytes([129]))"),
    "rows of a table": ("csv.reader(['a', 'b'])", "next(v)"),
    "an element": ("xml.etree.ElementTree.Element('a')", "v.text = 'b'"),
    "a time in a zone": (
        "datetime.datetime(2020, 1, 1, tzinfo=Zone())",
        "v = v.replace(tzinfo=datetime.timezone.utc)",
    ),
    "a fold": ("datetime.datetime(2020, 1, 1)", "v = v.replace(fold=1)"),
    "zeros of a decimal": ("[decimal.Decimal('1.0')]", "v[0] = decimal.Decimal('1.00')"),
    "a negative zero": ("[0.0]", "v[0] = -0.0"),
    "a bool": ("[True]", "v[0] = 1"),
    "many attributes": ("types.SimpleNamespace(**{f'a{i}': i for i in range(60)})", "v.a59 = 0"),
    "a long number": ("decimal.Decimal(10 ** 3000 + 1)", "v += 1"),
    "a long path": ("pathlib.PurePosixPath('a' * 5000)", "v /= 'b'"),
    "a long name of an attribute": ("types.SimpleNamespace(**{'a' * 5000: 1})", "setattr(v, 'a' * 5000, 2)"),
    "a mock": ("__import__('unittest.mock').mock.Mock()", "v.a()"),
    "an order of nodes": ("graphlib.TopologicalSorter({1: {2}})", "v.prepare()"),
}


def frames_of(source, **bounds):
    """Frames of ``run()`` under our tracer, in this process: [event, locals or value]."""
    names = {"__name__": "program"}
    exec(compile(source, "program", "exec"), names)
    frames = []

    def note(event, frame, line, depth, shown, value):
        frames.append(Frame(event=event, source="\n", locals=shown or {}, value=value))

    values = guest_values.Values(**bounds)
    tracer = guest_tracer.Tracer({"program": True}, values, note, 10_000)
    tracer.start("settrace")
    try:
        names["run"]()
    finally:
        tracer.stop()
    assert not tracer.errors
    return frames, values


def program(made, change):
    lines = ["d = {1: 1}", "thing = Plain()", f"v = {made}", "0", change, "return 0"]
    return SETUP + "\ndef run():\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize("name", MUTATED)
def test_a_value_that_has_changed_is_never_unchanged(name):
    made, change = MUTATED[name]
    frames, values = frames_of(program(made, change))
    shown = [frame.locals["v"] for frame in frames if "v" in frame.locals]
    assert shown[-1] != ".."
    if shown[-1] == shown[0]:  # what changed cannot be seen: the value says so
        assert guest_values.MARK in shown[0]
        assert values.hidden or values.cut


EXCEPTIONS = {
    "a cause": ("ValueError(1)", "v.__cause__ = KeyError(2)"),
    "no context": ("ValueError(1)", "v.__suppress_context__ = True"),
    "a context": ("E(1)", "v.__context__ = KeyError(2)"),
    "a number of the system": ("OSError(1, 'a')", "v.errno = 2"),
    "a file's name": ("OSError(1, 'a')", "v.filename = 'c'"),
    "a code": ("SystemExit(1)", "v.code = 2"),
    "a value": ("StopIteration(1)", "v.value = 2"),
    "a place": ("UnicodeDecodeError('utf-8', b'a', 0, 1, 'x')", "v.start = 1"),
    "a line": ("SyntaxError('a', ('f', 1, 2, 't'))", "v.lineno = 9"),
    "a module": ("ImportError('a')", "v.name = 'c'"),
    "an attribute's name": ("AttributeError('a')", "v.name = 'c'"),
}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_what_c_keeps_of_an_exception_is_not_called_unchanged(name):
    """Its text is Python's own, which says nothing of it; so it is written again."""
    for change, last in ((EXCEPTIONS[name][1], False), ("0", True)):
        frames, _ = frames_of(program(EXCEPTIONS[name][0], change))
        shown = [frame.locals["v"] for frame in frames if "v" in frame.locals]
        assert (shown[1], shown[2] == "..") == ("..", last)
        assert shown[2] in ("..", shown[0])


@pytest.mark.parametrize("name", MUTATED)
def test_a_value_that_is_written_whole_and_has_not_changed_is_unchanged(name):
    frames, values = frames_of(program(MUTATED[name][0], "0"))
    shown = [frame.locals["v"] for frame in frames if "v" in frame.locals]
    assert len(shown) == 3
    whole = guest_values.MARK not in shown[0]
    assert shown[1:] == ([".."] * 2 if whole else [shown[0]] * 2)
    assert whole is not (values.hidden or values.cut)
    assert {known["v"] for known in unfold(frames) if "v" in known} == {shown[0]}


@pytest.mark.parametrize("name", [name for name in MUTATED if "long" in name or "many" in name])
def test_no_text_is_much_longer_than_it_may_be(name):
    frames, _ = frames_of(program(*MUTATED[name]), max_chars=100)
    assert max(len(text) for frame in frames for text in frame.locals.values()) < 450


def test_a_function_that_is_its_own_attribute():
    """Depth is bounded for functions as for anything else: no RecursionError of ours ends in a lost event."""
    frames, _ = frames_of("def g(): pass\ng.me = g\ndef run():\n    v = [g]\n    return g\n")
    assert frames[-1].value == "<function g me=...>"


def test_what_cannot_change_is_known_by_itself_though_it_is_too_long():
    frames, _ = frames_of(program("'a' * 999", "0"))
    shown = [frame.locals["v"] for frame in frames if "v" in frame.locals]
    assert shown[1:] == ["..", ".."]


NUMPY = "import numpy\n\ndef run():\n    v = {made}\n    0\n    {change}\n    return 0\n"


@pytest.mark.parametrize(
    ("made", "change", "text"),
    [
        ("numpy.array([1, 2])", "v[0] = 3", "array([1, 2])"),
        ("numpy.array([1, 2])", "v = v.astype('int8')", "array([1, 2])"),
        ("numpy.array([1.5])", "v = v.astype('float32')", "array([1.5])"),
        ("numpy.zeros(0)", "v = v.reshape(0, 2)", "array([])"),
        ("numpy.array([None, [1]], dtype=object)", "v[1].append(2)", "array([None, [1]], dtype=object)"),
        ("numpy.matrix([[1, 2]])", "v[0, 0] = 3", "matrix([[1, 2]], _getitem=False)"),
        ("numpy.ma.array([1, 2])", "v[0] = numpy.ma.masked", None),
        ("numpy.arange(1000)", "v[500] = 3", "array(..., shape=(1000,), dtype=int64)"),
        ("numpy.float32(1.5)", "v = numpy.float64(1.5)", "float32(1.5)"),
    ],
)
def test_arrays(made, change, text):
    pytest.importorskip("numpy")
    frames, _ = frames_of(NUMPY.format(made=made, change=change))
    shown = [frame.locals["v"] for frame in frames if "v" in frame.locals]
    assert text in (None, shown[0])
    assert shown[-1] != ".."


RAISING = """
class Library:
    "Of C's kind: what is asked for raises."
def run():
    v = {made}
    w = [1]
    w.append(2)
    return w
"""


def test_one_value_that_cannot_be_written_is_lost_and_not_the_trace(monkeypatch):
    """A library's own method raises while a value is shown."""
    shown_of = guest_values.Values._derived

    def derived(self, value, kind):
        if kind.__name__ == "Library":
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return shown_of(self, value, kind)

    monkeypatch.setattr(guest_values.Values, "_derived", derived)
    frames, values = frames_of(RAISING.format(made="Library()"))
    assert [frame.locals.get("v") for frame in frames] == [None, None, *["<Library ...>"] * 3, None]
    assert frames[-1].value == "[1, 2]"
    assert values.hidden


def test_a_value_that_is_only_being_made():
    frames, values = frames_of(
        "import fractions\ndef run():\n    v = object.__new__(fractions.Fraction)\n    return 1\n"
    )
    assert [frame.locals.get("v") for frame in frames] == [None, None, "<Fraction ...>", None]
    assert values.hidden


HOSTILE = """
import sys, types
told = []
class Evil:
    def __getattr__(self, name):
        told.append(name)
        raise AttributeError(name)
    @property
    def __dict__(self): told.append("dict"); return {}
    @property
    def shape(self): told.append("shape")
    def tolist(self): told.append("tolist"); return []
    def __repr__(self): told.append("repr"); return ""
    __str__ = __repr__
class Path(Evil):
    __module__ = "pathlib"
class Meta(type):
    def __eq__(self, other): told.append("eq"); return True
    __hash__ = None
class Odd(metaclass=Meta):
    __dict__ = Meta("X", (), {})()
fake = types.ModuleType("numpy")
fake.ndarray, fake.generic = Evil, Evil
def run():
    sys.modules["numpy"] = fake
    try:
        v = [Evil(), Path(), Odd()]
        0
    finally:
        del sys.modules["numpy"]
    return list(told)
"""


def test_no_code_of_a_value_runs():
    before = sys.modules.pop("numpy", None)
    try:
        frames, _ = frames_of(HOSTILE)
    finally:
        if before is not None:
            sys.modules["numpy"] = before
    assert frames[-1].value == "[]"


DERIVED = """
import collections, datetime, decimal, fractions, functools, io, random, types, uuid, weakref
told = []
def boom(*given, **named):
    told.append(given)
    raise SystemExit(3)
NAMES = (
    "__repr__ __str__ __getattribute__ __len__ __iter__ __eq__ __hash__ __bool__ __format__ __dir__ __reduce_ex__ "
    "__contains__ __getitem__ __index__ __int__ __float__ __lt__ __next__ __pos__ __length_hint__ __fspath__ items "
    "keys values tolist item shape dtype size name value args maxlen typecode default_factory tzinfo isoformat"
).split()
BASES = {
    object: (), list: (), dict: (), set: (), frozenset: (), tuple: (), int: (), float: (), str: (), bytes: (),
    bytearray: (), complex: (), collections.deque: (), collections.OrderedDict: (), collections.defaultdict: (),
    collections.Counter: (), collections.UserDict: (), OSError: (), KeyboardInterrupt: (), StopIteration: (),
    decimal.Decimal: (), fractions.Fraction: (), datetime.date: (2020, 1, 1), datetime.datetime: (2020, 1, 1),
    datetime.timedelta: (), datetime.tzinfo: (), types.SimpleNamespace: (),
    types.ModuleType: ("m",), random.Random: (), io.StringIO: (), functools.partial: (len,), weakref.ref: (boom,),
    property: (), staticmethod: (len,), classmethod: (len,), super: (), uuid.UUID: (),
}
def run():
    v = []
    for base, given in BASES.items():
        kind = type("Evil", (base,), {**dict.fromkeys(NAMES, boom), "__class__": property(boom)})
        v.append(base.__new__(kind, *given))
    told.clear()
    w = v[:20]
    w = v[20:]
    return told, len(v)
"""


def test_no_code_of_a_class_runs_whatever_it_is_derived_from():
    frames, _ = frames_of(DERIVED, max_chars=9000)
    assert "([], 37)" in [frame.value for frame in frames if frame.event == "return"]  # and a stream may end after that
    shown = [frame.locals["w"] for frame in frames if frame.locals.get("w", "..") != ".."]
    assert [text.count("Evil") for text in shown[:2]] == [20, 17]
