"""Demonstrations through an agent of others: a script stands behind the gateway where the model will."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ...envs.core import ToolEnv
from ...envs.task import Task
from ...errors import AgentError, TaskError
from ...model.chat.messages import Message, ToolSpec
from ...model.chat.sampling import Sampling
from ..demonstrations import Demonstration
from ..gateway.session import Limits, Session
from ..gateway.spoken import spoken
from ..loop import Budget
from ..policy import Conversation, Script, ScriptedPolicy, Turn
from ..speakers import Seat, seated
from ..trajectory import Trajectory
from .episode import Driven
from .spec import Harness

SUBMIT = "submit"
"""The call that hands in, in scripts written for an environment's own tools."""
FINAL = Message(role="assistant", content="Done.")
"""How an agent's model hands in where its harness does not say: a message without a call."""


class InTheirWords:
    """A script as the policy of a harness: where that offers no ``submit``, what the harness takes for handing in is
    said in its place. Any other call must be offered.

    Attributes:
        failure: what the script raised; None: nothing.
    """

    def __init__(self, script: Script, harness: Harness) -> None:
        self._scripted, self._harness = ScriptedPolicy(self._in_their_words(script)), harness
        self._offered: Sequence[ToolSpec] = ()
        self.failure: Exception | None = None

    async def respond(self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling) -> Turn:
        self._offered = tools
        try:
            return await self._scripted.respond(conversation, tools, sampling)
        except Exception as error:
            self.failure = error
            raise

    def _in_their_words(self, script: Script) -> Script:
        def translated(messages: Sequence[Message]) -> Message:
            said, offered = script(messages), {spec.name for spec in self._offered}
            missing = [call.name for call in said.calls if call.name not in offered]
            if missing == [SUBMIT]:
                return getattr(self._harness, "hand_in", FINAL)
            if missing:
                raise TaskError(
                    f"the script calls {missing[0]!r}, and the agent {self._harness.name!r} offers "
                    f"{', '.join(sorted(offered)) or 'no tools'}; take experts that call these, or another agent"
                )
            return said

        return translated


async def demonstrate_with(
    harness: Harness,
    env: ToolEnv,
    script: Script,
    task: Task,
    *,
    budget: Budget,
    seats: Mapping[str, Seat] = MappingProxyType({}),
) -> tuple[Demonstration, ...]:
    """Let a script act through a harness in the real environment. Nothing is graded.

    Returns:
        one for each set of tools that was offered; their trees hold messages, and no tokens yet.
    Raises:
        SandboxError: the sandbox failed. AgentError: the harness broke down. TaskError: a call that it does not offer.
        Whatever else the script raised.
    """
    policy = InTheirWords(script, harness)
    session = Session(policy, Sampling(seed=0), limits=Limits(turns=budget.turns, seconds=budget.seconds))
    episode = Driven(harness, env, task, budget, session)
    env.seat(seated(seats, policy, Sampling(seed=0)))
    try:
        ending = await episode.play()
    except Exception:
        if policy.failure is not None:
            raise policy.failure from None
        raise
    finally:
        await env.aclose()
        await episode.left()
    if policy.failure is not None:
        raise policy.failure
    if ending == "agent_crash":
        raise AgentError(f"the harness {harness.name!r} broke down in a demonstration of {task.id}: {episode.done}")
    if not session.counts.turns:
        raise AgentError(f"the harness {harness.name!r} asked for no turn in a demonstration of {task.id}")
    return tuple(
        Demonstration(
            trajectory=Trajectory(
                task_id=task.id,
                family=task.family,
                ending=ending,
                messages=tree.messages(tree.branches()[-1]),
                tree=tree,
                num_turns=sum(node.trained for node in tree.nodes),
            ),
            tools=tools,
        )
        for tools, tree in spoken(session.settle())
    )
