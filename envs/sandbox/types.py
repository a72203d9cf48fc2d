"""What every sandbox can do. Local and Docker backends implement it; authors of others run the conformance suite."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what runs inside one sandbox.

    Attributes:
        memory_mib: memory of all its processes together.
        num_processes: processes and threads alive at once.
        file_mib: largest single file a process may write.
        disk_mib: everything it writes together. The number of files is bounded in proportion.
        command_timeout_s: default deadline of one command.
        output_bytes: most bytes of one command's output that are kept; beyond it head and tail stay.
        cpus: processor time of all its processes together, in cores; 0 is no bound. The local backend has none.
    """

    memory_mib: int = 2048
    num_processes: int = 256
    file_mib: int = 512
    disk_mib: int = 1024
    command_timeout_s: float = 120.0
    output_bytes: int = 32_768
    cpus: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A host path shown inside, read-only.

    Attributes:
        optional: left out where it is gone, and where sandboxes do not see this machine's files.
    """

    source: Path
    target: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What a fresh sandbox holds.

    Attributes:
        image: container image; None lets a backend without images use the host's system folders, read-only.
        workdir: where shells start, created empty and writable.
        binds: host paths shown read-only (a Python environment, a wheel cache). Never tasks or hidden tests.
        env: environment variables of every process, besides a minimal PATH, HOME, LANG.
        limits: bounds on what runs inside.
        root: commands run as the image's root, and may do with its files and users what a container's root may. For
            tasks that install, and change owners; what grades an agent's work does not need it.
    """

    image: str | None = None
    workdir: str = "/workspace"
    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    root: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """Outcome of a command in the persistent shell.

    Attributes:
        output: stdout and stderr as they came, UTF-8 with invalid bytes replaced, capped with a note where cut.
        exit_code: the command's own; None where it was killed at its deadline or for a limit.
        killed: why it was killed ("timeout", "memory", "processes", "disk"), or None. "shell": the shell no longer ran
            what it was given (`set -n`, `set -r`, no way left to give it text); a new one has taken its place.
        truncated: whether the output was cut.
        duration_s: wall-clock seconds.
        cwd: the shell's directory afterwards, where that is known.
    """

    output: str
    exit_code: int | None
    killed: str | None = None
    truncated: bool = False
    duration_s: float = 0.0
    cwd: str | None = None

    @property
    def shown(self) -> str:
        """What a policy reads: the output, then "[killed: REASON]" or "[exit code N]" where it did not end well."""
        lines = [self.output.rstrip("\n")] if self.output else []
        if self.killed:
            lines.append(f"[killed: {self.killed}]")
        elif self.exit_code:
            lines.append(f"[exit code {self.exit_code}]")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResult:
    """Outcome of one process outside the shell; its exit status is waited for, so nothing inside can forge it.

    Attributes:
        stdout, stderr: bytes, each capped at the limit asked for (the first bytes are kept).
        exit_code: negative for a signal; None where it was killed at its deadline or for a limit.
        killed: why it was killed ("timeout", "memory", "processes", "disk", "output"), or None.
        duration_s: wall-clock seconds.
    """

    stdout: bytes
    stderr: bytes
    exit_code: int | None
    killed: str | None = None
    duration_s: float = 0.0


class Process(Protocol):
    """A process that is talked to while it runs. Methods that wait raise SandboxError when the box failed."""

    def write(self, data: bytes) -> None:
        """Send bytes to its stdin; lost where it has ended."""
        ...

    async def read(self) -> bytes:
        """The next bytes of its stdout, at least one; b"" at its end."""
        ...

    async def wait(self) -> ProcessResult:
        """Its outcome, when it has ended; ``stdout`` holds nothing."""
        ...

    def kill(self) -> None:
        """End it and what it started; ``wait`` says when."""
        ...


class Sandbox(Protocol):
    """A box with a persistent shell. Every method raises SandboxError when the box, not the command, failed."""

    async def aexec(self, command: str, *, timeout_s: float | None = None) -> CommandResult:
        """Run a command in the persistent shell: cwd and exported variables last from one to the next.

        At the deadline everything the command started is killed and the shell goes on in the last working directory
        with the exported variables of the last finished command. stdin is empty. ``exit`` ends only the command.
        """
        ...

    async def arun(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        output_bytes: int = 16 << 20,
    ) -> ProcessResult:
        """Run one process beside the shell, and wait for its own status. What it leaves behind is killed."""
        ...

    async def astart(
        self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a process beside the shell and talk to it. It has no deadline, and ends with the sandbox."""
        ...

    async def read_file(self, path: str, *, most_bytes: int | None = None) -> bytes:
        """The file, of a longer one only so many bytes.

        Raises FileNotFoundError, IsADirectoryError or PermissionError as the file is.
        """
        ...

    async def write_file(self, path: str, data: bytes, *, mode: int | None = 0o644, new: bool = False) -> None:
        """Write a file, making its parent folders. A file that exists stays the same one, with its owner and its links.

        Args:
            mode: None leaves that of a file that exists.
            new: raise FileExistsError where there is one.
        """
        ...

    async def put_archive(self, archive: bytes, dest: str) -> None:
        """Unpack a tar archive (plain or gzip) into a folder, made where it is missing."""
        ...

    async def aclose(self) -> None:
        """Kill everything inside and free what it held. May be called twice."""
        ...


@runtime_checkable
class ForkingSandbox(Sandbox, Protocol):
    """A sandbox that can be had once more as it is now."""

    async def fork(self) -> Sandbox:
        """A new sandbox with the same files and a shell in the same state; this one goes on.

        Raises:
            SandboxError: something runs beside the shell, or the copy cannot be proven to be one.
        """
        ...


class SandboxBackend(Protocol):
    """Makes sandboxes of one kind."""

    name: str

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox. Raises SandboxError with the remedy where this machine cannot make one."""
        ...


@runtime_checkable
class ReusingBackend(SandboxBackend, Protocol):
    """Makes sandboxes that may have been used before, for those who can tell no difference."""

    async def reuse(self, spec: SandboxSpec, state: str, prepare: Callable[[Sandbox], Awaitable[None]]) -> Sandbox:
        """A sandbox in the state that ``prepare`` brings a fresh one to.

        Args:
            state: a name for what ``prepare`` does to a sandbox of this spec.
        Raises:
            SandboxError: there is none. What ``prepare`` raises.
        """
        ...
