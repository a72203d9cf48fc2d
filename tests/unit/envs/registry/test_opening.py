"""From names to environments and tasks."""

import gymnasium
import pytest

from verigym.envs.core import ToolEnv
from verigym.envs.registry.opening import open_env, own_tasks, read_any_tasks
from verigym.envs.task import Task, write_jsonl
from verigym.errors import ConfigError, TaskError


class Plain(ToolEnv):
    pass


class Boxed(ToolEnv):
    def __init__(self, *, sandbox="auto", **kwargs):
        super().__init__(**kwargs)
        self.sandbox = sandbox


class HandsOn(Boxed):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class Loads(ToolEnv):
    async def load(self):
        return [Task(id="a", family="x", prompt="")]


@pytest.fixture(autouse=True)
def registered():
    for cls in (Plain, Boxed, HandsOn, Loads):
        gymnasium.register(id=f"opening/{cls.__name__}-v0", entry_point=cls, disable_env_checker=True)
    yield
    for cls in (Plain, Boxed, HandsOn, Loads):
        gymnasium.registry.pop(f"opening/{cls.__name__}-v0")


@pytest.mark.parametrize("name", ["Boxed", "HandsOn"])
def test_an_option_reaches_the_class_that_has_it(name):
    assert open_env(f"opening/{name}-v0", {"sandbox": "unsafe"}).sandbox == "unsafe"


def test_an_option_that_an_environment_lacks_is_left_out():
    assert isinstance(open_env("opening/Plain-v0", {"sandbox": "unsafe"}), Plain)


def test_what_is_needed_is_never_left_out():
    assert open_env("opening/Plain-v0", {"sandbox": "local"}, {"max_turns": 3}).max_turns == 3
    with pytest.raises(ConfigError, match="unexpected keyword argument 'loudness'"):
        open_env("opening/Plain-v0", {}, {"loudness": 3})


def test_an_unknown_environment_is_told_with_the_known_ones():
    for env_id in ("opening/None-v0", "no_such_module:opening/Plain-v0", "opening/Plain-v9"):
        with pytest.raises(ConfigError, match="known ids: verigym/Code-v0"):
            open_env(env_id, {"sandbox": "auto"})


def test_own_tasks_may_be_loaded_by_a_coroutine_and_may_be_missing():
    assert [task.id for task in own_tasks(open_env("opening/Loads-v0", {}))] == ["a"]
    with pytest.raises(TaskError, match="has no tasks of its own"):
        own_tasks(open_env("opening/Plain-v0", {}))


def test_a_file_of_tasks_is_told_from_swe_bench_rows(tmp_path):
    path = tmp_path / "tasks.jsonl"
    write_jsonl(path, [Task(id="a", family="math", prompt="1+1").to_json()])
    assert [task.family for task in read_any_tasks(path)] == ["math"]
    write_jsonl(path, [{"instance_id": "x-1", "repo": "x"}])
    with pytest.raises(TaskError, match=r"tasks.jsonl"):
        read_any_tasks(path)
