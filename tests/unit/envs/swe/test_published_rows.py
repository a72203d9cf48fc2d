"""Rows as SWE-smith and R2E-Gym publish them, graded in containers, from ``validate`` to ``grade`` and ``eval``."""

import json
import secrets

import pytest

from verigym.__main__ import main
from verigym.envs.datasets.swe import row_of
from verigym.envs.synthesis.build_images import VENV
from verigym.envs.synthesis.engine_images import build
from verigym.rewards.patches import patch_of_texts, reverse_patch

pytestmark = pytest.mark.docker

GOOD, BAD = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"
TESTS = {
    "tests/test_f.py": "from calc import add\n\n\nclass TestK:\n    def test_a(self):\n        assert add(1, 2) == 3\n",
    "tests/test g.py": "from calc import add\n\n\ndef test_zero():\n    assert add(0, 0) == 0\n",
}
ACTIVATE = f"export PATH={VENV}/bin:$PATH; conda() {{ :; }}\n"
RUN_TESTS = f"PYTHONPATH=. {VENV}/bin/python -m pytest -rA r2e_tests\n"


@pytest.fixture(scope="module")
def image(docker_vault, tmp_path_factory):
    """An image with a repository in /testbed and what each set brings in its own: a function of the files."""
    import docker

    client, made = docker.from_env(), []

    def make(repository, others):
        name = f"verigym/test:{secrets.token_hex(6)}"
        base = row_of(docker_vault.task).image
        files = {**{f"testbed/{path}": text for path, text in repository.items()}, **others}
        copies = "".join(f"COPY [{json.dumps(path)}, {json.dumps('/' + path)}]\n" for path in files)
        setup = "rm -rf /testbed/.git && cd /testbed && git init -q && git add -A && git -c user.name=a -c user.email=a"
        dockerfile = (
            f"FROM {base}\nUSER root\nRUN rm -rf /testbed && mkdir /testbed\n{copies}RUN {setup} commit -qm x\n"
        )
        build(
            client,
            name,
            dockerfile,
            {path: text.encode() for path, text in files.items()},
            tmp_path_factory.mktemp("x"),
        )
        made.append(name)
        return name

    yield make
    for name in made:
        client.images.remove(name, force=True)
    client.close()


def verdicts(tmp_path, row, patches, *, name="tasks"):
    """What validate, and then grade and eval on the file that it wrote, say."""
    data, kept, predictions = tmp_path / f"{name}.jsonl", tmp_path / f"{name}-kept.jsonl", tmp_path / f"{name}-preds"
    data.write_text(json.dumps(row) + "\n")
    common = ["--sandbox", "docker", "--workers", "2"]
    assert main(["tasks", "validate", str(data), "--out", str(kept), "--times", "1", *common]) == 0
    (held,) = kept.read_text().splitlines()
    assert json.loads(held) == row
    task_id = row.get("instance_id", "calc__0123456789ab")
    rows = [{"instance_id": task_id, "model_patch": patch} for patch in patches]
    predictions.write_text("".join(json.dumps(one) + "\n" for one in rows))
    graded, evaluated = tmp_path / f"{name}-graded", tmp_path / f"{name}-eval"
    command = ["grade", "swe", "--data", str(kept), "--predictions", str(predictions), "--out", str(graded)]
    assert main([*command, *common]) == 0
    assert main(["eval", "swe", "--data", str(kept), "--policy", "gold", "--out", str(evaluated), *common]) == 0
    (found,) = [json.loads(line) for line in (evaluated / "verdicts.jsonl").read_text().splitlines()]
    assert found["passed"] is True, found["detail"]
    return [json.loads(line)["passed"] for line in (graded / "verdicts.jsonl").read_text().splitlines()]


def test_a_row_of_swe_smith(image, tmp_path):
    bug = patch_of_texts({"calc.py": (GOOD, BAD)})
    row = {
        "instance_id": "a__calc.01234567.func_x__1",
        "repo": "swesmith/a__calc.01234567",
        "image_name": image({"calc.py": GOOD, "conftest.py": "", **TESTS}, {"opt/miniconda3/bin/activate": ACTIVATE}),
        "patch": bug,
        "FAIL_TO_PASS": ["tests/test_f.py::TestK::test_a"],
        "PASS_TO_PASS": [],
        "problem_statement": "add subtracts",
    }
    gold = reverse_patch(bug)
    bare = "".join(line for line in gold.splitlines(keepends=True) if not line.startswith("diff "))
    assert verdicts(tmp_path, row, [gold, bare, "", gold.replace("a + b", "a * b")]) == [True, True, False, False]


def test_a_row_of_r2e_gym(image, tmp_path):
    tests = {f"r2e_tests/{path.rpartition('/')[2].replace(' ', '_')}": text for path, text in TESTS.items()}
    diff = {"header": {"file": {"path": "calc.py"}}, "old_file_content": BAD, "new_file_content": GOOD}
    row = {
        "repo_name": "calc",
        "docker_image": image({"calc.py": BAD, "run_tests.sh": RUN_TESTS}, tests),
        "commit_hash": "0123456789abcdef",
        "problem_statement": "add subtracts",
        "parsed_commit_content": json.dumps({"file_diffs": [diff]}),
        "expected_output_json": json.dumps({"TestK.test_a": "PASSED", "test_zero": "PASSED"}),
    }
    gold = patch_of_texts({"calc.py": (BAD, GOOD)})
    assert verdicts(tmp_path, row, [gold, "", gold.replace("a + b", "a * b")]) == [True, False, False]
