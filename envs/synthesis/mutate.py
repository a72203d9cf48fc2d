"""Which bugs to try, in which order."""

import ast
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from .baseline import Baseline
from .mutations import Mutation, proposals
from .operators import OPERATORS, Operator
from .removal import first_line
from .sources import Source, read_source
from .spans import FunctionNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A bug to try, and the tests that enter its function."""

    path: str
    mutation: Mutation
    tests: tuple[str, ...]


def candidates(
    source: Source, baseline: Baseline, *, seed: int, operators: Mapping[str, Operator] = OPERATORS
) -> list[Candidate]:
    """All bugs in functions that passing tests enter, in the order to try them, some of which ``examine`` finds to be
    no change.

    Each round takes one bug of every function, in a random order of functions, and of each the operator least taken
    so far: any beginning of the list is spread over files, functions and operators. The same seed, the same order.
    """
    rng = random.Random(f"{seed}/{source.name}/{source.version}")
    by_function: dict[tuple[str, int], list[Candidate]] = defaultdict(list)
    for path in source.package_files:
        covered = {line for place, line in baseline.covering if place == path}
        if not covered:
            continue
        text = read_source(source, path)
        code_lines = {
            node.lineno: first_line(node) for node in ast.walk(ast.parse(text)) if isinstance(node, FunctionNode)
        }
        for mutation in proposals(text, operators):
            place = (path, code_lines[mutation.function_lineno])
            if place in baseline.covering:
                found = Candidate(path=path, mutation=mutation, tests=baseline.covering[place])
                by_function[place].append(found)
    order, taken = [], Counter()
    for group in by_function.values():
        rng.shuffle(group)
    while by_function:
        round_of_functions = sorted(by_function)
        rng.shuffle(round_of_functions)
        for place in round_of_functions:
            group = by_function[place]
            chosen = min(range(len(group)), key=lambda index: taken[group[index].mutation.operator])
            candidate = group.pop(chosen)
            taken[candidate.mutation.operator] += 1
            order.append(candidate)
            if not group:
                del by_function[place]
    return order
