"""Other speakers of an episode: simulated users, opponents, judges. An environment asks them by name."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ..errors import ConfigError
from ..model.chat.messages import Message
from .tools.deadline import uncounted

Keep = bool | Callable[[str], bool]
"""Whether an answer is kept; a function says it of the answer's text."""


class Speaker(Protocol):
    """Answers a conversation in which it is the assistant."""

    async def say(self, messages: Sequence[Message], *, keep: Keep = False) -> Message:
        """The next message of the speaker.

        Args:
            messages: the conversation as the speaker sees it: its own messages are the assistant's.
            keep: the same question gets the same answer, without asking again, in the whole run; a function says which
                answers are worth that, and of another the question is asked anew.
        Raises:
            PolicyError: it cannot answer; a failure of the infrastructure, never a reward.
        """
        ...


class Waited:
    """A speaker whose time is not that of the hook that asks it."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker

    async def say(self, messages: Sequence[Message], *, keep: Keep = False) -> Message:
        with uncounted():
            return await self._speaker.say(messages, keep=keep)


class StandIn:
    """Speaks where no policy has the seat, as the environment's ``stand_in`` says."""

    def __init__(self, name: str, speak: Callable[[str, Sequence[Message]], Awaitable[Message]]) -> None:
        self._name, self._speak = name, speak

    async def say(self, messages: Sequence[Message], *, keep: Keep = False) -> Message:
        return await self._speak(self._name, messages)


def nobody(name: str, environment: str) -> ConfigError:
    return ConfigError(
        f"{environment} asks the model {name!r}, and none has that seat; name one: in a recipe "
        f'[families.models] {name} = "openai:BASE_URL#MODEL" (or "self"), on the command line --model {name}=SPEC'
    )


def other_side(messages: Sequence[Message], system: str = "") -> list[Message]:
    """A conversation as the other side of it sees it: the agent's messages are the user's, the user's its own. The
    agent's instructions, its calls, what its tools answered and its thinking are not seen.

    Args:
        system: what the other side is told, before all; "" for nothing.
    """
    seen = [Message(role="system", content=system)] if system else []
    for message in messages:
        if message.role == "user":
            seen.append(Message(role="assistant", content=message.content))
        elif message.role == "assistant" and not message.calls:
            seen.append(Message(role="user", content=message.content))
    return seen
