"""``verigym/Harbor-v0``: do what an instruction says in a container; the task's own tests say the reward."""

import base64
import os
import posixpath
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from ...errors import SandboxError
from ...model.chat.messages import Message, ToolCall
from ...rewards.score import Score
from ..core import Submission, ToolEnv
from ..datasets.harbor import folder_of, instruction, packed, step_folder
from ..datasets.harbor_config import Environment, HarborConfig, Step, read_config
from ..sandbox.background import on_thread
from ..sandbox.choose import make_backend
from ..sandbox.network.attach import granted, networked
from ..sandbox.network.policy import NetworkPolicy
from ..sandbox.types import Limits, Sandbox, SandboxBackend, SandboxSpec
from ..task import Task
from ..tools.spec import tool
from .images import ensure_image, workdir_of
from .verify import LOGS, carry_artifacts, resolved, run_tests

AGENT_S = 3600.0
"""Of a task that states no time of its own."""
END = "END_OF_SOLUTION"


class HarborEnv(ToolEnv):
    """The shell is root's, with what a container's root may do, and what ``network`` allows of the hosts that the
    task asks for. What is there when the work is handed
    in, or when a budget ran out, is tested as in Harbor: in the agent's own sandbox, while what it started still runs,
    or, where the task says so, in a new one that gets the artifacts alone. An agent that shares its sandbox with the
    tests can forge them; such tasks trust it.
    """

    family: ClassVar[str] = "harbor"
    hook_timeout_s = None  # its sandboxes have limits of their own, and wait their turn

    def __init__(
        self,
        *,
        sandbox: str | SandboxBackend = "auto",
        limits: Limits | None = None,
        host_env: Sequence[str] = (),
        network: Mapping[str, Any] | NetworkPolicy | None = None,
        test_timeout_s: float | None = None,
        tasks: Sequence[Task] | None = None,
        max_turns: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            sandbox: the backend, or its name; it must have images.
            limits: of the sandboxes, where a task states none.
            host_env: names of this machine's variables that tasks may ask for.
            network: what tasks may be given of their allow-lists, and what those are given that ask for the whole
                network (``NetworkPolicy.parse``); None: nothing.
            test_timeout_s: of one run of a task's tests; None: what the task states.
            tasks, max_turns, render_mode: as for every ToolEnv.
        """
        super().__init__(tasks=tasks, max_turns=max_turns, render_mode=render_mode)
        self._choice, self._limits, self._test_timeout_s = sandbox, limits or Limits(), test_timeout_s
        self._network = NetworkPolicy.parse(network)
        self._host = {name: os.environ[name] for name in host_env if name in os.environ}
        self._box: Sandbox | None = None
        self._backend: SandboxBackend | None = None
        self._folder, self._config = Path(), HarborConfig()
        self._workdir, self._step, self._until = "/", 0, 0.0
        self._scores: list[Score] = []

    def check(self, task: Task) -> None:
        read_config(folder_of(task))

    def prompt(self, task: Task) -> str:
        return instruction(self._folder, self._steps[0].name)

    async def start(self, task: Task) -> None:
        self._folder = folder_of(task)
        self._config = await on_thread(read_config, self._folder)
        self._step, self._scores = 0, []
        choice = self._choice
        self._backend = await on_thread(make_backend, choice) if isinstance(choice, str) else choice
        self._box = await self._open(self._config.environment, await self._image())
        self._begin_time()
        ready = await self._box.aexec(f"cd {shlex.quote(self._workdir)}")
        if ready.exit_code != 0:
            raise SandboxError(f"{task.id}: the image has no folder {self._workdir}, which it names to work in")
        await self._wait_until_healthy(task)

    async def stop(self) -> None:
        box, self._box = self._box, None
        if box is not None:
            await box.aclose()

    async def score(self, task: Task, submission: Any) -> Score:
        """Test what there is; of several steps what their rewards come to."""
        if len(self._scores) <= self._step:
            await self._verify()
        if not self._config.steps:
            return self._scores[-1]
        final = self._config.multi_step_reward_strategy == "final"
        values = [score.value for score in self._scores]
        value = values[-1] if final else sum(values) / len(values)
        parts = {f"step.{step.name}": score.value for step, score in zip(self._config.steps, self._scores)}
        passed = len(values) == len(self._config.steps) and all(score.passed for score in self._scores)
        ended = self._scores[-1]
        return Score(value=value, passed=passed, breakdown=parts, detail=ended.detail, ending=ended.ending)

    def unfinished(self, task: Task) -> Any:
        return "as it is"

    def gold(self, task: Task) -> Sequence[Message]:
        """The task's own solution, brought and run, then handed in; of several steps each."""
        folder = folder_of(task)
        config = read_config(folder)
        messages = []
        for step in config.steps or (Step(name="step"),):
            place = step_folder(folder, step.name if config.steps else "") / "solution"
            place = place if (place / "solve.sh").is_file() else folder / "solution"
            exports = "".join(
                f"export {name}={shlex.quote(value)}; "
                for name, value in resolved(config.solution.env, self._host, where=f"{folder}: solution.env").items()
            )
            run = f"chmod +x /solution/solve.sh && ( {exports}/solution/solve.sh )"
            messages += [_call("bash", command=f"{_bringing(place)}{run}"), _call("submit")]
        return messages

    def empty(self, task: Task) -> Sequence[Message]:
        return [_call("submit") for _ in (read_config(folder_of(task)).steps or (None,))]

    @tool
    async def bash(self, command: str) -> str | Submission:
        """Run a command in a bash that lasts: directory, variables, functions and jobs stay for the next one. stdin is
        empty. The answer is stdout and stderr as they came, at most 32768 bytes: of more, the beginning and the end.
        A last line tells a status other than 0, [exit code 1], or that everything that ran was killed, [killed:
        timeout]. The task's time is what all commands together may take.

        Args:
            command: one or more lines for bash.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            return Submission(value="time", message="the time for the task is over; it is tested as it is")
        return (await self._sandbox.aexec(command, timeout_s=left)).shown

    @tool
    async def submit(self) -> str | Submission:
        """Hand in the work as it is now. Where there is more to do, the answer is the next instruction."""
        if len(self._steps) == 1:
            return Submission(value=None)
        score = await self._verify()
        step = self._steps[self._step]
        if self._step + 1 == len(self._steps) or not _goes_on(step, score):
            return Submission(value=None)
        self._step += 1
        self._begin_time()
        return instruction(self._folder, self._steps[self._step].name)

    @property
    def sandbox(self) -> Sandbox:
        """Where the work is done, for an agent that brings tools of its own. Raises SandboxError between episodes."""
        return self._sandbox

    @property
    def _sandbox(self) -> Sandbox:
        if self._box is None:
            raise SandboxError("the episode has no sandbox; reset() makes one")
        return self._box

    @property
    def _steps(self) -> Sequence[Step]:
        return self._config.steps or (Step.model_construct(name="", min_reward=None, artifacts=()),)

    async def _image(self) -> str:
        assert self._backend is not None
        image = await ensure_image(self._folder, self._config, self._backend)
        self._workdir = posixpath.join("/", await workdir_of(self._backend, image, self._config))
        return image

    async def _open(self, environment: Environment, image: str) -> Sandbox:
        """A sandbox of the image with a task's limits."""
        assert self._backend is not None
        stated = {"cpus": environment.cpus, "memory_mib": environment.memory_mb, "disk_mib": environment.storage_mb}
        limits = replace(self._limits, **{name: value for name, value in stated.items() if value})
        env = resolved(environment.env, self._host, where=f"{self._folder}: environment.env")
        policy = granted(self._network, self._backend, self._folder.name, hosts=self._hosts(environment))
        box = await self._backend.create(SandboxSpec(image=image, workdir="/", env=env, limits=limits, root=True))
        try:
            made = await box.arun(["sh", "-c", f"mkdir -p {' '.join(LOGS)}"], cwd="/")
            if made.exit_code != 0:
                raise SandboxError(f"{image} does not let its root make /logs, where a task leaves its reward")
        except BaseException:
            await box.aclose()
            raise
        return await networked(box, policy, task_id=self._folder.name)

    def _hosts(self, environment: Environment) -> Sequence[str]:
        """What a task asks for; where it asks for the whole network, all that its user allows."""
        if environment.network_mode == "public":
            return [str(host) for host in self._network.hosts]
        return environment.allowed_hosts if environment.network_mode == "allowlist" else ()

    async def _wait_until_healthy(self, task: Task) -> None:
        import asyncio

        health = self._config.environment.healthcheck
        for attempt in range(health.retries if health else 0):
            assert health is not None
            found = await self._sandbox.arun(["sh", "-c", health.command], cwd="/", timeout_s=health.timeout_sec)
            if found.exit_code == 0:
                return
            if attempt + 1 == health.retries:
                raise SandboxError(f"{task.id}: its healthcheck failed {health.retries} times (exit {found.exit_code})")
            await asyncio.sleep(health.interval_sec)

    def _begin_time(self) -> None:
        stated = self._steps[self._step].agent.timeout_sec if self._config.steps else None
        self._until = time.monotonic() + (stated or self._config.agent.timeout_sec or AGENT_S)

    async def _verify(self) -> Score:
        """Run the tests of the step that is done."""
        step = self._steps[self._step]
        verifier = (
            step.verifier if self._config.steps and "verifier" in step.model_fields_set else self._config.verifier
        )
        env = resolved(verifier.env, self._host, where=f"{self._folder}: verifier.env")
        timeout_s = self._test_timeout_s or verifier.timeout_sec
        told = ""
        box, own, failed = self._sandbox, None, None
        try:
            if verifier.is_separate:
                own = box = await self._verifier_box(verifier.environment)
                sources = [one.source for one in (*self._config.artifacts, *step.artifacts)]
                absolute = [posixpath.join(self._workdir, source) for source in sources]
                failed = await carry_artifacts(self._sandbox, own, absolute)
            if failed is None:
                score, told = await run_tests(
                    box, self._folder, step.name, workdir=self._workdir, env=env, timeout_s=timeout_s
                )
            else:
                score = Score(value=0.0, passed=False, breakdown={"passed": 0.0}, detail=failed)
        finally:
            if own is not None:
                await own.aclose()
        self._scores.append(score)
        self.evidence[f"tests {step.name}".strip()] = told
        return score

    async def _verifier_box(self, environment: Environment | None) -> Sandbox:
        """A new sandbox for the tests: of the image that the verifier names, else of the agent's."""
        if environment is not None and environment.docker_image:
            return await self._open(environment, environment.docker_image)
        return await self._open(environment or self._config.environment, await self._image())


def _goes_on(step: Step, score: Score) -> bool:
    """Whether a step's reward lets the next one begin."""
    wanted = step.min_reward
    if wanted is None:
        return True
    if isinstance(wanted, dict):
        return all(score.breakdown.get(name, float("-inf")) >= least for name, least in wanted.items())
    return score.breakdown.get("reward", float("-inf")) >= wanted


def _bringing(place: Path) -> str:
    """Commands that write a solution's folder: as text where it is one script, so that a demonstration can be read."""
    files = [path for path in place.rglob("*") if not path.is_dir()]
    try:
        script = (place / "solve.sh").read_text(encoding="utf-8") if files == [place / "solve.sh"] else ""
    except UnicodeDecodeError:
        script = ""
    if script.endswith("\n") and END not in script.splitlines() and "\0" not in script:
        return f"mkdir -p /solution && cat > /solution/solve.sh <<'{END}'\n{script}{END}\n"
    archive = base64.encodebytes(packed(place)).decode() if files else ""
    return f"mkdir -p /solution && base64 -d <<'{END}' | tar -xf - -C /solution\n{archive}{END}\n"


def _call(name: str, **arguments: str) -> Message:
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))
