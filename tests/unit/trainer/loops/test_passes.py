"""The share of passes with something to look at, and its alarm."""

import logging

from verigym.agent.passes import with_flags
from verigym.agent.trajectory import Trajectory
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.model.chat.messages import Message, ToolCall
from verigym.trainer.loops.passes import PassWatch
from verigym.trainer.sampling.rollouts import Rollouts

TASK = example_tasks()[0]


def episode(command, *, passed=True):
    call = ToolCall(name="bash", arguments={"command": command})
    messages = (Message(role="assistant", content="", calls=(call,)), Message(role="tool", content="", name="bash"))
    one = Trajectory(task_id=TASK.id, family="swe", ending="submitted", messages=messages, passed=passed, reward=1.0)
    return with_flags(one, TASK)


def step(watch, flagged, honest, failed=0):
    some = [episode("git log -p") for _ in range(flagged)] + [episode("ls") for _ in range(honest)]
    some += [episode("git log -p", passed=False) for _ in range(failed)]
    return watch.metrics(Rollouts(trajectories=tuple(some)))


def test_the_share_is_of_passes_alone():
    found = step(PassWatch(), flagged=1, honest=3, failed=4)
    assert found == {"rollout/passes_flagged/rate": 0.25, "rollout/passes_flagged/alarm": 0.0}
    assert step(PassWatch(), flagged=0, honest=0, failed=2) == {}


def test_a_rise_rings_once_and_ends(caplog):
    watch = PassWatch()
    with caplog.at_level(logging.WARNING):
        shares = (0, 1, 0, 1, 0, 6, 8, 8, 0, 0, 0, 0)
        alarms = [step(watch, flagged, 10 - flagged)["rollout/passes_flagged/alarm"] for flagged in shares]
    assert alarms[:5] == [0.0] * 5
    assert alarms[6:8] == [1.0, 1.0]
    assert alarms[-1] == 0
    assert len(caplog.records) == 1
    assert "of the last 30 passes" in caplog.text


def test_a_high_share_from_the_beginning_is_no_rise():
    watch = PassWatch()
    assert [step(watch, 8, 2)["rollout/passes_flagged/alarm"] for _ in range(9)] == [0.0] * 9
