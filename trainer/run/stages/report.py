"""The report: ``report.json``, tables, curves, and episodes to read."""

from ...recipe.recipe import Recipe
from ..context import Run
from ..report import write_report


class Report:
    after = "control"
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return True

    async def run(self, run: Run) -> None:
        write_report(
            run.out,
            recipe=run.recipe,
            families=run.families,
            evaluations=run.evaluations.found,
            stages=run.stages,
            left_out=run.account.counts(),
            seconds=run.seconds,
            note=run.progress.print,
        )


STAGE = Report()
