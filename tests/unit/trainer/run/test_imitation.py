"""What imitation measures by is not what it learns from."""

from collections import defaultdict

import pytest

from verigym.errors import TaskError
from verigym.trainer.run.imitation import split_by_task


@pytest.mark.parametrize("seed", range(5))
def test_no_task_is_in_both_parts(make_segment, make_trajectory, seed):
    demonstrations = [
        make_trajectory(make_segment([1, number], [0, 1]), group=str(number % 13)) for number in range(90)
    ]
    learned, measured = split_by_task(demonstrations, 0.25, seed)
    assert len(learned) + len(measured) == 90
    parts = defaultdict(set)
    for part, rows in (("learned", learned), ("measured", measured)):
        for one in rows:
            parts[one.task_id].add(part)
    assert all(len(found) == 1 for found in parts.values())
    assert sum(found == {"measured"} for found in parts.values()) == 3


def test_one_task_is_too_few_and_said_so(make_segment, make_trajectory):
    one = make_trajectory(make_segment([1, 2], [0, 1]), group="only")
    with pytest.raises(TaskError, match=r"two tasks or more.*here are 1.*num_train"):
        split_by_task([one, one], 0.25, 0)
