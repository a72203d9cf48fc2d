"""The tree of a formula. All of the text is read, or none of it: a part is never taken for the whole.

A tree is of lists and strings, so that it can be sent to another process:

    ["num", "3/2", places, digits]   places after the point (None: no point), significant digits
    ["sym", name]  ["const", "pi" | "e" | "oo"]
    ["add", a, b, ...]  ["mul", a, b, ...]  ["div", a, b]  ["neg", a]  ["pow", a, b]
    ["mixed", whole, fraction]  ["frac", a, b]  ["call", name, a, ...]  ["fact", a]  ["percent", a]
"""

from .expression_atoms import AtomReader, Tree, integer_of, number_tree
from .expression_cursor import DEEPEST, NotRead
from .expression_tokens import tokens_of

Statement = tuple[list[Tree], list[str]]
"""(terms, relations between them); one term without a relation is an expression."""

_RELATIONS = {"=": "=", "<": "<", ">": ">", "!=": "ne", "le": "le", "ge": "ge", "ne": "ne", "approx": "="}
_MINUS_ONE: Tree = ["neg", ["num", "1/1", None, 1]]


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
    except NotRead:
        return None


class _Reader(AtomReader):
    """Recursive descent: sums of products. Juxtaposition binds closer than "/", as in 1/2x."""

    def relation(self) -> str | None:
        token = self.peek()
        return _RELATIONS.get(token.text) if token is not None and token.kind in ("sign", "command") else None

    def expression(self) -> Tree:
        self.depth += 1
        if self.depth > DEEPEST:
            raise NotRead
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
        """A product with its signs, two at most: "+", "-" and "--" before it are its own."""
        start, negations = self.at, 0
        while self.is_sign("+", "-") and self.at < start + 2:
            negations += self.is_sign("-")
            self.at += 1
        product = self.product()
        for _ in range(negations):
            product = ["neg", product]
        return product

    def product(self) -> Tree:
        found = self.juxtaposed()
        ratios = 0
        for _ in range(DEEPEST * 4):
            if self.is_sign("*"):
                self.at += 1
                right = self.signed(self.juxtaposed)
                found = [*found, right] if found[0] == "mul" else ["mul", found, right]
            elif self.is_sign("/", ":"):
                ratio = self.is_sign(":")
                ratios += ratio
                if ratios > 1:
                    raise NotRead  # 1:2:3 is not (1:2):3
                self.at += 1
                right = self.signed(self.juxtaposed)
                # "6 : 2" leaves a division, "6/2" is a fraction too.
                found = ["mul", found, ["pow", right, _MINUS_ONE]] if ratio else ["div", found, right]
                if _depth(found) > DEEPEST:
                    raise NotRead
            else:
                return found
        raise NotRead

    def juxtaposed(self) -> Tree:
        mixed = self.mixed_number()
        factors = [mixed if mixed is not None else self.factor()]
        while self.starts_atom():
            token = self.peek()
            assert token is not None
            if token.kind == "number" and (
                self.tokens[self.at - 1].kind == "number" or (token.glued and self.tokens[self.at - 1].kind == "name")
            ):
                raise NotRead  # "1 2" and "x2" are no products
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
            part = ["frac", number_tree(top), number_tree(bottom)]
        if part is not None and part[0] == "frac" and part[1][0] == part[2][0] == "num":
            numbers = [integer_of(part[1]), integer_of(part[2])]
            if None not in numbers and numbers[0] < numbers[1] and not self.is_sign("^", "!", "_"):  # type: ignore[operator]
                return ["mixed", number_tree(whole), part]
        self.at = start
        return None


def _depth(tree: Tree) -> int:
    """Levels of divisions on the left."""
    levels = 0
    while tree[0] == "div":
        tree, levels = tree[1], levels + 1
    return levels
