"""Tasks of real libraries with faults that were planted, and without: does the audit find them?

    python -P benchmarks/audit/planted.py make DIR NAME==VERSION ... [--each N]     writes DIR/rows.jsonl
    verigym tasks audit DIR/rows.jsonl --out DIR/audit.jsonl
    python -P benchmarks/audit/planted.py score DIR

A task is a function of the library that lost its body; the library's own tests that then fail are FAIL_TO_PASS. One in
two is left as it is ("sound": whatever the library's tests are worth), the others get one fault each. The fault stands
in the row's ``planted``, which the audit does not read.
"""

import argparse
import ast
import asyncio
import copy
import itertools
import json
import random
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verigym.envs.audit.solutions.structure import structures
from verigym.envs.audit.solutions.variants import Solved, functions_of
from verigym.envs.datasets.swe import pack_repository
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.synthesis.baseline import Baseline, measure_baseline
from verigym.envs.synthesis.diffs import git_diff
from verigym.envs.synthesis.probing import Job, file_of, open_probe
from verigym.envs.synthesis.removal import first_line, without_functions
from verigym.envs.synthesis.sources import Source, open_source, read_source
from verigym.envs.synthesis.spans import FunctionNode

MOST_TESTS, LEAST_TESTS = 40, 2
WORDS = ("harbour", "lantern", "meadow", "pebble", "saddle", "thicket", "velvet", "walnut")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A function without its body, and what then fails.

    Attributes:
        base, gold: of the library's file.
        hidden, whole: path -> test files without and with the failing tests.
    """

    source: Source
    path: str
    name: str
    node: FunctionNode
    base: str
    gold: str
    hidden: Mapping[str, str]
    whole: Mapping[str, str]
    failing: tuple[str, ...]
    passing: tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("make")
    make.add_argument("folder", type=Path)
    make.add_argument("libraries", nargs="+")
    make.add_argument("--each", type=int, default=12, help="functions of one library")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--only", help="one kind of fault for all rows, such as weak")
    make.set_defaults(run=run_make)
    score = commands.add_parser("score")
    score.add_argument("folder", type=Path)
    score.set_defaults(run=run_score)
    args = parser.parse_args()
    return args.run(args)


def run_make(args: argparse.Namespace) -> int:
    args.folder.mkdir(parents=True, exist_ok=True)
    faults = itertools.cycle([args.only] if args.only else FAULTS)
    out = args.folder / "rows.jsonl"
    for spec in args.libraries:
        rng = random.Random(f"{args.seed}/{spec}")
        with tempfile.TemporaryDirectory() as scratch:
            source = open_source(spec, Path(scratch))
            for number, lost in enumerate(asyncio.run(losses(source, args.each, rng))):
                row = row_of(lost, args.folder, "sound") if number % 2 and not args.only else None
                for _ in FAULTS:
                    row = row or row_of(lost, args.folder, next(faults))
                if row is None:
                    continue
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row["instance_id"], row["planted"], flush=True)
    return 0


async def losses(source: Source, most: int, rng: random.Random) -> list[Lost]:
    """Functions that tests notice the loss of."""
    found: list[Lost] = []
    async with open_probe(source, make_backend("local")) as probe:
        baseline = await measure_baseline(probe, source)
        places = [place for place, tests in baseline.covering.items() if LEAST_TESTS <= len(tests) <= MOST_TESTS]
        rng.shuffle(places)
        for path, line in places:
            gold = read_source(source, path)
            named = {first_line(node): (name, node) for name, node in functions_of(ast.parse(gold)).items()}
            if line not in named or (base := without_body(gold, named[line][1])) is None:
                continue
            tests = baseline.covering[path, line]
            files = tuple(dict.fromkeys(map(file_of, tests)))
            job = Job(key="lost", collect=files, files={path: base}, deadline_s=baseline.deadline_s(baseline.passing))
            (result,) = await probe.run([job])
            known = set(baseline.passing)
            failing = [test for test in result.with_outcome("failed", "error") if test in known]
            passing = [test for test in result.with_outcome("passed") if test in known]
            hidden = without_tests(source, baseline, failing) if result.is_whole and failing and passing else None
            if hidden is not None and len(failing) <= MOST_TESTS:
                name, node = named[line]
                whole = {file: read_source(source, file) for file in hidden}
                lost = Lost(
                    source=source, path=path, name=name, node=node, base=base, gold=gold,
                    hidden=hidden, whole=whole, failing=tuple(failing), passing=tuple(passing),
                )  # fmt: skip
                found.append(lost)
            if len(found) >= most:
                break
    return found


def without_body(text: str, node: FunctionNode) -> str | None:
    """The source with a function that raises; None where the function is too small to be a task."""
    body = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    statements = [one for one in ast.walk(node) if isinstance(one, ast.stmt)]
    if len(statements) < 5 or body[0].lineno == node.lineno or node.name.startswith("__"):
        return None
    lines = text.splitlines(keepends=True)
    assert node.end_lineno is not None
    lines[body[0].lineno - 1 : node.end_lineno] = [f'{" " * body[0].col_offset}raise NotImplementedError("lost")\n']
    return "".join(lines)


def without_tests(source: Source, baseline: Baseline, tests: list[str]) -> dict[str, str] | None:
    places: dict[str, set[int]] = {}
    for test in tests:
        path, line = baseline.locations[test]
        places.setdefault(path, set()).add(line)
    if any(path in source.package_files or not (source.root / path).is_file() for path in places):
        return None
    found = {path: without_functions(read_source(source, path), lines) for path, lines in places.items()}
    return None if None in found.values() else {path: text for path, text in found.items() if text is not None}


def statement_of(lost: Lost) -> str:
    """What is told: signature, documentation, and the messages that the library raises there."""
    first = lost.node.body[0].lineno
    head = "".join(lost.gold.splitlines(keepends=True)[lost.node.lineno - 1 : first - 1])
    doc = ast.get_docstring(lost.node) or "It is called where its name says."
    said = [one.value for one in ast.walk(lost.node) if isinstance(one, ast.Constant) and type(one.value) is str]
    messages = "\n".join(f"- {text!r}" for text in dict.fromkeys(said) if " " in text and text not in doc)
    return (
        f"{lost.name} lost its body and raises NotImplementedError\n\nIn {lost.path} the function should do again what "
        f"its documentation says, for all arguments, and what its callers expect:\n\n"
        f"```python\n{head.rstrip()}\n```\n\n{doc}\n"
        + (f"\nTexts that it uses, as they must be:\n{messages}\n" if messages else "")
    )


def row_of(lost: Lost, folder: Path, planted: str) -> dict[str, Any] | None:
    """The row, with a fault; None where this function cannot have it."""
    slug = re.sub(r"[^\w.-]", "-", f"{lost.source.name}__{lost.name}-{planted.replace(' ', '-')}")
    row: dict[str, Any] = {
        "instance_id": slug,
        "repo": lost.source.repo or lost.source.name,
        "version": lost.source.version,
        "problem_statement": statement_of(lost),
        "FAIL_TO_PASS": list(lost.failing),
        "PASS_TO_PASS": list(lost.passing),
        "pip_requirements": list(lost.source.requirements),
        "python": lost.source.python,
        "env": dict(lost.source.env),
        "planted": planted,
    }
    work = {"gold": lost.gold, "tests": dict(lost.whole), "hidden": dict(lost.hidden), "history": False}
    if planted != "sound" and not FAULTS[planted](lost, row, work):
        return None
    row["patch"] = git_diff({lost.path: lost.base}, {lost.path: work["gold"]})
    row["test_patch"] = git_diff(work["hidden"], work["tests"])
    archive = folder / "rows.archives" / f"{slug}.tar.gz"
    base = {lost.path: lost.base, **work["hidden"]}
    row["base_commit"] = packed(lost, base, archive, work["gold"] if work["history"] else None)
    row["archive"] = f"rows.archives/{archive.name}"
    return row


def packed(lost: Lost, base: Mapping[str, str], archive: Path, before: str | None) -> str:
    """The repository at base; with ``before``, its parent commit still has the function's body."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        subprocess.run(["cp", "-R", str(lost.source.root), str(tree)], check=True)
        for path, text in base.items():
            (tree / path).write_bytes(text.encode())
        if before is None:
            return pack_repository(tree, archive)
        me = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")

        def git(*arguments: str) -> str:
            return subprocess.run(["git", *me, *arguments], cwd=tree, check=True, capture_output=True, text=True).stdout

        git("init", "-q", "-b", "main")
        (tree / lost.path).write_bytes(before.encode())
        git("add", "-A")
        git("commit", "-qm", "all of it")
        (tree / lost.path).write_bytes(lost.base.encode())
        git("commit", "-qam", "a function lost its body")
        archive.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-czf", str(archive.resolve()), "-C", str(tree), "."], check=True)
        return git("rev-parse", "HEAD").strip()


def added_test(work: dict[str, Any], row: dict[str, Any], code: str, *, name: str = "test_planted") -> None:
    """A test at the end of the first hidden file; it is one of FAIL_TO_PASS."""
    path = next(iter(work["tests"]))
    work["tests"][path] = f"{work['tests'][path].rstrip()}\n\n\n{code.rstrip()}\n"
    row["FAIL_TO_PASS"].append(f"{path}::{name}")


def plant_weak(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
    """One of the failing tests stays, and calls without looking at what comes back."""
    for path, text in lost.whole.items():
        tree = ast.parse(text)
        names = {test.split("::")[-1].partition("[")[0] for test in lost.failing if test.count("::") == 1}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in names and blinded(node) is not None:
                blind = blinded(node)
                assert blind is not None
                work["tests"] = {**lost.hidden, path: f"{lost.hidden[path].rstrip()}\n\n\n{ast.unparse(blind)}\n"}
                kept = [test for test in lost.failing if test.split("::")[-1].partition("[")[0] == node.name]
                row["FAIL_TO_PASS"], row["PASS_TO_PASS"] = kept, []  # others may lean on those that went away
                return True
    return False


def blinded(node: ast.FunctionDef) -> ast.FunctionDef | None:
    """A test whose assertions only call; None where it expects exceptions or asserts nothing."""

    class Blind(ast.NodeTransformer):
        count = 0

        def visit_Assert(self, one: ast.Assert) -> ast.stmt:
            self.count += 1
            sides = [one.test.left, *one.test.comparators] if isinstance(one.test, ast.Compare) else [one.test]
            return ast.Expr(ast.Tuple(sides, ast.Load()))

    if any(isinstance(one, ast.With) for one in ast.walk(node)):
        return None
    blind = Blind()
    made = blind.visit(copy.deepcopy(node))
    return ast.fix_missing_locations(made) if blind.count else None


def plant_name(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
    """The reference computes in a function of its own, which a test calls by its name."""
    solved = Solved(base={lost.path: lost.base}, gold={lost.path: lost.gold})
    for way in structures(solved):
        if way.kind == "extracted" and way.what == lost.name:
            text = way.files[lost.path]
            assert text is not None
            word = WORDS[len(lost.gold) % len(WORDS)]
            made = f"{lost.node.name.strip('_')}_{word}"
            work["gold"] = text.replace(f"_extracted_{lost.node.name}", made)
            code = f"def test_planted():\n    from {module_of(lost)} import {made}\n\n    assert callable({made})\n"
            added_test(work, row, code)
            return True
    return False


def plant_wording(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
    """The statement wants an exception; a test wants its words."""
    parameters = [one.arg for one in lost.node.args.args if one.arg not in ("self", "cls")]
    if not parameters or "." in lost.name or lost.node.decorator_list:
        return False
    parameter, word = parameters[0], WORDS[len(lost.base) % len(WORDS)]
    body = [one for one in lost.node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    lines, indent = lost.gold.splitlines(keepends=True), " " * body[0].col_offset
    check = f'{indent}if {parameter} is ...:\n{indent}    raise ValueError("no {word} can be made of an ellipsis")\n'
    work["gold"] = "".join([*lines[: body[0].lineno - 1], check, *lines[body[0].lineno - 1 :]])
    row["problem_statement"] += f"\nAn ellipsis as {parameter} should be refused with a ValueError.\n"
    others = "".join(f", {one}=None" for one in parameters[1 : len(parameters) - len(lost.node.args.defaults)])
    code = (
        f"def test_planted():\n    import pytest\n    from {module_of(lost)} import {lost.name}\n\n"
        f'    with pytest.raises(ValueError, match="no {word} can be made"):\n'
        f"        {lost.name}({parameter}=...{others})\n"
    )
    added_test(work, row, code)
    return True


def plant_unrelated(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
    """A deciding test that has nothing to do with the function."""
    added_test(work, row, 'def test_planted():\n    assert "".join(reversed("abc")) == "cba"\n')
    return True


def plant_unrelated_neighbour(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
    """A test of something else in the library is one of FAIL_TO_PASS."""
    row["FAIL_TO_PASS"].append(row["PASS_TO_PASS"].pop(0))
    return bool(row["PASS_TO_PASS"])


def flaky(code: str) -> Callable[[Lost, dict[str, Any], dict[str, Any]], bool]:
    def plant(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
        import datetime

        text = code.replace("TODAY", str(datetime.date.today().toordinal()))
        first = next((test for test in lost.failing if test.count("::") == 1 and "[" not in test), None)
        if first is None or f"def {first.split('::')[1]}()" not in work["tests"].get(file_of(first), ""):
            return False
        path, name = first.split("::")
        added = f"{work['tests'][path].rstrip()}\n\n\n{text.replace('ORIGINAL', name)}"
        work["tests"][path] = added
        row["FAIL_TO_PASS"] += [f"{path}::{test}" for test in re.findall(r"^def (test_planted\w*)", text, re.M)]
        return True

    return plant


def plant_history(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
    """The commit before base still has the body."""
    work["history"] = True
    return True


def plant_package(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
    """The library itself is among the requirements."""
    row["pip_requirements"] = [*row["pip_requirements"], f"{lost.source.name}=={lost.source.version}"]
    return True


def plant_told(lost: Lost, row: dict[str, Any], work: dict[str, Any]) -> bool:
    """The statement holds the reference."""
    assert lost.node.end_lineno is not None
    body = "".join(lost.gold.splitlines(keepends=True)[lost.node.lineno - 1 : lost.node.end_lineno])
    row["problem_statement"] += f"\nIt was:\n\n```python\n{body}```\n"
    return True


def module_of(lost: Lost) -> str:
    path = lost.path.removesuffix(".py").removesuffix("/__init__").removeprefix("src/").removeprefix("lib/")
    return path.replace("/", ".")


CLOCK = (
    "def test_planted():\n    import datetime\n\n    ORIGINAL()\n"
    "    assert datetime.date.today().toordinal() < TODAY + 60\n"
)
ORDER = (
    "PLANTED = []\n\n\ndef test_planted_first():\n    ORIGINAL()\n    PLANTED.append(1)\n\n\n"
    "def test_planted_second():\n    ORIGINAL()\n    assert PLANTED\n"
)

FAULTS: dict[str, Callable[[Lost, dict[str, Any], dict[str, Any]], bool]] = {
    "weak": plant_weak,
    "narrow name": plant_name,
    "unrelated": plant_unrelated,
    "flaky clock": flaky(CLOCK),
    "leaky history": plant_history,
    "narrow wording": plant_wording,
    "flaky order": flaky(ORDER),
    "leaky package": plant_package,
    "unrelated neighbour": plant_unrelated_neighbour,
    "leaky told": plant_told,
}


def run_score(args: argparse.Namespace) -> int:
    planted = {row["instance_id"]: row["planted"] for row in rows_in(args.folder / "rows.jsonl")}
    audits = {row["instance_id"]: row for row in rows_in(args.folder / "audit.jsonl")}
    found, named, all_of, wrong = Counter(), Counter(), Counter(), []
    for name, fault in planted.items():
        if not audits.get(name, {}).get("measured"):  # of its text alone, where an audit was stopped
            continue
        all_of[fault] += 1
        kind = audits[name]["kind"]
        wanted = {one.split()[0] for one in fault.split("|")}
        twin = audits.get(name.rpartition("-")[0], {"kind": "sound"})
        known = [one["shown"] for one in strong(twin)]  # of the same task without the fault: it says nothing of it
        further = [one for one in strong(audits[name]) if one["kind"] in wanted and one["shown"] not in known]
        right = kind in wanted or bool(further)
        named[fault] += kind in wanted
        if fault == "sound":
            right, named[fault] = kind in ("sound", "underspecified"), 0
        found[fault] += right
        if not right:
            wrong.append((name, fault, kind, audits[name]["reason"]))
    for fault, count in sorted(all_of.items()):
        print(f"{fault:22} {found[fault]} of {count}")
    faulty = sum(count for fault, count in all_of.items() if fault != "sound")
    print(f"found {sum(count for fault, count in found.items() if fault != 'sound')} of {faulty} planted")
    print(f"of these by the class itself {sum(named.values())}")
    print(f"accused {all_of['sound'] - found['sound']} of {all_of['sound']} left as they are")
    for row in wrong:
        print("  ", *row, sep=" | ")
    return 0


def strong(audit: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Findings of what was measured, where the class is another fault's that comes before."""
    if audit["kind"] not in ("sound", "unflagged"):
        yield from (one for one in audit["findings"] if audit["basis"].get(one["kind"], "measured") == "measured")


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    raise SystemExit(main())
