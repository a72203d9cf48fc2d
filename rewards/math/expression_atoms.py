"""What binds closest in a formula: atoms with their powers, commands and functions with their arguments."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from .expression_cursor import DEEPEST, Cursor, NotRead
from .expression_tokens import Token

Tree = list[Any]
CLOSERS = {"(": ")", "[": "]", "{": "}"}
BRACKET_COMMANDS = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
TWO_ARGUMENTS = {"frac": "frac", "binom": "binomial", "dbinom": "binomial", "tbinom": "binomial"}
_INVERSE = {name: f"a{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}


class AtomReader(Cursor, ABC):
    """Reads atoms; what may stand in a bracket is read by ``expression``."""

    @abstractmethod
    def expression(self) -> Tree:
        """A sum, up to what is no part of it."""

    def signed(self, read: Callable[[], Tree]) -> Tree:
        """What ``read`` reads, with one sign before it at most."""
        if not self.is_sign("-", "+"):
            return read()
        negative = self.is_sign("-")
        self.at += 1
        return ["neg", read()] if negative else read()

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
                    raise NotRead
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
        if self.depth > DEEPEST:
            raise NotRead
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
        if self.depth > DEEPEST:
            raise NotRead
        found = self._atom()
        self.depth -= 1
        return found

    def _atom(self) -> Tree:
        token = self.peek()
        if token is None:
            raise NotRead
        self.at += 1
        if token.kind == "number":
            return number_tree(token)
        if token.kind == "constant":
            return ["const", token.text]
        if token.kind == "name":
            return ["sym", token.text + self.subscript()]
        if token.kind == "sign" and token.text in CLOSERS:
            inside = self.expression()
            self.take(CLOSERS[token.text])
            return inside
        if token.kind == "sign" and token.text == "|" and not self.bars:
            self.bars += 1
            inside = self.expression()
            self.bars -= 1
            self.take("|")
            return ["call", "abs", inside]
        if token.kind == "command":
            return self.command(token.text)
        raise NotRead

    def command(self, name: str) -> Tree:
        if name in TWO_ARGUMENTS:
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
        if name in BRACKET_COMMANDS:
            closer, function = BRACKET_COMMANDS[name]
            inside = self.expression()
            if not self.is_command(closer):
                raise NotRead
            self.at += 1
            return ["call", function, inside]
        raise NotRead

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
                raise NotRead
            self.at += 1
            return f"{found}_{token.text}"
        self.at += 1
        parts = []
        while not self.is_sign("}"):
            token = self.peek()
            if token is None or token.text == "{":
                raise NotRead
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
        if power is not None and power[0] == "neg" and integer_of(power[1]) == 1:
            if name not in _INVERSE:
                raise NotRead
            name, power = _INVERSE[name], None
        arguments = self.arguments()
        if base is not None:
            arguments.append(base)
        if not _fits(name, len(arguments)):
            raise NotRead
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
        if self.depth > DEEPEST:
            raise NotRead
        if self.is_sign(*CLOSERS):
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
                self.take(CLOSERS[opener])
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
            depth += (token.text in CLOSERS) - (token.text in CLOSERS.values())
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

    def starts_atom(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        if token.kind == "sign":
            return token.text in CLOSERS or (token.text == "|" and not self.bars)
        if token.kind == "command":
            return token.text in TWO_ARGUMENTS or token.text in BRACKET_COMMANDS or token.text == "sqrt"
        return True

    def factor(self) -> Tree:
        token = self.peek()
        if token is not None and token.kind == "function":
            return self.powers(self.call())
        return self.powers(self.atom())


def number_tree(token: Token) -> Tree:
    """A numeral's tree."""
    return ["num", f"{token.value.numerator}/{token.value.denominator}", token.places, token.digits]


def _digits(text: str) -> Token:
    return Token("number", text, Fraction(int(text)), None, len(text.lstrip("0")), True)


def integer_of(tree: Tree) -> int | None:
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
