"""Terminal-Bench 2: 89 tasks in Harbor's format, brought at the commit that Harbor's registry names."""

from pathlib import Path

from ...agent.loop import Budget
from ...envs.datasets.harbor import FAMILY, harbor_rows
from ...envs.datasets.repository import files_of_commit
from ...envs.sandbox.python import cache_folder
from ...errors import ConfigError, TaskError
from ...model.chat.sampling import Sampling
from .harbor import HARBOR_ENV
from .spec import Preset, Suite
from .task_rows import tasks_of_rows

REPOSITORY = "https://github.com/laude-institute/terminal-bench-2"
COMMIT = "69671fbaac6d67a7ef0dfec016cc38a64ef7a77c"
"""Source: registry.json of Harbor, "terminal-bench" version "2.0"."""
LEADERBOARD = "harborframework/terminal-bench-2-leaderboard: at least five trials a task"
EACH_TASK = (
    "task.toml, [agent] timeout_sec (600 to 12,000 s), which submissions may not change; this ends what never asks"
)
TERMINUS = "not published: Terminus 2 (Harbor 0.26) takes the model's own unless told, and stops at 1,000,000 turns"


def bring() -> Path:
    """The folder of the tasks, fetched once into the cache.

    Raises:
        ConfigError: it is not there, and the repository cannot be fetched.
    """
    folder = cache_folder() / "terminal-bench-2" / COMMIT
    try:
        files_of_commit(REPOSITORY, COMMIT, folder)
    except (TaskError, OSError) as error:
        raise ConfigError(
            f"Terminal-Bench 2 cannot be brought from {REPOSITORY}: {error}; clone it where there is a network, and "
            "give the folder with --data FOLDER"
        ) from None
    return folder


SUITES = (
    Suite(
        name="terminal_bench_2",
        about="Terminal-Bench 2: a clone of its repository, or any folder of its tasks",
        env_ids={FAMILY: HARBOR_ENV},
        tasks_of=tasks_of_rows,
        read=harbor_rows,
        bring=bring,
        preset=Preset(
            sampling=Sampling(max_tokens=16_384, temperature=1.0),
            budget=Budget(turns=1_000_000, tokens=131_072, seconds=14_400.0),
            samples=5,
            sources={
                "samples": LEADERBOARD,
                "timeout": EACH_TASK,
                **dict.fromkeys(("temperature", "top_p", "max_tokens", "max_turns"), TERMINUS),
            },
        ),
    ),
)
