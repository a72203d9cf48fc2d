"""MATH-500, AIME 2024 and 2025, GSM8K: one answer a problem."""

from collections.abc import Callable, Sequence

from ...envs.datasets.files import SourceRow
from ...envs.math.equivalence import EquivalenceChecker
from ...envs.sandbox.background import call
from ...envs.task import Task
from ...errors import TaskError
from ...rewards.math.grade import grade_math
from ...rewards.score import Score
from .cwm import single_turn
from .spec import GradeOptions, HubSource, LoadOptions, Prediction, Preset, Suite, is_cut_off

ID_KEYS = ("unique_id", "id", "task_id", "problem_id", "problem_idx")
PROBLEM_KEYS = ("problem", "question", "prompt")
ANSWER_KEYS = ("answer", "expected_answer", "gold")
LARGEST_AIME = 999

PROMPT = "{problem}\n\nWrap your answer in $\\boxed{{}}$."
"""Source: prompt_template_direct of cwm/rl/envs/envs/math_think_dialog.py, which math_cwmthinktag_env:64k takes."""
CWM_SETTINGS = single_turn(
    samples=20, config="evals/configs/eval_math.yaml", environment="math_think_dialog.py, math_cwmthinktag_env:64k"
)


class AnswerGrader:
    """Grades answers, with a pool of its own of processes that compare them."""

    def __init__(self, options: GradeOptions) -> None:
        self._lenient = options.lenient
        self._checker = EquivalenceChecker(num_workers=options.workers)

    async def grade(self, task: Task, prediction: Prediction) -> Score:
        if "answer" not in task.hidden:
            raise TaskError(f"task {task.id!r} {task.metadata['no_answer']}")
        lenient = self._lenient and not is_cut_off(prediction)
        return await call(
            grade_math,
            prediction.text,
            task.hidden["answer"],
            verify=self._checker,
            lenient=lenient,
            problem=task.prompt,
        )

    async def aclose(self) -> None:
        self._checker.close()


def tasks_of(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """Tasks of rows with a problem and its answer.

    Raises:
        TaskError: a row has no id, or no row has an answer: it is another file.
    """
    return _tasks_of(rows, _answer_of)


def aime_tasks_of(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """As ``tasks_of``; an AIME answer is an integer from 0 to 999, whatever zeros lead it."""
    return _tasks_of(rows, _aime_answer_of)


def _tasks_of(rows: Sequence[SourceRow], answer_of: Callable[[object], str]) -> list[Task]:
    if rows and not any(key in row.value for row in rows for key in ANSWER_KEYS):
        raise TaskError(
            f"{rows[0].where}: no row has an answer ({' or '.join(ANSWER_KEYS)}); its keys are "
            f"{', '.join(sorted(map(str, rows[0].value)))}"
        )
    tasks = []
    for row in rows:
        task_id = next((row.value[key] for key in ID_KEYS if row.value.get(key) not in (None, "")), None)
        if task_id is None:
            raise TaskError(f"{row.where}: no id ({' or '.join(ID_KEYS)})")
        problem = next((row.value[key] for key in PROBLEM_KEYS if isinstance(row.value.get(key), str)), "")
        metadata = {key: row.value[key] for key in ("subject", "level") if row.value.get(key) is not None}
        hidden = {}
        try:
            hidden["answer"] = answer_of(next((row.value[key] for key in ANSWER_KEYS if key in row.value), None))
        except TaskError as error:
            metadata["no_answer"] = str(error)
        tasks.append(
            Task(
                id=str(task_id), family="math", prompt=PROMPT.format(problem=problem), hidden=hidden, metadata=metadata
            )
        )
    return tasks


def _answer_of(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise TaskError(f"has no answer to grade by (it is {value!r})")
    return str(value)


def _aime_answer_of(value: object) -> str:
    text = _answer_of(value).strip()
    if not (text.isascii() and text.isdigit()) or int(text) > LARGEST_AIME:
        raise TaskError(f"has the answer {value!r}; one of AIME is an integer from 0 to {LARGEST_AIME}")
    return str(int(text))


def gsm8k_tasks_of(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """As ``tasks_of``; an answer stands behind "####", after its steps. Rows have no ids: a row's place is its id."""
    numbered = [
        SourceRow(where=row.where, value=row.value if _has_id(row) else {**row.value, "id": f"gsm8k/{place}"})
        for place, row in enumerate(rows)
    ]
    return _tasks_of(numbered, _gsm8k_answer_of)


def _has_id(row: SourceRow) -> bool:
    return any(row.value.get(key) not in (None, "") for key in ID_KEYS)


def _gsm8k_answer_of(value: object) -> str:
    _, mark, answer = _answer_of(value).rpartition("####")
    if not mark or not answer.strip():
        raise TaskError(f"has no answer behind '####' to grade by (it is {str(value)[-40:]!r})")
    return answer.strip().replace(",", "")


def _suite(
    name: str,
    about: str,
    hub: HubSource,
    read: Callable[..., list[Task]] = tasks_of,
    preset: Preset | None = CWM_SETTINGS,
) -> Suite:
    return Suite(
        name=name,
        about=about,
        env_ids={"math": "verigym/Math-v0"},
        tasks_of=read,
        make_grader=AnswerGrader,
        env_kwargs={"system_prompt": ""},
        hub=hub,
        preset=preset,
    )


SUITES = (
    _suite(
        "math500",
        "MATH-500's rows (unique_id, problem, answer)",
        HubSource(dataset="HuggingFaceH4/MATH-500", split="test"),
    ),
    _suite(
        "aime24",
        "AIME 2024's rows (id, problem, answer)",
        HubSource(dataset="HuggingFaceH4/aime_2024", split="train"),
        aime_tasks_of,
    ),
    _suite(
        "aime25",
        "AIME 2025's rows (id, problem, answer)",
        HubSource(dataset="yentinglin/aime_2025", split="train"),
        aime_tasks_of,
    ),
    _suite(
        "gsm8k",
        "GSM8K's rows (question, answer with its steps and '####')",
        HubSource(dataset="openai/gsm8k", config="main", split="test"),
        gsm8k_tasks_of,
        preset=None,
    ),
)
