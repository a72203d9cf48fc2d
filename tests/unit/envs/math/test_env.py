import asyncio
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import verigym.envs  # noqa: F401
from verigym.envs.math.env import BUILT_IN, MathEnv
from verigym.envs.math.equivalence import EquivalenceChecker, default_checker
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.task import Task
from verigym.errors import GradingError, SandboxError, TaskError
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import ToolCall

PAIRS = [
    ("x^2 + 2x + 1", "(x+1)^2", True),
    ("\\frac{\\sqrt{8}}{2}", "\\sqrt{2}", True),
    ("\\{1, 2\\}", "\\{2, 1\\}", True),
    ("x^2 + 1", "(x+1)^2", False),
    ("\\frac{", "2", False),
    ("", "2", False),
    ("$ $", "\\sqrt{2}", False),
]


@pytest.fixture(scope="module")
def checker():
    checker = EquivalenceChecker(cpu_seconds=3.0)
    yield checker
    checker.close()


def test_it_is_a_gymnasium_environment():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("verigym/Math-v0").unwrapped, skip_render_check=True)


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.id)
def test_gold_scores_one_and_empty_zero(task):
    env = MathEnv()
    for messages, value in ((env.gold(task), 1.0), (env.empty(task), 0.0)):
        env.reset(options={"task": task})
        observation, reward, terminated, truncated, info = env.step(messages[0].content)
        assert (reward, terminated, truncated, info["ending"]) == (value, True, False, "answered")


def test_answers_are_equal_symbolically(checker):
    assert [checker(answer, gold) for answer, gold, _ in PAIRS] == [equal for *_, equal in PAIRS]


def test_threads_get_the_main_threads_answers(checker):
    """Trap 20: a library whose time limits are alarms works in the main thread alone."""
    with ThreadPoolExecutor(max_workers=4) as threads:
        results = list(threads.map(lambda pair: checker(pair[0], pair[1]), PAIRS * 3))
    assert results == [equal for *_, equal in PAIRS] * 3


def test_episodes_on_one_loop_are_scored_at_once(checker):
    async def one(answer: str) -> float:
        env = MathEnv(verify=checker)
        await env.areset(options={"task": Task(id="t", family="math", prompt="?", hidden={"answer": "(x+1)^2"})})
        return (await env.astep(f"\\boxed{{{answer}}}"))[1]

    async def every() -> list[float]:
        return await asyncio.gather(*(one(answer) for answer in ("x^2+2x+1", "x^2", "1+x(x+2)")))

    assert asyncio.run(every()) == [1.0, 0.0, 1.0]


def test_a_runaway_expression_returns_by_its_deadline():
    """Trap 20. Its worker is killed and another one takes its place."""
    short = EquivalenceChecker(cpu_seconds=0.5, num_workers=1)
    try:
        for hard in ("9^{9^{9^{9}}}", "\\int_0^1 x^{x^{x^x}} \\sin(x^{99}) dx"):
            before = time.monotonic()
            assert short(hard, "\\sqrt{2}") is False
            assert time.monotonic() - before < 60
        assert short("\\frac{\\sqrt{8}}{2}", "\\sqrt{2}") is True
    finally:
        short.close()


def test_a_worker_that_does_not_start_is_a_failure_of_grading(monkeypatch):
    """Trap 18: never a score of 0."""
    checker = EquivalenceChecker()
    monkeypatch.setattr(checker._workers, "_argv", ["/bin/false"])
    with pytest.raises(GradingError, match="did not start"):
        checker("x", "y")
    monkeypatch.setattr(checker._workers, "_argv", ["/no/such/program"])
    with pytest.raises(GradingError, match="cannot be started"):
        checker("x", "y")


def test_closing_leaves_no_process():
    checker = EquivalenceChecker()
    assert checker("x+x", "2x")
    (worker,) = checker._workers._idle
    checker.close()
    assert not worker.is_alive()


def test_environments_share_one_checker():
    found = []
    threads = [threading.Thread(target=lambda: found.append(default_checker())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 1


def test_a_task_without_an_answer_is_refused():
    with pytest.raises(TaskError, match="hidden\\['answer'\\]"):
        MathEnv().reset(options={"task": Task(id="t", family="math", prompt="")})


def test_python_runs_in_the_sandbox_and_shows_the_last_value():
    try:
        env = MathEnv(sandbox=make_backend("local"), tools=True)
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")
    _, info = env.reset(options={"task": BUILT_IN[0]})
    assert [spec.name for spec in info["tools"]] == ["python"]

    def python(code: str) -> str:
        return env.step(encode_calls([ToolCall(name="python", arguments={"code": code})]))[0]

    assert python("print(17 + 25)") == "42"
    assert python("x = 40\nx + 2") == "42"
    assert python("x").endswith("NameError: name 'x' is not defined")  # each call has a process of its own
    assert env.step("\\boxed{42}")[1] == 1.0
