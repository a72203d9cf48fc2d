"""What a harness is given, and what it came to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from ...envs.core import ToolEnv
from ...envs.sandbox.network.forward import forwarded, to_port
from ...envs.sandbox.types import Sandbox
from ...envs.task import Task
from ...errors import ConfigError
from ...model.chat.messages import Message
from ..gateway.serve import Gateway
from ..gateway.session import Session

OUTPUT_CHARS = 8192
"""Most characters of what a harness printed that are kept: its last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where a harness asks for turns, as clients are told it.

    Attributes:
        root: the episode's address, as Anthropic's clients take it; OpenAI's take it with "/v1" behind.
        key: of the episode.
        model: the name to ask for.
    """

    root: str
    key: str
    model: str

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that clients and harnesses read."""
        return {
            "OPENAI_BASE_URL": f"{self.root}/v1",
            "OPENAI_API_BASE": f"{self.root}/v1",
            "OPENAI_API_KEY": self.key,
            "ANTHROPIC_BASE_URL": self.root,
            "ANTHROPIC_API_KEY": self.key,
            "VERIGYM_MODEL": self.model,
            "VERIGYM_MCP_URL": f"{self.root}/mcp",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a harness works on.

    Attributes:
        env: the environment, ready for its first turn.
        task: that it is about.
        messages: how the environment opens an episode.
        gateway, session: where turns come from.
        seconds: that are left.
    """

    env: ToolEnv
    task: Task
    messages: tuple[Message, ...]
    gateway: Gateway
    session: Session
    seconds: float

    @property
    def prompt(self) -> str:
        """What the user asks."""
        return "\n\n".join(message.content for message in self.messages if message.role == "user")

    @property
    def beside(self) -> Access:
        """For a harness on this machine, outside of any sandbox."""
        return Access(root=self.gateway.root(self.session), key=self.session.key, model=self.session.model)

    @property
    def sandbox(self) -> Sandbox:
        """The environment's own. Raises ConfigError where it has none."""
        sandbox = getattr(self.env, "sandbox", None)
        if sandbox is None:
            raise ConfigError(
                f"{type(self.env).__name__} has no sandbox that a harness could work in; take the environment's own "
                "loop (--agent verigym), or a harness that runs beside it (beside:COMMAND) and calls its tools by MCP"
            )
        return sandbox

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[Access]:
        """For a harness in the sandbox, which has no network: a port of its own loopback leads here."""
        async with forwarded(self.sandbox, [(0, to_port(self.gateway.port))]) as (port,):
            root = f"http://127.0.0.1:{port}/{self.session.id}"
            yield Access(root=root, key=self.session.key, model=self.session.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a harness came to.

    Attributes:
        exit: how it ended, in its own words: "exit 0", "Submitted".
        output: what it printed, or its last part.
        crashed: it ended in a way that it was not made to end in.
        finished: it holds its work to be done; False: a limit of its own ended it.
        submission: what it hands in; None: what the environment finds, such as the sandbox's files.
        timed_out: the seconds ran out.
    """

    exit: str
    output: str = ""
    crashed: bool = False
    finished: bool = True
    submission: str | None = None
    timed_out: bool = False


class Harness(Protocol):
    """An agent of others. It holds nothing of an episode."""

    @property
    def name(self) -> str:
        """As it was asked for."""
        ...

    async def run(self, stage: Stage) -> Done:
        """Do the task. Cancelled where the seconds run out.

        Raises:
            ConfigError: it cannot work in this environment. SandboxError: the sandbox failed. Any other exception is
                the harness's crash.
        """
        ...
