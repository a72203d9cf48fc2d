"""Episodes and gradings in containers: what an agent finds there, and what a failing container is."""

import asyncio
import json

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.datasets.swe import row_of, task_of
from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.pool import ContainerPool
from verigym.envs.swe.env import SWEEnv
from verigym.envs.swe.grading import grade_patch
from verigym.envs.synthesis import validate
from verigym.errors import GradingError, SandboxError
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling

pytestmark = pytest.mark.docker

PROBE = r"""
( find / -xdev \( -path /proc -o -path /sys \) -prune -o -type f -exec grep -l {pattern} {{}} +
  grep -rl {pattern} /dev/shm /run /.verigym
  timeout 20 grep -la {pattern} /proc/[0-9]*/cmdline /proc/[0-9]*/environ /proc/[0-9]*/fd/* ) 2>/dev/null
"""
SPREAD = """
find / -xdev -type d -writable -not -path '/proc/*' 2>/dev/null | while read folder; do
    for name in reward.txt report.json score verdict; do echo 1.0 > "$folder/$name"; done
done
find / -xdev -type f -writable -not -path '/proc/*' -not -path '*/.git/*' 2>/dev/null | while read file; do
    echo 1.0 > "$file"
done
"""

RUNS_NOTHING = "python.Function.runtest = unittest.TestCaseFunction.runtest = lambda self: None\n"


@pytest.fixture
def task(docker_vault):
    return docker_vault.task


@pytest.fixture
def row(task):
    return dict(task.hidden)


@pytest.fixture
def pool():
    return ContainerPool(DockerBackend())


def call(name, **arguments):
    return encode_calls([ToolCall(name=name, arguments=arguments)])


def test_a_probing_agent_finds_nothing_and_earns_nothing(task, pool):
    """Trap 19, in a new container and in one that was used before."""
    names = ("test_helped", "test_second.py")  # of the hidden file, and of no other there is
    pattern = "".join(f" -e '{name[:-1]}[{name[-1]}]'" for name in names)
    env = SWEEnv(sandbox=pool)
    for _ in range(3):
        env.reset(options={"task": task})
        found = env.step(call("bash", command=PROBE.format(pattern=pattern)))[0]
        assert [line for line in found.splitlines() if not line.startswith("[exit code")] == []
        env.step(call("bash", command=SPREAD))
        _, reward, _, _, info = env.step(call("submit"))
        assert reward == 0.0, info["score"]
    env.close()


def test_the_probe_would_find_a_name_that_is_there(task, pool):
    env = SWEEnv(sandbox=pool)
    env.reset(options={"task": task})
    found = env.step(call("bash", command=PROBE.format(pattern="-e 'test_twic[e]'")))[0]
    assert "/testbed/tests/test_first.py" in found
    env.close()


def test_gold_and_nothing_in_reused_containers(task, pool):
    async def episodes():
        env = SWEEnv(sandbox=pool)
        kinds = [env.gold(task), env.empty(task)] * 3
        done = [
            await rollout(env, ScriptedPolicy(play(kind)), task, budget=Budget(), sampling=Sampling()) for kind in kinds
        ]
        await env.aclose()
        await pool.empty()
        return [(one.ending, one.reward) for one in done]

    assert asyncio.run(episodes()) == [("submitted", 1.0), ("submitted", 0.0)] * 3


class Killed:
    """A pool whose nth container is killed from outside as soon as it is there, or at its first use of a method."""

    name = "docker"

    def __init__(self, pool, victim, when):
        self.pool, self.victim, self.when, self.made = pool, victim, when, 0

    async def create(self, spec):
        self.made += 1
        mine, box = self.made == self.victim, await self.pool.create(spec)
        if not mine:
            return box

        async def kill():
            await asyncio.to_thread(self.pool.backend.engines[0].api.kill, box.box.stream.container)

        if self.when == "start":
            await kill()
            return box
        method = getattr(box, self.when)

        async def killing(*args, **kwargs):
            running = asyncio.ensure_future(method(*args, **kwargs))
            await asyncio.sleep(0.01)
            if box.box.stream.lost is None:
                await kill()
            return await running

        setattr(box, self.when, killing)
        return box


@pytest.mark.parametrize(("victim", "when"), [(1, "start"), (1, "aexec"), (2, "start"), (2, "arun")])
def test_a_container_that_is_killed_is_recorded_and_never_scored(task, pool, victim, when):
    """Trap 18: at the start, at a step, when grading begins, and while it runs. A grading has one container."""

    killed = Killed(pool, victim, when)

    async def episode():
        env = SWEEnv(sandbox=killed)
        slow = Message(role="assistant", content="", calls=(ToolCall(name="bash", arguments={"command": "sleep 1"}),))
        policy = ScriptedPolicy(play([slow, *env.gold(task)]))
        found = await rollout(env, policy, task, budget=Budget(), sampling=Sampling())
        await env.aclose()
        await pool.empty()
        return found

    found = asyncio.run(episode())
    assert (found.ending, found.reward, found.passed) == ("sandbox_failure", None, None)
    assert killed.made == victim
    assert pool.backend.engines[0].num_containers == 0


def test_a_row_is_graded_by_its_script(docker_vault, row, gold, tmp_path):
    """Gold passes; the bug, another one, and patches that print or rewrite outcomes do not."""
    scripted = {**row, "interpreter": ""}
    task, backend = task_of(scripted, folder=tmp_path), docker_vault.backend
    bug = gold.replace("a + b", "a - b")
    report = "".join(f"PASSED {test}\\n" for test in (*row_of(task).FAIL_TO_PASS, *row_of(task).PASS_TO_PASS))
    patches = {
        "gold": gold,
        "another bug": gold.replace("a + b", "a * b"),
        "prints": f"import os\nos.write(1, b'{report}')\n{bug}",
        "leaves": f"import os\nos.write(1, b'{report}')\nos._exit(0)\n{bug}",
        "skips the bodies": f"from _pytest import python, unittest\n{RUNS_NOTHING}{bug}",  # only their twins tell
    }

    async def grade(text):
        score, _ = await grade_patch(backend, task, docker_vault.patch({"pkg/calc.py": text}))
        return score.value

    got = {name: asyncio.run(grade(text)) for name, text in patches.items()}
    assert got == {**dict.fromkeys(patches, 0.0), "gold": 1.0}
    assert asyncio.run(grade_patch(backend, task, ""))[0].value == 0.0
    broken = task_of({**scripted, "eval_script": "echo nothing\n"}, folder=tmp_path)
    with pytest.raises(GradingError, match="does not have each of the markers"):
        asyncio.run(grade_patch(backend, broken, ""))


def test_a_flaky_test_is_set_aside(docker_vault, row, tmp_path, monkeypatch):
    """A test of PASS_TO_PASS that fails in every second gold run is quarantined; the rest of the row holds."""
    flaky = "tests/test_flaky.py::test_flaky"
    test = 'def test_flaky():\n    import os\n    assert int(os.environ.get("ROUND", "1")) % 2\n'
    brought = docker_vault.patch({"tests/test_flaky.py": test})
    rows = tmp_path / "rows.jsonl"
    passing = [*row["PASS_TO_PASS"], flaky]
    rows.write_text(json.dumps({**row, "test_patch": row["test_patch"] + brought, "PASS_TO_PASS": passing}) + "\n")
    runs = validate.run_hidden_tests
    rounds = iter(range(1, 100))

    async def run_in_another_round(backend, row, patch, **options):
        numbered = row.model_copy(update={"env": {**row.env, "ROUND": str(next(rounds))}})
        return await runs(backend, numbered, patch, **options)

    monkeypatch.setattr(validate, "run_hidden_tests", run_in_another_round)
    (check,) = asyncio.run(validate.validate_tasks(rows, backend=docker_vault.backend, times=2, workers=1))
    assert (check.problem, check.golds, check.empties, check.quarantined) == ("", "1 1", "0 0", (flaky,))
    (kept,) = validate.kept_rows([check])
    assert kept["QUARANTINED"] == [flaky]
    assert json.loads(kept["PASS_TO_PASS"]) == list(row["PASS_TO_PASS"])


def test_bad_input_is_one_clear_message(row, tmp_path, monkeypatch):
    missing = task_of({**row, "image": "verigym/not-there:1", "archive": ""}, folder=tmp_path)
    monkeypatch.setenv("VERIGYM_SANDBOX_PULL_ATTEMPTS", "1")
    with pytest.raises(SandboxError, match=r"not-there:1 is not on .* and cannot be pulled"):
        asyncio.run(grade_patch(ContainerPool(DockerBackend()), missing, ""))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SandboxError, match=r"no container engine answers at .*; start it, or give its address"):
        DockerBackend()
