"""Demonstrations: episodes that scripts played, turned into tokens for imitation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..envs.core import ToolEnv
from ..envs.task import Task
from ..model.chat.messages import Message, ToolSpec
from ..model.chat.protocols import Parser, Rendered, Renderer
from ..model.chat.sampling import Sampling
from .policy import Entry, Script, ScriptedPolicy, Turn, action_of, context_of, observed_after, without_header
from .segments import Segment, TokenTurn, segments_of
from .speakers import Seat, seated
from .trajectory import Ending, Trajectory
from .tree import Growing, MessageTree, TreeBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """An episode that a script played, and the tools that its turns were offered."""

    trajectory: Trajectory
    tools: tuple[ToolSpec, ...]


def texts_of(trajectory: Trajectory, tools: Sequence[ToolSpec], parser: Parser) -> list[str]:
    """Every message of an episode as the text a tokenizer will meet, and the roles that stand before them."""
    said = [
        parser.format(message, tools) if message.role == "assistant" else message.content
        for message in trajectory.every_message
    ]
    return said + [message.role for message in trajectory.every_message]


async def demonstrate(
    env: ToolEnv, script: Script, task: Task, *, max_turns: int, seats: Mapping[str, Seat] = MappingProxyType({})
) -> Trajectory:
    """Let a script act in the real environment. Nothing is graded: imitation asks for no reward.

    Args:
        seats: other speakers that the environment asks by name.
    Raises:
        SandboxError: the sandbox failed. PolicyError: the script had nothing to say.
    """
    ending: Ending = "turn_limit"
    env.seat(seated(seats, ScriptedPolicy(script), Sampling(seed=0)))
    try:
        _, info = await env.areset(options={"task": task})
        messages = list(info["messages"])
        for _ in range(max_turns):
            said = script(messages)
            acted = await env.aact(action_of(said))
            messages += [said, *acted.messages]
            if acted.ending is not None:
                ending = acted.ending
            if acted.ending is not None or acted.truncated:
                break
    finally:
        await env.aclose()
    num_turns = sum(message.role == "assistant" for message in messages)
    return Trajectory(task_id=task.id, family=task.family, ending=ending, messages=tuple(messages), num_turns=num_turns)


def tokenize(trajectory: Trajectory, tools: Sequence[ToolSpec], renderer: Renderer, parser: Parser) -> Trajectory:
    """The same episode with tokens: the assistant's turns have mask True, NaN log-probabilities and version -1.

    Raises:
        ChatFormatError: a call that the format cannot express.
    """
    if trajectory.tree is not None:
        tree = tokenize_tree(trajectory.tree, tools, renderer, parser)
        return replace(trajectory, tree=tree, segments=tree.segments())
    segments = tokenize_messages(trajectory.messages, tools, renderer, parser)
    return replace(trajectory, segments=segments)


def tokenize_messages(
    messages: Sequence[Message], tools: Sequence[ToolSpec], renderer: Renderer, parser: Parser
) -> tuple[Segment, ...]:
    """Segments of a conversation in which an assistant's turns were written, not sampled. What the last turn was
    answered ends the last segment."""
    conversation: list[Entry] = []
    turns: list[TokenTurn] = []
    for message in messages:
        if message.role != "assistant":
            conversation.append(message)
            continue
        tokens = _written(conversation, message, tools, renderer, parser)
        turns.append(tokens)
        conversation.append(Turn(message=message, action="", tokens=tokens))
    observed = observed_after(conversation, renderer)
    if observed is not None or not turns or not isinstance(conversation[-1], Message):
        return segments_of(turns, observed)
    # The format cannot append: as for a turn, everything is rendered anew.
    rendered = renderer.start(messages, tools)
    end = without_header(rendered, renderer.stop_token_ids)
    token_ids, roles = rendered.token_ids[:end], rendered.roles[:end]
    segments = segments_of(turns)
    known = len(segments[-1].token_ids)
    if token_ids[:known] == segments[-1].token_ids:
        return segments_of(turns, Rendered(token_ids=token_ids[known:], roles=roles[known:]))
    return (*segments, _only_observed(token_ids, roles))


def tokenize_tree(tree: MessageTree, tools: Sequence[ToolSpec], renderer: Renderer, parser: Parser) -> MessageTree:
    """A tree of messages with the tokens that the gateway gives the same messages: each turn behind its own context.

    What nothing followed is observed where the format can append it, and left out where it cannot.
    """
    builder, inner = TreeBuilder(), {node.parent for node in tree.nodes}
    known: list[tuple[list[Entry], Growing | None]] = []
    for place, node in enumerate(tree.nodes):
        before, after = known[node.parent] if node.parent >= 0 else ([], None)
        said = node.messages[-1] if node.trained and node.messages else None
        conversation: list[Entry] = [*before, *(node.messages if said is None else node.messages[:-1])]
        if said is not None:
            tokens = _written(conversation, said, tools, renderer, parser)
            told = [one.message if isinstance(one, Turn) else one for one in conversation]
            after = builder.add(tokens, told, said, after)
            conversation.append(Turn(message=said, action="", tokens=tokens))
        elif place not in inner and after is not None:
            observed = observed_after(conversation, renderer)
            if observed is not None:
                builder.observe(after, observed, [one for one in _news(conversation) if isinstance(one, Message)])
        known.append((conversation, after))
    return builder.build()


def _news(conversation: Sequence[Entry]) -> Sequence[Entry]:
    """What follows the last turn."""
    last = max(place for place, entry in enumerate(conversation) if isinstance(entry, Turn))
    return conversation[last + 1 :]


def _written(
    conversation: Sequence[Entry], message: Message, tools: Sequence[ToolSpec], renderer: Renderer, parser: Parser
) -> TokenTurn:
    """The tokens of a turn that was written: no log-probabilities, version -1."""
    prompt_ids, prompt_roles = context_of(conversation, tools, renderer)
    token_ids = renderer.encode_turn(parser.format(message, tools))
    return TokenTurn(
        prompt_ids=prompt_ids,
        prompt_roles=prompt_roles,
        token_ids=token_ids,
        logprobs=(float("nan"),) * len(token_ids),
        policy_version=(-1,) * len(token_ids),
    )


def _only_observed(token_ids: tuple[int, ...], roles: tuple[str, ...]) -> Segment:
    count = len(token_ids)
    return Segment(
        token_ids=token_ids,
        loss_mask=(False,) * count,
        logprobs=(float("nan"),) * count,
        policy_version=(-1,) * count,
        roles=roles,
    )
