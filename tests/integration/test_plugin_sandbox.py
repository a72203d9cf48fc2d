"""A sandbox in a package of its own is chosen by its word, and passes what every sandbox must."""

import asyncio
import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from verigym.__main__ import main
from verigym.envs.sandbox import choose
from verigym.envs.sandbox.conformance import CHECKS, ISOLATION_CHECKS
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import ConfigError, SandboxError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "verigym-prefix"
QUICK = {"check_session", "check_run", "check_close", "check_binds", "check_invisible"}


def install(site, code):
    """As pip would: the module, and the metadata that names its entry points."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    (site / "verigym_prefix.py").write_text(code)
    info = site / f"verigym_prefix-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((group, entries),) = project["entry-points"].items()
    lines = [f"{name} = {value}\n" for name, value in entries.items()]
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    choose._plugin.cache_clear()
    yield tmp_path
    choose._plugin.cache_clear()
    sys.modules.pop("verigym_prefix", None)


def code():
    return (EXAMPLE / "verigym_prefix.py").read_text()


def test_it_is_short():
    assert len(code().splitlines()) < 150


def test_it_is_chosen_by_its_word(site, local_sandbox, monkeypatch, capsys):
    install(site, code())
    monkeypatch.setenv("SANDBOX_PREFIX", "nice -n 7")
    assert "prefix" in choose.names()

    async def niceness():
        box = await choose.make_backend("prefix").create(SandboxSpec())
        try:
            return (await box.aexec("nice")).output
        finally:
            await box.aclose()

    own = asyncio.run(niceness())
    monkeypatch.setattr(choose, "_probe", lambda backend: pytest.fail("probed again"))
    assert own == f"{os.nice(0) + 7}\n"
    assert main(["rollout", "verigym/SWE-v0", "--policy", "gold", "--sandbox", "prefix"]) == 0
    assert "passed, reward 1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, marks=[] if check.__name__ in QUICK else [pytest.mark.slow], id=check.__name__)
        for check in (*CHECKS, *ISOLATION_CHECKS)
    ],
)
def test_it_passes_what_every_sandbox_must(check, site, local_sandbox):
    if shutil.which("unshare") is None:
        pytest.skip("needs util-linux's unshare")
    install(site, code())
    asyncio.run(asyncio.wait_for(check(choose.make_backend("prefix")), 120))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_module\n", "'prefix'.*cannot be made .*no_such_module.*mend or uninstall"),
        ("x = 1\n", "cannot be made .*PrefixBackend"),
        ("class PrefixBackend:\n def __init__(self, needed): ...\n", "cannot be made .*needed"),
    ],
)
def test_one_that_is_broken_is_named(site, text, told):
    install(site, text)
    with pytest.raises(ConfigError, match=told):
        choose.make_backend("prefix")


def test_one_whose_boxes_do_not_start_says_so(site, local_sandbox, monkeypatch):
    install(site, code())
    monkeypatch.setenv("SANDBOX_PREFIX", "/no/such/program")
    with pytest.raises(SandboxError, match="/no/such/program"):
        choose.make_backend("prefix")


def test_a_word_that_nobody_has_is_refused_with_all_there_are(site, capsys):
    install(site, code())
    with pytest.raises(SystemExit):
        main(["rollout", "verigym/SWE-v0", "--sandbox", "gvisor"])
    assert (
        "choose one of auto, apptainer, docker, kubernetes, local, oci, podman, ssh, unsafe, prefix"
        in capsys.readouterr().err
    )
