"""Vectors of environments: Gymnasium's ``make_vec`` in one process and in several."""

import copy
import pickle

import gymnasium
import pytest

import verigym.envs  # noqa: F401
from verigym.envs.task import Task
from verigym.envs.tools.text_space import LastTexts, TextFiles, UnicodeText


def math(number: int) -> Task:
    answer = {"answer": str(number)}
    return Task(id=f"t{number}", family="math", prompt=f"What is {number}? Été, 東京 \U0001f600", hidden=answer)


TASKS = (math(7),)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("shared", [True, False])
def test_texts_come_back(mode: str, shared: bool) -> None:
    options = {"vector_kwargs": {"shared_memory": shared}} if mode == "async" else {}
    env = gymnasium.make_vec("verigym/Math-v0", num_envs=2, vectorization_mode=mode, tasks=TASKS, **options)
    try:
        first, _ = env.reset(seed=0)
        assert len(first) == 2
        assert all("What is 7? Été, 東京 \U0001f600" in text for text in first)
        second, rewards, terminated, _, _ = env.step(("\\boxed{7}", "\\boxed{8}"))
        assert list(rewards) == [1.0, 0.0]
        assert list(terminated) == [True, True]
        assert tuple(second) != tuple(first)
        assert all("What is 7?" in text for text in first)  # what was given does not change
    finally:
        env.close()


def test_texts_of_all_kinds_are_kept() -> None:
    files = TextFiles()
    texts = LastTexts(files, 3)
    assert tuple(texts) == ("", "", "")
    other = pickle.loads(pickle.dumps(files))
    for place, text in enumerate(("a\r\nb\0", "\ud83d", "x" * 1_000_000)):
        other.write(place, text)
    assert copy.deepcopy(texts) == ("a\r\nb\0", "\ud83d", "x" * 1_000_000)
    assert texts[-1] == "x" * 1_000_000
    assert texts[:1] == ("a\r\nb\0",)
    with pytest.raises(IndexError):
        texts[3]


def test_the_space_is_the_one_that_environments_have() -> None:
    env = gymnasium.make("verigym/Math-v0", tasks=TASKS)
    assert isinstance(env.observation_space, UnicodeText)
