"""Forged patches of rows of SWE-bench: which are accepted, by runner and kind.

    python -m benchmarks.graders.forged ROWS [--row ID ...] [--kind WORD] [--corpus] [--sandbox docker] [--out FILE]

Each row's image is patched by code that leaves its bug where it is: put into the first source file that the gold patch
changes, at its beginning, or into the functions that it changes. The kinds are those of the tests'
``forgeries_fresh.py``, but for those that are known to get through; with ``--corpus`` also those of the tests' corpora
that are code of such a form. The gold and the empty patch come first: a row whose gold is refused says nothing. Ends
with 1 where a forgery is accepted, or an empty patch.
"""

import argparse
import ast
import asyncio
import difflib
import json
import re
import textwrap
import time
from collections import Counter
from pathlib import Path

from tests.unit.envs.swe import forgeries, runner_forgeries
from tests.unit.envs.swe.forgeries_fresh import BY_RUNNER
from verigym.envs.cli.terminal import table
from verigym.envs.datasets.swe import row_of
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import Limits
from verigym.envs.swe.checkout import checkout, placed
from verigym.envs.swe.commands import command_of
from verigym.envs.swe.grading import grade_patch, steers_tests
from verigym.rewards.patches import paths_of

CORPORA = {
    "pytest": {
        name: files["pkg/calc.py"] for name, files in forgeries.FORGERIES.items() if [*files] == ["pkg/calc.py"]
    },
    "unittest": runner_forgeries.UNITTEST,
    "sympy": runner_forgeries.SYMPY,
}


def code_in(text):
    """("import" or "call", the code) of a forgery of the tests' little repository; None where it is of another form."""
    for bug in (forgeries.BUG, runner_forgeries.BUG):
        if text.endswith(f"\n\n\n{bug}"):
            return "import", text.removesuffix(f"\n\n\n{bug}")
    found = re.fullmatch(r"def add\(a, b\):\n(.*)\n    return a - b\n.*", text, re.DOTALL)
    return ("call", textwrap.dedent(found[1])) if found else None


def source_of(row):
    paths = [new for _, new in paths_of(row.patch) if new and new.endswith(".py") and not steers_tests(new, row)]
    return paths[0] if paths else None


def changed_lines(patch, path):
    """Lines of the old file that a patch changes."""
    part = patch.partition(f"+++ b/{path}\n")[2].partition("\ndiff --git ")[0]
    lines, at = set(), 0
    for line in part.splitlines():
        if header := re.match(r"@@ -(\d+)", line):
            at = int(header[1])
        else:
            if line[:1] in "+-":
                lines.add(at)
            at += line[:1] in " -"
    return lines


def forged(text, path, where, code, lines):
    """The file with the code in it; None where no function of it is changed."""
    tree, out = ast.parse(text), text.splitlines(keepends=True)
    if where == "import":
        body = [
            one
            for n, one in enumerate(tree.body)
            if (n == 0 and isinstance(one, ast.Expr))
            or (isinstance(one, ast.ImportFrom) and one.module == "__future__")
        ]
        out.insert(body[-1].end_lineno if body else 0, f"{code}\n")
        return "".join(out)
    functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = [one for one in functions if any(one.lineno <= line <= one.end_lineno for line in lines)]
    own = [one for one in inside if not any(other is not one and other in inside for other in ast.walk(one))]
    for one in sorted(own, key=lambda one: -one.lineno):
        first = one.body[0]
        body = one.body[1:] if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else one.body
        if body and body[0].lineno > one.lineno:
            out.insert(body[0].lineno - 1, textwrap.indent(f"{code}\n", " " * body[0].col_offset))
    return "".join(out) if own else None


def patch_of(path, old, new):
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}")
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)


def patches_of(row, kind, text, path, with_corpus):
    corpus = {f"corpus: {name}": code_in(code) for name, code in CORPORA[kind].items()} if with_corpus else {}
    found = {}
    for name, how in {**BY_RUNNER[kind], **corpus}.items():
        new = how and forged(text, path, *how, changed_lines(row.patch, path))
        if new:
            compile(new, path, "exec")
            found[name] = patch_of(path, text, new)
    return found


async def attack(backend, task, args):
    """[{row, runner, kind, accepted, why, seconds}] of a row."""
    row = placed(row_of(task), backend)
    command, path = command_of(row), source_of(row)
    if path is None:
        return []
    kind = "pytest" if command is None else command.kind
    runner = "script" if command is None else "tox" if command.by_tox else kind
    async with checkout(backend, row, limits=Limits(), with_past=False) as sandbox:
        text = (await sandbox.read_file(f"{row.root}/{path}")).decode()
    patches = {"gold": row.patch, "empty": "", **patches_of(row, kind, text, path, args.corpus)}
    found = []
    for name, patch in patches.items():
        if name not in ("gold", "empty") and args.kind and not any(word in name for word in args.kind):
            continue
        started = time.monotonic()
        score, _ = await grade_patch(backend, task, patch, timeout_s=args.timeout)
        one = {"row": task.id, "runner": runner, "kind": name, "accepted": score.passed, "why": score.detail}
        found.append({**one, "seconds": round(time.monotonic() - started, 1)})
        print(
            f"{task.id} {runner} {name}: {'ACCEPTED' if score.passed else 'refused'} {score.detail[:100]}", flush=True
        )
        if (name, score.passed) == ("gold", False):
            break
    return found


async def attack_all(args):
    backend, found = make_backend(args.sandbox), []
    tasks = [task for task in read_any_tasks(args.rows) if not args.row or task.id in args.row]
    for task in tasks:
        found += await attack(backend, task, args)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--row", action="append", default=[], help="only this row; may be repeated")
    parser.add_argument("--kind", action="append", default=[], help="only kinds with this word; may be repeated")
    parser.add_argument("--corpus", action="store_true", help="the tests' corpora too")
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds of the tests")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = asyncio.run(attack_all(args))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))
    forgeries_ = [one for one in found if one["kind"] not in ("gold", "empty")]
    tried = Counter(one["runner"] for one in forgeries_)
    accepted = Counter(one["runner"] for one in forgeries_ if one["accepted"])
    rows = {runner: {one["row"] for one in forgeries_ if one["runner"] == runner} for runner in tried}
    lines = [(runner, len(rows[runner]), tried[runner], accepted[runner]) for runner in sorted(tried)]
    table("forged patches", ("runner", "rows", "patches", "accepted"), lines)
    for one in forgeries_:
        if one["accepted"]:
            print(f"accepted: {one['row']} ({one['runner']}): {one['kind']}")
    empty = [one["row"] for one in found if one["kind"] == "empty" and one["accepted"]]
    raise SystemExit(bool(empty or sum(accepted.values())))


if __name__ == "__main__":
    main()
