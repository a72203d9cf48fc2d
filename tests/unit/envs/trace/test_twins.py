"""Programs that are the same but for names."""

import contextlib
import io
import random
import re
import sys
import tokenize

import pytest

from verigym.envs.trace.programs import any_program, small_program
from verigym.envs.trace.run import TraceJob, context_of
from verigym.envs.trace.shown_code import programs_in
from verigym.envs.trace.twins import function_keys, twin_key

PROGRAM = "def f(a, b):\n    c = a + len(b)\n    return c\n"


@pytest.mark.parametrize(
    "twin",
    [
        "def g(x, y):\n    z = x + len(y)\n    return z\n",
        "def f(a, b):\n\n    c = (a + len(b))  # a sum\n    return c\n",
        "def f(b, a):\n    c = b + len(a)\n    return c\n",
        "def f(a: int, b: list[int]) -> int:\n    c: int = a + len(b)\n    return c\n",
        "def f(a, b):\n    'Of a and b.'\n    c: 'int'\n    c = a + len(b)\n    ...\n    pass\n    return c\n",
    ],
)
def test_names_comments_and_layout_do_not_count(twin):
    assert twin_key(twin) == twin_key(PROGRAM)


@pytest.mark.parametrize(
    "other",
    [
        "def f(a, b):\n    c = a - len(b)\n    return c\n",
        "def f(a, b):\n    c = b + len(a)\n    return c\n",
        "def f(a, b):\n    c = a + len(b)\n    return a\n",
        "def f(a, b):\n    c = a + sum(b)\n    return c\n",
        "def f(a, b):\n    c = a + b.len\n    return c\n",
    ],
)
def test_what_a_program_does_counts(other):
    assert twin_key(other) != twin_key(PROGRAM)


def test_what_makes_fields_counts_and_the_prefix_of_a_text_does_not():
    one = "class A:\n    x: int\n    y: str = u'a'\n"
    assert twin_key(one) == twin_key(one.replace("u'a'", "'a'")) == twin_key("'Doc.'\n" + one)
    assert twin_key(one) != twin_key(one.replace("    x: int\n", ""))


def test_the_traced_call_does_not_count():
    keys = {twin_key(context_of(TraceJob(source=PROGRAM, call=call))) for call in ("f(1, [])", "f(a=2, b=[3])")}
    assert keys == {twin_key(PROGRAM)}
    own = PROGRAM + "\n\ndef main():\n    return f(1, [])\n"
    assert twin_key(own) != twin_key(PROGRAM)


def test_what_is_no_program_is_its_own_key():
    assert twin_key("def f(:\n") == "def f(:\n"


def test_small_programs_are_many():
    keys = {twin_key(small_program(random.Random(seed)).source) for seed in range(500)}
    assert len(keys) > 350


OWN = re.compile(
    r"(?:n|i|k|list|table|text|step|down|add|total|each|[Tt]hing|open|later)\d+|x|y|p|q|r|n|v|by|items|named|values|self|log"
    r"|error|run|size|name|double|grow"
)
"""What the generator names, and no name that it takes from elsewhere."""


def renamed(source, rng):
    """Every name of the program's own gets another, by tokens alone: no syntax tree, no symbol table."""
    tokens = [one for one in tokenize.generate_tokens(io.StringIO(source).readline) if OWN.fullmatch(one.string)]
    own = sorted({token.string for token in tokens if token.type == tokenize.NAME})
    new = dict(zip(own, rng.sample([f"w{n}" for n in range(1000)], len(own))))
    lines = source.splitlines(keepends=True)
    for token in reversed(tokens):
        row, column = token.start
        line = lines[row - 1]
        if token.type == tokenize.NAME and not line[:column].endswith("asyncio."):
            lines[row - 1] = line[:column] + new[token.string] + line[column + len(token.string) :]
    return "".join(lines), new


def ended(source, call):
    """What a program prints and gives; an exception by its class."""
    told = io.StringIO()
    names = {"__name__": "program"}
    try:
        with contextlib.redirect_stdout(told):
            exec(compile(source, "program", "exec"), names)
            value = eval(call, names)
    except Exception as error:
        value = type(error).__name__
    return value, told.getvalue()


@pytest.mark.parametrize("seed", range(60))
def test_programs_of_the_generator_are_recognised_under_any_names(seed):
    rng = random.Random(seed)
    job = any_program(rng, statements=10)
    twin, new = renamed(job.source, rng)
    assert len(new) > 3
    call = re.sub("^run", new["run"], job.call)
    assert ended(twin, call) == ended(job.source, job.call)  # the renamer is right
    assert twin_key(twin) == twin_key(job.source)


BY_OTHER_NAMES = {
    "slots": (
        "class A:\n    __slots__ = ('a', 'b')\n    def f(self):\n        return self.a\n",
        "class B:\n    __slots__ = ('x', 'y')\n    def g(self):\n        return self.x\n",
    ),
    "names of matching": (
        "class A:\n    __match_args__ = ('a',)\n    a = 1\ndef f(p):\n    match p:\n        case A(a=1): ...\n",
        "class B:\n    __match_args__ = ('x',)\n    x = 1\ndef g(r):\n    match r:\n        case B(x=1): ...\n",
    ),
    "nonlocal": (
        "def f(a):\n    def g():\n        nonlocal a\n        a += 1\n    g()\n    return a\n",
        "def x(y):\n    def z():\n        nonlocal y\n        y += 1\n    z()\n    return y\n",
    ),
    "global": ("n = 0\ndef f():\n    global n\n    n += 1\n", "k = 0\ndef g():\n    global k\n    k += 1\n"),
    "an exception's name": (
        "def f():\n    try:\n        g()\n    except ValueError as e:\n        return e\n",
        "def f():\n    try:\n        g()\n    except ValueError as err:\n        return err\n",
    ),
    "keyword arguments": ("def f(a, b=1): return a\nf(2, b=3)\n", "def g(x, y=1): return x\ng(2, y=3)\n"),
    "arguments of a class": (
        "class A:\n    def __init__(self, size): self.size = size\nA(size=3).size\n",
        "class B:\n    def __init__(me, n): me.wide = n\nB(n=3).wide\n",
    ),
    "captures": (
        "match v:\n    case [a, *b]: b\n    case {'k': c, **d}: d\n    case e: e\n",
        "match v:\n    case [p, *q]: q\n    case {'k': r, **s}: s\n    case t: t\n",
    ),
    "async": ("async def f(a):\n    await a\n", "async def g(b):\n    await b\n"),
    "imports": ("import os as o\no.sep\n", "import os as system\nsystem.sep\n"),
    "imports as they are": ("import os\nos.sep\n", "import os as system\nsystem.sep\n"),
    "imports from": ("from os import sep\nsep\n", "from os import sep as s\ns\n"),
    "methods": (
        "class A:\n    def go(self): return self.at\n    at = 1\nA().go()\n",
        "class B:\n    def run(self): return self.n\n    n = 1\nB().run()\n",
    ),
    "lambdas": ("f = lambda a, b=2: a + b\n", "g = lambda x, y=2: x + y\n"),
    "comprehensions": ("[a for a in b if a]\n", "[x for x in y if x]\n"),
    "the same name in two scopes": (
        "def f(a): return a\ndef g(a): return a\n",
        "def f(a): return a\ndef g(b): return b\n",
    ),
    "a parameter by a built-in's name": ("def f(list): return list\n", "def f(x): return x\n"),
    "walrus": ("if (n := 3) > 2: print(n)\n", "if (k := 3) > 2: print(k)\n"),
    "with": ("with open('a') as f: f.read()\n", "with open('a') as g: g.read()\n"),
    "annotations": ("a: int = 1\nb = a\n", "c: int = 1\nd = c\n"),
    "docstrings": ('def f(a):\n    "Of a."\n    return a\n', "def f(b):\n    return b\n"),
    "decorators": ("def d(f): return f\n@d\ndef g(): pass\n", "def w(h): return h\n@w\ndef k(): pass\n"),
    "captures of a class": (
        "match v:\n    case P(x=a) if a: a\n    case (str() as s) | (bytes() as s): s\n",
        "match w:\n    case P(x=p) if p: p\n    case (str() as t) | (bytes() as t): t\n",
    ),
    "fields of a class in a match": (
        "class P:\n    def __init__(s, u): s.u = u\nmatch v:\n    case P(u=k): k\n",
        "class Q:\n    def __init__(z, w): z.w = w\nmatch v:\n    case Q(w=m): m\n",
    ),
    "walrus in a comprehension": (
        "def f(a): return [y := x for x in a if (z := x)], y, z\n",
        "def g(b): return [n := m for m in b if (o := m)], n, o\n",
    ),
    "two comprehensions in a line": (
        "def f(a): return [x for x in a], [x for x in a], {x for x in a}\n",
        "def g(b): return [p for p in b], [q for q in b], {r for r in b}\n",
    ),
    "a function in a comprehension": (
        "def f(a): return [lambda y: x + y for x in a], [[x for y in x] for x in a]\n",
        "def g(b): return [lambda r: q + r for q in b], [[m for n in m] for m in b]\n",
    ),
    "a comprehension in a class": (
        "x = 1\nclass A:\n    z = [x for _ in range(3)]\n    def m(self): return x\n",
        "w = 1\nclass B:\n    u = [w for q in range(3)]\n    def n(me): return w\n",
    ),
    "the order of nonlocals": (
        "def f():\n    a = b = 0\n    def g():\n        nonlocal a, b\n        a, b = b, a\n",
        "def f():\n    x = y = 0\n    def g():\n        nonlocal y, x\n        x, y = y, x\n",
    ),
    "private names": (
        "class A:\n    def __go(self): self.__x = 1\n    def run(self): return self.__go(), self.__x\n",
        "class B:\n    def __do(self): self.__y = 1\n    def sit(self): return self.__do(), self.__y\n",
    ),
    "exported names": ("__all__ = ['f']\ndef f(): pass\n", "__all__ = ['g']\ndef g(): pass\n"),
    "fields of a tuple": (
        "P = namedtuple('P', 'x y')\np = P(x=1, y=2)\np._replace(x=p.y)\n",
        "Q = namedtuple('Q', 'a, b')\nq = Q(a=1, b=2)\nq._replace(a=q.b)\n",
    ),
    "fields of a dataclass": (
        "@dataclass\nclass P:\n    x: int\np = replace(P(x=1), x=2)\np.x\n",
        "@dataclass\nclass Q:\n    a: int\nq = replace(Q(a=1), a=2)\nq.a\n",
    ),
    "decorators with arguments": (
        "def d(n):\n    def w(f):\n        def i(*a, **k): return f(*a, **k)\n        return i\n    return w\n"
        "@d(n=3)\ndef go(x): x\n",
        "def e(m):\n    def v(g):\n        def j(*p, **q): return g(*p, **q)\n        return j\n    return v\n"
        "@e(m=3)\ndef run(y): y\n",
    ),
    "a star import": ("from os.path import *\ndef f(a): join(a)\n", "from os.path import *\ndef g(b): join(b)\n"),
    "groups of exceptions": (
        "try: g()\nexcept* ValueError as e: e\n",
        "try: g()\nexcept* ValueError as group: group\n",
    ),
    "star arguments": ("def f(*a, **k): return f(*a, **k)\n", "def f(*x, **y): return f(*x, **y)\n"),
}


TYPE_PARAMETERS = {
    "of a function": ("def f[T: int](a: T) -> T: return T, a\n", "def g[U: int](b: U) -> U: return U, b\n"),
    "of a class": (
        "class A[T, *Ts, **P](list[T]):\n    def f[V](self): return T, Ts, P, V\n",
        "class B[U, *Us, **Q](list[U]):\n    def g[W](me): return U, Us, Q, W\n",
    ),
    "of an alias": ("type L[T] = list[T]\nx = L\n", "type M[U] = list[U]\ny = M\n"),
    "of what is decorated": ("@d\ndef f[T](a=1): return T\n", "@d\ndef h[U](b=1): return U\n"),
}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters are syntax from Python 3.12 on")
@pytest.mark.parametrize("name", TYPE_PARAMETERS)
def test_type_parameters(name):
    one, other = TYPE_PARAMETERS[name]
    assert twin_key(one) == twin_key(other)


@pytest.mark.parametrize("name", BY_OTHER_NAMES)
def test_each_place_where_a_name_can_stand(name):
    one, other = BY_OTHER_NAMES[name]
    assert twin_key(one) == twin_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("import os as o\no.sep\n", "import sys as o\no.sep\n"),
        ("def f(a, b): return a\nf(1, b=2)\n", "def f(a, b): return a\nf(1, a=2)\n"),
        ("x.append(1)\n", "x.remove(1)\n"),
        ("def f(a):\n    a = 1\n    return [a for b in c]\n", "def f(a):\n    a = 1\n    return [b for b in c]\n"),
        ("n = 0\ndef f():\n    global n\n    n = 1\n", "n = 0\ndef f():\n    n = 1\n"),
        ("def f():\n    global n\n    n = 1\n    return n\n", "def f():\n    n = 1\n    return n\n"),
        ("def f(a):\n    return [x for x in a], x\n", "def f(a):\n    return [y for x in a], x\n"),
        ("def f(list): return len(list)\n", "def f(x): return sum(x)\n"),
    ],
)
def test_what_differs_by_more_than_names(one, other):
    assert twin_key(one) != twin_key(other)


def test_a_function_is_found_among_others_in_a_class_and_in_prose():
    (key,) = function_keys(PROGRAM)
    among = (
        "import re\n\n\nclass A:\n    def other(self):\n        return re\n\n    def g(x, y):\n        z = x + len(y)\n"
    )
    among += "        return z\n"
    assert key in function_keys(among)
    for text in (f"Look:\n```python\n{PROGRAM}```\nWhat?", f"What does this give?\n\n{PROGRAM}f(1, [])\n", among):
        assert any(key in function_keys(piece) for piece in programs_in(text))
    assert not any(key in function_keys(piece) for piece in programs_in("def f(a, b): nothing of the kind"))
