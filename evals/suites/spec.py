"""What a suite is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ...agent.loop import Budget
from ...envs.datasets.files import SourceRow
from ...envs.task import Task
from ...model.chat.sampling import Sampling
from ...rewards.score import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What may narrow or help the reading of a benchmark's rows.

    Attributes:
        folder: of the file the rows are from; None where they are from the hub.
        release: of a benchmark that has several, such as "release_v5".
        since, until: first and last day, ISO dates, of a benchmark whose problems have one.
    """

    folder: Path | None = None
    release: str | None = None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One row of a file of predictions.

    Attributes:
        where: for messages, such as "predictions.jsonl, line 3".
        task_id: of the task it is for, as text.
        given_id: as the row writes it; verdicts repeat it.
        text: the response, program or patch; "" where the row has null.
        fields: the whole row.
    """

    where: str
    task_id: str
    given_id: Any
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def is_cut_off(prediction: Prediction) -> bool:
    """Whether ``verigym eval`` wrote the text of a turn that met its limit of tokens."""
    return prediction.fields.get("ending") == "token_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeOptions:
    """How predictions are graded.

    Attributes:
        sandbox: where programs run: "auto", "docker", "local", "unsafe".
        workers: most predictions at once.
        lenient: accept an answer that is not stated in the form asked for, where a reader would take it.
        test_timeout_s: wall-clock seconds of one run of a task's hidden tests; None: the suite has no such limit.
        strict_logs: of a stored log only what stands between its markers counts.
        untrusted: what a patch is worth whose tests all pass while some that decide have no twin ("fail": 0,
            "accept": 1, "drop": no verdict).
        out: folder of the run, which exists; None: nothing is written.
    """

    sandbox: str = "auto"
    workers: int = 2
    lenient: bool = True
    strict_logs: bool = False
    test_timeout_s: float | None = None
    untrusted: Literal["fail", "accept", "drop"] = "fail"
    out: Path | None = None


class Grader(Protocol):
    """Grades predictions of one suite, any number at once on one event loop."""

    async def grade(self, task: Task, prediction: Prediction) -> Score:
        """The score of one prediction.

        Raises:
            TaskError: the task has nothing to grade by: the verdict is null, "ungradable".
            SandboxError, GradingError: the infrastructure failed; it is tried again.
        """
        ...

    async def aclose(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Published settings of an evaluation.

    Attributes:
        sampling: of every turn.
        budget: of every episode.
        samples: episodes of each task.
        sources: setting -> where it is published; what is not published says so.
    """

    sampling: Sampling
    budget: Budget
    samples: int = 1
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """Where the hub has the benchmark.

    Attributes:
        dataset, config, split, revision: as ``datasets.load_dataset`` takes them.
        data_files: names of files in the dataset's repository, for those that come with a loading script;
            a function of the options where a release decides.
        file_format: of those files, such as "json".
    """

    dataset: str
    split: str
    config: str | None = None
    revision: str | None = None
    data_files: Callable[[LoadOptions], Sequence[str]] | None = None
    file_format: str = "json"


def _own_id(prediction: Prediction) -> str:
    return prediction.task_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A benchmark. A module of this folder that has ``SUITES = (Suite(...), ...)`` is found by itself.

    Attributes:
        name: the word of the command line.
        about: one line: what a row of its file is.
        env_ids: family -> environment id, for ``verigym eval``.
        tasks_of: rows -> tasks, in the rows' order. A row without what grading needs gives a task all the same (its
            grader raises TaskError); a row that is none of this benchmark's raises TaskError.
        make_grader: the grader; None where predictions cannot be graded.
        resolve: the id of the task that a prediction is for.
        read_logs: predictions of an index of stored logs (``--logs``); None where the suite has none.
        write_report: (folder of the run, ids of all tasks, ids without a verdict) -> the file of the benchmark's own
            report, written at the end of ``verigym grade``; None where it has none.
        env_kwargs: arguments the environments are made with.
        hub: where the hub has it; None where only --data does.
        preset: published settings; None where there are none.
        read: the rows of what --data names, where that is no file of rows.
        bring: what --data would name, brought from where it is published, for a suite that is not on the hub.
        takes: which of "release", "since", "until" it understands.
        test_timeout_s: wall-clock seconds of one run of a task's hidden tests, for suites of repositories; None for
            others, which have no such limit.
    """

    name: str
    about: str
    env_ids: Mapping[str, str]
    tasks_of: Callable[[Sequence[SourceRow], LoadOptions], list[Task]]
    make_grader: Callable[[GradeOptions], Grader] | None = None
    resolve: Callable[[Prediction], str] = _own_id
    read_logs: Callable[[Path], list[Prediction]] | None = None
    write_report: Callable[[Path, Sequence[str], Sequence[str]], Path] | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    hub: HubSource | None = None
    preset: Preset | None = None
    read: Callable[[Path], Sequence[SourceRow]] | None = None
    bring: Callable[[], Path] | None = None
    takes: frozenset[str] = frozenset()
    test_timeout_s: float | None = None
