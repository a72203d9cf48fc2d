"""Rows of the published training sets of mathematics, as tasks of ``verigym/Math-v0``.

Sources of the schemas, each the data card of its set on the Hugging Face hub:

- ``dapo_math``: BytedTsinghua-SIA/DAPO-Math-17k (arXiv:2503.14476), verl's form: ``prompt`` [{role, content}],
  ``reward_model`` {ground_truth, style}, ``ability``, ``data_source``. Skywork/Skywork-OR1-RL-Data has the same form,
  with a list of answers as JSON.
- ``deepmath``: zwhe99/DeepMath-103K (arXiv:2504.11456): ``question``, ``final_answer``, ``difficulty``, ``topic``.
- ``numina_math``: AI-MO/NuminaMath-1.5: ``problem``, ``answer``, ``question_type``, ``problem_is_valid``,
  ``solution_is_valid``; open-r1/OpenR1-Math-220k is made of it and has the same columns.
- ``gsm8k``: openai/gsm8k: ``question``, ``answer`` that ends in "#### 42".
- ``math``: Hendrycks' MATH (arXiv:2103.03874): ``problem``, ``solution`` with the answer in its last box, ``level``.
- ``problem_answer``: ``problem`` and ``answer``, as SynthLabsAI/Big-Math-RL-Verified and
  agentica-org/DeepScaleR-Preview-Dataset have them.
"""

import json
from collections.abc import Mapping
from typing import Any

from ...errors import TaskError
from ...rewards.math.boxes import last_box
from ..task import Task
from .row_format import Row, RowFormat, has, said_by_the_user, task_from, text_at

NO_ANSWERS = frozenset({"proof", "notfound", "not found", "none", "n/a"})
"""What NuminaMath writes where there is no answer to compare with."""

DAPO_BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem."
)
DAPO_AFTER = 'Remember to put your answer on its own line after "Answer:".'
"""What DAPO-Math-17k puts around every problem; the environment has instructions of its own."""


def answer_of(value: Any) -> str:
    """A gold answer as text.

    Raises:
        TaskError: there is none that could be compared with.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise TaskError("no answer")
    text = str(value).strip()
    if text.lower() in NO_ANSWERS:
        raise TaskError(f"its answer is {text.lower()!r}: nothing to compare with")
    return text


def _dapo_math(row: Row) -> Task:
    if str(row.get("ability") or "math").lower() not in ("math", ""):
        raise TaskError(f"its ability is {str(row['ability']).lower()!r}, not math")
    stated = row.get("reward_model")
    if not isinstance(stated, Mapping):
        raise TaskError("no reward_model with a ground_truth")
    answer = stated.get("ground_truth")
    if isinstance(answer, str) and answer.startswith('["'):
        try:
            several = json.loads(answer)
        except ValueError:
            several = [answer]
        if len(several) != 1:
            raise TaskError("several answers, of which any one is right")
        answer = several[0]
    problem = said_by_the_user(row.get("prompt")).removeprefix(DAPO_BEFORE).removesuffix(DAPO_AFTER).strip()
    return task_from("dapo_math", "math", problem, {"answer": answer_of(answer)}, row, "data_source")


def _deepmath(row: Row) -> Task:
    hidden = {"answer": answer_of(row["final_answer"])}
    return task_from("deepmath", "math", text_at(row, "question"), hidden, row, "difficulty", "topic")


def _numina_math(row: Row) -> Task:
    for key in ("problem_is_valid", "solution_is_valid"):
        if row.get(key) not in (None, "Yes", True):
            raise TaskError(f"{key} is {row[key]!r}")
    if row.get("question_type") == "proof":
        raise TaskError("its question_type is 'proof': nothing to compare with")
    hidden = {"answer": answer_of(row.get("answer"))}
    return task_from(
        "numina_math", "math", text_at(row, "problem"), hidden, row, "problem_type", "question_type", "source"
    )


def _gsm8k(row: Row) -> Task:
    _, mark, answer = text_at(row, "answer").rpartition("####")
    if not mark:
        raise TaskError("its answer has no ####")
    return task_from("gsm8k", "math", text_at(row, "question"), {"answer": answer_of(answer)}, row)


def _math(row: Row) -> Task:
    answer = last_box(text_at(row, "solution"))
    if answer is None:
        raise TaskError("its solution has no box")
    subject = {**row, "subject": row.get("type", row.get("subject"))}
    return task_from(
        "math", "math", text_at(row, "problem"), {"answer": answer_of(answer)}, subject, "level", "subject"
    )


def _problem_answer(row: Row) -> Task:
    hidden = {"answer": answer_of(row["answer"])}
    return task_from("problem_answer", "math", text_at(row, "problem"), hidden, row, "level", "subject", "source")


def _is_gsm8k(row: Row) -> bool:
    return has("question", "answer")(row) and "####" in str(row["answer"])


MATH_FORMATS = (
    RowFormat(name="dapo_math", tells=has("prompt", "reward_model"), task_of=_dapo_math),
    RowFormat(name="deepmath", tells=has("question", "final_answer"), task_of=_deepmath),
    RowFormat(name="numina_math", tells=has("problem", "answer", "question_type"), task_of=_numina_math),
    RowFormat(name="gsm8k", tells=_is_gsm8k, task_of=_gsm8k),
    RowFormat(name="problem_answer", tells=has("problem", "answer"), task_of=_problem_answer),
    RowFormat(name="math", tells=has("problem", "solution", "level"), task_of=_math),
)
"""The first that tells a row's keys is its format."""
