"""A new environment as a package of its own: ``verigym envs new NAME``."""

import keyword
import re
from pathlib import Path

from ...errors import ConfigError

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "verigym-{dash}"
version = "0.1.0"
dependencies = ["verigym"]

[project.entry-points."verigym.envs"]
"{dash}/{Class}-v0" = "verigym_{name}:{Class}Env"

[tool.setuptools]
py-modules = ["verigym_{name}"]
"""

_MODULE = '''\
"""{Class}: say here in a line what the task is."""

from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import ToolError, tool
from verigym.model.chat.messages import Message, ToolCall


class {Class}Env(ToolEnv):
    """Adds two numbers with a calculator. Put your own task in its place."""

    family = "{name}"
    system_prompt = "Work out what is asked. Answer with the number alone."

    def load(self):
        """The tasks. What is in ``hidden`` the agent never sees."""
        pairs = [(a, b) for a in range(2, 12) for b in range(3, 8)]
        return [self.sum_of(a, b) for a, b in pairs]

    def sum_of(self, a, b):
        prompt = f"What is {{a}} + {{b}}?"
        return Task(id=f"{{a}}-plus-{{b}}", family=self.family, prompt=prompt, hidden={{"answer": a + b}})

    @tool
    def add(self, a: int, b: int) -> str:
        """Adds two numbers.

        Args:
            a: the first.
            b: the second.
        """
        if max(abs(a), abs(b)) > 10**9:
            raise ToolError("these numbers are too large")
        return str(a + b)

    def score(self, task, submission):
        """True, False, a number within ``reward_bounds``, or a Score with parts."""
        return submission.strip() == str(task.hidden["answer"])

    def gold(self, task):
        """A perfect episode: it must score 1."""
        a, b = task.id.split("-plus-")
        add = ToolCall(name="add", arguments={{"a": int(a), "b": int(b)}})
        return [
            Message(role="assistant", content="", calls=(add,)),
            Message(role="assistant", content=str(task.hidden["answer"])),
        ]
'''

_TEST = '''\
"""Gold scores 1, doing nothing 0, and the environment holds what every environment must."""

import asyncio

import gymnasium
import pytest
from verigym.envs.registry.check import check_environment
from verigym.envs.registry.ids import make_env
from verigym_{name} import {Class}Env

ENV_ID = "{dash}/{Class}-v0"


@pytest.fixture(autouse=True)
def registered():
    """The id is known also where the package is not installed."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(id=ENV_ID, entry_point={Class}Env, disable_env_checker=True, order_enforce=False)


def test_it_holds_what_every_environment_must():
    findings = asyncio.run(check_environment(lambda: make_env(ENV_ID), {Class}Env().load()))
    assert [one for one in findings if one.passed is False] == []
    assert {{one.name for one in findings if one.passed}} >= {{"gold", "empty", "gymnasium"}}


def test_a_wrong_answer_scores_nothing():
    """Of the environment as it came; write here what is wrong in yours."""
    env = make_env(ENV_ID)
    env.reset(seed=1)
    _, reward, terminated, _, info = env.step("no idea")
    assert (reward, terminated, info["score"].passed) == (0.0, True, False)
'''

_RECIPE = """\
# A tiny model from random weights imitates episodes of which half do nothing, then is rewarded for five steps: rewards
# rise, in a minute of a core. verigym train recipe.toml --out runs/{dash}
name = "{dash}"
control = false

[model]
preset = "cwm-tiny"
vocab_size = 400
max_context = 384

[[families]]
name = "{name}"
env = "{dash}/{Class}-v0"
num_train = 40
num_held_out = 10
turns = 3
turn_tokens = 48
num_demonstrations = 400
experts = {{ gold = 0.5, empty = 0.5 }}

[sft.train]
batch_tokens = 1024
microbatch_tokens = 1024
max_steps = 150
patience = 0

[sft.optim]
matrices = "muon"
muon_lr = 2e-3
lr = 6e-3
warmup_steps = 10
schedule = "cosine"
total_steps = 150
min_lr_ratio = 0.05

[rl]
steps = 5

[rl.train]
num_tasks = 8
group_size = 8
num_epochs = 2
microbatch_tokens = 4096

[rl.optim]
lr = 5e-4

[eval]
samples = 1
"""

_README = """\
# verigym-{dash}

An environment for [verigym](https://github.com/verigym/verigym): `{dash}/{Class}-v0`.

```console
pip install -e .
verigym envs check {dash}/{Class}-v0
verigym rollout {dash}/{Class}-v0 --policy gold
verigym eval {dash}/{Class}-v0 --policy empty
verigym train recipe.toml --out runs/{dash}
pytest
```

`verigym_{name}.py` is the whole environment: tasks, tools, score. Change it, and run the check again.
"""


def write_template(name: str, folder: Path) -> list[Path]:
    """Write a package with an environment, its test, a recipe and a README.

    Args:
        name: of the environment: letters, digits, "-" and "_".
        folder: to be made; the package's files lie in it.
    Returns:
        the files.
    Raises:
        ConfigError: the name cannot be one of a module, or the folder exists.
    """
    module = name.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        raise ConfigError(
            f"{name!r} is no name for an environment; begin with a letter, then letters, digits, '-', '_'"
        )
    if folder.exists():
        raise ConfigError(f"{folder} exists; choose another name, or --out DIR for another place")
    names = {
        "name": module,
        "dash": module.replace("_", "-"),
        "Class": "".join(word.capitalize() for word in module.split("_") if word),
    }
    files = {
        "pyproject.toml": _PYPROJECT,
        f"verigym_{module}.py": _MODULE,
        f"test_{module}.py": _TEST,
        "recipe.toml": _RECIPE,
        "README.md": _README,
    }
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text.format(**names), encoding="utf-8")
    return [folder / file for file in files]
