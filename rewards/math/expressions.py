"""The tree of a formula. All of the text is read, or none of it: a part is never taken for the whole.

A tree is of lists and strings, so that it can be sent to another process:

    ["num", "3/2", places, digits]   places after the point (None: no point), significant digits
    ["sym", name]  ["const", "pi" | "e" | "oo"]
    ["add", a, b, ...]  ["mul", a, b, ...]  ["div", a, b]  ["neg", a]  ["pow", a, b]
    ["mixed", whole, fraction]  ["frac", a, b]  ["call", name, a, ...]  ["fact", a]  ["percent", a]
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from .expression_tokens import Token, tokens_of

Tree = list[Any]
Statement = tuple[list[Tree], list[str]]
"""(terms, relations between them); one term without a relation is an expression."""

_DEEPEST = 60
_RELATIONS = {"=": "=", "<": "<", ">": ">", "!=": "ne", "le": "le", "ge": "ge", "ne": "ne", "approx": "="}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_BRACKET_COMMANDS = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
_TWO_ARGUMENTS = {"frac": "frac", "binom": "binomial", "dbinom": "binomial", "tbinom": "binomial"}
_MINUS_ONE: Tree = ["neg", ["num", "1/1", None, 1]]
_INVERSE = {name: f"a{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}


class _NotRead(Exception):
    """The text is no formula of this grammar."""


def read_expression(text: str) -> Tree | None:
    """The tree of an expression; None where any of the text is not part of one."""
    statement = read_statement(text)
    return statement[0][0] if statement is not None and not statement[1] else None


def read_statement(text: str) -> Statement | None:
    """The terms and relations of "a = b", "a < b <= c" or "a"; None where any of the text is not part of it."""
    tokens = tokens_of(text)
    if not tokens:
        return None
    terms: list[Tree] = []
    relations: list[str] = []
    try:
        reader = _Reader(tokens)
        if reader.relation() == "=":
            reader.at += 1  # "= 5" says 5; "< 5" does not
        while True:
            terms.append(reader.expression())
            relation = reader.relation()
            if relation is None:
                break
            relations.append(relation)
            reader.at += 1
        return (terms, relations) if reader.at == len(tokens) else None
    except _NotRead:
        return None


class _Reader:
    """Recursive descent. Juxtaposition binds closer than "/", as in 1/2x."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = list(tokens)
        self.at = 0
        self.depth = 0
        self.bars = 0

    def peek(self, ahead: int = 0) -> Token | None:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def is_sign(self, *signs: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind == "sign" and token.text in signs

    def is_command(self, *names: str) -> bool:
        token = self.peek()
        return token is not None and token.kind == "command" and token.text in names

    def relation(self) -> str | None:
        token = self.peek()
        return _RELATIONS.get(token.text) if token is not None and token.kind in ("sign", "command") else None

    def take(self, sign: str) -> None:
        if not self.is_sign(sign):
            raise _NotRead
        self.at += 1

    def expression(self) -> Tree:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _NotRead
        terms = [self.term()]
        while self.is_sign("+", "-"):
            terms.append(self.term())
        found = terms[0] if len(terms) == 1 else ["add", *terms]
        if self.is_command("choose"):
            self.at += 1
            found = ["call", "binomial", found, self.expression()]
        self.depth -= 1
        return found

    def term(self) -> Tree:
        """A product with its signs: "+", "-" and "--" before it are its own."""
        negative = False
        while self.is_sign("+", "-"):
            negative ^= self.is_sign("-")
            self.at += 1
        product = self.product()
        return ["neg", product] if negative else product

    def product(self) -> Tree:
        found = self.juxtaposed()
        ratios = 0
        for _ in range(_DEEPEST * 4):
            if self.is_sign("*"):
                self.at += 1
                right = self.signed(self.juxtaposed)
                found = [*found, right] if found[0] == "mul" else ["mul", found, right]
            elif self.is_sign("/", ":"):
                ratio = self.is_sign(":")
                ratios += ratio
                if ratios > 1:
                    raise _NotRead  # 1:2:3 is not (1:2):3
                self.at += 1
                right = self.signed(self.juxtaposed)
                # "6 : 2" leaves a division, "6/2" is a fraction too.
                found = ["mul", found, ["pow", right, _MINUS_ONE]] if ratio else ["div", found, right]
                if _depth(found) > _DEEPEST:
                    raise _NotRead
            else:
                return found
        raise _NotRead

    def signed(self, read: Any) -> Tree:
        if not self.is_sign("-", "+"):
            return read()
        negative = self.is_sign("-")
        self.at += 1
        return ["neg", read()] if negative else read()

    def juxtaposed(self) -> Tree:
        mixed = self.mixed_number()
        factors = [mixed if mixed is not None else self.factor()]
        while self.starts_atom():
            token = self.peek()
            assert token is not None
            if token.kind == "number" and (
                self.tokens[self.at - 1].kind == "number" or (token.glued and self.tokens[self.at - 1].kind == "name")
            ):
                raise _NotRead  # "1 2" and "x2" are no products
            factors.append(self.factor())
        return factors[0] if len(factors) == 1 else ["mul", *factors]

    def mixed_number(self) -> Tree | None:
        """ "3 1/2" and "3\\frac{1}{2}"; None where the next is none, which leaves the place as it was."""
        whole, start = self.peek(), self.at
        if whole is None or whole.kind != "number" or whole.value.denominator != 1 or whole.places is not None:
            return None
        self.at += 1
        top, slash, bottom = self.peek(), self.peek(1), self.peek(2)
        part: Tree | None = None
        if self.is_command("frac"):
            part = self.atom()
        elif top and bottom and top.kind == bottom.kind == "number" and slash and slash.text == "/" and not top.glued:
            self.at += 3
            part = ["frac", _num(top), _num(bottom)]
        if part is not None and part[0] == "frac" and part[1][0] == part[2][0] == "num":
            numbers = [_whole(part[1]), _whole(part[2])]
            if None not in numbers and numbers[0] < numbers[1] and not self.is_sign("^", "!", "_"):  # type: ignore[operator]
                return ["mixed", _num(whole), part]
        self.at = start
        return None

    def starts_atom(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        if token.kind == "sign":
            return token.text in _CLOSERS or (token.text == "|" and not self.bars)
        if token.kind == "command":
            return token.text in _TWO_ARGUMENTS or token.text in _BRACKET_COMMANDS or token.text == "sqrt"
        return True

    def factor(self) -> Tree:
        token = self.peek()
        if token is not None and token.kind == "function":
            return self.powers(self.call())
        return self.powers(self.atom())

    def powers(self, base: Tree) -> Tree:
        """What stands behind an atom: powers, factorials, a percent sign."""
        raised = False
        while True:
            if self.is_sign("^") and not raised:
                self.at += 1
                if self.is_degree():
                    base = ["mul", base, ["sym", "deg"]]
                    continue
                base, raised = ["pow", base, self.exponent()], True
            elif self.is_sign("!") and not raised:
                self.at += 1
                double = self.is_sign("!")
                self.at += double
                if self.is_sign("!"):
                    raise _NotRead
                base = ["call", "factorial2", base] if double else ["fact", base]
            elif self.is_sign("%"):
                self.at += 1
                return ["percent", base]
            else:
                return base

    def is_degree(self) -> bool:
        """Takes "{\\circ}" behind "^"."""
        inner = self.peek(1)
        braced = self.is_sign("{") and inner is not None and inner.kind == "command" and inner.text == "circ"
        if braced and self.is_sign("}", ahead=2):
            self.at += 3
            return True
        return False

    def exponent(self) -> Tree:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _NotRead
        found = self.signed(self.exponent_atom)
        self.depth -= 1
        return found

    def exponent_atom(self) -> Tree:
        token = self.peek()
        base = self.call() if token is not None and token.kind == "function" else self.atom()
        if self.is_sign("^"):
            self.at += 1
            return ["pow", base, self.exponent()]
        return base

    def atom(self) -> Tree:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _NotRead
        found = self._atom()
        self.depth -= 1
        return found

    def _atom(self) -> Tree:
        token = self.peek()
        if token is None:
            raise _NotRead
        self.at += 1
        if token.kind == "number":
            return _num(token)
        if token.kind == "constant":
            return ["const", token.text]
        if token.kind == "name":
            return ["sym", token.text + self.subscript()]
        if token.kind == "sign" and token.text in _CLOSERS:
            inside = self.expression()
            self.take(_CLOSERS[token.text])
            return inside
        if token.kind == "sign" and token.text == "|" and not self.bars:
            self.bars += 1
            inside = self.expression()
            self.bars -= 1
            self.take("|")
            return ["call", "abs", inside]
        if token.kind == "command":
            return self.command(token.text)
        raise _NotRead

    def command(self, name: str) -> Tree:
        if name in _TWO_ARGUMENTS:
            first, second = self.argument(), self.argument()
            return ["frac", first, second] if name == "frac" else ["call", "binomial", first, second]
        if name == "sqrt":
            index: Tree | None = None
            if self.is_sign("["):
                self.at += 1
                index = self.expression()
                self.take("]")
            inside = self.argument()
            return ["call", "sqrt", inside] if index is None else ["call", "root", inside, index]
        if name in _BRACKET_COMMANDS:
            closer, function = _BRACKET_COMMANDS[name]
            inside = self.expression()
            if not self.is_command(closer):
                raise _NotRead
            self.at += 1
            return ["call", function, inside]
        raise _NotRead

    def argument(self) -> Tree:
        """Of a command, as TeX takes it: a group, or one digit, letter or command."""
        token = self.peek()
        if token is not None and token.kind == "number" and token.text.isdigit() and len(token.text) > 1:
            first, rest = token.text[0], token.text[1:]
            self.tokens[self.at : self.at + 1] = [_digits(first), _digits(rest)]
        if token is not None and token.kind == "function":
            return self.call()
        return self.atom()

    def subscript(self) -> str:
        """Of a name, with its primes; "" where it has none."""
        found = ""
        while self.is_sign("'"):
            self.at += 1
            found += "'"
        if not self.is_sign("_"):
            return found
        self.at += 1
        if not self.is_sign("{"):
            token = self.peek()
            if token is None or token.kind not in ("number", "name", "constant"):
                raise _NotRead
            self.at += 1
            return f"{found}_{token.text}"
        self.at += 1
        parts = []
        while not self.is_sign("}"):
            token = self.peek()
            if token is None or token.text == "{":
                raise _NotRead
            parts.append(token.text)
            self.at += 1
        self.at += 1
        return f"{found}_{''.join(parts)}"

    def call(self) -> Tree:
        """A function with its argument: in brackets, or what stands behind it up to the next sign or function."""
        token = self.peek()
        assert token is not None
        self.at += 1
        name, base, power = token.text, None, None
        for _ in range(2):
            if self.is_sign("_") and name == "log" and base is None:
                self.at += 1
                base = self.argument()
            elif self.is_sign("^") and power is None:
                self.at += 1
                power = self.exponent()
        if power is not None and power[0] == "neg" and _whole(power[1]) == 1:
            if name not in _INVERSE:
                raise _NotRead
            name, power = _INVERSE[name], None
        arguments = self.arguments()
        if base is not None:
            arguments.append(base)
        if not _fits(name, len(arguments)):
            raise _NotRead
        found: Tree = arguments[0] if name == "value" else ["call", name, *arguments]
        if name == "ratio":
            found = ["frac", *arguments] if len(arguments) == 2 else arguments[0]
        if name == "pow":
            found = ["pow", *arguments]
        if name == "factorial":
            found = ["fact", *arguments]
        return found if power is None else ["pow", found, power]

    def arguments(self) -> list[Tree]:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _NotRead
        if self.is_sign(*_CLOSERS):
            opener = self.tokens[self.at].text
            if opener == "{" and self.is_sign("(", ahead=1) and self.closes_with_brace():
                self.at += 1
                found = self.arguments()
                self.take("}")
            else:
                self.at += 1
                found = [self.expression()]
                while self.is_sign(","):
                    self.at += 1
                    found.append(self.expression())
                self.take(_CLOSERS[opener])
        else:
            found = [self.signed(self.open_argument)]
        self.depth -= 1
        return found

    def closes_with_brace(self) -> bool:
        """Whether the bracket behind "{" is closed right before the brace is: "{(x)}"."""
        depth = 0
        for place in range(self.at + 1, len(self.tokens)):
            token = self.tokens[place]
            if token.kind != "sign":
                continue
            depth += (token.text in _CLOSERS) - (token.text in _CLOSERS.values())
            if depth == 0:
                return place + 1 < len(self.tokens) and self.tokens[place + 1].text == "}"
        return False

    def open_argument(self) -> Tree:
        token = self.peek()
        if token is not None and token.kind == "function":
            return self.factor()
        factors = [self.powers(self.atom())]
        while self.starts_atom() and not self.is_sign("(", "[", "{"):
            token = self.peek()
            if token is not None and (token.kind == "function" or token.kind == "number"):
                break
            factors.append(self.powers(self.atom()))
        return factors[0] if len(factors) == 1 else ["mul", *factors]


def _num(token: Token) -> Tree:
    return ["num", f"{token.value.numerator}/{token.value.denominator}", token.places, token.digits]


def _digits(text: str) -> Token:
    return Token("number", text, Fraction(int(text)), None, len(text.lstrip("0")), True)


def _whole(tree: Tree) -> int | None:
    """The value of an integer numeral."""
    if tree[0] != "num" or not tree[1].endswith("/1") or tree[2] is not None:
        return None
    return int(tree[1].removesuffix("/1"))


def _fits(name: str, count: int) -> bool:
    if name in ("gcd", "lcm", "max", "min"):
        return count >= 1
    if name in ("root", "binomial", "pow"):
        return count == 2
    if name in ("log", "ratio"):
        return count in (1, 2)
    return count == 1


def _depth(tree: Tree) -> int:
    """Levels of divisions on the left."""
    levels = 0
    while tree[0] == "div":
        tree, levels = tree[1], levels + 1
    return levels
