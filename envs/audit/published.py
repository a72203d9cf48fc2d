"""A published row's tests as pytest's: so that they run in forks of one warm process, and not by its script."""

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import SandboxError
from ..datasets.swe import SWERow
from ..sandbox.background import on_thread
from ..sandbox.types import Sandbox
from ..swe.published import Plan, plan_of
from ..synthesis.build_images import wheels_of
from ..synthesis.probing import PROBE_ENV, Job, Probe

PYTEST = ("pytest==7.4.4", "exceptiongroup==1.1.0", "tomli==2.0.1", "typing_extensions==4.5.0")
"""For tests of SymPy's own runner and of unittest, which are pytest's too; their images have none. With what it needs
before Python 3.11, as pip reads markers on the machine that downloads."""
BROUGHT = "/tmp/verigym-pytest"
COLLECT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """How a row's tests run under pytest in its image."""

    plan: Plan
    env: Mapping[str, str]

    def probe(self, sandbox: Sandbox) -> Probe:
        command = self.plan.command
        script = (command.script, *command.arguments) if command.kind == "unittest" else ()
        return Probe(sandbox, python=self.plan.site.python, env=self.env, workdir=self.plan.row.root, script=script)

    def name_of(self, test: str) -> str:
        """The row's name of a test of pytest's, or of unittest's with its description."""
        own = test.replace("::", ":") if self.plan.command.kind == "sympy" else test
        return self.plan.name_of(own)


async def site_of(sandbox: Sandbox, row: SWERow) -> Site | None:
    """Where and how pytest runs the row's tests; None where only its script can.

    Args:
        sandbox: a fresh checkout.
    Raises:
        SandboxError: the sandbox failed.
    """
    plan = await plan_of(sandbox, row)
    if plan is None:
        return None
    env = {**plan.site.env, **row.env, **plan.command.env, **PROBE_ENV}
    folders = [row.root, f"{row.root}/src"] if plan.site.copied else []
    if plan.site.plugins:
        env["PYTEST_PLUGINS"] = ",".join(plan.site.plugins)
    if plan.command.kind != "pytest":
        if not await _bring_pytest(sandbox, plan):
            return None
        folders.append(BROUGHT)
    if folders:
        env["PYTHONPATH"] = ":".join([*folders, *filter(None, [env.get("PYTHONPATH")])])
    return Site(plan=plan, env=env)


async def row_under_pytest(site: Site, probe: Probe) -> SWERow | None:
    """The row with pytest's ids in place of the names that its script prints; None where pytest does not collect all of
    them."""
    row = site.plan.row
    # Of unittest's commands the files are guesses; the suite tells.
    files = () if site.plan.command.kind == "unittest" else tuple(dict.fromkeys(site.plan.command.files))
    (found,) = await probe.run([Job(key="names", collect=files, mode="warm", deadline_s=COLLECT_S)])
    await probe.import_once(found.modules)
    own: dict[str, list[str]] = {}
    for test in found.names or found.locations:
        own.setdefault(site.name_of(found.names.get(test, test)), []).append(test)
    deciding, others = (_own_ids(own, names) for names in (row.FAIL_TO_PASS, row.PASS_TO_PASS))
    if deciding is None or others is None:
        return None
    return row.model_copy(update={"FAIL_TO_PASS": deciding, "PASS_TO_PASS": others})


def _own_ids(own: Mapping[str, Sequence[str]], names: Sequence[str]) -> tuple[str, ...] | None:
    found: list[str] = []
    for name in names:
        cut = name.count("[") > name.count("]")
        known = [one for other, ids in own.items() if other.startswith(name) for one in ids] if cut else own.get(name)
        if not known:
            return None
        found += known
    return tuple(dict.fromkeys(found))


async def _bring_pytest(sandbox: Sandbox, plan: Plan) -> bool:
    """Put pytest where only what runs the tests looks for it, unless it is there: whether it is there now."""
    ask = "import sys; from importlib.util import find_spec; print('%d.%d' % sys.version_info[:2], find_spec('pytest'))"
    asked = await sandbox.arun([plan.site.python, "-c", ask], cwd=plan.row.root, timeout_s=60.0)
    version, _, found = asked.stdout.decode().strip().partition(" ")
    if found != "None":
        return bool(found)
    try:
        wheels = await on_thread(wheels_of, PYTEST, version)
    except SandboxError:
        return False  # no index is there: the row's script runs
    await sandbox.put_archive(await on_thread(_unpacked, wheels), BROUGHT)
    return True


def _unpacked(wheels: Path) -> bytes:
    """What is in some wheels of Python alone, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as packed:
                for name in packed.namelist():
                    if not name.endswith("/"):
                        member = tarfile.TarInfo(name)
                        data = packed.read(name)
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
