"""``task.toml`` and the folder it lies in: what is read, what is refused, and which image a task has."""

import tomllib

import pytest

from verigym.envs.datasets.harbor import harbor_rows, image_of, packed
from verigym.envs.datasets.harbor_config import HarborConfig, read_config
from verigym.envs.datasets.training import load_training_set
from verigym.errors import TaskError
from verigym.evals.suites.loading import load_suite

TOML = """
version = "1.0"
unknown = 1
[metadata]
difficulty = "easy"
[verifier]
timeout_sec = 30
[agent]
timeout_sec = 60.0
[environment]
docker_image = "some/image:1"
cpus = 2
memory = "2G"
storage_mb = 512
"""


def write(folder, toml=TOML, *, steps=(), dockerfile=None):
    """A task's folder."""
    folder.mkdir(parents=True)
    (folder / "task.toml").write_text(toml)
    for part in [folder / "steps" / step for step in steps] or [folder]:
        (part / "tests").mkdir(parents=True)
        (part / "tests/test.sh").write_text("#!/bin/sh\necho 1 > /logs/verifier/reward.txt\n")
        (part / "instruction.md").write_text(f"Do it in {part.name}.\n")
    if dockerfile is not None:
        (folder / "environment").mkdir()
        (folder / "environment/Dockerfile").write_text(dockerfile)
    return folder


def parsed(text):
    return HarborConfig.model_validate(tomllib.loads(text))


def test_a_task_is_what_its_folder_says(tmp_path):
    write(tmp_path / "set/b")
    write(tmp_path / "set/deep/a")
    tasks = load_suite("harbor", data=tmp_path / "set").tasks
    assert [(task.id, task.family, task.prompt, task.image) for task in tasks] == [
        ("b", "harbor", "Do it in b.\n", "some/image:1"),
        ("deep/a", "harbor", "Do it in a.\n", "some/image:1"),
    ]
    assert tasks[0].metadata == {"difficulty": "easy"}
    config = read_config(tmp_path / "set/b")
    assert (config.environment.cpus, config.environment.memory_mb, config.environment.storage_mb) == (2, 2048, 512)
    assert (config.agent.timeout_sec, config.verifier.timeout_sec, config.verifier.is_separate) == (60.0, 30.0, False)


def test_training_reads_the_same_tasks(tmp_path):
    write(tmp_path / "set/b")
    found = load_training_set(f"harbor:{tmp_path / 'set'}")
    assert [task.to_json() for task in found.tasks] == [row.value for row in harbor_rows(tmp_path / "set")]


@pytest.mark.parametrize(
    ("text", "mode", "separate"),
    [
        ("[environment]\nallow_internet = false", "no-network", False),
        ("[environment]\nallow_internet = true", "public", False),
        ("[environment]\nnetwork_mode = 'allowlist'\nallowed_hosts = ['pypi.org']", "allowlist", False),
        ("[verifier]\nenvironment_mode = 'separate'", "public", True),
        ("[verifier.environment]\ndocker_image = 'a'", "public", True),
    ],
)
def test_older_and_newer_words_mean_the_same(text, mode, separate):
    config = parsed(text)
    assert (config.environment.network_mode, config.verifier.is_separate) == (mode, separate)


def test_artifacts_and_steps_are_read():
    config = parsed("artifacts = ['/app', {source = '/b'}]\n[[steps]]\nname = 'one'\nmin_reward = 0.5")
    assert [one.source for one in config.artifacts] == ["/app", "/b"]
    assert [(step.name, step.min_reward) for step in config.steps] == [("one", 0.5)]


def broken(folder, kind):
    if kind == "no tests":
        (write(folder) / "tests/test.sh").unlink()
    elif kind == "no instruction":
        (write(folder) / "instruction.md").unlink()
    elif kind == "no image":
        write(folder, "[environment]\n")
    elif kind == "services":
        write(folder, "[environment]\n")
        (folder / "environment").mkdir()
        (folder / "environment/docker-compose.yaml").write_text("services: {}\n")
    elif kind == "windows":
        write(folder, TOML + "os = 'Windows'\n")
    elif kind == "gpus":
        write(folder, TOML + "gpus = 2\n")
    elif kind == "no time":
        write(folder, TOML.replace("60.0", "-60.0"))
    elif kind == "a size":
        write(folder, TOML.replace("2G", "much"))
    elif kind == "no TOML":
        write(folder, "[environment\n")
    elif kind == "a step that leads out":
        write(folder, TOML + "[[steps]]\nname = '../x'\n")
    else:
        folder.mkdir(parents=True)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("no tests", "tests/test.sh; without tests there is no reward"),
        ("no instruction", "instruction.md; nobody would know"),
        ("no image", "neither environment/Dockerfile nor"),
        ("services", "a sandbox is one container"),
        ("windows", "sandboxes run Linux"),
        ("gpus", "2 GPUs"),
        ("no time", "task.toml: agent.timeout_sec: .*greater than 0"),
        ("a size", "task.toml: environment: .*'much' is no size"),
        ("no TOML", "task.toml: "),
        ("a step that leads out", "no name of a folder"),
        ("nothing", "no task.toml"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_folder(tmp_path, kind, told):
    broken(tmp_path / "it", kind)
    with pytest.raises(TaskError, match=f"(?s){tmp_path / 'it'}.*{told}"):
        harbor_rows(tmp_path / "it")


def test_a_file_that_git_lfs_did_not_bring_is_said(tmp_path):
    folder = write(tmp_path / "it")
    (folder / "tests/data.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(TaskError, match=r"tests/data.bin stands for a file .* `git lfs pull`"):
        harbor_rows(folder)


def test_no_folder_is_said(tmp_path):
    with pytest.raises(TaskError, match="is no folder"):
        harbor_rows(tmp_path / "none")


def test_an_image_is_named_by_what_it_is_made_of(tmp_path):
    one, other = (write(tmp_path / name, "", dockerfile="FROM a\n") for name in ("one", "other"))
    assert image_of(one, read_config(one)) == image_of(other, read_config(other))
    (other / "environment/data").write_text("x")
    assert image_of(one, read_config(one)) != image_of(other, read_config(other))


def test_links_that_lead_out_of_a_folder_are_not_packed(tmp_path):
    import io
    import tarfile

    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test.sh").write_text("x")
    (folder / "inside").symlink_to("test.sh")
    (folder / "outside").symlink_to("/etc/passwd")
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as tar:
        assert sorted(tar.getnames()) == ["inside", "test.sh"]
