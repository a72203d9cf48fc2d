"""Recipes and examples that come along: found by name, copied, and never in the way of a user's own files."""

import pytest

from verigym.__main__ import main
from verigym.errors import ConfigError
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.recipe.packaged import (
    EXAMPLES,
    RECIPES,
    copy_packaged,
    describe,
    find_recipe,
    packaged_examples,
    packaged_recipes,
)

SMALL = '[[families]]\nname = "f"\nenv = "verigym/Math-v0"\n'


def test_a_bare_name_is_a_recipe_that_comes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("smoke") == RECIPES / "smoke.toml"
    assert load_recipe("smoke").name == "smoke"
    for given in ("smoke.toml", "recipes/smoke", str(tmp_path / "smoke")):
        with pytest.raises(ConfigError, match=r"no such recipe; by name there are .*smoke"):
            load_recipe(given)


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stages").mkdir()  # a folder is no recipe
    (tmp_path / "smoke").write_text('name = "mine"\n' + SMALL)
    assert load_recipe("smoke").name == "mine"
    assert load_recipe("stages").name == "stages"


@pytest.mark.parametrize("path", [*packaged_recipes().values(), *packaged_examples().values()], ids=lambda p: p.name)
def test_each_says_what_it_is(path):
    assert len(describe(path)) > 15


def test_byte_code_beside_examples_is_no_example(tmp_path, monkeypatch):
    """pip compiles what it installs."""
    monkeypatch.setattr("verigym.trainer.recipe.packaged.EXAMPLES", tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "one.py").write_text("")
    assert packaged_examples() == {"one": tmp_path / "one.py"}


def test_copies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "copy", "smoke"]) == 0
    assert capsys.readouterr().out == "wrote smoke.toml\nnext: verigym train smoke.toml --dry-run\n"
    assert copy_packaged("smoke", tmp_path / "a" / "b.toml").read_bytes() == (RECIPES / "smoke.toml").read_bytes()
    assert copy_packaged("verigym-secret").is_dir()
    copied, original = tmp_path / "verigym-secret", EXAMPLES / "verigym-secret"
    assert (copied / "recipe.toml").read_bytes() == (original / "recipe.toml").read_bytes()
    (tmp_path / "smoke.toml").write_text("mine")
    assert main(["recipes", "copy", "smoke"]) == 2
    assert "smoke.toml is there already; say another place with --out" in capsys.readouterr().err
    assert (tmp_path / "smoke.toml").read_text() == "mine"
    assert main(["recipes", "copy", "../errors"]) == 2
    assert "no recipe or example is called '../errors'; there are" in capsys.readouterr().err


def test_settings_of_an_agent_come_along_and_are_found_beside_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, folder in (
        ("mini-swe-agent", RECIPES),
        (copy_packaged("mini-swe-agent", tmp_path / "a.toml"), tmp_path),
    ):
        (family,) = load_recipe(given).families
        assert family.agent.name == f"mini-swe-agent:{folder / 'mini-swe-agent.yaml'}"
        assert (folder / "mini-swe-agent.yaml").is_file()
    plain = load_recipe("mini-swe-agent", ["families.0.agent.name=mini-swe-agent:swebench.yaml"])
    assert plain.families[0].agent.name == "mini-swe-agent:swebench.yaml"  # one that it brings itself


def test_quick_sets_what_the_recipe_says(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\n' + SMALL + '[quick]\n"families.0.turns" = 2\nseed = 7\n')
    assert (load_recipe(recipe).seed, load_recipe(recipe).families[0].turns) == (0, 8)
    quick = load_recipe(recipe, ["seed=8"], quick=True)
    assert (quick.seed, quick.families[0].turns) == (8, 2)  # what is typed comes last


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("", r"has no table \[quick\], which says what --quick changes"),
        ("[quick]\n'families.3.turns' = 2\n", r"\[quick\] 'families.3.turns': there is no"),
        ("[quick]\nsteps = 2\n", "unknown key 'steps'"),
        ("[quick.rl]\nsteps = 2\ntrain.group = 2\n", "unknown key|did you mean"),
    ],
)
def test_quick_of_a_recipe_that_cannot(tmp_path, table, told):
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\n' + SMALL + table)
    with pytest.raises(ConfigError, match=told):
        load_recipe(recipe, quick=True)
