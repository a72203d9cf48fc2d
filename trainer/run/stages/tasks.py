"""Tasks of every family: made or read once, then kept in ``tasks/``."""

from dataclasses import replace

from ....errors import ConfigError
from ....model.checkpoint import check_checkpoint
from ...objective.own import load_credit
from ...recipe.algorithms import OwnConfig
from ...recipe.context import check_context
from ...recipe.family import FamilyConfig
from ...recipe.recipe import Recipe
from ...sampling.audits import told_weights
from ...sampling.families import Family, prepare_family
from ...sampling.held_out import keep_apart
from ..context import Run
from ..folder import check_kept, keep
from ..hindsight import check_hindsight
from ..progress import Bar
from ..teachers import check_teachers


class Tasks:
    after = ""
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return True

    async def run(self, run: Run) -> None:
        check_context(run.recipe)
        for source in run.recipe.sft.sources if run.recipe.sft else ():
            if not source.path.is_file():  # now, not after tasks were made
                raise ConfigError(f"the source {source.name!r} of sft: there is no file {source.path}; check the path")
        if run.recipe.model.checkpoint is not None:
            check_checkpoint(run.recipe.model.checkpoint)
        await check_teachers(run.recipe)
        if run.recipe.rl is not None and isinstance(run.recipe.rl.train, OwnConfig):
            load_credit(run.recipe.rl.train)
        for config in run.recipe.families:
            with run.progress.bar(f"tasks: {config.name}") as bar:
                family = await _family(run, config, bar)
            if config.audit.is_on:
                run.progress.note(f"by the audit of {config.name}: {told_weights(family.weights, len(family.train))}")
            run.families.append(family)
            run.check_interrupt()
        for family in run.families:
            check_hindsight(run.recipe, family)
        run.families = keep_apart(run.families, run.recipe.decontaminate, run.account)


async def _family(run: Run, config: FamilyConfig, bar: Bar) -> Family:
    paths = [run.out / "tasks" / f"{config.name}.{split}.jsonl" for split in ("train", "held_out")]
    is_new = not all(path.exists() for path in paths)
    for path in paths if not is_new else ():
        check_kept(run.out, path.relative_to(run.out).as_posix())
    family = await prepare_family(config, run.recipe, run.out / "tasks", bar.at)
    for path in paths if is_new else ():
        keep(run.out, path)
    if run.places is not None:
        family = replace(family, act=run.places.acting(config.name, family.act))
    return family


STAGE = Tasks()
