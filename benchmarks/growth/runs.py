"""Finished rows in every command that opens a run."""

import asyncio
import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path

from verigym.__main__ import main
from verigym.agent.trajectory import Trajectory
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.evals.passes import look_at_passes
from verigym.evals.report import compare_with
from verigym.evals.store import VerdictStore
from verigym.evals.verdict import Verdict
from verigym.model.chat.messages import Message
from verigym.trainer.loops.metrics import read_metrics

from .harness import Subject, Work


def _write(path: Path, rows: Iterable[object]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _run(*words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(list(words))
    if code:
        raise SystemExit(f"verigym {' '.join(words)} ended with {code}")


def _graded(size: int, folder: Path) -> tuple[str, ...]:
    """A run of ``grade`` whose rows are all there; the command that opens it again."""
    problems = [
        {"unique_id": f"a/{n}", "problem": "1+1?", "answer": "2", "subject": f"s{n % 7}", "level": n % 5}
        for n in range(size)
    ]
    _write(folder / "data", problems)
    _write(folder / "given", [{"task_id": f"a/{n}", "prediction": "\\boxed{2}"} for n in range(size)])
    command = ("grade", "math500", "--data", str(folder / "data"), "--predictions", str(folder / "given"))
    command += ("--out", str(folder / "out"), "--workers", "1")
    _verdicts(folder / "out", size)
    # What settings the command would write.
    from verigym.evals import grade_cli

    parsed: list[object] = []
    before, grade_cli._grade = (
        grade_cli._grade,
        lambda args, suite, jobs, settings, lock, timeout: parsed.append(settings) or [],
    )
    with contextlib.suppress(Exception):
        _run(*command)
    grade_cli._grade = before
    (folder / "out" / "settings.json").write_text(json.dumps(parsed[0]), encoding="utf-8")
    return command


def _verdict(number: int) -> Verdict:
    labels = {"subject": f"s{number % 7}", "level": str(number % 5)}
    return Verdict(
        task_id=f"a/{number}", index=0, passed=number % 3 > 0, score=float(number % 3 > 0), ending="answered",
        family="math", labels=labels, detail="", num_tokens=100,
    )  # fmt: skip


def _verdicts(folder: Path, size: int) -> None:
    folder.mkdir()
    _write(folder / "verdicts.jsonl", [_verdict(number).to_json() for number in range(size)])


def graded(size: int, folder: Path) -> Work:
    """``verigym grade`` of a run that is done: read, compared, reported."""
    command = _graded(size, folder)
    return lambda: _run(*command)


def resumed(size: int, folder: Path) -> Work:
    """An evaluation's folder with predictions and trajectories opened, one row added, and finished."""
    _verdicts(folder / "out", size)
    (folder / "out" / "settings.json").write_text("{}", encoding="utf-8")
    _write(
        folder / "out" / "preds.jsonl",
        [{"task_id": f"a/{n}", "prediction": "x" * 200, "index": 0} for n in range(size)],
    )
    rows = [{"index": 0, **_episode(n).to_json()} for n in range(size)]
    _write(folder / "out" / "trajectories.jsonl", rows)

    async def work() -> None:
        with VerdictStore(folder / "out", {}, save_trajectories=True) as store:
            store.refuse_others({(f"a/{n}", 0) for n in range(size + 1)})
            await store.put(_verdict(size), _episode(size), {"task_id": f"a/{size}", "prediction": "x"})
            store.finish([(f"a/{n}", 0) for n in range(size + 1)])

    return lambda: asyncio.run(work())


def _episode(number: int) -> Trajectory:
    messages = tuple(Message(role=role, content="word " * 40) for role in ("user", "assistant") * 2)
    return Trajectory(
        task_id=f"a/{number}", family="math", ending="answered", messages=messages, reward=1.0, passed=True
    )


def viewed(size: int, folder: Path) -> Work:
    """``verigym view`` of all episodes."""
    _write(folder / "trajectories.jsonl", [_episode(n).to_json() for n in range(size)])
    return lambda: _run("view", str(folder), "--html", str(folder / "view.html"))


def looked_at(size: int, folder: Path) -> Work:
    """The passes of a run of software tasks looked at again, conversations and patches."""
    task = example_tasks()[0]
    verdict = {"task_id": task.id, "passed": True, "score": 1.0, "ending": "submitted"}
    _write(folder / "verdicts.jsonl", [{**verdict, "index": n} for n in range(size)])
    _write(folder / "preds.jsonl", [{"instance_id": task.id, "model_patch": "", "index": n} for n in range(size)])
    _write(
        folder / "trajectories.jsonl", [{**_episode(n).to_json(), "task_id": task.id, "index": n} for n in range(size)]
    )
    return lambda: look_at_passes(folder, [task]) and None


def foraged(size: int, folder: Path) -> Work:
    """A file of ``forage`` whose episodes are all there, opened again."""
    from verigym.agent.forage import Foraged, Forager, _digest
    from verigym.agent.identity import identity_of
    from verigym.agent.loop import Budget
    from verigym.envs.math.env import BUILT_IN, MathEnv
    from verigym.model.chat.sampling import Sampling

    task, out = BUILT_IN[0], folder / "episodes.jsonl"
    forager = Forager(env_id="a", make_env=MathEnv, policy_for=None, budget=Budget(), sampling=Sampling())  # type: ignore[arg-type]
    rows = (Foraged(env="a", kind="math", trajectory=_episode(n), identity=identity_of(task)) for n in range(size))
    with out.open("w") as file, (folder / "episodes.jsonl.done").open("w") as done:
        for number, row in enumerate(rows):
            file.write(json.dumps(row.to_json()) + "\n")
            entry = {"task_id": task.id, "sample": number, "task": _digest(task), "row": row.id}
            done.write(json.dumps({**entry, "settings": forager.settings}) + "\n")

    return lambda: asyncio.run(forager.run([task], out, samples=size)) and None


def listed(size: int, folder: Path) -> Work:
    """``verigym runs`` of a folder with one training run of ``size`` steps and an evaluation of as many verdicts."""
    metrics(size, _made(folder / "training"))
    (folder / "training" / "recipe.json").write_text(json.dumps({"name": "a", "stages": ["rl"]}))
    _verdicts(folder / "evaluation", size)
    (folder / "evaluation" / "settings.json").write_text(json.dumps({"suite": "math500"}))
    return lambda: _run("runs", str(folder))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def compared(size: int, folder: Path) -> Work:
    """Two finished runs against each other, task by task."""
    _verdicts(folder / "one", size)
    verdicts = [_verdict(number) for number in range(size)]
    return lambda: compare_with(verdicts, folder / "one") and None


def metrics(size: int, folder: Path) -> Work:
    """A training run's metrics, of which a row is a step."""
    row = {f"trainer/metric{n}/mean": 0.5 for n in range(40)}
    _write(folder / "metrics.jsonl", [{"step": n, **row} for n in range(size)])
    return lambda: read_metrics(folder / "metrics.jsonl") and None


_SIZES, _QUICK = (1_600, 5_000, 16_000, 50_000), (100, 400, 1_600, 6_400)
SUBJECTS = {
    "grade, opened again": Subject(make=graded, sizes=_SIZES, quick=_QUICK, unit="rows"),
    "eval, resumed with trajectories": Subject(make=resumed, sizes=_SIZES, quick=_QUICK, unit="rows"),
    "view": Subject(make=viewed, sizes=_SIZES, quick=_QUICK, unit="episodes"),
    "against": Subject(make=compared, sizes=_SIZES, quick=_QUICK, unit="rows"),
    "passes looked at": Subject(make=looked_at, sizes=_SIZES, quick=_QUICK, unit="episodes"),
    "forage, opened again": Subject(make=foraged, sizes=_SIZES, quick=_QUICK, unit="episodes"),
    "listed": Subject(make=listed, sizes=_SIZES, quick=_QUICK, unit="steps and verdicts"),
    "metrics": Subject(make=metrics, sizes=_SIZES, quick=_QUICK, unit="steps"),
}
