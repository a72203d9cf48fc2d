"""Modules that moved are found under their old names too."""

import importlib
import sys

import pytest

from verigym.moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_is_the_same_module_and_says_the_new_one(old, monkeypatch):
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=MOVED[old]):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MOVED[old])
    assert module.__name__ == module.__spec__.name == MOVED[old]


def test_what_users_import_of_rooms_that_were_files_is_still_there():
    from verigym.envs.code import CodeEnv
    from verigym.envs.math import MathEnv
    from verigym.envs.registry import make_env
    from verigym.envs.swe import SWEEnv
    from verigym.trainer.recipe import load_recipe

    assert {one.__name__ for one in (CodeEnv, MathEnv, SWEEnv)} == {"CodeEnv", "MathEnv", "SWEEnv"}
    assert callable(make_env)
    assert callable(load_recipe)


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("verigym.trainer.nothing")
