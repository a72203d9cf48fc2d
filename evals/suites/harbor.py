"""Harbor: folders of tasks with an image, an instruction and tests that write a reward; Terminal-Bench 2 is one."""

from ...agent.loop import Budget
from ...envs.datasets.harbor import FAMILY, harbor_rows
from ...model.chat.sampling import Sampling
from .spec import Preset, Suite
from .task_rows import tasks_of_rows

HARBOR_ENV = "verigym/Harbor-v0"
NOT_PUBLISHED = "not published: each task states the time of its agent, and no number of turns"


SUITES = (
    Suite(
        name="harbor",
        about="a folder of tasks in Harbor's format (task.toml, instruction.md, environment/, tests/), at any depth",
        env_ids={FAMILY: HARBOR_ENV},
        tasks_of=tasks_of_rows,
        read=harbor_rows,
        preset=Preset(
            sampling=Sampling(max_tokens=16_384, temperature=1.0),
            budget=Budget(turns=200, tokens=131_072, seconds=14_400.0),
            sources={"max_turns": NOT_PUBLISHED, "max_tokens": NOT_PUBLISHED, "timeout": NOT_PUBLISHED},
        ),
        test_timeout_s=None,
    ),
)
