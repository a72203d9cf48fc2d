"""The reward: a task's own ``tests/test.sh`` runs, and writes it to a file."""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import TaskError
from ...rewards.score import Score
from ..datasets.harbor import packed, step_folder
from ..sandbox.background import on_thread
from ..sandbox.types import Sandbox

LOGS = ("/logs/agent", "/logs/verifier", "/logs/artifacts")
REWARDS = ("/logs/verifier/reward.json", "/logs/verifier/reward.txt")
STDOUT = "/logs/verifier/test-stdout.txt"
MAX_ARTIFACTS = 256 << 20
KEPT_CHARS = 20_000
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


async def run_tests(
    box: Sandbox, folder: Path, step: str, *, workdir: str, env: Mapping[str, str], timeout_s: float
) -> tuple[Score, str]:
    """Bring the tests into a sandbox, run them, read the reward. What else runs there goes on: tests may ask a server.

    Returns:
        (the score: the reward where it is one number, "reward" of several; what the tests printed).
    Raises:
        SandboxError: the sandbox failed.
    """
    place = step_folder(folder, step)
    for tests in dict.fromkeys((folder / "tests", place / "tests")):
        if tests.is_dir():
            await box.put_archive(await on_thread(packed, tests), "/tests")
    prepare = f"mkdir -p {' '.join(LOGS)}; rm -rf -- {' '.join(REWARDS)} {STDOUT}; chmod +x /tests/test.sh"
    ready = await box.arun(["sh", "-c", prepare], cwd="/")
    if ready.exit_code != 0:
        return _nothing(f"the tests could not be brought: {_said(ready.stderr)}"), ""
    command = f"cd {shlex.quote(workdir)} 2>/dev/null; /tests/test.sh > {STDOUT} 2>&1"
    result = await box.arun(["sh", "-c", command], cwd="/", env=env, timeout_s=timeout_s)
    told = (await _read(box, STDOUT) or b"").decode(errors="replace")[-KEPT_CHARS:]
    if result.killed == "timeout":
        return Score(
            value=0.0,
            passed=False,
            breakdown={"passed": 0.0},
            detail=f"the tests took more than {timeout_s:g} s",
            ending="test_timeout",
        ), told
    if result.killed:
        return _nothing(f"the tests were killed: {result.killed}"), told
    return reward_of(await _read(box, REWARDS[0]), await _read(box, REWARDS[1])), told


def reward_of(as_json: bytes | None, as_text: bytes | None) -> Score:
    """The score of a reward file. Harbor refuses a trial without one; here it is worth nothing, because what an agent
    left can end the tests."""
    if as_json is None and as_text is None:
        return _nothing("the tests wrote no reward")
    try:
        found = json.loads(as_json) if as_json is not None else {"reward": float(as_text or b"")}
        rewards = (
            {str(key): float(value) for key, value in found.items()}
            if isinstance(found, dict)
            else {"reward": float(found)}
        )
        if not rewards or not all(map(math.isfinite, rewards.values())):
            raise ValueError("not finite numbers")
    except (ValueError, TypeError, AttributeError) as error:
        return _nothing(f"the tests wrote a reward that is none ({error})")
    main = rewards["reward"] if "reward" in rewards else sum(rewards.values()) / len(rewards)
    value = min(max(main, 0.0), 1.0)
    detail = f"reward {main:g}" + ("" if value == main else f", taken as {value:g}")
    return Score(value=value, passed=value >= 1.0, breakdown={**rewards, "passed": float(value >= 1.0)}, detail=detail)


async def carry_artifacts(agent: Sandbox, verifier: Sandbox, sources: Sequence[str]) -> str | None:
    """Bring what the agent made to the sandbox of the tests; why it could not be, or None."""
    listed = [source.lstrip("/") for source in ("/logs/artifacts", *sources)]
    script = 'cd / && for one; do [ ! -e "$one" ] || printf "%s\\0" "$one"; done | tar -cf - --null -T -'
    result = await agent.arun(["sh", "-c", script, "sh", *listed], cwd="/", output_bytes=MAX_ARTIFACTS)
    if result.killed == "output":
        return f"the artifacts are larger than {MAX_ARTIFACTS >> 20} MiB"
    if result.exit_code != 0:
        return f"the artifacts could not be read: {_said(result.stderr)}"
    try:
        await verifier.put_archive(result.stdout, "/")
    except OSError as error:
        return f"the artifacts could not be brought: {error}"
    return None


def resolved(env: Mapping[str, str], host: Mapping[str, str], *, where: str) -> dict[str, str]:
    """Variables with ``${NAME}`` and ``${NAME:-default}`` filled in.

    Args:
        host: what of this machine's variables a task may see.
    Raises:
        TaskError: one is not there.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in host:
            return host[name]
        if default is None:
            raise TaskError(f"{where} wants this machine's variable {name}; allow it with host_env = [{name!r}]")
        return default

    return {name: _VARIABLE.sub(value, text) for name, text in env.items()}


async def _read(box: Sandbox, path: str) -> bytes | None:
    try:
        return await box.read_file(path, most_bytes=1 << 20)
    except OSError:
        return None


def _nothing(detail: str) -> Score:
    return Score(value=0.0, passed=False, breakdown={"passed": 0.0}, detail=detail)


def _said(data: bytes) -> str:
    return " ".join(data.decode(errors="replace").split())[-200:]
