"""Images like the published ones: what is built for a row, once for what rows have in common, and what cannot be."""

import io
import subprocess
import tarfile
from types import SimpleNamespace

import pytest

from verigym.envs.datasets.eval_scripts import eval_script_of
from verigym.envs.synthesis import verified_images
from verigym.envs.synthesis.verified_images import ENVIRONMENTS, Environment, build_verified_images, load_environments
from verigym.errors import TaskError

ENVIRONMENT = Environment(
    repo="own/thing",
    versions=("1.0",),
    requirements=("pytest==8.3.4", "iniconfig==2.0.0"),
    edits=("echo more >> tox.ini",),
    from_file=("pins.txt", "pytest"),
)


class Engine:
    """What an engine is asked for; it has the images that it was told to build."""

    def __init__(self):
        self.built: dict[str, dict[str, bytes]] = {}
        self.images = SimpleNamespace(get=self._get, build=self._build)
        self.containers = SimpleNamespace(run=lambda *arguments, **options: b"3.11\n")

    def _get(self, name):
        from docker.errors import ImageNotFound

        if name not in self.built:
            raise ImageNotFound(name)

    def _build(self, *, fileobj, tag, **options):
        with tarfile.open(fileobj=io.BytesIO(fileobj.read())) as tar:
            files = {one.name: tar.extractfile(one) for one in tar if one.isfile()}
            self.built[tag] = {name: data.read() for name, data in files.items() if data}


@pytest.fixture
def clone(tmp_path):
    """A repository of two commits, and the first one's id."""
    folder = tmp_path / "clone"
    folder.mkdir()

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    (folder / "pins.txt").write_text("pytest==7.0.0  # at this commit\n")
    git("add", "-A")
    git("commit", "-qm", "base")
    base = git("rev-parse", "HEAD")
    git("tag", "v1")
    (folder / "pins.txt").write_text("pytest==9.0.0\n")
    git("commit", "-qam", "later")
    return folder, base


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    asked = []
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "a-1-py3-none-any.whl").write_bytes(b"wheel")

    def found(pins, python):
        asked.append((*pins, python))
        return folder

    monkeypatch.setattr(verified_images, "wheels_of", found)
    return asked


def row_of(base, name="own__thing-1", **changes):
    script = eval_script_of(root="/testbed", before="python -m pip install -e .[test]", test_cmd="pytest -rA t.py")
    row = {"instance_id": name, "repo": "own/thing", "version": "1.0", "base_commit": base, "problem_statement": ""}
    return {**row, "image": f"swebench/{name}:latest", "eval_script": script, **changes}


def build(rows, clone, tmp_path, engine, environments=(ENVIRONMENT,)):
    failures = {}
    kept = build_verified_images(
        rows,
        repositories=[clone],
        client=engine,
        notes=tmp_path / "notes",
        environments=environments,
        base="base",
        failed=failures.__setitem__,
    )
    return kept, failures


def test_rows_share_an_environment_and_a_history_and_keep_their_names(clone, tmp_path, wheels):
    folder, base = clone
    engine, rows = Engine(), [row_of(base), row_of(base, "own__thing-2")]
    assert build(rows, folder, tmp_path, engine) == (rows, {})
    assert [name.partition(":")[0] for name in engine.built] == [
        "verigym/testbed-env",
        "verigym/testbed-history.own-thing",
        "swebench/own__thing-1",
        "swebench/own__thing-2",
    ]
    assert wheels == [("iniconfig==2.0.0", "pytest==7.0.0", "3.11")]  # the commit's own pin
    environment, history, image, _ = engine.built.values()
    assert environment["wheels/a-1-py3-none-any.whl"] == b"wheel"
    assert b"/opt/miniconda3/envs/testbed" in environment["Dockerfile"]
    assert any(name.startswith("repository/objects/") for name in history)
    assert history["repository/packed-refs"].endswith(b" refs/tags/v1\n")
    steps = image["Dockerfile"].decode()
    assert f"git reset --quiet --hard {base}" in steps
    assert steps.index("tox.ini") < steps.index("pip install") < steps.index("git commit")
    assert "--no-build-isolation -e ." in steps

    before = dict(engine.built)
    assert build(rows, folder, tmp_path, engine) == (rows, {})
    assert engine.built == before


def test_a_copy_is_installed_where_the_script_installs_one(clone, tmp_path, wheels):
    folder, base = clone
    engine = Engine()
    script = eval_script_of(root="/testbed", before="python -m pip install .", test_cmd="pytest -rA t.py")
    build([row_of(base, eval_script=script)], folder, tmp_path, engine)
    assert "--no-build-isolation . " in engine.built["swebench/own__thing-1:latest"]["Dockerfile"].decode()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"base_commit": "0" * 40}, "no repository has its commit 000000000000"),
        ({"version": "2.0"}, "no environment is known for own/thing 2.0"),
        ({"image": ""}, "the row has no 'image'"),
        ({"eval_script": "pytest"}, "the row has no 'image', 'eval_script'"),
    ],
)
def test_a_row_that_cannot_be_built_says_why_and_the_others_are(clone, tmp_path, wheels, changes, told):
    folder, base = clone
    good = row_of(base, "own__thing-2")
    kept, failures = build([row_of(base, **changes), good], folder, tmp_path, Engine())
    assert kept == [good]
    assert list(failures) == ["own__thing-1"]
    assert told in failures["own__thing-1"]


def test_a_clone_without_its_history_is_refused(clone, tmp_path, wheels):
    folder, base = clone
    (folder / ".git" / "shallow").write_text(f"{base}\n")
    _, failures = build([row_of(base)], folder, tmp_path, Engine())
    assert "is no whole repository (it has shallow)" in failures["own__thing-1"]


def test_our_own_table_is_pinned_and_names_each_version_once():
    seen = set()
    for one in load_environments(ENVIRONMENTS):
        assert all("==" in pin for pin in one.requirements)
        assert not seen & {(one.repo, version) for version in one.versions}
        seen |= {(one.repo, version) for version in one.versions}
    assert len({repo for repo, _ in seen}) >= 9


@pytest.mark.parametrize("text", ["", "[[environment]]\nrepo = 'a/b'\n", "[[environment]\n"])
def test_a_table_in_another_form_is_one_clear_message(tmp_path, text):
    path = tmp_path / "table.toml"
    path.write_text(text)
    with pytest.raises(TaskError, match=r"table\.toml is no table of environments"):
        load_environments(path)


SCHEMES = """\
'purelib': '{base}/local/lib/python{py_version_short}/dist-packages', 'data': '{platbase}/local',
'purelib': '$base/local/lib/python$py_version_short/dist-packages', 'headers': '$base/include',
return os.path.join(prefix, "lib", "python3", "dist-packages")
"""


def test_the_environment_is_a_python_with_a_prefix_of_its_own_that_installs_where_it_looks(tmp_path):
    machine, prefix = tmp_path / "machine", tmp_path / "prefix"
    library = machine / "lib/python3.9"
    (library / "site-packages/pip").mkdir(parents=True)
    for name in ("os.py", "EXTERNALLY-MANAGED"):
        (library / name).write_text("")
    (library / "sysconfig.py").write_text(SCHEMES)
    (machine / "bin").mkdir()
    python = machine / "bin/python3.9"
    python.write_text(f'#!/bin/sh\ncase "$2" in *executable*) echo {python} ;; *) echo {library} ;; esac\n')
    python.chmod(0o755)
    (machine / "bin/python3").symlink_to("python3.9")
    subprocess.run(
        ["sh", "-c", verified_images.MAKE_PREFIX, "sh", str(prefix)],
        env={"PATH": f"{machine}/bin:/usr/bin:/bin"},
        check=True,
    )

    assert {path.name: path.is_symlink() for path in (prefix / "bin").iterdir()} == {
        "python": True,
        "python3": True,
        "python3.9": False,
    }
    made = prefix / "lib/python3.9"
    assert sorted(path.name for path in made.iterdir()) == ["dist-packages", "os.py", "site-packages", "sysconfig.py"]
    assert (made / "dist-packages").resolve() == made / "site-packages"
    assert list((made / "site-packages").iterdir()) == []
    assert (
        (made / "sysconfig.py").read_text()
        == """\
'purelib': '{base}/lib/python{py_version_short}/site-packages', 'data': '{platbase}',
'purelib': '$base/lib/python$py_version_short/site-packages', 'headers': '$base/include',
return os.path.join(prefix, "lib", "python" + get_python_version(), "site-packages")
"""
    )
