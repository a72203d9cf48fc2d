"""Generated programs: random, short, always ending, with the same outcome every time.

Two kinds. ``small_program`` adds, subtracts and compares small numbers, in branches and loops: what a tiny model can
learn to predict.
``any_program`` uses most of the language: closures, generators, classes, exceptions, recursion, comprehensions,
asynchronous functions.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .run import TraceJob

Lines = list[str]
WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "ivy", "oak", "pine", "rowan")
LIMIT = 97
"""Products are taken modulo this, so that numbers stay short."""


def small_program(rng: random.Random) -> TraceJob:
    """A function of two numbers below 7 and a call: two to five updates of the two by sums and differences, some in a
    branch, some in a loop of at most three turns; it returns the number that was updated last."""
    body: Lines = []
    target = "a"
    for _ in range(rng.randint(2, 5)):
        target, line = _small_update(rng)
        kind = rng.random()
        if kind < 0.15:
            line = f"    {line}"
            body.append(f"if a {rng.choice('<>')} {rng.choice(['b', str(rng.randint(1, 5))])}:")
        elif kind < 0.25:
            line = f"    {target} {rng.choice('+-')}= {rng.choice(['i', '1', '2'])}"
            body.append(f"for i in range({rng.randint(1, 3)}):")
        body.append(line)
    source = "\n".join(["def f(a, b):", *_indented([*body, f"return {target}"])]) + "\n"
    return TraceJob(source=source, call=f"f({rng.randint(0, 6)}, {rng.randint(0, 6)})")


def _small_update(rng: random.Random) -> tuple[str, str]:
    """A name, and a line that gives it a new value."""
    target, other = rng.choice(["ab", "ba"])
    sign = rng.choice("+-")
    kind = rng.random()
    if kind < 0.65:
        return target, f"{target} {sign}= {rng.randint(1, 3)}"
    if kind < 0.8:
        return target, f"{target} {sign}= {other}"
    return target, f"{target} = {other} {sign} {rng.choice([target, str(rng.randint(1, 3))])}"


def any_program(rng: random.Random, *, statements: int = 6) -> TraceJob:
    """A program of several functions and classes, and a call of one.

    Args:
        statements: of the function that is called, on its outermost level; blocks hold more.
    """
    maker = _Maker(rng=rng)
    scope = _Scope(ints=["x", "y"], lists=["items"])
    body = maker.block(scope, statements, depth=0)
    result = rng.choice(
        [
            rng.choice(scope.ints),
            f"({rng.choice(scope.ints)}, {rng.choice(scope.lists)})",
            f"{{'a': {rng.choice(scope.ints)}, 'b': [{rng.choice(scope.ints)}]}}",
            f"'%d %d' % ({rng.choice(scope.ints)}, {rng.choice(scope.ints)})",
        ]
    )
    function = ["def run(x, y, items):", *_indented([*body, f"return {result}"])]
    source = "\n".join([*maker.imports, *maker.above, *function]) + "\n"
    items = [rng.randint(-9, 20) for _ in range(rng.randint(0, 4))]
    return TraceJob(source=source, call=f"run({rng.randint(-9, 20)}, {rng.randint(0, 9)}, {items})")


@dataclass(slots=True)
class _Scope:
    """Names that hold whole numbers, and lists of them."""

    ints: list[str]
    lists: list[str]


class _Maker:
    """Writes blocks, and above them the definitions that they use."""

    def __init__(self, *, rng: random.Random) -> None:
        self.rng = rng
        self.imports: Lines = []
        self.above: Lines = []
        self._count = 0
        self._kinds: list[Callable[[_Scope, int], Lines]] = [
            self._assign,
            self._assign,
            self._branch,
            self._loop,
            self._while,
            self._list,
            self._dict,
            self._comprehension,
            self._function,
            self._recursion,
            self._closure,
            self._generator,
            self._class,
            self._exception,
            self._manager,
            self._text,
            self._print,
            self._asynchronous,
        ]

    def block(self, scope: _Scope, statements: int, depth: int) -> Lines:
        lines: Lines = []
        for _ in range(statements):
            lines += self.rng.choice(self._kinds)(scope, depth)
        return lines

    def fresh(self, start: str) -> str:
        self._count += 1
        return f"{start}{self._count}"

    def number(self, scope: _Scope) -> str:
        """An expression of small numbers."""
        a, b, n = self.rng.choice(scope.ints), self.rng.choice(scope.ints), self.rng.randint(1, 12)
        forms = (a, str(n), f"{a} + {b}", f"{a} - {n}", f"{a} * {b} % {LIMIT}", f"max({a}, {n})", f"abs({a})")
        more = (
            f"len({self.rng.choice(scope.lists)})",
            f"{a} // {n}",
            f"({a} ^ {b}) & 63",
            f"-{a} if {a} > {n} else {b}",
        )
        return self.rng.choice(forms + more)

    def condition(self, scope: _Scope) -> str:
        sign = self.rng.choice(["<", ">", "<=", "==", "!="])
        return f"{self.rng.choice(scope.ints)} {sign} {self.number(scope)}"

    def _inner(self, scope: _Scope, depth: int) -> Lines:
        """A block whose new names do not last."""
        inside = _Scope(ints=list(scope.ints), lists=list(scope.lists))
        return self.block(inside, self.rng.randint(1, 2), depth + 1) if depth < 2 else self._update(inside)

    def _assign(self, scope: _Scope, depth: int) -> Lines:
        if self.rng.random() < 0.4:
            return self._update(scope)
        name = self.fresh("n")
        line = f"{name} = {self.number(scope)}"
        scope.ints.append(name)
        return [line]

    def _update(self, scope: _Scope) -> Lines:
        return [f"{self.rng.choice(scope.ints)} {self.rng.choice(['+=', '-='])} {self.rng.randint(1, 9)}"]

    def _branch(self, scope: _Scope, depth: int) -> Lines:
        lines = [f"if {self.condition(scope)}:", *_indented(self._inner(scope, depth))]
        if self.rng.random() < 0.5:
            lines += ["else:", *_indented(self._inner(scope, depth))]
        return lines

    def _loop(self, scope: _Scope, depth: int) -> Lines:
        name = self.fresh("i")
        over = self.rng.choice([f"range({self.rng.randint(1, 3)})", f"{self.rng.choice(scope.lists)}[:3]"])
        inside = _Scope(ints=[*scope.ints, name], lists=list(scope.lists))
        return [f"for {name} in {over}:", *_indented(self._inner(inside, depth))]

    def _while(self, scope: _Scope, depth: int) -> Lines:
        name = self.fresh("k")
        if self.rng.random() < 0.3:
            return [f"{name} = {self.rng.randint(1, 3)}", f"while {name} > 0: {name} -= 1"]
        body = [*self._inner(scope, depth), f"{name} -= 1"]
        return [f"{name} = {self.rng.randint(1, 3)}", f"while {name} > 0:", *_indented(body)]

    def _list(self, scope: _Scope, depth: int) -> Lines:
        name = self.fresh("list")
        scope_ints = [self.number(scope) for _ in range(self.rng.randint(0, 3))]
        scope.lists.append(name)
        lines = [f"{name} = [{', '.join(scope_ints)}]", f"{name}.append({self.number(scope)})"]
        return lines + ([f"{name}.sort()"] if self.rng.random() < 0.3 else [])

    def _dict(self, scope: _Scope, depth: int) -> Lines:
        name, count = self.fresh("table"), self.fresh("n")
        word = self.rng.choice(WORDS)
        lines = [f"{name} = {{{word!r}: {self.number(scope)}, 'rest': {{1, {self.number(scope)}}}}}"]
        lines += [f"{name}[{self.rng.choice(scope.ints)}] = {self.rng.choice(scope.lists)}", f"{count} = len({name})"]
        scope.ints.append(count)
        return lines

    def _comprehension(self, scope: _Scope, depth: int) -> Lines:
        name, over = self.fresh("list"), self.rng.choice(scope.lists)
        line = f"{name} = [v + {self.rng.choice(scope.ints)} for v in {over} if v != {self.rng.randint(0, 5)}]"
        scope.lists.append(name)
        return [line]

    def _function(self, scope: _Scope, depth: int) -> Lines:
        name, result = self.fresh("step"), self.fresh("n")
        inside = _Scope(ints=["p", "q"], lists=["r"])
        body = self._inner(inside, 1)
        default = self.rng.randint(0, 5)
        head = f"def {name}(p, q={default}, *r, **named):"
        self.above += [head, *_indented([*body, f"return {self.number(_Scope(ints=['p', 'q'], lists=['r']))}"]), ""]
        given = self.rng.choice(["", f", {self.number(scope)}", f", q={self.rng.randint(0, 9)}, other='z'"])
        line = f"{result} = {name}({self.number(scope)}{given})"
        scope.ints.append(result)
        return [line]

    def _recursion(self, scope: _Scope, depth: int) -> Lines:
        name, result = self.fresh("down"), self.fresh("n")
        more = self.rng.choice(["n + ", "2 * ", "1 + "])
        body = ["if n <= 0:", "    return 1", f"return {more}{name}(n - {self.rng.randint(1, 2)})"]
        self.above += [f"def {name}(n):", *_indented(body), ""]
        line = f"{result} = {name}(min({self.rng.choice(scope.ints)}, 4))"
        scope.ints.append(result)
        return [line]

    def _closure(self, scope: _Scope, depth: int) -> Lines:
        name, count, result = self.fresh("add"), self.fresh("total"), self.fresh("n")
        lines = [f"{count} = {self.number(scope)}", f"def {name}(by=1):", f"    nonlocal {count}"]
        lines += [f"    {count} += by", f"    return {count}", f"{result} = {name}() + {name}({self.number(scope)})"]
        scope.ints += [count, result]
        return lines

    def _generator(self, scope: _Scope, depth: int) -> Lines:
        name, result = self.fresh("each"), self.fresh("list")
        body = ["for v in values:", "    if v % 2:", "        yield v", "yield len(values)"]
        self.above += [f"def {name}(values):", *_indented(body), ""]
        line = f"{result} = list({name}({self.rng.choice(scope.lists)}[:3]))"
        scope.lists.append(result)
        return [line]

    def _class(self, scope: _Scope, depth: int) -> Lines:
        name, thing, result = self.fresh("Thing"), self.fresh("thing"), self.fresh("n")
        body = ["def __init__(self, size):", "    self.size = size", f"    self.name = {self.rng.choice(WORDS)!r}", ""]
        body += ["@property", "def double(self):", "    return 2 * self.size", ""]
        body += ["def grow(self, by):", "    self.size += by", "    return self"]
        self.above += [f"class {name}:", *_indented(body), ""]
        lines = [f"{thing} = {name}({self.number(scope)})", f"{result} = {thing}.grow({self.number(scope)}).double"]
        scope.ints.append(result)
        return lines

    def _exception(self, scope: _Scope, depth: int) -> Lines:
        name = self.fresh("n")
        risky = self.rng.choice(
            [
                f"{self.rng.choice(scope.ints)} // ({self.rng.choice(scope.ints)} % 2)",
                f"{self.rng.choice(scope.lists)}[2]",
                "{}['none']",
                "int('12x')",
                "len(None)",
            ]
        )
        lines = ["try:", f"    {name} = {risky}", "except (ZeroDivisionError, LookupError) as error:"]
        lines += [f"    {name} = len(error.args)", "except (ValueError, TypeError):", f"    {name} = -1"]
        if self.rng.random() < 0.5:
            lines += ["finally:", *_indented(self._update(scope))]
        scope.ints.append(name)
        return lines

    def _manager(self, scope: _Scope, depth: int) -> Lines:
        if "import contextlib" not in self.imports:
            self.imports.append("import contextlib")
        name = self.fresh("open")
        self.above += ["@contextlib.contextmanager", f"def {name}(log):", "    log.append(1)", "    try:"]
        self.above += ["        yield len(log)", "    finally:", "        log.append(0)", ""]
        value, log = self.fresh("n"), self.fresh("list")
        lines = [f"{log} = []", f"with {name}({log}) as {value}:", f"    {value} += {self.number(scope)}"]
        scope.ints.append(value)
        scope.lists.append(log)
        return lines

    def _text(self, scope: _Scope, depth: int) -> Lines:
        text, size = self.fresh("text"), self.fresh("n")
        word = self.rng.choice([*WORDS, "naïve", "<|frame_sep|>", 'quo"te', "tab\\t"])
        lines = [f"{text} = {word!r}.upper() + str({self.rng.choice(scope.ints)})", f"{size} = len({text})"]
        scope.ints.append(size)
        return lines

    def _print(self, scope: _Scope, depth: int) -> Lines:
        return [f"print({self.rng.choice(WORDS)!r}, {self.number(scope)}, {self.rng.choice(scope.lists)})"]

    def _asynchronous(self, scope: _Scope, depth: int) -> Lines:
        if "import asyncio" not in self.imports:
            self.imports.append("import asyncio")
        name, result = self.fresh("later"), self.fresh("n")
        body = ["await asyncio.sleep(0)", f"return n * {self.rng.randint(2, 4)}"]
        self.above += [f"async def {name}(n):", *_indented(body), ""]
        line = f"{result} = asyncio.run({name}({self.number(scope)}))"
        scope.ints.append(result)
        return [line]


def _indented(lines: Sequence[str]) -> Lines:
    return [f"    {line}" if line else "" for line in lines]
