"""SWE-smith's rows: ``patch`` puts the bug in, and a profile of the repository says how its tests run.

Source: ``swesmith`` 0.0.9 on PyPI (github.com/SWE-bench/SWE-smith): ``profiles/base.py``, ``profiles/python.py``,
``harness/utils.py``. Its profiles for other languages are not known here: such rows have no script, and are ungradable.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import TaskError
from ...rewards.logs.parsers import (
    SMITH_PARSER,
    SMITH_SUMMARY_PARSER,
    SMITH_UNITTEST_PARSER,
    SMITH_WORKERS_PARSER,
)
from ...rewards.patches import paths_of, reverse_patch
from .eval_scripts import eval_script_of, shell_words

COMMAND = "pytest --disable-warnings --color=no --tb=no --verbose"
MIDO_PREFIX = "../dev/"
UNITTEST_ID = re.compile(r"\s\(([\w.]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a repository's tests run.

    Attributes:
        command: in the conda environment "testbed".
        parser: of its log.
        named_files: only the files of the row's tests are run (``min_testing``); else the whole suite.
    """

    command: str = COMMAND
    parser: str = SMITH_PARSER
    named_files: bool = False


_NAMED = Profile(named_files=True)
PROFILES: Mapping[str, Profile] = {
    "HIPS__autograd": Profile(parser=SMITH_WORKERS_PARSER),
    "tkrajina__gpxpy": Profile(command="pytest test.py --verbose --color=no --tb=no --disable-warnings"),
    "mido__mido": Profile(command=f"{COMMAND} -rs -c /dev/null"),
    "paramiko__paramiko": Profile(command="pytest -rA --color=no --disable-warnings", parser=SMITH_SUMMARY_PARSER),
    "un33k__python-slugify": Profile(command="python test.py --verbose", parser=SMITH_UNITTEST_PARSER),
    "tornadoweb__tornado": Profile(command="python -m tornado.test --verbose", parser=SMITH_UNITTEST_PARSER),
    "python__mypy": Profile(command="pytest --color=no -rA", parser=SMITH_SUMMARY_PARSER, named_files=True),
    "pydantic__pydantic": Profile(command=f"/root/.local/bin/uv run {COMMAND}"),
    **dict.fromkeys(
        (
            *("scrapy__scrapy", "sqlfluff__sqlfluff", "tobymao__sqlglot", "sunpy__sunpy", "sympy__sympy"),
            *("getmoto__moto", "Project-MONAI__MONAI", "iterative__dvc", "dask__dask", "modin-project__modin"),
            *("conan-io__conan", "pandas-dev__pandas"),
        ),
        _NAMED,
    ),
}
"""Repository ("owner__name") -> what its profile says otherwise than the one for Python in general."""


def smith_row(raw: Mapping[str, Any], *, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str]) -> dict[str, Any]:
    """A row of SWE-smith in SWE-bench's schema: the fix is the bug's reverse, and the failing tests' files are hidden.

    Raises:
        TaskError: the bug cannot be reversed.
    """
    bug = raw.get("patch") or ""
    try:
        fix = reverse_patch(bug)
    except ValueError as error:
        raise TaskError(f"{raw.get('instance_id', 'a row')}: the bug in 'patch' cannot be undone: {error}") from None
    touched = {path for pair in paths_of(bug) for path in pair}
    fields: dict[str, Any] = {
        "image": raw["image_name"],
        "start_patch": bug,
        "patch": fix,
        "hidden_files": [path for path in _files_of(fail_to_pass) if path not in touched],
        "problem_statement": raw.get("problem_statement") or "",
    }
    profile = profile_of(raw, (*fail_to_pass, *pass_to_pass))
    if profile is not None:
        files = dict.fromkeys((*_files_of(fail_to_pass), *_files_of(pass_to_pass))) if profile.named_files else ()
        command = " ".join([profile.command, *([shell_words(tuple(files))] if files else [])])
        fields |= {"eval_script": eval_script_of(root="/testbed", test_cmd=command), "log_parser": profile.parser}
    return {**raw, **fields}


def profile_of(raw: Mapping[str, Any], tests: Sequence[str]) -> Profile | None:
    """The profile of a row's repository; None where its tests are none of Python's."""
    for key in _names_of(raw):
        if key in PROFILES:
            return PROFILES[key]
    is_python = any(re.search(r"\.py(::|$)", test) for test in tests) or not tests
    return Profile() if is_python else None


def _names_of(raw: Mapping[str, Any]) -> list[str]:
    """ "owner__name" as the row's repository ("swesmith/owner__name.12345678"), id and image write it."""
    repository = str(raw.get("repo") or "").rpartition("/")[2]
    found = [repository, str(raw.get("instance_id") or "")]
    image = re.sub(r"^.*swesmith\.[^.]+\.", "", str(raw.get("image_name") or "")).replace("_1776_", "__")
    known = {key.lower(): key for key in PROFILES}
    names = [re.split(r"\.[0-9a-f]{8}(?:\.|$|:)", name)[0] for name in (*found, image)]
    return [known.get(name.lower(), name) for name in names]


def _files_of(tests: Sequence[str]) -> list[str]:
    """The files that tests stand in, in the order of the tests."""
    files = dict.fromkeys(_file_of(test) for test in tests)
    return [file for file in files if file]


def _file_of(test: str) -> str:
    path, colons, _ = test.partition("::")
    if colons or path.endswith(".py"):
        return path.removeprefix(MIDO_PREFIX)
    match = UNITTEST_ID.search(test)  # "test_a (tornado.test.web_test.T)"
    return f"{'/'.join(match[1].split('.')[:-1])}.py" if match and match[1].count(".") > 1 else ""
