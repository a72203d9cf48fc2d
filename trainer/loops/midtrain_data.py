"""What midtrain learns from: made or read as a recipe says, then turned into documents."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...agent.demonstrations import texts_of, tokenize
from ...agent.trajectory import Trajectory
from ...envs.registry.ids import make_env
from ...envs.sandbox.choose import make_backend
from ...envs.task import read_jsonl
from ...envs.trace.examples import Sieve
from ...envs.trace.make import MAKERS, make_from_programs
from ...envs.trace.shards import MANIFEST, read_shards
from ...envs.trace.tasks import job_of
from ...envs.trace.twins import twin_key
from ...errors import TaskError
from ...model.chat.messages import ToolSpec
from ...model.chat.protocols import Parser, Renderer
from ...model.chat.trace import Trace, TraceFormat, texts_of_trace
from ...model.tokenizer import Tokenizer
from ..batching.packs import Document
from ..recipe.recipe import MidtrainSource, MidtrainStage, Recipe
from ..sampling.families import Family
from .midtrain import trace_document, trajectory_documents

Episode = tuple[Trajectory, Sequence[ToolSpec]]
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source before there is a tokenizer: traces, or episodes with their tools."""

    config: MidtrainSource
    traces: tuple[Trace, ...] = ()
    episodes: tuple[Episode, ...] = ()

    def texts(self, parser: Parser) -> list[str]:
        """What a tokenizer will meet."""
        spoken = [text for one, tools in self.episodes for text in texts_of(one, tools, parser)]
        return spoken + [text for trace in self.traces for text in texts_of_trace(trace)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What is trained on and what measures.

    Attributes:
        learned: source -> documents.
        held_out: of all sources, weighing frames and episodes alone.
        left_out: source -> how many were longer than a microbatch.
    """

    learned: Mapping[str, Sequence[Document]]
    held_out: Sequence[Document]
    left_out: Mapping[str, int]


def held_out_programs(families: Sequence[Family]) -> frozenset[str]:
    """The ``twin_key`` of each program that a held-out task asks about."""
    tasks = [task for family in families for task in family.held_out if task.family == "trace"]
    return frozenset(twin_key(job_of(task).source) for task in tasks)


async def gather(
    stage: MidtrainStage,
    recipe: Recipe,
    folder: Path,
    demonstrations: Sequence[Episode],
    forbidden: frozenset[str],
    tell: Tell,
) -> list[Source]:
    """Make, or find from an earlier sitting of the same run, the material of every source.

    Args:
        folder: of the run; generated traces are kept in ``NAME``.
        demonstrations: of the recipe's families.
        forbidden: ``twin_key`` of programs whose traces must not be learned.
    Raises:
        TaskError: a file or folder that cannot be used. SandboxError: the sandbox failed.
    """
    sources = []
    for config in stage.sources:
        if config.demonstrations:
            sources.append(Source(config=config, episodes=tuple(demonstrations[: config.num])))
        elif config.trajectories is not None:
            sources.append(Source(config=config, episodes=tuple(read_episodes(config.trajectories)[: config.num])))
        else:
            traces = await _traces(config, recipe, folder / config.name, tell)
            allowed = tuple(trace for trace in traces if twin_key(trace.context) not in forbidden)
            sources.append(Source(config=config, traces=allowed))
    return sources


async def _traces(config: MidtrainSource, recipe: Recipe, folder: Path, tell: Tell) -> tuple[Trace, ...]:
    assert config.traces is not None
    if config.traces not in MAKERS:
        examples = (example for _, example in zip(range(config.num), read_shards(Path(config.traces))))
        return tuple(example.trace for example in examples)
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
    return tuple(example.trace for example in read_shards(folder))


def read_episodes(path: Path) -> list[Episode]:
    """Episodes of a file that ``verigym forage`` wrote, each with its environment's tools.

    Raises:
        TaskError: the file is missing or of another kind.
    """
    tools: dict[str, Sequence[ToolSpec]] = {}
    episodes = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            name, trajectory = row["env"], Trajectory.from_json(row["trajectory"])
        except (KeyError, TypeError) as error:
            raise TaskError(f"{path}, row {number}: no trajectory ({error}); give a file of `verigym forage`") from None
        if name not in tools:
            tools[name] = make_env(name).tool_specs
        episodes.append((trajectory, tools[name]))
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
    """Documents of every source; some of each are held out, and what a microbatch cannot hold is left out."""
    form = TraceFormat(tokenizer)
    learned: dict[str, list[Document]] = {}
    held_out: list[Document] = []
    left_out: dict[str, int] = {}
    for source in sources:
        name = source.config.name
        items: list[Any] = [*source.traces, *source.episodes]
        random.Random(f"{seed}/{name}/held out").shuffle(items)
        count = max(1, round(stage.held_out_share * len(items))) if len(items) > 1 else 0

        def made(item: Any, weight: float) -> list[Document]:
            if isinstance(item, Trace):
                return [trace_document(item, form, context_weight=weight)]
            trajectory, tools = item
            return trajectory_documents([tokenize(trajectory, tools, renderer, parser)])

        documents = [one for item in items[count:] for one in made(item, stage.train.context_weight)]
        measuring = [one for item in items[:count] for one in made(item, 0.0)]
        learned[name] = [one for one in documents if len(one) <= stage.train.microbatch_tokens]
        left_out[name] = len(documents) - len(learned[name])
        held_out += [one for one in measuring if len(one) <= stage.train.microbatch_tokens]
    return Documents(learned=learned, held_out=held_out, left_out=left_out)
