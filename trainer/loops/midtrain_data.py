"""What midtrain learns from: made or read as a recipe says, then turned into documents."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...agent.demonstrations import texts_of, tokenize
from ...agent.identity import Identity
from ...agent.trajectory import Trajectory
from ...envs.registry.ids import make_env
from ...envs.sandbox.choose import make_backend
from ...envs.task import read_jsonl
from ...envs.trace.examples import Example, Sieve, stratified
from ...envs.trace.make import MAKERS, make_from_programs
from ...envs.trace.shards import MANIFEST, read_shards
from ...envs.trace.twins import twin_key
from ...errors import TaskError
from ...model.chat.messages import ToolSpec
from ...model.chat.protocols import Parser, Renderer
from ...model.chat.trace import TraceFormat, texts_of_trace
from ...model.tokenizer import Tokenizer
from ..batching.documents import Document
from ..recipe.recipe import Recipe
from ..recipe.stages import MidtrainSource, MidtrainStage
from ..sampling.held_out import Found, HeldOut
from ..sampling.left_out import Account, LeftOut
from .midtrain import trace_document, trajectory_documents

Tell = Callable[[int, int], None]
Group = tuple[str, ...]
"""What stays together when some documents are held out: a function, a program, or a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """An episode with its tools, and what its file says of its task."""

    trajectory: Trajectory
    tools: tuple[ToolSpec, ...]
    identity: Identity | None = None

    @property
    def task(self) -> Group:
        return "task", self.trajectory.family, self.trajectory.task_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source before there is a tokenizer: traces, or episodes."""

    config: MidtrainSource
    examples: tuple[Example, ...] = ()
    episodes: tuple[Episode, ...] = ()

    @property
    def groups(self) -> list[list[Group]]:
        """Of each trace, then of each episode: the group that it belongs to, and then those it holds parts of."""
        return [_groups_of(one) for one in self.examples] + [[one.task] for one in self.episodes]

    def texts(self, parser: Parser) -> list[str]:
        """What a tokenizer will meet."""
        spoken = [text for one in self.episodes for text in texts_of(one.trajectory, one.tools, parser)]
        return spoken + [text for one in self.examples for text in texts_of_trace(one.trace)]


def _groups_of(example: Example) -> list[Group]:
    """A library's function by its line in the source, as call frames show it; a generated program by all of it."""
    if example.kind != "library":
        return [("program", twin_key(example.trace.context))]
    called = (frame.source.strip() for frame in example.trace.frames if frame.event == "call")
    return [("function", line) for line in dict.fromkeys(called)]


def groups_to_hold_out(groups: Sequence[Sequence[Group]], share: float, rng: random.Random) -> set[Group]:
    """Groups, drawn at random, whose items are about this share of all; none where there is one group.

    A group of which others hold more parts than it has items costs more than it measures: such ones come last.
    """
    own = Counter(some[0] for some in groups)
    parts = Counter(one for some in groups for one in some[1:] if one != some[0])
    if len(own) < 2:
        return set()
    order = sorted(own)
    rng.shuffle(order)
    order.sort(key=lambda one: parts[one] > own[one])
    wanted, chosen, count = max(1, round(share * len(groups))), set(), 0
    for group in order[:-1]:
        if count >= wanted:
            break
        chosen.add(group)
        count += own[group]
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What is trained on and what measures.

    Attributes:
        learned: source -> documents.
        held_out: of all sources, weighing frames and episodes alone.
        too_long: source -> documents to be learned that are longer than a microbatch.
        overlapping: source -> traces that hold a call of a function whose own traces measure.
    """

    learned: Mapping[str, Sequence[Document]]
    held_out: Sequence[Document]
    too_long: Mapping[str, int]
    overlapping: Mapping[str, int]


async def gather(
    stage: MidtrainStage,
    recipe: Recipe,
    folder: Path,
    demonstrations: Sequence[Episode],
    held_out: HeldOut,
    account: Account,
    tell: Tell,
) -> list[Source]:
    """Make, or find from an earlier sitting of the same run, the material of every source.

    What is held out is left out of each, whatever it is read from; of the rest ``num`` are drawn with the recipe's
    seed, as evenly over functions and tasks as there are enough of them.

    Args:
        folder: of the run; generated traces are kept in ``NAME``.
        demonstrations: of the recipe's families.
        account: is told what was left out.
    Raises:
        TaskError: a file or folder that cannot be used, or a source of which nothing is left.
        SandboxError: the sandbox failed.
    """
    sources = []
    for config in stage.sources:
        rng = random.Random(f"{recipe.seed}/{config.name}/drawn")
        if config.traces is not None:
            examples = await _examples(config, recipe, folder / config.name, tell)
            kept = _kept(config.name, examples, held_out.of_example, lambda one: one.origin, account)
            drawn = stratified(kept, config.num, group=lambda one: one.origin, rng=rng)
            sources.append(Source(config=config, examples=tuple(drawn)))
        else:
            found = demonstrations if config.trajectories is None else read_episodes(config.trajectories)
            episodes = _kept(
                config.name,
                found,
                lambda one: held_out.of_episode(one.trajectory, one.identity),
                lambda one: one.trajectory.task_id,
                account,
            )
            drawn = stratified(episodes, config.num, group=lambda one: one.task, rng=rng)
            sources.append(Source(config=config, episodes=tuple(drawn)))
    return sources


def _kept(
    source: str, items: Iterable[Any], like: Callable[[Any], Found], name: Callable[[Any], str], account: Account
) -> list[Any]:
    """What is like nothing held out; the account is told of the rest."""
    kept, total = [], 0
    for item in items:
        total += 1
        found = like(item)
        if found is None:
            kept.append(item)
        else:
            account.rows.append(LeftOut(source=source, item=name(item), reason=found[0], like=found[1]))
    if total and not kept:
        raise TaskError(
            f"all {total} items of the source {source!r} of midtrain are, or are like, held-out tasks; give others, or "
            "remove the source"
        )
    return kept


async def _examples(config: MidtrainSource, recipe: Recipe, folder: Path, tell: Tell) -> Iterator[Example]:
    assert config.traces is not None
    if config.traces not in MAKERS:
        return read_shards(Path(config.traces))
    if not (folder / MANIFEST).exists():
        await make_from_programs(
            config.traces,  # type: ignore[arg-type]
            config.num,
            folder,
            seed=recipe.seed,
            backend=make_backend(recipe.sandbox),
            sieve=Sieve(),
            tell=lambda what, made, wanted: tell(made, wanted),
        )
    return read_shards(folder)


def read_episodes(path: Path) -> list[Episode]:
    """Episodes of a file that ``verigym forage`` wrote, each with its environment's tools.

    Raises:
        TaskError: the file is missing or of another kind.
    """
    tools: dict[str, tuple[ToolSpec, ...]] = {}
    episodes = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            name, trajectory = row["env"], Trajectory.from_json(row["trajectory"])
            identity = Identity.from_json(row["task"]) if isinstance(row.get("task"), dict) else None
        except (KeyError, TypeError) as error:
            raise TaskError(f"{path}, row {number}: no trajectory ({error}); give a file of `verigym forage`") from None
        if name not in tools:
            tools[name] = make_env(name).tool_specs
        episodes.append(Episode(trajectory=trajectory, tools=tools[name], identity=identity))
    return episodes


def documents_of(
    sources: Sequence[Source],
    stage: MidtrainStage,
    tokenizer: Tokenizer,
    renderer: Renderer,
    parser: Parser,
    *,
    seed: int,
) -> Documents:
    """Documents of every source; some of each are held out, and what a microbatch cannot hold is left out.

    Traces are held out by function (of a library) or program, episodes by task, in all sources alike: what another
    trace holds of a held-out function neither measures nor is learned.
    """
    form = TraceFormat(tokenizer)
    held_groups: set[Group] = set()
    for source in sources:
        rng = random.Random(f"{seed}/{source.config.name}/held out")
        held_groups |= groups_to_hold_out(source.groups, stage.held_out_share, rng)

    def made(item: Example | Episode, weight: float) -> list[Document]:
        if isinstance(item, Example):
            return [trace_document(item.trace, form, context_weight=weight)]
        return trajectory_documents([tokenize(item.trajectory, item.tools, renderer, parser)])

    learned: dict[str, list[Document]] = {}
    held_out: list[Document] = []
    too_long: dict[str, int] = {}
    overlapping: dict[str, int] = {}
    for source in sources:
        name = source.config.name
        documents: list[Document] = []
        overlapping[name] = 0
        for item, groups in zip([*source.examples, *source.episodes], source.groups, strict=True):
            if groups[0] in held_groups:
                held_out += [one for one in made(item, 0.0) if len(one) <= stage.train.microbatch_tokens]
            elif held_groups.isdisjoint(groups):
                documents += made(item, stage.train.context_weight)
            else:
                overlapping[name] += 1
        learned[name] = [one for one in documents if len(one) <= stage.train.microbatch_tokens]
        too_long[name] = len(documents) - len(learned[name])
    return Documents(learned=learned, held_out=held_out, too_long=too_long, overlapping=overlapping)
