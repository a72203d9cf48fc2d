"""Software engineering: SWE-bench and any file of such rows. Patches are graded, or stored logs."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...agent.loop import Budget
from ...envs.datasets.files import read_rows
from ...envs.runs.files import write_json
from ...envs.sandbox.background import on_thread
from ...envs.task import Task
from ...errors import SandboxError, TaskError
from ...model.chat.sampling import Sampling
from ...rewards.score import Score
from .cwm import CONTEXT, MAX_TOKENS, RELEASE
from .spec import GradeOptions, Grader, HubSource, Prediction, Preset, Suite
from .task_rows import tasks_of_rows

if TYPE_CHECKING:
    from ...envs.swe.judging import LogJudge

LOG_NAME = "test_output.txt"
SWE_ENV = "verigym/SWE-v0"
TEST_TIMEOUT_S = 1_800.0
"""Source: SWE-bench, ``harness/run_evaluation.py``, --timeout."""


def read_logs(index: Path) -> list[Prediction]:
    """Predictions that are logs: rows ``{"instance_id", "dir"}``, ``dir`` relative to the index.

    Raises:
        TaskError: the index is missing, empty or broken, or a row lacks a key.
    """
    predictions = []
    for row in read_rows(index):
        instance_id, folder = row.value.get("instance_id"), row.value.get("dir")
        if not isinstance(instance_id, str) or not isinstance(folder, str):
            raise TaskError(
                f'{row.where}: an index of logs has rows {{"instance_id", "dir"}}; this has {set(row.value)}'
            )
        fields = {**row.value, "log": str(index.parent / folder / LOG_NAME)}
        predictions.append(
            Prediction(where=row.where, task_id=instance_id, given_id=instance_id, text="", fields=fields)
        )
    if not predictions:
        raise TaskError(f'{index} has no row; a row is {{"instance_id", "dir"}}')
    return predictions


@dataclass(slots=True)
class SweGrader:
    """Grades patches in fresh sandboxes, and logs as they are. Evidence goes to ``reports.jsonl`` as it comes."""

    options: GradeOptions
    _backends: dict[str, Any] = field(default_factory=dict)
    _judge: "LogJudge | None" = None

    async def grade(self, task: Task, prediction: Prediction) -> Score:
        if "log" in prediction.fields:
            score, tests, applied = await self._grade_log(task, Path(prediction.fields["log"]))
        else:
            score, tests, applied = await self._grade_patch(task, prediction.text)
        self._record(task, prediction, score, tests, applied)
        return score

    async def aclose(self) -> None:
        """Sandboxes end with each grading; the processes that judge logs end here."""
        if self._judge is not None:
            self._judge.close()

    async def _grade_log(self, task: Task, path: Path) -> tuple[Score, Mapping[str, Any], bool]:
        from ...envs.datasets.swe import row_of
        from ...envs.swe.judging import LogJudge

        row = row_of(task)
        text = await on_thread(_read_log, path)
        if self._judge is None:
            self._judge = LogJudge(num_workers=min(self.options.workers, os.cpu_count() or 1))
        try:
            verdict = await self._judge.judge(
                text,
                parser=row.parser,
                fail_to_pass=row.FAIL_TO_PASS,
                pass_to_pass=row.PASS_TO_PASS,
                eval_type=row.eval_type,
                stored=True,
                strict=self.options.strict_logs,
            )
        except ValueError as error:
            raise TaskError(f"{task.id}: {error}") from None
        return verdict.score, verdict.tests, bool(verdict.report.statuses)

    async def _grade_patch(self, task: Task, patch: str) -> tuple[Score, Mapping[str, Any], bool]:
        from ...envs.datasets.swe import row_of
        from ...envs.swe.checkout import backend_for
        from ...envs.swe.grading import grade_patch
        from ...rewards.swe import tests_status

        row = row_of(task)
        key = "image" if row.image else "archive"
        if key not in self._backends:
            self._backends[key] = backend_for(row, self.options.sandbox)
        timeout_s = self.options.test_timeout_s or TEST_TIMEOUT_S
        score, report = await grade_patch(
            self._backends[key], task, patch, timeout_s=timeout_s, untrusted=self.options.untrusted
        )
        tests = tests_status(report, row.FAIL_TO_PASS, row.PASS_TO_PASS)
        return score, tests, not score.detail.startswith("the patch does not apply")

    def _record(
        self, task: Task, prediction: Prediction, score: Score, tests: Mapping[str, Any], applied: bool
    ) -> None:
        if self.options.out is None:
            return
        report = {
            "patch_is_None": "model_patch" in prediction.fields and prediction.fields["model_patch"] is None,
            "patch_exists": "log" in prediction.fields or bool(prediction.text.strip()),
            "patch_successfully_applied": applied,
            "resolved": score.passed,
            "tests_status": tests,
        }
        line = {
            "where": prediction.where,
            "instance_id": task.id,
            "model_name_or_path": prediction.fields.get("model_name_or_path", ""),
            **report,
        }
        with (self.options.out / "reports.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
            out.flush()
            os.fsync(out.fileno())


def _read_log(path: Path) -> str:
    if not path.exists():
        raise TaskError(f"{path}: no such log; an index names folders, relative to itself, that hold {LOG_NAME}")
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SandboxError(f"{path} cannot be read: {error}") from None


def swebench_report(
    reports: Sequence[Mapping[str, Any]], tasks: Sequence[str], errors: Sequence[str]
) -> dict[str, Any]:
    """A run's report in SWE-bench's own format (schema version 2); of several predictions of a task the last counts.

    Args:
        reports: rows of ``reports.jsonl``.
        tasks: ids of the whole data file.
        errors: ids whose prediction could not be graded.
    """
    by_id = {report["instance_id"]: report for report in reports}
    empty = {name for name, report in by_id.items() if not report["patch_exists"]}
    completed = set(by_id) - empty
    resolved = {name for name in completed if by_id[name]["resolved"]}
    failed = {name for name in errors if name not in by_id}
    submitted = set(by_id) | failed
    sets = {
        "completed": completed,
        "incomplete": set(tasks) - submitted,
        "empty_patch": empty,
        "submitted": submitted,
        "resolved": resolved,
        "unresolved": completed - resolved,
        "error": failed,
    }
    counts = {f"{name}_instances": len(ids) for name, ids in sets.items() if name != "incomplete"}
    ids = {f"{name}_ids": sorted(ids) for name, ids in sets.items()}
    return {"total_instances": len(tasks), **counts, **ids, "schema_version": 2}


def _whole(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of lines of which one may have been cut off; its prediction was graded again, and has another line."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def write_swebench_report(out: Path, tasks: Sequence[str], errors: Sequence[str]) -> Path:
    """Write ``swebench_report.json`` of a folder's ``reports.jsonl``."""
    path = out / "reports.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = {row["where"]: row for row in _whole(lines)}  # a prediction that was tried again counts once
    report = swebench_report(list(rows.values()), tasks, errors)
    target = out / "swebench_report.json"
    write_json(target, report, indent=4)
    return target


CWM_PRESET = Preset(
    sampling=Sampling(max_tokens=MAX_TOKENS, temperature=1.0, top_p=0.95),
    budget=Budget(turns=128, tokens=CONTEXT, seconds=2_400.0),
    sources={
        **dict.fromkeys(("max_turns", "max_tokens", "timeout"), f"{RELEASE}, swerl_tool.py, SWERLConfig"),
        **dict.fromkeys(("temperature", "top_p", "samples"), f"{RELEASE}, evals/configs/eval_sbv.yaml"),
    },
)


def _make(options: GradeOptions) -> Grader:
    return SweGrader(options)


def _suite(name: str, about: str, hub: HubSource | None = None) -> Suite:
    return Suite(
        name=name,
        about=about,
        env_ids={"swe": SWE_ENV},
        tasks_of=tasks_of_rows,
        make_grader=_make,
        read_logs=read_logs,
        write_report=write_swebench_report,
        hub=hub,
        preset=CWM_PRESET,
        test_timeout_s=TEST_TIMEOUT_S,
    )


SUITES = (
    _suite("swe", "rows of SWE-bench, SWE-Gym, SWE-smith, SWE-rebench or R2E-Gym, or task rows of the family swe"),
    _suite(
        "swebench_verified",
        "rows of SWE-bench Verified (instance_id, image, eval_script, log_parser, ...)",
        HubSource(dataset="SWE-bench/SWE-bench_Verified", split="test"),
    ),
    _suite(
        "swebench_lite",
        "rows of SWE-bench Lite (instance_id, image, eval_script, log_parser, ...)",
        HubSource(dataset="SWE-bench/SWE-bench_Lite", split="test"),
    ),
)
