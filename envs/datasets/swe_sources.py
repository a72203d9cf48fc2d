"""Rows of the public training sets, brought into SWE-bench's schema.

Each set is told by its own keys. Sources of the schemas: SWE-bench 4.x and 5.x (github.com/SWE-bench/SWE-bench,
``swebench/types.py``, ``image_builder/image_spec.py``); SWE-Gym (SWE-bench's schema, images
``xingyaoww/sweb.eval.x86_64.*``, its README); SWE-rebench (``install_config``, ``docker_image`` or ``image_name``,
github.com/SWE-rebench/SWE-bench-fork, ``harness/test_spec``); SWE-smith (``swe_smith.py``); R2E-Gym
(``docker_image``, ``expected_output_json``, tests in ``run_tests.sh`` and ``/r2e_tests``, github.com/R2E-Gym/R2E-Gym,
``agenthub/runtime/docker.py``).
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from ...errors import TaskError
from ...rewards.logs.parsers import R2E_PARSER
from ...rewards.patches import patch_of_texts, paths_of
from .eval_scripts import eval_script_of, shell_words
from .swe_smith import smith_row

DEFAULT_NAMESPACE = "swebench"
GYM_NAMESPACE = "xingyaoww"
R2E_KEYS = ("expected_output_json", "parsed_commit_content")
CONDA_PYTHON = "/opt/miniconda3/envs/testbed/bin/python"
NO_TESTS = (".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")
"""Ends of names that SWE-bench's harness does not hand to a test command."""


def image_name(instance_id: str, *, namespace: str | None = DEFAULT_NAMESPACE, arch: str = "x86_64") -> str:
    """SWE-bench's name of an instance's image.

    Args:
        namespace: None is a locally built image; with one, "__" is written "_1776_" (SWE-Gym's: "_s_"), because
            registries forbid it.
    """
    key = f"sweb.eval.{arch}.{instance_id.lower()}:latest"
    if not namespace:
        return key
    return f"{namespace}/{key}".replace("__", "_s_" if namespace == GYM_NAMESPACE else "_1776_")


def is_swe_row(raw: Mapping[str, Any]) -> bool:
    """Whether a row is of one of the known sets, or of SWE-bench's own schema."""
    return any(key in raw for key in ("instance_id", "install_config", *R2E_KEYS))


def canonical_row(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any of the known sets in SWE-bench's schema; what is in it already is not touched.

    Raises:
        TaskError: a set's own key is broken.
    """
    if any(key in raw for key in R2E_KEYS):
        return _r2e(raw)
    if "install_config" in raw:
        return _rebench(raw)
    if "image_name" in raw and "base_commit" not in raw:
        tests = {key: _list(raw, key) for key in ("FAIL_TO_PASS", "PASS_TO_PASS")}
        return smith_row(raw, fail_to_pass=tests["FAIL_TO_PASS"], pass_to_pass=tests["PASS_TO_PASS"])
    return dict(raw)


def _rebench(raw: Mapping[str, Any]) -> dict[str, Any]:
    config = _mapping(raw, "install_config")
    command = config.get("test_cmd") or "pytest -rA"
    named = dict.fromkeys(new for _, new in paths_of(raw.get("test_patch") or ""))
    files = [path for path in named if path and not path.endswith(NO_TESTS)]
    if isinstance(command, list):
        command = " && ".join(command)
    script = eval_script_of(
        root="/testbed",
        test_cmd=f"{command} {shell_words(files)}",
        base_commit=raw.get("base_commit") or "",
        test_patch=raw.get("test_patch") or "",
    )
    parser = config.get("log_parser") or "parse_log_pytest"
    image = raw.get("docker_image") or raw.get("image_name") or ""
    return {"image": image, "eval_script": script, "log_parser": parser, **raw}


def _r2e(raw: Mapping[str, Any]) -> dict[str, Any]:
    """R2E-Gym names an image and what its own tests must say afterwards; no test may differ."""
    expected = raw.get("expected_output_json") or "{}"
    try:
        outcomes = json.loads(expected) if isinstance(expected, str) else dict(expected)
    except ValueError:
        raise TaskError(f"{raw.get('docker_image')}: expected_output_json is not JSON") from None
    names = {re.sub(r"\x1b\[\d+m", "", name).split(" - ")[0]: status for name, status in outcomes.items()}
    passing = [name for name, status in names.items() if status == "PASSED" and name]
    image = raw.get("docker_image") or ""
    commit = raw.get("commit_hash") or ""
    fields = {
        "instance_id": raw.get("instance_id") or f"{raw.get('repo_name', 'r2e')}__{commit[:12]}",
        "repo": raw.get("repo") or raw.get("repo_name") or "",
        "image": image,
        "patch": _r2e_patch(raw),
        "FAIL_TO_PASS": passing,
        "PASS_TO_PASS": [],
        "eval_script": eval_script_of(
            root="/testbed", test_cmd="ln -sf /r2e_tests r2e_tests; bash run_tests.sh", conda=False
        ),
        "log_parser": R2E_PARSER,
        "hidden_files": ["run_tests.sh", "/r2e_tests"],
    }
    return {**raw, **fields, "problem_statement": raw.get("problem_statement") or ""}


def _r2e_patch(raw: Mapping[str, Any]) -> str:
    """The fix, from the parsed commit: its files' old and new text, tests left out."""
    content = raw.get("parsed_commit_content") or "{}"
    try:
        commit = json.loads(content) if isinstance(content, str) else content
    except ValueError:
        raise TaskError(f"{raw.get('docker_image')}: parsed_commit_content is not JSON") from None
    texts = {}
    for diff in commit.get("file_diffs") or ():
        path = ((diff.get("header") or {}).get("file") or {}).get("path") or ""
        if path and not re.search(r"(^|/)(tests?|testing)/|(^|/)test_|_test\.py$", path):
            texts[path] = (diff.get("old_file_content") or "", diff.get("new_file_content") or "")
    return patch_of_texts(texts)


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key) or {}
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise TaskError(f"{raw.get('instance_id', 'a row')}: {key} is not JSON") from None
    return value


def _list(raw: Mapping[str, Any], key: str) -> list[str]:
    value = raw.get(key) or []
    try:
        return json.loads(value) if isinstance(value, str) else list(value)
    except ValueError:
        raise TaskError(f"{raw.get('instance_id', 'a row')}: {key} is not a JSON list") from None
