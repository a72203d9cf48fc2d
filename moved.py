"""Names of modules before version 0.2. They still import, with a DeprecationWarning, until 0.3."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

_TRAINER = {
    "recipe": "algorithms config layouts dry_run per_family",
    "sampling": "rollouts families difficulty mixture rl_tasks evaluation",
    "objective": "losses advantages per_token critic reference",
    "learning": "step optim learner experience trainee",
    "loops": "loop midtrain midtrain_data reinforce asynchronous metrics throughput",
    "run": "report checkpoint saving watching progress",
}

MOVED = {
    "verigym.envs.swe_cwm": "verigym.envs.swe.cwm",
    "verigym.envs.grading": "verigym.envs.swe.grading",
    "verigym.envs.testing": "verigym.envs.swe.testing",
    "verigym.envs.patching": "verigym.envs.swe.patching",
    "verigym.envs.checkout": "verigym.envs.swe.checkout",
    "verigym.envs.history": "verigym.envs.swe.history",
    "verigym.envs.scripted": "verigym.envs.swe.scripted",
    "verigym.envs.equivalence": "verigym.envs.math.equivalence",
    "verigym.envs.background": "verigym.envs.sandbox.background",
    "verigym.envs.opening": "verigym.envs.registry.opening",
    "verigym.trainer.stages": "verigym.trainer.run.train",
    "verigym.envs.doctor": "verigym.envs.cli.doctor",
    **{
        f"verigym.trainer.{name}": f"verigym.trainer.{room}.{name}"
        for room, all_ in _TRAINER.items()
        for name in all_.split()
    },
}
"""Old name -> new name."""


class _Loader(importlib.abc.Loader):
    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what stands in sys.modules afterwards: the very module of the new name.
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


class OldNames(importlib.abc.MetaPathFinder):
    """Asked last, so it is met by names that nothing else has."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        message = f"{fullname} is {MOVED[fullname]} since 0.2; the old name ends with 0.3"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return importlib.machinery.ModuleSpec(fullname, _Loader())
