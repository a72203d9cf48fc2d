"""The part of the standard library that containers get is whole."""

import os
import subprocess
import sys

import pytest

from verigym.envs.sandbox.runtime import LIST_MODULES, MODULES

ALIAS = "import sys, shown.real\nsys.modules[__name__] = shown.real\n"


def listed(text, folder=None):
    command = [sys.executable, "-S", "-c", text]
    env = {"PATH": os.environ["PATH"], **({} if folder is None else {"PYTHONPATH": str(folder)})}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.splitlines()


def test_modules_that_put_others_in_their_place_are_there(tmp_path):
    """As ``collections.abc`` does since Python 3.13, under its own name."""
    (tmp_path / "shown").mkdir()
    for name, text in {"__init__": "", "real": '__name__ = "shown.alias"\n', "alias": ALIAS}.items():
        (tmp_path / "shown" / f"{name}.py").write_text(text)
    found = listed(LIST_MODULES.replace("import sys, ", "import sys, shown.alias, ", 1), tmp_path)
    assert {str(tmp_path / "shown" / f"{name}.py") for name in ("__init__", "real", "alias")} <= set(found)


@pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
def test_every_module_in_a_package_has_its_own_file(name):
    assert [path for path in listed(LIST_MODULES) if path.endswith("/" + name.replace(".", "/") + ".py")]
