import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile

import pytest

from verigym.envs.sandbox import python as python_module
from verigym.envs.sandbox.local import LocalBackend, UnsafeBackend
from verigym.envs.sandbox.python import python_environment
from verigym.envs.sandbox.types import SandboxSpec
from verigym.envs.synthesis import build_images, fetching
from verigym.envs.synthesis import requirements as requirements_module
from verigym.envs.synthesis.requirements import pinned_requirements
from verigym.errors import SandboxError, TaskError


def write_wheel(folder, name, version):
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"def main():\n    print('tiny {version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\ntiny = {name}:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A folder with one wheel, in place of the package index."""
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "tinylib", "1.2")
    return folder


@pytest.fixture(scope="module")
def cache(index, tmp_path_factory):
    folder = tmp_path_factory.mktemp("private") / "cache"
    folder.parent.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERIGYM_CACHE", str(folder))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(index))
        yield folder


@pytest.mark.parametrize("make", [LocalBackend, UnsafeBackend])
def test_it_is_built_once_and_runs_inside(cache, monkeypatch, make):
    builds = []
    build = python_module._build
    monkeypatch.setattr(python_module, "_build", lambda *args: (builds.append(args), build(*args)))
    found = []
    threads = [threading.Thread(target=lambda: found.append(python_environment(["tinylib==1.2"]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == (1 if make is LocalBackend else 0)
    environment = found[0]
    assert found == [environment] * 3
    assert environment.requirements == ("tinylib==1.2",)
    done = next(cache.glob("python/*/complete.json"))
    assert json.loads(done.read_text())["installed"] == ["tinylib-1.2"]
    assert list(cache.glob("python/*/venv/lib/python*/site-packages/__pycache__/tinylib.*.pyc"))

    async def main():
        sandbox = await make().create(SandboxSpec(binds=environment.binds))
        try:
            script = environment.python.removesuffix("python") + "tiny"
            run = await sandbox.arun([script])
            assert (run.stdout, run.stderr, run.exit_code) == (b"tiny 1.2\n", b"", 0)
            result = await sandbox.aexec(f"{environment.python} -c 'import ssl, sys; print(sys.prefix)'; {script}")
            assert result.output == f"{environment.python.removesuffix('/bin/python')}\ntiny 1.2\n"
        finally:
            await sandbox.aclose()

    asyncio.run(main())


def test_an_interrupted_build_is_built_again(cache, monkeypatch):
    def interrupted(venv, base, requirements):
        venv.mkdir()
        (venv / "half-written").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(python_module, "_build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            python_environment(["tinylib == 1.2"])
    left = [path for path in cache.glob("python/*") if not (path / "complete.json").exists()]
    assert len(left) == 1
    python_environment(["tinylib == 1.2"])
    assert (left[0] / "complete.json").exists()
    assert not (left[0] / "venv" / "half-written").exists()


def test_failures_have_the_last_words_of_pip(cache):
    with pytest.raises(SandboxError, match=r"(?s)check the versions.*No matching distribution found for tinylib==9"):
        python_environment(["tinylib==9"])


def test_what_was_just_resolved_is_installed_without_the_index(cache, tmp_path, monkeypatch):
    empty, offered = tmp_path / "empty", tmp_path / "offered"
    empty.mkdir()
    offered.mkdir()
    write_wheel(offered, "pytest", "0.1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(offered))
    pins = pinned_requirements((), (), leave_out="other")
    assert pins == ("pytest==0.1",)
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))
    python_environment(pins)

    # Wheels that cannot be had where they were are taken from the index, into an environment without what was left.
    ran, venv = [], tmp_path / "venv"

    def run(argv, what, requirements):
        ran.append(argv[-1])
        if what == "pip":
            assert not (venv / "left").exists()
        if "--no-deps" in argv:
            venv.mkdir()
            (venv / "left").touch()
            raise SandboxError("401")

    monkeypatch.setattr(python_module, "_run", run)
    python_module._install(venv, sys.executable, pins)
    assert ran[1].startswith("file://")
    assert "#sha256=" in ran[1]
    assert [ran[0], *ran[2:]] == [str(venv), str(venv), "pytest==0.1"]


def test_byte_code_of_an_environment_is_made_without_running_anything_of_it(tmp_path):
    venv = tmp_path / "venv"
    python_module._make(venv, python_module.base_python()[0], ())
    (folder,) = venv.glob("lib/python*/site-packages")
    (folder / "more.pth").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n")
    (folder / "one.py").write_text("ONE = 1\n")
    python_module._compile(venv)
    assert list(folder.glob("__pycache__/one.*.pyc"))
    assert not (tmp_path / "ran").exists()


NO_PINS = ["tinylib", "tinylib>=1", "tinylib==1.*", "git+https://x/y==1", "-r x==1", "a==1;b", "./tinylib", "."]
NO_PINS += ["--index-url=http://evil/simple", "-e .", "--find-links http://evil", "tinylib @ file:///x.whl"]
NO_PINS += ["http://evil/tinylib-1.2.tar.gz", "tinylib==1.2 --index-url=http://evil", "tinylib==1.2\n--pre", ""]


@pytest.mark.parametrize("requirement", NO_PINS)
def test_unpinned_requirements_are_refused(requirement, cache):
    with pytest.raises(TaskError, match="is not pinned; write name==version"):
        python_environment([requirement])


def _sdist(folder, mark, name):
    """A package whose build leaves a mark."""
    code = f"open({str(mark)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name={name!r}, version='1.0')\n"
    told = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for file, text in (("setup.py", code), ("PKG-INFO", told), ("setup.cfg", "")):
            entry = tarfile.TarInfo(f"{name}-1.0/{file}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return folder / f"{name}-1.0.tar.gz"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """(folder in the package index's place, mark that shows that a build ran): packages that are built where pip
    takes them, and wheels that lead to them."""
    folder, mark = tmp_path / "index", tmp_path / "built"
    folder.mkdir()
    apart = tmp_path / "apart"
    apart.mkdir()
    _sdist(folder, mark, "evil")
    archive = _sdist(apart, mark, "hidden")
    repository = tmp_path / "repository"
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    shutil.copytree(tmp_path / "unpacked" / "hidden-1.0", repository)
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@y"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    leads = {"bypath": archive.as_uri(), "bygit": f"git+{repository.as_uri()}", "byfolder": repository.as_uri()}
    for name, address in leads.items():
        info = f"{name}-1.0.dist-info"
        told = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: hidden @ {address}\n"
        files = {
            f"{info}/METADATA": told,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            for file, text in files.items():
                wheel.writestr(file, text)
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # "0" switches isolation off: the build needs no index
    return mark


@pytest.mark.parametrize("name", ["evil", "bypath", "bygit", "byfolder"])
@pytest.mark.parametrize("way", ["environment", "wheels", "resolve"])
def test_no_package_is_built_on_this_machine(name, way, hostile):
    requirements = (f"{name}==1.0",)
    ask = {
        "environment": lambda: python_environment(requirements),
        "wheels": lambda: build_images.wheels_of(requirements, f"{sys.version_info.major}.{sys.version_info.minor}"),
        "resolve": lambda: requirements_module._resolve(requirements),
    }
    told = r"only wheels|would have to be built|Invalid URL|No matching distribution|Could not find a version"
    with pytest.raises((SandboxError, TaskError), match=told):
        ask[way]()
    assert not hostile.exists()


def test_an_sdist_is_unpacked_and_not_built(tmp_path, hostile):
    fetching.bring_sdist("evil", "1.0", tmp_path, tmp_path / "tree")
    assert (tmp_path / "tree" / "setup.py").is_file()
    assert not hostile.exists()
    (tmp_path / "other").mkdir()
    with pytest.raises(TaskError, match=r"evil==2\.0 failed: ERROR: Could not find a version"):
        fetching.bring_sdist("evil", "2.0", tmp_path / "other", tmp_path / "none")


@pytest.mark.parametrize("line", ["--index-url=http://evil/", "-e .", "hidden @ file:///x.tar.gz", "./here", "-r x"])
def test_only_names_are_asked_of_the_index(line):
    with pytest.raises(TaskError, match=r"no requirement|brought from an address"):
        pinned_requirements((line,), (), leave_out="other")


def test_a_user_without_a_home_has_a_cache(tmp_path, monkeypatch):
    def none(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VERIGYM_CACHE", raising=False)
    monkeypatch.setattr(python_module.Path, "home", classmethod(none))
    monkeypatch.setattr(python_module.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = python_module.cache_folder()
    assert folder == tmp_path / f"verigym-{os.getuid()}"
    folder.mkdir()
    assert python_module.cache_folder() == folder
    monkeypatch.setattr(python_module.os, "getuid", lambda: 4242)
    (tmp_path / "verigym-4242").mkdir()
    with pytest.raises(SandboxError, match="another user's; set VERIGYM_CACHE"):
        python_module.cache_folder()


def test_no_requirements_is_the_bare_interpreter(cache):
    environment = python_environment([])

    async def main():
        sandbox = await LocalBackend().create(SandboxSpec(binds=environment.binds))
        try:
            return await sandbox.arun([environment.python, "-c", "import sqlite3, ctypes, json; print(6 * 7)"])
        finally:
            await sandbox.aclose()

    assert asyncio.run(main()).stdout == b"42\n"


def test_a_cache_that_cannot_be_written_is_named(cache, monkeypatch):
    monkeypatch.setenv("VERIGYM_CACHE", "/proc/nowhere")
    with pytest.raises(SandboxError, match="set VERIGYM_CACHE"):
        python_environment(["tinylib==1.2"])
