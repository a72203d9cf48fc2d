"""Finding environments: ours, those of plug-ins by their entry points, and those of any module."""

import subprocess
import sys

import gymnasium
import pytest

from verigym.envs.core import ToolEnv
from verigym.envs.registry.ids import OURS, make_env, register_environments
from verigym.envs.registry.opening import open_env
from verigym.errors import ConfigError

PLUGIN = """
from verigym.envs.core import ToolEnv
import gymnasium
print("imported")

class One(ToolEnv):
    def __init__(self, loud=False, **kwargs):
        super().__init__(**kwargs)
        self.loud = loud

class NotOurs(gymnasium.Env):
    pass

gymnasium.register(id="probe/Two-v0", entry_point=One, disable_env_checker=True, order_enforce=False)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put the plug-in on the path, with entry points as an installer would write them."""
    before = set(gymnasium.registry)

    def install(*entries):
        (tmp_path / "probe_plugin.py").write_text(PLUGIN)
        folder = tmp_path / "probe-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
        (folder / "entry_points.txt").write_text("[verigym.envs]\n" + "\n".join(entries) + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    yield install
    sys.modules.pop("probe_plugin", None)
    for env_id in set(gymnasium.registry) - before:
        del gymnasium.registry[env_id]


def test_ours_are_registered_once():
    register_environments()
    assert set(OURS) <= set(gymnasium.registry)
    assert isinstance(make_env("verigym/Math-v0", max_turns=3), ToolEnv)
    assert make_env("verigym/Math-v0", max_turns=3).max_turns == 3


def test_an_entry_point_names_a_class_or_a_module(install):
    install("probe/One-v0 = probe_plugin:One", "probe = probe_plugin")
    assert type(make_env("probe/One-v0", loud=True)).__name__ == "One"
    assert make_env("probe/One-v0", loud=True).loud is True
    assert type(make_env("probe/Two-v0")).__name__ == "One"


def test_a_module_is_imported_for_its_id(install):
    install()
    assert type(make_env("probe_plugin:probe/Two-v0")).__name__ == "One"


def test_options_are_offered_to_those_that_have_them(install):
    install("probe/One-v0 = probe_plugin:One")
    assert open_env("probe/One-v0", {"loud": True, "sandbox": "local", "max_turns": 2}).max_turns == 2
    assert open_env("probe/One-v0", {"sandbox": "local"}).loud is False
    with pytest.raises(ConfigError, match=r"cannot be made .*quiet"):
        open_env("probe/One-v0", {}, {"quiet": True})


def test_a_broken_plug_in_is_named_where_it_is_needed_and_harms_no_other(install, capsys):
    install("broken/A-v0 = no_such_module:A", "broken/B-v0 = probe_plugin:Missing", "probe/One-v0 = probe_plugin:One")
    make_env("verigym/Math-v0")
    assert "imported" not in capsys.readouterr().out
    make_env("probe/One-v0")
    for name in ("A", "B"):
        with pytest.raises(ConfigError, match=f"the plug-in 'broken/{name}-v0' .* cannot be imported"):
            make_env(f"broken/{name}-v0")


def test_unknown_ids_are_told_with_the_known_ones(install):
    install("probe/One-v0 = probe_plugin:One", "probe/NotOurs-v0 = probe_plugin:NotOurs")
    for wrong in ("probe/Three-v0", "One", "", "probe_plugin:probe/Three-v0", "no_such_module:probe/One-v0"):
        with pytest.raises(ConfigError, match=r"known ids: verigym/Code-v0, .*, probe/NotOurs-v0, probe/One-v0"):
            make_env(wrong)
    with pytest.raises(ConfigError, match=r"is a NotOurs, not a verigym\.envs\.core\.ToolEnv; wrap it in one"):
        make_env("probe/NotOurs-v0")


def test_gymnasium_finds_ours_by_the_modules_name():
    script = 'import gymnasium; print(gymnasium.make("verigym.envs:verigym/Math-v0").unwrapped.family)'
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "math\n", done.stderr
