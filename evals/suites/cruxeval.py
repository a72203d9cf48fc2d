"""CruxEval: predict the output of a call, or an input that gives an output. Two tasks a row.

``cruxeval_trace`` asks for the same outputs after a trace of the call, in CWM's format; only the answer is scored.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...envs.datasets.files import SourceRow
from ...envs.task import Task
from ...envs.trace.tasks import FORMAT, REASONING
from ...errors import TaskError
from .programs import CODE_ENV, SuiteGrader, text_of
from .spec import HubSource, LoadOptions, Prediction, Suite

MODES = ("input", "output")
TIME_LIMIT_S = 3.0
"""As CruxEval's own scorer; processor time here."""

ASKED = {
    "output": "What does this call give?\n\n{call}\n\nAnswer with one literal between [ANSWER] and [/ANSWER].",
    "input": (
        "Find arguments for which f gives this output:\n\n{output}\n\n"
        "Answer with one call, such as f(1), between [ANSWER] and [/ANSWER]."
    ),
}


def tasks_of(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """Tasks ``ID/input`` and ``ID/output`` of each row.

    Raises:
        TaskError: a row lacks its code, input or output.
    """
    return [_task_of(row, mode) for row in rows for mode in MODES]


def traced_tasks_of(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """Tasks ``ID/output`` of each row, which ask for a trace first. Raises TaskError as ``tasks_of``."""
    tasks = [_task_of(row, "output") for row in rows]
    return [replace(task, prompt=f"{task.prompt}\n\n{REASONING}\n\n{FORMAT}") for task in tasks]


def _task_of(row: SourceRow, mode: str) -> Task:
    program, given, output = (text_of(row, key) for key in ("code", "input", "output"))
    asked = ASKED[mode].format(call=f"f({given})", output=output)
    call = {"program": program, "input": given, "output": output, "mode": mode}
    return Task(
        id=f"{text_of(row, 'id', 'task_id')}/{mode}",
        family="code",
        prompt=f"```python\n{program}\n```\n\n{asked}",
        hidden={"call": call, "solution": output if mode == "output" else f"f({given})", "time_limit_s": TIME_LIMIT_S},
        metadata={"mode": mode},
    )


def _resolve(prediction: Prediction) -> str:
    mode = prediction.fields.get("mode")
    if mode is None and prediction.task_id.rpartition("/")[2] in MODES:
        return prediction.task_id  # as ``verigym eval`` writes it
    if mode not in MODES:
        raise TaskError(f"{prediction.where}: mode is {mode!r}; a prediction of CruxEval says input or output")
    return f"{prediction.task_id}/{mode}"


SUITES = (
    Suite(
        name="cruxeval",
        about="CruxEval's rows (id, code, input, output)",
        env_ids=CODE_ENV,
        tasks_of=tasks_of,
        make_grader=SuiteGrader,
        resolve=_resolve,
        env_kwargs={"system_prompt": ""},
        hub=HubSource(dataset="cruxeval-org/cruxeval", split="test"),
    ),
    Suite(
        name="cruxeval_trace",
        about="CruxEval's rows, their outputs asked for after a trace",
        env_ids=CODE_ENV,
        tasks_of=traced_tasks_of,
        make_grader=SuiteGrader,
        resolve=_resolve,
        env_kwargs={"system_prompt": ""},
        hub=HubSource(dataset="cruxeval-org/cruxeval", split="test"),
    ),
)
