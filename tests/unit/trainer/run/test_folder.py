"""The folder of a run: one process at a time, a recipe that can be read, and files that are what was written."""

import pytest

from verigym.errors import ConfigError
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.recipe.packaged import packaged_recipes
from verigym.trainer.run.folder import RECIPE, check_kept, keep, opened_run, read_stage, write_stage

TEXT = '[[families]]\nname = "math"\nenv = "verigym/Math-v0"\ntasks = "small-sums"\nnum_train = 4\nnum_held_out = 2\n'


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('name = "small"\n' + TEXT)
    return load_recipe(path)


def test_two_at_once_are_refused_and_the_first_goes_on(recipe, tmp_path):
    out = tmp_path / "out"
    with opened_run(recipe, out, resume=False):
        before = (out / RECIPE).read_bytes()
        for resume in (True, False):
            with (
                pytest.raises(ConfigError, match=r"in use by another run: process \d+.*give another --out"),
                opened_run(recipe, out, resume=resume),
            ):
                pass
        assert (out / RECIPE).read_bytes() == before
    with opened_run(recipe, out, resume=True):
        pass
    with pytest.raises(ConfigError, match="add --resume"), opened_run(recipe, out, resume=False):
        pass


def test_a_resume_leaves_the_recipe_as_it_is(recipe, tmp_path):
    out = tmp_path / "out"
    with opened_run(recipe, out, resume=False):
        pass
    facts = (out / RECIPE).stat()
    with opened_run(recipe, out, resume=True):
        pass
    again = (out / RECIPE).stat()
    assert (facts.st_ino, facts.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x00\x00", b"null", b'{"name": "small"'])
def test_an_empty_or_broken_recipe_is_told(recipe, tmp_path, content):
    out = tmp_path / "out"
    with opened_run(recipe, out, resume=False):
        pass
    (out / RECIPE).write_bytes(content)
    with (
        pytest.raises(ConfigError, match=r"recipe\.json, the recipe of the run, .*restore it from a copy"),
        opened_run(recipe, out, resume=True),
    ):
        pass
    assert (out / RECIPE).read_bytes() == content


def test_no_run_to_resume_makes_no_folder(recipe, tmp_path):
    with pytest.raises(ConfigError, match="no run to resume"), opened_run(recipe, tmp_path / "out", resume=True):
        pass
    assert not (tmp_path / "out").exists()


def test_files_that_a_resume_reads_are_those_that_were_written(recipe, tmp_path):
    out = tmp_path / "out"
    with opened_run(recipe, out, resume=False):
        write_stage(out, "sft", {"seconds": 12.5, "steps": 10})
        path = out / "demonstrations.jsonl"
        path.write_text('{"name": "math"}\n')
        keep(out, path)
    assert read_stage(out, "sft") == {"seconds": 12.5, "steps": 10}
    assert read_stage(out, "rl") is None
    check_kept(out, "demonstrations.jsonl")
    for name, old, new in (
        ("sft/stage.json", "12.5", "19.5"),
        ("demonstrations.jsonl", "math", "mauh"),
        (RECIPE, '"seed": 0', '"seed": 0 '),
    ):
        text = (out / name).read_text()
        (out / name).write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match=f"{name} has changed since it was written"):
            check_kept(out, name)
    with pytest.raises(ConfigError, match="has changed"), opened_run(recipe, out, resume=True):
        pass
    (out / "sft" / "stage.json").write_text("")
    with pytest.raises(ConfigError, match=r"stage\.json.*is empty; remove it"):
        read_stage(out, "sft")


def test_a_run_s_folder_stands_for_its_recipe(tmp_path):
    """Each recipe that comes along, with a change: what a resume from the folder alone begins with."""
    for name, path in packaged_recipes().items():
        recipe, out = load_recipe(path, ["seed=3"]), tmp_path / name
        with opened_run(recipe, out, resume=False):
            pass
        assert load_recipe(out) == recipe
        with opened_run(load_recipe(out), out, resume=True):
            pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no recipe.json, so it is no run; give a recipe"),
        ("{", "not readable as JSON.*restore it from a copy"),
        ("[]", "holds no recipe; restore it from a copy"),
        ('{"nmae": "x"}', "name"),
    ],
)
def test_a_folder_without_a_recipe_is_refused(text, message, tmp_path):
    if text is not None:
        (tmp_path / RECIPE).write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path)
