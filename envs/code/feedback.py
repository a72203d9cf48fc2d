"""What the first failing test of a program says, as text for a teacher. Programs write into it: it is bounded, and
decides nothing."""

from typing import Any

from ..tools.bounds import readable
from .box import ProgramRun
from .plain import VALUE

MOST_OF_PART = 1_500
"""Characters of each part of it."""


def feedback_of(run: ProgramRun, **asked: Any) -> str:
    """A failing run, with its input and what was expected.

    Args:
        asked: what else there is to say, by name, before what the run gave; None is left out.
    """
    given = {"returned": value_text(run)} if run.has_value else {"printed": run.stdout}
    parts = {**asked, **given, "stderr": run.stderr}
    shown = {name: _text(part).strip("\n") for name, part in parts.items() if part is not None}
    return "\n".join([f"status: {run.status}", *(f"{name}:\n{text}" for name, text in shown.items() if text)])


def value_text(run: ProgramRun) -> str:
    """The value that a call returned, as its line has it: JSON, with the type where JSON has none."""
    return run.report.removeprefix(VALUE).rstrip().removesuffix("}")


def _text(part: Any) -> str:
    return readable(part if isinstance(part, str) else repr(part), MOST_OF_PART)
