"""The process behind ``equivalence``: reads pairs of answers as JSON lines, says for each whether they are equal.

Run by path, so that it imports nothing of this package but the file beside it. An expression may take any time and
memory; the CPU timer and the memory limit then end this process, and its parent starts another.

A line is [answer, gold, statement of the answer, statement of the gold]; a statement is what
``rewards/math/expressions.py`` read, null where it could not. Where both were read these decide; else
latex2sympy reads both texts, whole, for sums, integrals, limits and sets.
"""

import importlib.util
import json
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Any

IMAGINARY, VECTORS = {"i"}, {"j", "k"}
_READ = """
    frac dfrac tfrac sqrt pi infty cdot times div ast sum prod int lim to rightarrow cup cap setminus mathbb emptyset in
    begin end det sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp binom max min gcd lcm theta
    alpha beta gamma delta lambda mu omega phi varphi rho sigma tau le ge lfloor rfloor lceil rceil lvert rvert left
    right mathrm limits
"""
_COMMANDS = frozenset(_READ.split())
"""What latex2sympy may be asked to read. It takes words of a text for products of letters."""
# Words in upright type, subscripts of numbers, primes and "!=" it passes over.
_NOT_READ = re.compile(r"!\s*=|\\mathrm\s*\{\s*\w\w|'|\d\s*_")


def _beside(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_in(tree: Any) -> set[str]:
    """The names that a tree has."""
    if tree[0] == "sym":
        return {tree[1]}
    return set().union(*(names_in(part) for part in tree[1:] if isinstance(part, list)))


def has_log(tree: Any) -> bool:
    """Whether a tree has a logarithm that names no base."""
    if tree[:2] == ["call", "log"] and len(tree) == 3:
        return True
    return any(has_log(part) for part in tree[1:] if isinstance(part, list))


class Comparison:
    """Compares statements; ``algebra`` is the module beside this one."""

    def __init__(self, algebra: Any) -> None:
        self.algebra = algebra

    def equal(self, answer: Any, gold: Any) -> bool:
        """Under any reading of what the two leave open, the same for both."""
        terms = [*answer[0], *gold[0]]
        import sympy

        bases = [sympy.E, sympy.Integer(10)] if any(map(has_log, terms)) else [sympy.E]
        given, wanted = (set().union(*map(names_in, side[0])) for side in (answer, gold))
        readings: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {})]
        if given != wanted:
            readings.append((self.renamed(given, wanted), {}))
        if "i" in given | wanted and not (given | wanted) & VECTORS:
            readings += [({"i": sympy.I, **own}, {"i": sympy.I}) for own, _ in list(readings)]
        elif {"I", "j"} & given and not (wanted & {"I", "j"}):
            readings.append(({"I": sympy.I, "j": sympy.I}, {"i": sympy.I}))
        return any(self.equal_as(answer, gold, own, others, base) for own, others in readings for base in bases)

    @staticmethod
    def renamed(given: set[str], wanted: set[str]) -> dict[str, Any]:
        """Names of an answer that the gold has in another case; "E" and "I" as a Python tool prints constants."""
        import sympy

        found: dict[str, Any] = {}
        for name in given - wanted:
            match = next((one for one in wanted if one.casefold() == name.casefold() and one not in given), None)
            if match is not None:
                found[name] = sympy.I if (name, match) == ("I", "i") else sympy.Symbol(match, real=True)
            elif name in ("E", "I"):
                found[name] = sympy.E if name == "E" else sympy.I
            elif name == "j" and not wanted & {"j"}:
                found[name] = sympy.I
        return found

    def equal_as(self, answer: Any, gold: Any, own: dict[str, Any], others: dict[str, Any], base: Any) -> bool:
        built = [self.algebra.build(term, own, base) for term in answer[0]]
        wanted = [self.algebra.build(term, others, base) for term in gold[0]]
        if not answer[1] and not gold[1]:
            return self.same_values(answer[0][0], built[0], gold[0][0], wanted[0])
        if not gold[1]:
            return self.stated(answer, built, lambda tree, value: self.same_values(tree, value, gold[0][0], wanted[0]))
        if not answer[1]:
            return self.stated(gold, wanted, lambda tree, value: self.same_values(answer[0][0], built[0], tree, value))
        return self.same_relations(answer, built, gold, wanted)

    def same_values(self, tree: Any, value: Any, gold_tree: Any, gold_value: Any) -> bool:
        for numeral, exact in ((tree, gold_value), (gold_tree, value)):
            if is_numeral(numeral):
                rounded = self.algebra.is_rounded(numeral, exact)
                if rounded:
                    return True
        return self.algebra.same(value, gold_value)

    def stated(self, statement: Any, values: Any, same: Any) -> bool:
        """Of "name = 5", "5 = name" and "2 + 3 = 5" the value; "2x = 5" and "x + 1 = y" state none."""
        terms, relations = statement
        if set(relations) != {"="}:
            return False
        if len(terms) == 2 and is_name(terms[1]) and not is_name(terms[0]):
            return same(terms[0], values[0])
        named = is_name(terms[0]) or not values[0].free_symbols or self.algebra.same(values[0], values[-1])
        return named and same(terms[-1], values[-1])

    def same_relations(self, answer: Any, built: Any, gold: Any, wanted: Any) -> bool:
        answer, built, gold, wanted = *ends_of(answer, built), *ends_of(gold, wanted)
        if len(answer[1]) == len(gold[1]) == 1:
            one, other = ((side[1][0], *values) for side, values in ((answer, built), (gold, wanted)))
            if one[0] == other[0] == "=" and self.same_name(built, wanted):
                return self.same_values(answer[0][1], built[1], gold[0][1], wanted[1])
            return self.algebra.same_relation(other, one)
        return answer[1] == gold[1] and all(map(self.algebra.same, built, wanted))

    @staticmethod
    def same_name(built: Any, wanted: Any) -> bool:
        """Of two "name = value": "f(x) = 5" and "f(t) = 5" are of one function, whose value names no argument."""
        if built[0] == wanted[0]:
            return True
        if built[1].free_symbols | wanted[1].free_symbols or not all(side[0].is_Mul for side in (built, wanted)):
            return False
        given, other = (side[0].free_symbols for side in (built, wanted))
        return len(given) == len(other) == 2 and len(given & other) == 1


def ends_of(statement: Any, values: Any) -> tuple[Any, Any]:
    """A chain "name = ... = value" without what stands between; any other statement as it is."""
    terms, relations = statement
    if len(relations) < 2 or set(relations) != {"="} or not is_name(terms[0]):
        return statement, values
    return ([terms[0], terms[-1]], ["="]), [values[0], values[-1]]


def is_numeral(tree: Any) -> bool:
    return tree[0] == "num" or (tree[0] == "neg" and tree[1][0] == "num")


def is_name(tree: Any) -> bool:
    """Of variables alone: "x", "AB", "f(x)", "a + b"."""
    if tree[0] == "sym":
        return True
    return tree[0] in ("mul", "add", "neg", "frac", "div", "call") and all(
        is_name(part) for part in tree[1:] if isinstance(part, list)
    )


def read_by_library(text: str) -> Any:
    """The sympy object of a text that latex2sympy reads whole, its numbers exact; None where it does not."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import latex2sympy
    from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex

    if not set(re.findall(r"\\([a-zA-Z]+)", text)) <= _COMMANDS or _NOT_READ.search(text):
        return None
    plain = NormalizationConfig(basic_latex=True, malformed_operators=True, boxed="none")
    try:
        found: Any = latex2sympy(
            normalize_latex(text, plain), is_real=True, convert_degrees=False, normalization_config=None
        )
    except Exception:  # the parser raises anything on what it cannot read: its own, ANTLR's, sympy's, a KeyError
        return None
    return found.replace(lambda one: isinstance(one, sympy.Float), lambda one: sympy.Rational(str(one)))


def compare(request: Any, comparison: Comparison) -> bool:
    """Whether two answers are equal. What the libraries stumble over (zoo, nan, recursion) is not equal."""
    answer, gold, answer_read, gold_read = request
    try:
        if answer_read and gold_read:
            return comparison.equal(answer_read, gold_read)
        wanted = read_by_library(gold)
        given = None if wanted is None else read_by_library(answer)
        return given is not None and comparison.algebra.same_object(wanted, given)
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError, NotImplementedError):
        return False


def main() -> None:
    cpu_seconds, memory_mib = float(sys.argv[1]), int(sys.argv[2])
    comparison = Comparison(_beside("equivalence_sympy"))
    import latex2sympy2_extended.latex2sympy2  # noqa: F401 - before the clock of a pair runs

    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    replies, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        # The default action of SIGPROF ends the process, wherever it is. CPU time, so that a busy machine changes no
        # verdict.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        equal = compare(request, comparison)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(equal), file=replies, flush=True)


if __name__ == "__main__":
    main()
