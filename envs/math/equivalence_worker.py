"""The process behind ``equivalence``: reads pairs of answers as JSON lines, says for each whether they are equal.

Run by path, so that it imports nothing of this package. An expression may take any time and memory; the CPU timer and
the memory limit then end this process, and its parent starts another.
"""

import json
import re
import resource
import signal
import sys
from typing import Any

ENDS_IN_LETTER = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]\s*\}?\$?$|[a-zA-Z]\}")


def wrap(text: str) -> str:
    """Put bare LaTeX where the parser looks for it."""
    return text if "$" in text else f"${text}$"


def equal_with_i(golds: list[Any], answers: list[Any]) -> bool:
    """Whether two expressions without variables are one complex number; the parser takes i for a variable."""
    import sympy

    for gold in golds:
        for answer in answers:
            if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
                continue
            variables = gold.free_symbols | answer.free_symbols
            if {str(variable) for variable in variables} != {"i"}:
                continue
            unit: Any = dict.fromkeys(variables, sympy.I)
            value = sympy.N(gold.subs(unit))
            gap = sympy.N(value - sympy.N(answer.subs(unit)))
            if gap.is_number and abs(complex(gap)) <= 1e-9 * max(1.0, abs(complex(value))):
                return True
    return False


def compare(answer: str, gold: str, parse: Any, verify: Any, variables: Any) -> bool:
    """Whether two answers are equal. What the libraries stumble over (zoo, nan, recursion) is not equal.

    Args:
        variables: how to parse where a letter behind a number is no unit.
    """
    # Its own time limits use SIGALRM handlers, which cannot interrupt a long C call.
    no_limit: Any = {"parsing_timeout": None}
    try:
        golds = parse(wrap(gold), **no_limit) or parse(gold, **no_limit)
        answers = parse(wrap(answer), **no_limit) or parse(answer, **no_limit)
        if not golds or not answers:
            return False
        if verify(golds, answers, timeout_seconds=None) or equal_with_i(golds, answers):
            return True
        if not any(ENDS_IN_LETTER.search(text) for text in (answer, gold)):
            return False
        # The parser takes a letter at the end for a unit; here it may be a variable.
        golds, answers = (parse(wrap(text), variables, **no_limit) for text in (gold, answer))
        return bool(golds and answers and verify(golds, answers, timeout_seconds=None))
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError):
        return False


def main() -> None:
    cpu_seconds, memory_mib = float(sys.argv[1]), int(sys.argv[2])
    from latex2sympy2_extended.math_normalization import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    plain = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, equations=True)
    variables = [LatexExtractionConfig(normalization_config=plain)]

    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    replies, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        answer, gold = json.loads(line)
        # The default action of SIGPROF ends the process, wherever it is. CPU time, so that a busy machine changes no
        # verdict.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        equal = compare(answer, gold, parse, verify, variables)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(equal), file=replies, flush=True)


if __name__ == "__main__":
    main()
