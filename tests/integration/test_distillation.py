"""``verigym train`` with a teacher: on-policy distillation from another run's checkpoint."""

import json
import math

import pytest

from verigym.__main__ import main

from .small_recipe import CODE, metrics
from .test_serve import serving

SETTINGS = 'name = "taught"\n' + CODE + "\n[eval]\nsamples = 1\ncontrols = []\n"
LONG = "[sft.train]\nmax_steps = 12\npatience = 0\nbatch_tokens = 1024\nmicrobatch_tokens = 512\n"
SHORT = LONG.replace("max_steps = 12", "max_steps = 1")
TAUGHT = """
[rl]
steps = {steps}
asynchronous = {{ max_lag = 1 }}

[rl.train]
algorithm = "opd"
teacher = "{teacher}"
num_tasks = 2
group_size = 2
microbatch_tokens = 512
"""


def train(path, recipe, *more):
    path.parent.mkdir(exist_ok=True)
    path.write_text(recipe)
    return main(["train", str(path), "--out", str(path.parent / "run"), *more])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The checkpoint of a run."""
    folder = tmp_path_factory.mktemp("teacher")
    assert train(folder / "recipe.toml", "rl = false\n" + SETTINGS + LONG) == 0
    return folder / "run" / "sft" / "checkpoint"


def test_a_checkpoint_teaches_another_run_that_samples_ahead(teacher, tmp_path):
    student = tmp_path / "student" / "recipe.toml"
    assert train(student, SETTINGS + SHORT + TAUGHT.format(steps=3, teacher=teacher)) == 0
    rows = metrics(student.parent / "run", "rl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(row["trainer/teacher_kl/mean"]) for row in rows)
    assert all(row["trainer/updates/count"] == 1 for row in rows)
    report = json.loads((student.parent / "run" / "report.json").read_text())
    assert set(report["families"]["code"]) >= {"sft", "rl"}


FIRST = """
[distill]
steps = 2

[distill.train]
algorithm = "opd"
teacher = "{teacher}"
num_tasks = 2
group_size = 2
microbatch_tokens = 512

[rl]
steps = 2

[rl.train]
num_tasks = 2
group_size = 3
microbatch_tokens = 512
"""


def test_a_teacher_comes_before_rewards_or_in_their_place(teacher, tmp_path, capsys):
    student = tmp_path / "student" / "recipe.toml"
    assert train(student, SETTINGS + SHORT + FIRST.format(teacher=teacher)) == 0
    run = student.parent / "run"
    before, after = metrics(run, "distill"), metrics(run, "rl")
    assert [row["step"] for row in before] == [row["step"] for row in after] == [1, 2]
    assert all(math.isfinite(row["trainer/teacher_kl/mean"]) for row in before)
    assert not any("trainer/teacher_kl/mean" in row for row in after)
    assert [row["rollout/episodes/count"] for row in (*before, *after)] == [4, 4, 6, 6]
    report = json.loads((run / "report.json").read_text())
    assert list(report["stages"]) == ["sft", "distill", "rl"]
    assert {"distill-sft", "rl-distill", "rl-sft"} <= report["paired"]["code"].keys()
    # What is done is found done, and rewards go on from what the teacher made of the weights.
    (run / "rl" / "stage.json").unlink()
    told = (run / "distill" / "metrics.jsonl").read_text()
    assert train(student, student.read_text(), "--resume") == 0
    assert (run / "distill" / "metrics.jsonl").read_text() == told
    # Or in their place.
    first = FIRST.format(teacher=teacher)
    alone = tmp_path / "alone" / "recipe.toml"
    assert train(alone, "rl = false\n" + SETTINGS + SHORT + first[: first.index("[rl]")]) == 0
    assert list(json.loads((alone.parent / "run" / "report.json").read_text())["stages"]) == ["sft", "distill"]
    assert "distilled" in capsys.readouterr().out


SHOWN = """
[rl]
steps = 3

[rl.train]
algorithm = "{algorithm}"
num_tasks = 2
group_size = 2
microbatch_tokens = 1024
reward_weight = 0.5
{more}
"""


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [
        ("sdpo", 'hindsight = {{ parts = ["verdict", "sibling"] }}'),
        ("sdft", 'teacher = "slow"\n[teachers.slow]\npolicy = "ema"\ndecay = 0.9'),
        ("opsd", 'divergence = {{ kind = "reverse", support = 20 }}'),
    ],
)
def test_a_policy_teaches_itself_in_hindsight(tmp_path, algorithm, more):
    recipe = SETTINGS + SHORT + SHOWN.format(algorithm=algorithm, more=more.replace("{{", "{").replace("}}", "}"))
    path = tmp_path / "itself" / "recipe.toml"
    assert train(path, recipe.replace("steps = 3", "steps = 2")) == 0
    rows = metrics(path.parent / "run", "rl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["trainer/taught/share"] == 1.0 for row in rows)
    assert all(row["trainer/hint_tokens/mean"] > 5 for row in rows)
    assert all(row["trainer/divergence/mean"] > 0 for row in rows)
    # At the first step the teacher acts itself; what it was shown then is in no file.
    assert ["trainer/teacher_passed/rate" in row for row in rows] == [True, False]
    assert rows[0]["trainer/teacher_plays_tokens/count"] > 0
    assert rows[0]["rollout/episodes/count"] == 4
    files = [file.read_bytes() for file in (path.parent / "run").rglob("*") if file.is_file()]
    assert not any(b"Now solve the task." in one for one in files)


def test_a_teacher_that_is_not_there_or_speaks_otherwise_is_told_at_the_start(tmp_path, capsys):
    recipe = SETTINGS + SHORT + TAUGHT.format(steps=1, teacher=tmp_path / "nowhere")
    assert train(tmp_path / "a" / "recipe.toml", recipe) == 2
    assert "which is to be the teacher" in capsys.readouterr().err
    other = SETTINGS.replace("vocab_size = 320", "vocab_size = 310")
    assert train(tmp_path / "other" / "recipe.toml", "rl = false\n" + other + SHORT) == 0
    teacher = tmp_path / "other" / "run" / "sft" / "checkpoint"
    assert train(tmp_path / "b" / "recipe.toml", SETTINGS + SHORT + TAUGHT.format(steps=1, teacher=teacher)) == 2
    assert "has another tokenizer than the student" in " ".join(capsys.readouterr().err.split())


SERVED = """
[teachers.far]
policy = "tokens:{teacher}@{url}#{name}"
"""


@pytest.mark.slow
@pytest.mark.parametrize("divergence", [{}, {"kind": "reverse", "support": 8, "support_of": "teacher"}])
def test_a_server_teaches_a_run(teacher, tmp_path, capsys, divergence):
    """The checkpoint of another run, served; beside the same checkpoint opened by the run."""
    taught = TAUGHT.replace("asynchronous = {{ max_lag = 1 }}", "")
    more = [f"--set=rl.train.divergence.{name}={value}" for name, value in divergence.items()]
    near = SETTINGS + SHORT + taught.format(steps=2, teacher=teacher)
    assert train(tmp_path / "near" / "recipe.toml", near, *more) == 0

    with serving(teacher) as (url, _):
        told = SERVED.format(teacher=teacher, url=url.removesuffix("/v1"), name=teacher.name)
        far = SETTINGS + SHORT + taught.format(steps=2, teacher="far") + told
        assert train(tmp_path / "far" / "recipe.toml", far, *more) == 0, capsys.readouterr().err
    near, far = (metrics(tmp_path / name / "run", "rl") for name in ("near", "far"))
    compared = "trainer/divergence/mean" if divergence else "trainer/teacher_kl/mean"
    for one, other in zip(near, far, strict=True):
        assert other["trainer/teacher_failures/count"] == 0
        for name in (compared, "trainer/loss/mean", "trainer/grad_norm/mean"):
            assert other[name] == pytest.approx(one[name], abs=1e-4)


def test_a_server_that_is_not_there_is_told_before_tasks_are_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("verigym.agent.endpoint.ATTEMPTS", 1)
    told = SERVED.format(teacher=tmp_path, url="http://127.0.0.1:9", name="x")
    assert train(tmp_path / "a" / "recipe.toml", SETTINGS + SHORT + TAUGHT.format(steps=1, teacher="far") + told) != 0
    assert "http://127.0.0.1:9" in capsys.readouterr().err
    assert not list((tmp_path / "a" / "run").glob("tasks/*"))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('divergence = { kind = "reverse" }', "set divergence.support (such as 20) and support_of = 'teacher'"),
        ('divergence = { kind = "reverse", support = 8 }', "set divergence.support (such as 20) and support_of"),
        ("temperature = 0.8", "scores at temperature 1, and that of rl is 0.8"),
    ],
)
def test_what_a_server_cannot_say_is_refused(tmp_path, capsys, more, why):
    told = SERVED.format(teacher=tmp_path, url="http://127.0.0.1:9", name="x")
    recipe = SETTINGS + SHORT + TAUGHT.format(steps=1, teacher="far") + more + "\n" + told
    assert train(tmp_path / "a" / "recipe.toml", recipe) == 2
    assert why in " ".join(capsys.readouterr().err.split())
