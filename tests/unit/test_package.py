"""The package list of pyproject.toml, and what a wheel and an sdist of it hold."""

import email
import importlib.util
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import verigym

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


def test_the_folder_may_have_any_name():
    """pytest imports the root's ``__init__`` by its folder's name; in "verigym-0.2" that is no package."""
    spec = importlib.util.spec_from_file_location("__init__", ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__version__ == metadata.version("verigym")


def tracked():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel of the tree, its sdist, and a wheel of that, built offline from a copy: setuptools writes into it."""
    if int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("building offline needs setuptools 77 or newer here")
    folder = tmp_path_factory.mktemp("built")
    for name in tracked():
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    build = "import setuptools.build_meta as b; b.{}(" + repr(str(folder)) + ")"
    for call in ("build_wheel", "build_sdist"):
        command = [sys.executable, "-c", build.format(call)]
        subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    again = folder / "again"
    again.mkdir()
    command = [sys.executable, "-c", build.format("build_wheel").replace(str(folder), str(again))]
    subprocess.run(command, cwd=unpacked, check=True, capture_output=True)
    return wheel, unpacked, next(again.glob("*.whl"))


def names_of(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


def test_a_wheel_holds_verigym_and_nothing_else(built):
    names = names_of(built[0])
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"verigym"}
    below_recipes = {name for name in names if name.startswith(("verigym/recipes/", "verigym/examples/"))}
    packaged = {name for name in names - below_recipes if name.endswith("/__init__.py")}
    assert packaged == {name.replace(".", "/") + "/__init__.py" for name in listed_packages()}
    assert not [name for name in names if name.startswith(("verigym/tests/", "verigym/docs/", "verigym/benchmarks/"))]
    assert {"verigym/__main__.py", "verigym/py.typed"} <= names


def test_a_wheel_holds_recipes_examples_and_what_lies_in_rooms(built):
    """Pages, scripts and tables beside the code: a file that is only in the checkout is missed by users alone."""
    rooms = {name.split(".")[1] for name in listed_packages() if "." in name}
    wanted = {f"verigym/{name}" for name in tracked() if name.split("/")[0] in rooms | {"recipes", "examples"}}
    assert len([name for name in wanted if name.endswith(".toml")]) > 6
    assert sorted(wanted - names_of(built[0])) == []


def test_an_sdist_holds_the_repository_and_builds_the_same_wheel(built):
    wheel, unpacked, again = built
    assert names_of(again) == names_of(wheel)
    missing = [name for name in tracked() if not (unpacked / name).exists() and not name.startswith(".")]
    assert missing == []


def test_a_wheel_says_what_it_is(built):
    (name,) = [name for name in names_of(built[0]) if name.endswith(".dist-info/METADATA")]
    said = email.message_from_bytes(zipfile.ZipFile(built[0]).read(name))
    assert said["License-Expression"] == "Apache-2.0"
    assert said.get_all("License-File") == ["LICENSE"]
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.13"} <= set(said.get_all("Classifier", []))
    assert said["Version"] == verigym.__version__
