"""Which of k samples to hand in. Pure functions of what was seen of them; hidden tests are not.

Source: the testing-based procedure of CWM (arXiv:2510.02387; evals/README.md of facebookresearch/cwm at 7930e02):
generated tests are filtered, the five of the largest majority are kept, the sample that passes most existing and
generated tests is taken, ties go to the majority's, then to the one of fewest tokens. What the paper leaves open is
decided here and said where it is.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TOP_TESTS = 5
"""Source: evals/README.md of facebookresearch/cwm, step 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What selection knows of a patch.

    Attributes:
        patch: as handed in.
        num_tokens: that its episode sampled; None where the policy does not tell.
        passed: ids of existing and generated tests that pass with it.
    """

    patch: str
    num_tokens: int | None = None
    passed: frozenset[str] = frozenset()


def choose(candidates: Sequence[Candidate]) -> int:
    """The index of the candidate to hand in: most tests passed, then the largest majority, then fewest tokens, then
    the first. An empty patch is taken only where all are empty.

    Raises:
        ValueError: there is no candidate.
    """
    if not candidates:
        raise ValueError("there is no candidate to choose from")
    forms = [normal_patch(candidate.patch) for candidate in candidates]
    sizes = Counter(forms)

    def rank(index: int) -> tuple[bool, int, int, float, int]:
        candidate, form = candidates[index], forms[index]
        tokens = float("inf") if candidate.num_tokens is None else candidate.num_tokens
        return not form, -len(candidate.passed), -sizes[form], tokens, index

    return min(range(len(candidates)), key=rank)


def majority_tests(tests: Sequence[str], keep: Callable[[str], bool], *, top: int = TOP_TESTS) -> list[str]:
    """The generated tests to trust: those that ``keep`` (fails at base, so that it shows the issue), one of each
    form, the most frequent forms first, at most ``top``.

    Two tests are of one form if they are the same program but for comments, docstrings, layout and the names of test
    functions (the paper does not say how its tests are compared).
    """
    forms = [normal_test(test) for test in tests]
    counted = Counter(form for form in forms if form is not None)
    found: list[str] = []
    for form, _ in counted.most_common():
        if len(found) == top:
            break
        test = tests[forms.index(form)]
        if keep(test):
            found.append(test)
    return found


def majority_vote(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> int | None:
    """The index of the first answer of the largest group of equal ones; None where no sample states an answer.

    Args:
        answers: [K] stated answers.
        same: whether two answers are equal.
    """
    groups: list[list[int]] = []
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        for group in groups:
            if answers[group[0]] == answer or same(answer, str(answers[group[0]])):
                group.append(index)
                break
        else:
            groups.append([index])
    return max(groups, key=len)[0] if groups else None


def normal_patch(patch: str) -> str:
    """What a patch changes, without positions, context and spaces at the ends of lines: patches of one form are one
    vote."""
    lines = []
    for line in patch.splitlines():
        if line.startswith(("+++ ", "--- ")):
            lines.append(re.sub(r"\t.*", "", line).rstrip())
        elif line.startswith(("+", "-")) and line[1:].strip():
            lines.append(line.rstrip())
    return "\n".join(lines)


def normal_test(source: str) -> str | None:
    """A test file's program in one spelling; None where it is no Python, or has no test."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                del node.body[0]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            node.name = f"test_{count}"
            count += 1
    return ast.unparse(tree) if count else None
