"""Conversations of one's own to imitate: files of messages, of questions and solutions, or of foraged episodes."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...agent.demonstrations import tokenize
from ...agent.trajectory import Trajectory
from ...envs.datasets.files import read_rows
from ...errors import ChatFormatError, TaskError
from ...model.chat.api import from_openai_messages, from_openai_tools
from ...model.chat.messages import Message
from ...model.chat.protocols import Parser, Renderer
from ..recipe.stages import SFTSource
from ..sampling.held_out import HeldOut
from ..sampling.left_out import Account, LeftOut
from .midtrain_sources import Episode, read_episodes

QUESTIONS = ("prompt", "problem", "question", "instruction")
ANSWERS = ("completion", "solution", "response", "answer", "output")
_FORMS = (
    '{"messages": [...], "tools": [...]} in OpenAI\'s form, a question and an answer as texts '
    f"(one of {', '.join(QUESTIONS)} and one of {', '.join(ANSWERS)}), or rows of `verigym forage`"
)


def gather_conversations(
    sources: Sequence[SFTSource], held_out: HeldOut, account: Account, *, seed: int
) -> list[tuple[str, Episode]]:
    """(source, episode without tokens) of every conversation that a recipe's sources take.

    What is, or is like, a held-out task is left out, and told to the account.

    Raises:
        TaskError: a file that cannot be used, or a source of which nothing is left.
    """
    found = []
    for source in sources:
        kept, total = [], 0
        for episode in _read(source):
            total += 1
            like = held_out.of_episode(episode.trajectory, episode.identity)
            if like is not None:
                item = episode.trajectory.task_id
                account.rows.append(LeftOut(source=source.name, item=item, reason=like[0], like=like[1]))
            elif source.min_reward is None or _reward(episode.trajectory) >= source.min_reward:
                kept.append(episode)
        if not kept:
            raise TaskError(
                f"nothing is left of the source {source.name!r} of sft ({total} conversations in {source.path}): they "
                "are held out, or their rewards below min_reward; give others, or remove the source"
            )
        if source.num and source.num < len(kept):
            chosen = sorted(random.Random(f"{seed}/{source.name}/drawn").sample(range(len(kept)), source.num))
            kept = [kept[place] for place in chosen]
        found += [(source.name, episode) for episode in kept]
    return found


def tokenize_own(
    episodes: Sequence[tuple[str, Episode]], renderer: Renderer, parser: Parser, *, longest: int
) -> tuple[list[Trajectory], list[str]]:
    """The conversations with tokens, but for those with a segment of more than ``longest`` tokens.

    Returns:
        (conversations, a line for people on each source of which some were too long).
    Raises:
        TaskError: a conversation that the chat format cannot write, or a source of which nothing is left.
    """
    kept: list[Trajectory] = []
    counts: Counter[str] = Counter()
    too_long: Counter[str] = Counter()
    for name, episode in episodes:
        try:
            made = tokenize(episode.trajectory, episode.tools, renderer, parser)
        except ChatFormatError as error:
            raise TaskError(
                f"conversation {episode.trajectory.task_id!r} of the source {name!r} of sft cannot be written in the "
                f"model's chat format: {error}"
            ) from error
        counts[name] += 1
        if any(len(segment.token_ids) > longest for segment in made.segments):
            too_long[name] += 1
        else:
            kept.append(made)
    for name, count in too_long.items():
        if count == counts[name]:
            raise TaskError(
                f"all {count} conversations of the source {name!r} of sft are longer than {longest} tokens; raise "
                "sft.train.microbatch_tokens"
            )
    lines = [
        f"{name}: {count} of {counts[name]} conversations left out, longer than sft.train.microbatch_tokens = {longest}"
        for name, count in too_long.items()
    ]
    return kept, lines


def _reward(trajectory: Trajectory) -> float:
    return float("-inf") if trajectory.reward is None else trajectory.reward


def _read(source: SFTSource) -> Iterator[Episode]:
    """Raises TaskError that names the row."""
    first = next(iter(read_rows(source.path)), None)
    if first is not None and "trajectory" in first.value:
        yield from read_episodes(source.path)
        return
    if source.min_reward is not None:
        raise TaskError(f"{source.path} holds no rewards, as rows of `verigym forage` do; remove min_reward")
    for row in read_rows(source.path):
        try:
            yield _conversation(row.value, source.name)
        except (ChatFormatError, json.JSONDecodeError) as error:
            raise TaskError(f"{row.where}: {error}") from None


def _conversation(row: Mapping[str, Any], name: str) -> Episode:
    """Raises ChatFormatError."""
    given = row.get("messages")
    if given is None:
        question, answer = _text(row, QUESTIONS), _text(row, ANSWERS)
        if question is None or answer is None:
            raise ChatFormatError(f"has none of the known forms: {_FORMS}")
        messages = [Message(role="user", content=question), Message(role="assistant", content=answer)]
        if isinstance(row.get("system"), str):
            messages.insert(0, Message(role="system", content=row["system"]))
    elif isinstance(given, list | tuple):
        messages = from_openai_messages(given)
    else:
        raise ChatFormatError("messages must be a list")
    if not any(message.role == "assistant" for message in messages):
        raise ChatFormatError("holds no message of an assistant, which is what is learned")
    tools = row.get("tools") or ()
    if isinstance(tools, str):  # columns of tables hold schemas as text
        tools = json.loads(tools)
    if not isinstance(tools, list | tuple):
        raise ChatFormatError("tools must be a list")
    trajectory = Trajectory(
        task_id=_identity(row, messages),
        family=name,
        ending="answered",
        messages=tuple(messages),
        num_turns=sum(message.role == "assistant" for message in messages),
    )
    return Episode(trajectory=trajectory, tools=tuple(from_openai_tools(tools)))


def _text(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    found = [row[name] for name in names if isinstance(row.get(name), str)]
    return found[0] if found else None


def _identity(row: Mapping[str, Any], messages: Sequence[Message]) -> str:
    """Its id, or a digest of what came before the first answer: answers to one question are held out together."""
    if isinstance(row.get("id"), str | int):
        return str(row["id"])
    asked = []
    for message in messages:
        if message.role == "assistant":
            break
        asked.append([message.role, message.content])
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
