"""LiveCodeBench's code generation: programs that read stdin, and functions; problems have a date."""

import json
from collections.abc import Sequence
from datetime import date

from ...envs.datasets.files import SourceRow
from ...envs.datasets.livecodebench import PRELUDE
from ...envs.task import Task
from ...errors import ConfigError, TaskError
from .cwm import single_turn
from .programs import CODE_ENV, SuiteGrader, known, text_of
from .spec import HubSource, LoadOptions, Suite

NUM_RELEASES = 6
TIME_LIMIT_S = 6.0
"""Of one test, as LiveCodeBench's own checker has it; it counts wall clock, here it is processor time."""

MEMORY_MIB = 4096
"""LiveCodeBench's checker has no limit."""

PROMPT = (
    "Provide a Python solution for the following competitive programming question: {question}.\n"
    "Your code should be enclosed in triple backticks like so: ```python YOUR CODE HERE ```. "
    "Use the backticks for your code only."
)
STDIN_FORM = " Your code should read from and write to standard io."
FUNCTION_FORM = " Use the provided function signature:\n```python\n{starter}\n```"
"""Source of the three: cwm/rl/envs/envs/lcb.py of CWM's release, as lcb_codegen_cwmthinktag:64k joins them."""

CWM_SETTINGS = single_turn(
    samples=10, config="evals/configs/eval_lcb.yaml", environment="lcb.py, lcb_codegen_cwmthinktag:64k"
)
"""CWM's days: release_v5 since 2024-10-01 until 2025-01-31, release_v6 since 2024-08-01 until 2025-04-30
(evals/README.md and evals/scripts/download_lcb.py of its release)."""


def tasks_of(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """Problems in the published schema, those within the days asked for.

    Raises:
        TaskError: a row is not of that schema. ConfigError: a day is no ISO date, or none is left.
    """
    since, until = _day("since", options.since), _day("until", options.until)
    if options.release is not None and options.folder is not None:
        raise ConfigError("--release chooses files of the hub; a file given with --data is taken whole, leave it out")
    tasks = [_task_of(row) for row in rows]
    kept = [task for task in tasks if _within(task, since, until)]
    if tasks and not kept:
        raise ConfigError(f"none of {len(tasks)} problems lies between --since {since} and --until {until}")
    return kept


def _task_of(row: SourceRow) -> Task:
    question = text_of(row, "question_content")
    starter = text_of(row, "starter_code", default="")
    hidden = {
        "encoded_tests": {
            "public": text_of(row, "public_test_cases", default=""),
            "private": text_of(row, "private_test_cases", default=""),
        },
        "compare": "livecodebench",
        "prelude": PRELUDE,
        "time_limit_s": TIME_LIMIT_S,
        "memory_mib": MEMORY_MIB,
    }
    try:
        described = json.loads(text_of(row, "metadata", default="{}") or "{}")
    except ValueError as error:
        raise TaskError(f"{row.where}: metadata is not JSON ({error})") from None
    if isinstance(described, dict) and described.get("func_name"):
        hidden["fn_name"] = str(described["func_name"])
    form = FUNCTION_FORM.format(starter=starter) if starter else STDIN_FORM
    return Task(
        id=text_of(row, "question_id"),
        family="code",
        prompt=PROMPT.format(question=question) + form,
        hidden=hidden,
        metadata=known(row.value, "difficulty", "platform", "contest_date"),
    )


def _day(name: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--{name} is {text!r}; a day such as 2024-08-01 is expected") from None


def _within(task: Task, since: date | None, until: date | None) -> bool:
    if since is None and until is None:
        return True
    try:
        day = date.fromisoformat(str(task.metadata.get("contest_date", ""))[:10])
    except ValueError:
        raise TaskError(f"task {task.id!r} has no contest_date; leave out --since and --until") from None
    return (since is None or since <= day) and (until is None or day <= until)


def _files(options: LoadOptions) -> list[str]:
    """Release n is the first n files."""
    release = options.release or f"release_v{NUM_RELEASES}"
    names = {f"release_v{number}": number for number in range(1, NUM_RELEASES + 1)}
    if release not in names:
        raise ConfigError(f"--release {release}: unknown; choose one of {', '.join(names)}")
    return ["test.jsonl", *(f"test{number}.jsonl" for number in range(2, names[release] + 1))]


SUITES = (
    Suite(
        name="livecodebench",
        about="LiveCodeBench's rows (question_id, public_test_cases, private_test_cases, metadata)",
        env_ids=CODE_ENV,
        tasks_of=tasks_of,
        make_grader=SuiteGrader,
        hub=HubSource(dataset="livecodebench/code_generation_lite", split="test", data_files=_files),
        env_kwargs={"system_prompt": ""},
        preset=CWM_SETTINGS,
        takes=frozenset({"release", "since", "until"}),
    ),
)
