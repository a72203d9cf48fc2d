"""Where the documents of midtraining come from: traces and episodes, made or read as a recipe says.

Nothing is held but which items of a file are taken: each pass reads it again, so that a million items need the memory
of one, and some numbers each.
"""

import random
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...agent.demonstrations import texts_of
from ...agent.identity import Identity
from ...agent.trajectory import Trajectory
from ...envs.registry.ids import make_env
from ...envs.sandbox.choose import make_backend
from ...envs.task import read_jsonl
from ...envs.trace.examples import Example, Sieve, stratified_places
from ...envs.trace.make import MAKERS, make_from_programs
from ...envs.trace.shards import MANIFEST, read_shards
from ...errors import TaskError
from ...model.chat.messages import ToolSpec
from ...model.chat.protocols import Parser
from ...model.chat.trace import texts_of_trace
from ..recipe.recipe import Recipe
from ..recipe.stages import MidtrainSource, MidtrainStage
from ..sampling.held_out import Found, HeldOut
from ..sampling.left_out import Account, LeftOut
from .midtrain_groups import Group, digest

Tell = Callable[[int, int], None]
T = TypeVar("T")


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
class Drawn(Generic[T]):
    """Some of the items that ``read`` gives, read anew by each iteration.

    Attributes:
        places: of those taken, rising.
    """

    read: Callable[[], Iterable[T]]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[T]:
        wanted = iter(self.places)
        place = next(wanted, None)
        for number, item in enumerate(self.read()):
            if place is None:
                return
            if number == place:
                yield item
                place = next(wanted, None)
        if place is not None:
            raise TaskError("a source of midtrain has fewer items than when it was read before; leave its files alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source before there is a tokenizer: traces, or episodes. They may be gone through any number of times."""

    config: MidtrainSource
    examples: Iterable[Example] = ()
    episodes: Iterable[Episode] = ()

    def texts(self, parser: Parser) -> Iterator[str]:
        """What a tokenizer will meet."""
        for one in self.episodes:
            yield from texts_of(one.trajectory, one.tools, parser)
        for one in self.examples:
            yield from texts_of_trace(one.trace)

    def items(self) -> Iterator[Example | Episode]:
        return chain(self.examples, self.episodes)


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
            shards = await _shards(config, recipe, folder / config.name, tell)
            examples = _drawn(
                config,
                lambda shards=shards: read_shards(shards),
                held_out.of_example,
                name=lambda one: one.origin,
                group=lambda one: one.origin,
                rng=rng,
                account=account,
            )
            sources.append(Source(config=config, examples=examples))
        else:
            path = config.trajectories
            episodes = _drawn(
                config,
                lambda path=path: demonstrations if path is None else read_episodes(path),
                lambda one: held_out.of_episode(one.trajectory, one.identity),
                name=lambda one: one.trajectory.task_id,
                group=lambda one: one.task,
                rng=rng,
                account=account,
            )
            sources.append(Source(config=config, episodes=episodes))
    return sources


def _drawn(
    config: MidtrainSource,
    read: Callable[[], Iterable[Any]],
    like: Callable[[Any], Found],
    *,
    name: Callable[[Any], str],
    group: Callable[[Any], Hashable],
    rng: random.Random,
    account: Account,
) -> Drawn[Any]:
    """``config.num`` of what is like nothing held out; the account is told of the rest."""
    kept, groups, total = array("Q"), array("Q"), 0
    for item in read():
        found = like(item)
        if found is None:
            kept.append(total)
            groups.append(digest(group(item)))
        else:
            account.rows.append(LeftOut(source=config.name, item=name(item), reason=found[0], like=found[1]))
        total += 1
    if total and not kept:
        raise TaskError(
            f"all {total} items of the source {config.name!r} of midtrain are, or are like, held-out tasks; give "
            "others, or remove the source"
        )
    places = stratified_places(groups, config.num, rng=rng)
    return Drawn(read=read, places=array("Q", (kept[place] for place in places)))


async def _shards(config: MidtrainSource, recipe: Recipe, folder: Path, tell: Tell) -> Path:
    """The folder of a source's traces; those that a recipe makes are made where they are not there."""
    assert config.traces is not None
    if config.traces not in MAKERS:
        return Path(config.traces)
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
    return folder


def read_episodes(path: Path) -> Iterator[Episode]:
    """Episodes of a file that ``verigym forage`` wrote, each with its environment's tools.

    Raises:
        TaskError: the file is missing or of another kind.
    """
    tools: dict[str, tuple[ToolSpec, ...]] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            name, trajectory = row["env"], Trajectory.from_json(row["trajectory"])
            identity = Identity.from_json(row["task"]) if isinstance(row.get("task"), dict) else None
        except (KeyError, TypeError) as error:
            raise TaskError(f"{path}, row {number}: no trajectory ({error}); give a file of `verigym forage`") from None
        if name not in tools:
            tools[name] = make_env(name).tool_specs
        yield Episode(trajectory=trajectory, tools=tools[name], identity=identity)
