"""An algorithm of one's own: what its class returns is learned, and its mistakes are told with its name."""

import numpy as np
import pytest
import torch

from verigym.errors import ConfigError, TrainingError
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.objective.own import load_credit
from verigym.trainer.recipe.algorithms import OwnConfig
from verigym.trainer.recipe.load import load_recipe

HERE = __name__


class FirstTokens:
    """The reward less the group's, on the first ``count`` sampled tokens; the worst episode is left out."""

    def __init__(self, count=1):
        self.count = count

    def __call__(self, group):
        mean = sum(one.reward for one in group) / len(group)
        worst = min(one.reward for one in group)
        return [
            None if one.reward == worst else np.where(np.arange(one.num_sampled) < self.count, one.reward - mean, 0.0)
            for one in group
        ]


class Gives:
    def __init__(self, what):
        self.what = what

    def __call__(self, group):
        if self.what == "raises":
            raise KeyError("gone")
        return {
            "too few": [1.0],
            "words": ["much", "more"],
            "another shape": [[1.0], [1.0, 2.0]],
            "nan": [float("nan"), 1.0],
            "infinity": [float("inf"), 1.0],
            "too large": [1e300, 1.0],
            "a word": ["1.0", 1.0],
            "a complex number": [1j, 1.0],
            "a weight": [torch.ones(4, requires_grad=True), 1.0],
            "nothing": None,
        }[self.what]


def config(name, **options):
    return OwnConfig(algorithm=f"{HERE}:{name}", options=options)


@pytest.fixture
def group(make_segment, make_trajectory):
    masks = [0, 1, 1, 0, 1]
    return [
        make_trajectory(make_segment([5, 6, 7, 8, 9], masks), make_segment([5, 6], [0, 1]), reward=reward)
        for reward in (0.0, 1.0, 2.0, None)
    ]


def test_each_token_has_the_credit_that_the_class_gave(group):
    found = experience_of(group, config("FirstTokens", count=2))
    assert [len(documents) for documents in found.documents] == [0, 2, 2, 0]
    first, second = found.documents[2]
    np.testing.assert_array_equal(first.advantage, [1.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(second.advantage, [0.0])
    assert found.groups.values == (None, 0.0, pytest.approx(0.5), None)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("raises", "failed on task 'g': KeyError: 'gone'"),
        ("nothing", "failed on task 'g': TypeError"),
        ("too few", "gave 1 credits for the 3 episodes"),
        ("words", "gave"),
        ("another shape", "gave"),
    ],
)
def test_its_mistakes_are_told_with_its_name(group, what, told):
    with pytest.raises(TrainingError, match=f"{HERE}:Gives.*{told}"):
        experience_of(group, config("Gives", what=what))


def test_shapes_and_numbers_are_checked(group):
    pair = [group[0], group[1]]
    with pytest.raises(TrainingError, match=r"shape \[1\] for an episode .* with 4 sampled tokens"):
        experience_of(pair, config("Gives", what="another shape"))
    for what in ("nan", "infinity", "too large"):
        with pytest.raises(TrainingError, match="gave NaN, infinity or more than"):
            experience_of(pair, config("Gives", what=what))
    for what in ("words", "a word", "a complex number", "a weight"):
        with pytest.raises(TrainingError, match="gave no numbers"):
            experience_of(pair, config("Gives", what=what))


class Unmade:
    def __init__(self):
        raise ValueError("not so")


@pytest.mark.parametrize("name", ["nowhere:Thing", f"{HERE}:Thing", f"{HERE}:HERE", f"{HERE}:Unmade"])
def test_what_cannot_be_made_is_told(name):
    with pytest.raises(ConfigError, match="cannot be made"):
        load_credit(OwnConfig(algorithm=name))


def test_a_recipe_names_it(tmp_path):
    path = tmp_path / "recipe.toml"
    families = '[[families]]\nname = "math"\nenv = "verigym/Math-v0"\ntasks = "small-sums"\n'
    path.write_text(f'name = "x"\n{families}[rl.train]\nalgorithm = "{HERE}:FirstTokens"\noptions = {{ count = 3 }}\n')
    train = load_recipe(path).rl.train
    assert isinstance(train, OwnConfig)
    assert load_credit(train).count == 3
    with pytest.raises(ConfigError, match=r"unknown key 'rl\.train\.clip_lo'; did you mean 'clip_low'"):
        load_recipe(path, ["rl.train.clip_lo=0.1"])
    with pytest.raises(ConfigError, match="or MODULE:CLASS"):
        load_recipe(path, ["rl.train.algorithm='nothing'"])
