"""``verigym/Trace-v0``: what counts as right is what running says."""

import asyncio
import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import verigym.envs  # noqa: F401
from verigym.envs.core import CutOff
from verigym.envs.task import Task
from verigym.envs.trace.env import TraceEnv
from verigym.envs.trace.tasks import ASKED, BUILT_IN, trace_tasks
from verigym.errors import TaskError


def graded(env, task, answer):
    env.reset(options={"task": task})
    _, reward, terminated, _, info = env.step(answer)
    assert terminated
    return reward, info["score"]


@pytest.fixture(scope="module")
def env(backend):
    env = TraceEnv(sandbox=backend)
    yield env
    env.close()


def returns(program, call):
    return Task(
        id=f"{program}/{call}", family="trace", prompt="", hidden={"program": program, "call": call, "ask": "return"}
    )


def test_it_is_a_gymnasium_environment(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("verigym/Trace-v0", sandbox=backend).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.id)
def test_gold_scores_one_and_empty_zero(env, task):
    assert graded(env, task, env.gold(task)[0].content)[0] == 1.0
    assert graded(env, task, env.empty(task)[0].content)[0] == 0.0


def test_tasks_of_generated_programs(env, backend):
    tasks = asyncio.run(trace_tasks("programs", 9, seed=1, backend=backend))
    assert [task.hidden["ask"] for task in tasks] == [*ASKED] * 3
    for task in tasks:
        observation, _ = env.reset(options={"task": task})
        assert task.hidden["program"].rstrip() in observation
        reward, score = graded(env, task, env.gold(task)[0].content)
        assert (reward, score.passed) == (1.0, True), score
    # A gold answer to another task is none to this one.
    assert graded(env, tasks[2], env.gold(tasks[5])[0].content)[0] < 0.5


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("[ANSWER]{'b': [1, 2], 'a': (1,)}[/ANSWER]", True),
        ("The value is\n[ANSWER]dict(a=(1,), b=[1,2])[/ANSWER]", True),
        ("[ANSWER]assert f(1) == {'a': (1,), 'b': [1, 2]}[/ANSWER]", True),
        ("[ANSWER]{'a': [1], 'b': [1, 2]}[/ANSWER]", False),
        ("[ANSWER]{'a': (True,), 'b': [1, 2]}[/ANSWER]", False),
        ("[ANSWER]f(1)[/ANSWER]", False),
        ("[ANSWER]__import__('os')._exit(0)[/ANSWER]", False),
        ("[ANSWER]type('E', (dict,), {'__eq__': lambda *a: True})()[/ANSWER]", False),
        ("", False),
    ],
)
def test_a_value_is_compared_by_evaluation(env, answer, right):
    task = returns("def f(x):\n    return {'a': (x,), 'b': [x, 2]}\n", "f(1)")
    assert graded(env, task, answer)[1].passed is right


def test_values_in_frames_are_compared_by_evaluation(env):
    task = BUILT_IN[1]
    gold = env.gold(task)[0].content
    for said, right in (('"8"', True), ('"4+4"', True), ('"0x8"', True), ('"9"', False), ('"8.5"', False)):
        reward, score = graded(env, task, gold.replace('"8"', said))
        assert score.passed is right
        assert right or 0.0 < reward < 0.5
    # The value again where nothing has changed, and the frame after a thought.
    assert graded(env, task, "<think>\n<|line_sep|></think>" + gold.replace('".."', '"4"'))[0] == 1.0
    for broken in ("<|line_sep|>", gold.replace("{", "["), "nothing"):
        assert graded(env, task, broken)[0] == 0.0


def test_the_end_of_a_run_can_be_asked_for(env):
    task = BUILT_IN[1]
    over = Task(id="over", family="trace", prompt="", hidden={**task.hidden, "at": 7})
    assert graded(env, over, "<|end_of_text|>")[0] == 1.0
    assert graded(env, over, "")[0] == 0.0


def test_partial_credit_for_a_trace_grows_with_its_right_start(env):
    whole = BUILT_IN[2]
    pieces = env.gold(whole)[0].content.split("<|frame_sep|>")[:-1]
    rewards = [graded(env, whole, "".join(f"{one}<|frame_sep|>" for one in pieces[:n]))[0] for n in range(1, 8)]
    assert rewards == sorted(rewards)
    assert rewards[-2] < 0.5 < rewards[-1] == 1.0


def cut(env, task, text):
    """The score of an episode that its limit of tokens ended in the middle of ``text``."""
    env.reset(options={"task": task})
    env.cut_off = CutOff(text)
    return asyncio.run(env.afinish())


def test_what_a_limit_cut_off_earns_what_it_had_said(env):
    value, frame, whole = BUILT_IN
    assert cut(env, value, "It is [ANSWER]12[/ANSWER] bec").passed
    assert cut(env, value, "[ANSWER]12").value == 0.0  # it may go on: 127
    assert cut(env, value, "<think>[ANSWER]12[/ANSWER]").value == 0.0
    gold = env.gold(frame)[0].content
    assert cut(env, frame, gold + "<|line_sep|>{").passed
    assert cut(env, frame, gold[:-5]).value == 0.0
    pieces = env.gold(whole)[0].content.split("<|frame_sep|>")[:-1]
    begun = "".join(f"{one}<|frame_sep|>" for one in pieces[:4])
    for rest in ("", "<|line_sep|>", pieces[4][:-3]):
        score = cut(env, whole, begun + rest)
        assert (score.passed, round(score.value, 3)) == (False, round(0.5 * 4 / 7, 3))
    text = env.gold(whole)[0].content
    assert not cut(env, whole, text).passed  # more frames may have been to come
    assert cut(env, whole, text + "<|end_of_text|>\nSo").passed


def test_a_task_that_gives_nothing_to_predict_is_told(env):
    for hidden in ({"program": "x"}, {"program": "", "call": "1", "ask": "all"}):
        with pytest.raises(TaskError):
            env.reset(options={"task": Task(id="t", family="trace", prompt="", hidden=hidden)})
    with pytest.raises(TaskError, match="no whole trace"):
        graded(env, returns("import sys\n", "sys.exit(1)"), "[ANSWER]1[/ANSWER]")


def test_a_trace_before_the_answer_is_asked_for(backend):
    env = TraceEnv(sandbox=backend, reasoning=True)
    observation, _ = env.reset(options={"task": BUILT_IN[0]})
    assert "First write the trace of the call" in observation
    trace = BUILT_IN[2].hidden["answer"]
    assert graded(env, BUILT_IN[0], f"{trace}\n[ANSWER]12[/ANSWER]")[0] == 1.0
    env.close()
