"""Tasks written by hand on real libraries, sound ones and the same with a fault each, as rows.

    python -P benchmarks/audit/written.py DIR [LIBRARY ...]     of ``written/*.toml``; writes DIR/rows.jsonl
    python -P benchmarks/audit/written.py DIR --set blind       of ``blind/``, planted without having seen the code
    verigym tasks audit DIR/rows.jsonl --out DIR/audit.jsonl --sandbox local
    python -P benchmarks/audit/planted.py score DIR

A file is of one library: ``file`` is what fixes change, ``passing`` the library's own tests that must go on passing. A
task has a statement, replacements that make the base (``base``) of the published text and those that make the reference
(``gold``) of the base, and hidden tests. ``extra`` are files of the base as text ("@gold" is the mended file's,
"@base64 ..." is no text), ``made`` what is made of the mended file (``MAKERS``), ``history`` how the repository came
about. A ``plant`` of a task is the task with some of these replaced, the kinds of fault that this is (``kind``, or
``accept`` where more than one name is right) and ``how``. A task is sound unless it states a ``kind`` itself.
"""

import argparse
import asyncio
import base64
import html
import importlib.util
import itertools
import json
import marshal
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from verigym.envs.datasets.swe import pack_repository
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.synthesis.diffs import git_diff
from verigym.envs.synthesis.probing import Job, Probe, file_of, open_probe
from verigym.envs.synthesis.sources import Source, open_source
from verigym.envs.synthesis.steady import steady_tests

HERE = Path(__file__).parent
TRIES = 6
"""A flaky test must have passed once."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("libraries", nargs="*", help="names of files of the set (all)")
    parser.add_argument("--set", default="written", help="the folder beside this file")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with (args.folder / "rows.jsonl").open("w") as out:
        for path in sorted((HERE / args.set).glob("*.toml")):
            if not args.libraries or path.stem in args.libraries:
                for row in asyncio.run(rows_of(tomllib.loads(path.read_text()), args.folder)):
                    out.write(json.dumps(row) + "\n")
                    print(row["instance_id"], len(row["FAIL_TO_PASS"]), len(row["PASS_TO_PASS"]), flush=True)
    return 0


async def rows_of(library: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        source = open_source(library["library"], Path(scratch))
        async with open_probe(source, make_backend("local")) as probe:
            for task in library["task"]:
                shared = {"kind": "sound", **library, **task}
                rows.append(await row_of(probe, source, {**shared, "slug": task["name"]}, folder))
                for number, plant in enumerate(task.get("plant", ()), 1):
                    slug = f"{task['name']}-{number}"
                    rows.append(await row_of(probe, source, {**shared, **plant, "slug": slug}, folder))
    return rows


async def row_of(probe: Probe, source: Source, task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    base, gold = texts_of(source, task)
    hidden, whole = tests_of(source, task)
    (path,) = whole
    before, after = await outcomes(probe, task, base, gold, whole)
    failing = [test for test in after if file_of(test) == path and before.get(test) != "passed"]
    if only := task.get("only"):
        failing = [test for test in failing if test.rpartition("::")[2] in only]
    passing = [test for test in after if test not in failing and before.get(test) == after[test] == "passed"]
    if not failing:
        raise SystemExit(f"{task['slug']}: no test fails at base and passes with the reference: {before}, {after}")
    slug = f"{source.name}__{task['slug']}"
    archive = folder / "rows.archives" / f"{slug}.tar.gz"
    extra = {name: content_of(text, gold[task["file"]]) for name, text in task.get("extra", {}).items()}
    made = {name: MAKERS[maker](gold[task["file"]]) for name, maker in task.get("made", {}).items()}
    before_commit = packed(source, {**base, **hidden, **extra, **made}, archive, gold, task.get("history"))
    return {
        "instance_id": slug,
        "repo": source.repo,
        "version": source.version,
        "problem_statement": task["statement"],
        "FAIL_TO_PASS": failing,
        "PASS_TO_PASS": passing,
        "patch": patch_of(base, gold),
        "test_patch": patch_of(hidden, whole),
        "base_commit": before_commit,
        "archive": f"rows.archives/{archive.name}",
        "pip_requirements": [*source.requirements, *task.get("requirements", ())],
        "python": source.python,
        "env": dict(source.env),
        "planted": "|".join(task.get("accept") or [task["kind"]]),
        "how": task.get("how", ""),
    }


def texts_of(source: Source, task: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Path -> text of what the reference touches, at base and with it."""
    path = task["file"]
    base = {path: replaced((source.root / path).read_text(), task.get("base", ()))}
    gold = {path: replaced(base[path], task["gold"])}
    for name, pair in task.get("gold_extra", {}).items():
        base[name] = (source.root / name).read_text()
        gold[name] = replaced(base[name], [pair])
    gold.update(task.get("gold_new", {}))
    return base, gold


def patch_of(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The patch between two states of some files; files may be new."""
    common = {path: text for path, text in after.items() if path in before}
    made = [git_diff({path: before[path] for path in common}, common)] if common else []
    for path, text in after.items():
        if path not in before:
            lines = text.splitlines(keepends=True)
            head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
            made.append(f"{head}@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}" for line in lines))
    return "".join(made)


def replaced(text: str, pairs: Any) -> str:
    for old, new in pairs:
        if text.count(old) != 1:
            raise SystemExit(f"{old!r} stands {text.count(old)} times in the text, not once")
        text = text.replace(old, new)
    return text


def tests_of(source: Source, task: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Path -> text of the file of hidden tests, without and with them."""
    if path := task.get("file_of_tests"):
        text = (source.root / path).read_text()
        return {path: text}, {path: replaced(text, [task["top"]])}
    path = str(Path(task["folder"]) / f"test_{task['name'].replace('-', '_')}.py")
    return {}, {path: task["tests"].lstrip("\n")}


async def outcomes(
    probe: Probe, task: Mapping[str, Any], base: Mapping[str, str], gold: Mapping[str, str], tests: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Test -> outcome at base and with the reference."""
    files = (*tests, *(path for path in task["passing"] if path not in tests))

    def job(texts: Mapping[str, str]) -> Job:
        return Job(key="written", collect=files, files={**texts, **tests})

    (before,) = await probe.run([job(base)])
    for to_noon in itertools.islice(itertools.cycle((0, noon_s(datetime.now()))), TRIES):
        (after,) = await probe.run([replace(job(gold), clock_s=to_noon)])
        if after.is_whole and (not after.with_outcome("failed", "error") or not task.get("must_pass", True)):
            passed = [test for test in after.outcomes if file_of(test) not in tests]
            steady = await steady_tests(probe, passed, name=task["slug"], suite_s=after.wall_s, bounds={})
            kept = {test: what for test, what in after.outcomes.items() if file_of(test) in tests or test in steady}
            return dict(before.outcomes), kept
    raise SystemExit(f"{task['slug']}: the reference fails: {after.failures or after}")


def noon_s(now: datetime) -> int:
    """Seconds from now to noon of the day: a test that goes by the hour, and is to pass once, may do so then."""
    return round((now.replace(hour=12, minute=0) - now).total_seconds())


def packed(
    source: Source, base: Mapping[str, str | bytes], archive: Path, gold: Mapping[str, str], history: str | None
) -> str:
    """The repository at base; ``history`` says where the reference stands in it ("parent", "branch", "stash",
    "message"), or nowhere ("plain": a repository with the files that it ignores)."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        subprocess.run(["cp", "-R", str(source.root), str(tree)], check=True)
        write(tree, base)
        if history is None:
            return pack_repository(tree, archive)
        me = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")

        def git(*arguments: str) -> str:
            return subprocess.run(["git", *me, *arguments], cwd=tree, check=True, capture_output=True, text=True).stdout

        def commit(texts: Mapping[str, str | bytes], message: str) -> None:
            write(tree, texts)
            git("add", "-A")
            git("commit", "-qm", message)

        git("init", "-q", "-b", "main")
        if history == "parent":
            commit(gold, "all of it")
        as_text = {path: text for path, text in base.items() if path in gold and isinstance(text, str)}
        commit(base, f"Take it back\n\nThis was:\n\n{patch_of(as_text, gold)}" if history == "message" else "base")
        if history == "branch":
            git("checkout", "-qb", "next")
            commit(gold, "mended")
            git("checkout", "-q", "main")
        if history == "stash":
            write(tree, gold)
            git("stash")
        archive.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-czf", str(archive.resolve()), "-C", str(tree), "."], check=True)
        return git("rev-parse", "HEAD").strip()


def content_of(text: str, gold: str) -> str | bytes:
    """What a file of ``extra`` holds."""
    if text.startswith("@base64 "):
        return base64.b64decode(text.removeprefix("@base64 "))
    return gold if text == "@gold" else text


def write(tree: Path, texts: Mapping[str, str | bytes]) -> None:
    for path, text in texts.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(text.encode() if isinstance(text, str) else text)


def compiled(text: str) -> bytes:
    """The file that Python keeps in ``__pycache__``, of a source of another time: Python does not take it."""
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(text, "<mended>", "exec"))


def coverage_page(text: str) -> bytes:
    """A file as coverage.py shows it in HTML: each token within a tag, blanks and quotes escaped."""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        marked = "".join(
            f'<span class="nam">{html.escape(token)}</span>' if token.strip() else "&nbsp;" * len(token)
            for token in re.split(r"(\W)", line)
        )
        lines.append(f'<p class="run"><a id="t{number}">{number}</a><span class="t">{marked}</span></p>\n')
    return f'<!DOCTYPE html>\n<html><body><main id="source">\n{"".join(lines)}</main></body></html>\n'.encode()


MAKERS: Mapping[str, Callable[[str], bytes]] = {"pyc": compiled, "coverage": coverage_page}


if __name__ == "__main__":
    raise SystemExit(main())
