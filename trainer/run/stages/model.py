"""Demonstrations, the material of midtraining, and the model with a tokenizer that has met both."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....agent.demonstrations import texts_of, tokenize
from ....agent.trajectory import Trajectory
from ....envs.task import read_jsonl, write_jsonl
from ....model.chat.api import from_openai_tools
from ....model.chat.protocols import Parser
from ...learning.trainee import open_trainee
from ...loops.midtrain_sources import Episode, gather
from ...loops.sft_sources import gather_conversations, tokenize_own
from ...objective.teacher import check_teacher
from ...ranks.sharded import check_all_see
from ...recipe.recipe import Recipe, teachers_of
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
        episodes = await _demonstrations(run, held_out)
        if recipe.sft is not None and recipe.sft.sources:
            own = gather_conversations(recipe.sft.sources, held_out, run.account, seed=recipe.seed)
        else:
            own = []
        if recipe.midtrain is not None:
            with run.progress.bar("traces") as bar:
                run.sources = await gather(
                    recipe.midtrain, recipe, run.out / "midtrain", episodes, held_out, run.account, bar.at
                )
        run.account.write(run.out / "held_out.jsonl")
        for line in run.account.lines():
            run.progress.note(line)

        def texts(parser: Parser) -> Iterator[str]:
            for one in (*episodes, *(episode for _, episode in own)):
                yield from texts_of(one.trajectory, one.tools, parser)
            for source in run.sources:
                yield from source.texts(parser)

        store = run.out / "start" if run.is_apart else None
        if run.team is not None and store is not None:
            check_all_see(run.team, run.out)
        run.trainee = open_trainee(recipe.model, texts, seed=recipe.seed, store=store)
        for teacher in teachers_of(recipe).values():
            if teacher.tokenizer is not None:
                check_teacher(Path(teacher.tokenizer), run.trainee.tokenizer, run.trainee.tokenizer_of)
        renderer, parser = run.trainee.renderer, run.trainee.parser
        run.demonstrations = [tokenize(one.trajectory, one.tools, renderer, parser) for one in episodes]
        if recipe.sft is not None and own:
            learned, notes = tokenize_own(own, renderer, parser, longest=recipe.sft.train.microbatch_tokens)
            run.demonstrations += learned
            for line in notes:
                run.progress.note(line)


async def _demonstrations(run: Run, held_out: HeldOut) -> list[Episode]:
    """One for each episode an expert played in the real environment; none where none is used."""
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
    tools = {family.config.name: family.tools for family in run.families}
    episodes = []
    for row in read_jsonl(path):
        name, played = row["name"], Trajectory.from_json(row["trajectory"])
        if without_held_out([(name, played)], held_out, run.account):
            offered = tuple(from_openai_tools(row["tools"])) if "tools" in row else tools[name]
            episodes.append(Episode(trajectory=played, tools=offered))
    return episodes


STAGE = Model()
