"""Errors a user can meet, one class per boundary. Each message says what failed, the value seen, and the remedy."""


class VerigymError(Exception):
    """Root of all errors that verigym raises on purpose."""


class ConfigError(VerigymError, ValueError):
    """A recipe or an option that cannot be used."""


class TaskError(VerigymError, ValueError):
    """A task, or a file of tasks, that cannot be used."""


class SandboxError(VerigymError, RuntimeError):
    """The sandbox failed, not the command in it. Never counted as a reward."""


class GradingError(VerigymError, RuntimeError):
    """The evidence for a score could not be gathered. Never counted as a reward."""


class EnvironmentBug(VerigymError, RuntimeError):
    """An environment's own code raised what it should not, or its score is none. Never counted as a reward.

    Attributes:
        environment: the name of its class.
        hook: what failed: "start", "prompt", "score", ..., or "tool NAME".
    """

    def __init__(self, message: str, *, environment: str = "", hook: str = "") -> None:
        super().__init__(message)
        self.environment, self.hook = environment, hook


class HookTimeout(EnvironmentBug):
    """An environment's hook did not return in its time (``hook_timeout_s``)."""


class PolicyError(VerigymError, RuntimeError):
    """A policy could not answer (server gone, missing log-probabilities, context exceeded)."""


class AgentError(VerigymError, RuntimeError):
    """An agent of others failed before its model had any part in it. Never counted as a reward."""


class RequestRefused(PolicyError, ValueError):
    """A request that can never be answered as it is: an empty or too long prompt, an unknown id. Not to be retried."""


class QueueFull(PolicyError):
    """As many requests wait as may; the same request can be answered later."""


class ChatFormatError(VerigymError, ValueError):
    """A conversation that cannot be rendered exactly, or a template that cannot be trusted."""


class CheckpointError(VerigymError, RuntimeError):
    """A checkpoint that is missing, broken or of another shape."""


class TrainingError(VerigymError, ValueError):
    """A run that cannot go on: rewards that are not numbers, or nothing left to learn from."""
