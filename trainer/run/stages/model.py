"""Demonstrations, the material of midtraining, and the model with a tokenizer that has met both."""

from collections.abc import Iterator
from typing import Any

from ....agent.demonstrations import texts_of, tokenize
from ....agent.trajectory import Trajectory
from ....envs.task import read_jsonl, write_jsonl
from ....model.chat.protocols import Parser
from ...learning.trainee import open_trainee
from ...loops.midtrain_sources import Episode, gather
from ...recipe.recipe import Recipe
from ...sampling.held_out import HeldOut, held_out_of_run, without_held_out
from ..context import Run
from ..folder import check_kept, keep
from ..imitation import play_experts


class Model:
    after = "plan"
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return True

    async def run(self, run: Run) -> None:
        recipe = run.recipe
        held_out = held_out_of_run(run.families, recipe.decontaminate)
        trajectories = await _demonstrations(run, held_out)
        tools = {family.config.name: family.tools for family in run.families}
        if recipe.midtrain is not None:
            episodes = [Episode(trajectory=one, tools=tools[name]) for name, one in trajectories]
            with run.progress.bar("traces") as bar:
                run.sources = await gather(
                    recipe.midtrain, recipe, run.out / "midtrain", episodes, held_out, run.account, bar.at
                )
        run.account.write(run.out / "held_out.jsonl")
        for line in run.account.lines():
            run.progress.note(line)

        def texts(parser: Parser) -> Iterator[str]:
            for name, one in trajectories:
                yield from texts_of(one, tools[name], parser)
            for source in run.sources:
                yield from source.texts(parser)

        # Beside shards, and engines that have weights of their own, the whole decoder is only passed on and saved.
        passed_on = run.team is not None and recipe.engines is not None
        run.trainee = open_trainee(recipe.model, texts, seed=recipe.seed, device="cpu" if passed_on else None)
        renderer, parser = run.trainee.renderer, run.trainee.parser
        run.demonstrations = [tokenize(one, tools[name], renderer, parser) for name, one in trajectories]


async def _demonstrations(run: Run, held_out: HeldOut) -> list[tuple[str, Trajectory]]:
    """(family, episode) for each episode an expert played in the real environment; none where none is used."""
    if not run.recipe.uses_demonstrations:
        return []
    path = run.out / "demonstrations.jsonl"
    if not path.exists():
        rows: list[dict[str, Any]] = []
        for family in run.families:
            rows += await play_experts(family, run.recipe, run.progress, run.check_interrupt)
        write_jsonl(path, rows)
        keep(run.out, path)
    check_kept(run.out, path.name)
    played = [(row["name"], Trajectory.from_json(row["trajectory"])) for row in read_jsonl(path)]
    return without_held_out(played, held_out, run.account)


STAGE = Model()
