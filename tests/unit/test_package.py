"""The package list of pyproject.toml, and what a wheel of it holds."""

import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_PACKAGED = {"tests", "build", "dist", "runs", "benchmarks", "examples", "docs", "recipes"}


def listed_packages():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]


def folders_with_init():
    found = []
    for folder, below, files in os.walk(ROOT):
        parts = Path(folder).relative_to(ROOT).parts
        below[:] = [name for name in below if not name.startswith(".") and not (not parts and name in NOT_PACKAGED)]
        if "__init__.py" in files:
            found.append(".".join(("verigym", *parts)))
    return found


def test_the_package_list_is_that_of_the_folders():
    assert sorted(listed_packages()) == sorted(folders_with_init())


def test_every_folder_of_python_files_is_a_package():
    """A room without __init__.py would be left out of the wheel and work in the checkout alone."""
    folders = {ROOT.joinpath(*name.split(".")[1:]) for name in folders_with_init()}
    rooms = [folder for folder in folders if folder != ROOT]
    assert [path for room in rooms for path in room.rglob("*.py") if path.parent not in folders] == []


@pytest.mark.skipif(
    int(metadata.version("setuptools").split(".")[0]) < 77, reason="building offline needs setuptools 77 or newer here"
)
def test_the_folder_may_have_any_name():
    """pytest imports the root's ``__init__`` by its folder's name; in "verigym-0.2" that is no package."""
    spec = importlib.util.spec_from_file_location("__init__", ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__version__ == metadata.version("verigym")


def test_a_wheel_holds_verigym_and_nothing_else(tmp_path):
    """Built offline, from a copy: setuptools writes into the folder it builds."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            target = tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(tmp_path / "source")], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"verigym"}
    packaged = {name for name in names if name.endswith("/__init__.py")}
    assert packaged == {name.replace(".", "/") + "/__init__.py" for name in listed_packages()}
    assert not [name for name in names if name.startswith("verigym/tests/")]
    assert "verigym/__main__.py" in names
