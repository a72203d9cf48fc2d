"""The command line: what it says, how it fails, and how it is interrupted."""

import json
import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from verigym.__main__ import COMMANDS, build_parser, main

PLUGIN = '''
import asyncio, pathlib
import gymnasium
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.rewards.score import verdict

class Shout(ToolEnv):
    """Wants the prompt in capitals."""
    family = "shout"

    def load(self):
        return [Task(id=f"w{i}", family="shout", prompt=f"word {i}") for i in range(5)]

    async def start(self, task):
        with open("started.txt", "a") as out:
            out.write(task.id + "\\n")
        if task.id in ("w3", "w4"):
            while pathlib.Path("wait").exists():
                await asyncio.sleep(0.01)

    def score(self, task, submission):
        return verdict(submission == task.prompt.upper(), f"said {submission!r}")

    def gold(self, task):
        return [Message(role="assistant", content=task.prompt.upper())]

gymnasium.register(id="test/Shout-v0", entry_point=Shout, disable_env_checker=True, order_enforce=False)
'''
SHOUT = "shout_plugin:test/Shout-v0"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plug-in environment in the working folder, to be found by its module's name."""
    (tmp_path / "shout_plugin.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    yield tmp_path
    sys.modules.pop("shout_plugin", None)
    import gymnasium

    gymnasium.registry.pop("test/Shout-v0", None)


def command(*argv):
    return [sys.executable, "-m", "verigym", *argv]


def failing(capsys, *argv):
    """What one failing command says on stderr, made sure to be a single line."""
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.err.startswith("verigym: error: ")
    assert told.err.count("\n") == 1
    return told.err


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_help_imports_nothing_heavy():
    script = (
        "import sys, verigym.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'gymnasium', 'pydantic', 'transformers', 'rich', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"    {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_registered_by_its_room(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: verigym {name}" in capsys.readouterr().out
    assert " ".join(COMMANDS[name].help.split()) in " ".join(build_parser(name).format_help().split())


def test_no_command_and_an_unknown_one_are_usage_errors(capsys):
    for argv in ([], ["fly"]):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2
    assert "invalid choice: 'fly'" in capsys.readouterr().err


def test_eval_of_a_plug_in_by_its_id_alone(plugin, capsys):
    assert main(["eval", SHOUT, "--policy", "gold", "--samples", "2", "--out", "run"]) == 0
    assert "shout" in capsys.readouterr().out
    report = json.loads((plugin / "run" / "report.json").read_text())
    assert report["suite"] == SHOUT
    assert (report["pass@1"], report["n"], report["num_tasks"], report["num_predictions"]) == (1.0, 5, 5, 10)
    assert (report["num_ungradable"], report["num_infrastructure_failures"]) == (0, 0)
    assert report["interval"][0] <= 1.0 <= report["interval"][1]
    assert report["seconds"] >= 0
    rows = rows_of(plugin / "run" / "verdicts.jsonl")
    assert [(row["task_id"], row["index"]) for row in rows[:3]] == [("w0", 0), ("w0", 1), ("w1", 0)]
    assert main(["eval", SHOUT, "--policy", "empty"]) == 0
    assert "0.000" in capsys.readouterr().out


def test_eval_takes_tasks_from_a_file_and_a_limit(plugin):
    rows = [{"id": f"x{i}", "family": "shout", "prompt": "a"} for i in range(3)]
    (plugin / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["eval", SHOUT, "--data", "tasks.jsonl", "--limit", "2", "--out", "run"]) == 0
    assert [row["task_id"] for row in rows_of(plugin / "run" / "verdicts.jsonl")] == ["x0", "x1"]
    assert main(["eval", SHOUT, "--data", "tasks.jsonl", "--out", "run"]) == 0
    assert (plugin / "started.txt").read_text().split() == ["x0", "x1", "x2"]


@pytest.fixture
def checkpoint(tmp_path):
    """A model of a few thousand weights that has learnt nothing."""
    from verigym.model.checkpoint import save_checkpoint
    from verigym.model.config import preset
    from verigym.model.decoder import Decoder
    from verigym.model.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["word one, word two\n" * 20], 300)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    config = preset("cwm-tiny", vocab_size=tokenizer.vocab_size, max_position_embeddings=256, **small)
    save_checkpoint(tmp_path / "model", Decoder(config, seed=0), tokenizer)
    return tmp_path / "model"


def test_eval_and_rollout_of_an_engine(plugin, checkpoint, capsys):
    (checkpoint / "verigym.json").write_text('{"renderer": {"announce_tools": false}}')
    options = ["--policy", f"engine:{checkpoint}", "--max-tokens", "6"]
    assert main(["eval", SHOUT, *options, "--samples", "2", "--out", "run", "--save-trajectories"]) == 0
    verdicts = rows_of(plugin / "run" / "verdicts.jsonl")
    assert len(verdicts) == 10
    assert all(row["passed"] is False and row["num_tokens"] > 0 for row in verdicts)
    first = rows_of(plugin / "run" / "trajectories.jsonl")[0]["segments"][0]
    assert len(first["token_ids"]) == len(first["logprobs"]) <= 256
    main(["eval", SHOUT, *options, "--samples", "2", "--out", "again", "--workers", "1"])
    told = [(row["task_id"], row["index"], row["detail"]) for row in verdicts]
    again = rows_of(plugin / "again" / "verdicts.jsonl")
    assert [(row["task_id"], row["index"], row["detail"]) for row in again] == told
    capsys.readouterr()
    assert main(["rollout", SHOUT, *options]) == 0
    assert "sampled tokens: " in capsys.readouterr().out


def test_a_folder_is_not_resumed_with_another_checkpoint_of_the_same_name(plugin, checkpoint, capsys):
    argv = ["eval", SHOUT, "--policy", f"engine:{checkpoint}", "--max-tokens", "2", "--limit", "1", "--out", "run"]
    assert main(argv) == 0
    (checkpoint / "verigym.json").write_text('{"renderer": {"announce_tools": false}}')
    assert "holds another run (policy_identity was" in failing(capsys, *argv)


def test_an_engine_meets_the_environment_it_was_trained_in(plugin, checkpoint, capsys):
    needed = {"environments": {SHOUT: {"max_turns": 1}}}
    (checkpoint / "verigym.json").write_text(json.dumps(needed))
    import gymnasium

    made = []
    main(["rollout", SHOUT])  # imports the plug-in
    spec = gymnasium.registry["test/Shout-v0"]
    shout = spec.entry_point

    class Recorded(shout):
        def __init__(self, **kwargs):
            made.append(kwargs)
            super().__init__(**kwargs)

    spec.entry_point = Recorded
    options = ["--policy", f"engine:{checkpoint}", "--max-tokens", "2"]
    assert main(["eval", SHOUT, *options, "--limit", "1"]) == 0
    assert main(["rollout", SHOUT, *options]) == 0
    assert [kwargs.get("max_turns") for kwargs in made] == [None, 1, None, 1]
    needed["environments"][SHOUT] = {"loudness": 3}
    spec.entry_point = shout
    (checkpoint / "verigym.json").write_text(json.dumps(needed))
    assert "unexpected keyword argument 'loudness'" in failing(capsys, "rollout", SHOUT, *options)


def test_checkpoints_that_cannot_be_used_are_told(plugin, checkpoint, capsys):
    assert "there is no checkpoint at nowhere" in failing(capsys, "eval", SHOUT, "--policy", "engine:nowhere")
    assert "a policy is engine:CHECKPOINT" in failing(capsys, "eval", SHOUT, "--policy", "engine:")
    for content, told in (
        ("{", "verigym.json cannot be used"),
        ('{"renderer": {"tools": true}}', "renderer.tools: Extra"),
    ):
        (checkpoint / "verigym.json").write_text(content)
        assert told in failing(capsys, "eval", SHOUT, "--policy", f"engine:{checkpoint}")


def test_rollout_prints_an_episode(plugin, capsys):
    assert main(["rollout", SHOUT, "--policy", "gold", "--task", "w1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("episode of w1 (shout)\n\n-- user\n    word 1\n\n-- assistant, turn 1\n    WORD 1\n")
    assert "ended: answered, passed, reward 1" in printed


def test_rollout_prints_json(plugin, capsys):
    assert main(["rollout", SHOUT, "--policy", "empty", "--seed", "3", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["family"], row["passed"], row["ending"]) == ("shout", False, "answered")


def test_unknown_names_are_told_with_the_known_ones(plugin, capsys):
    assert "no suite 'maths'; did you mean 'math'?" in failing(capsys, "eval", "maths")
    told = failing(capsys, "eval", "mmlu")
    assert all(name in told.partition("Known: ")[2] for name in ("swe", "code", "math500", "tasks"))
    assert "known ids: verigym/Code-v0, verigym/Harbor-v0, verigym/Math-v0" in failing(
        capsys, "eval", "verigym/Mathx-v0"
    )
    assert "known ids: verigym/Code-v0" in failing(capsys, "rollout", "verigym/Mathx-v0")
    assert "No module named 'nowhere'" in failing(capsys, "rollout", "nowhere:My/Env-v0")
    assert "no task 'w9' among 5; the nearest: w" in failing(capsys, "rollout", SHOUT, "--task", "w9")
    assert "no policy 'golden'" in failing(capsys, "eval", SHOUT, "--policy", "golden")


def test_files_that_cannot_be_used_are_told(plugin, capsys):
    assert "suite 'swe' needs --data FILE" in failing(capsys, "eval", "swe")
    assert "none.jsonl: no such file" in failing(capsys, "eval", "math", "--data", "none.jsonl")
    (plugin / "broken.jsonl").write_text('{"id": "a", "family": "math", "prompt": "1+1"}\n{"id": \n')
    assert "broken.jsonl, line 2: not JSON" in failing(capsys, "eval", "math", "--data", "broken.jsonl")
    (plugin / "lacking.jsonl").write_text('{"id": "a", "family": "math"}\n')
    assert "lacking.jsonl, line 1: a task needs the key 'prompt'" in failing(
        capsys, "eval", "math", "--data", "lacking.jsonl"
    )
    (plugin / "empty.jsonl").write_text("\n")
    assert "has no task in empty.jsonl" in failing(capsys, "eval", "math", "--data", "empty.jsonl")
    (plugin / "other.jsonl").write_text('{"id": "a", "family": "code", "prompt": "x"}\n')
    told = failing(capsys, "eval", "math", "--data", "other.jsonl")
    assert "task 'a' is of family 'code'; suite 'math' takes math" in told
    assert failing(capsys, "eval", "math", "--data", str(plugin))


def test_options_that_do_not_fit_are_told(plugin, capsys):
    assert "greedy draws are all the same" in failing(capsys, "eval", SHOUT, "--greedy", "--samples", "2")
    assert "--limit is 0" in failing(capsys, "eval", SHOUT, "--limit", "0")
    assert "temperature is -1.0" in failing(capsys, "eval", SHOUT, "--temperature", "-1")
    assert "--max-turns is 0" in failing(capsys, "rollout", SHOUT, "--max-turns", "0")
    assert "--save-trajectories needs --out" in failing(capsys, "eval", SHOUT, "--save-trajectories")
    assert "samples is 0" in failing(capsys, "eval", SHOUT, "--samples", "0")
    assert "--workers is -1" in failing(capsys, "eval", SHOUT, "--workers", "-1")


def test_a_folder_of_another_run_is_told(plugin, capsys):
    assert main(["eval", SHOUT, "--out", "run"]) == 0
    capsys.readouterr()
    told = failing(capsys, "eval", SHOUT, "--policy", "empty", "--out", "run")
    assert "run holds another run (policy was 'gold', is 'empty'); choose another --out" in told
    (plugin / "file").write_text("")
    assert "file is not a folder" in failing(capsys, "eval", SHOUT, "--out", "file")


def test_no_gradable_sample_is_an_error(plugin, capsys, monkeypatch):
    monkeypatch.setattr("verigym.agent.endpoint.ATTEMPTS", 1)
    told = main(["eval", SHOUT, "--policy", "openai:http://127.0.0.1:9/v1#m", "--limit", "1", "--out", "run"])
    assert told == 2
    said = capsys.readouterr().err
    assert "none of 1 samples could be graded; the first: http://127.0.0.1:9/v1/chat/completions gave no answer" in said
    assert "the infrastructure failed" not in said
    assert json.loads((plugin / "run" / "report.json").read_text())["num_infrastructure_failures"] == 1


def test_ctrl_c_keeps_the_verdicts_and_the_same_command_goes_on(plugin):
    (plugin / "wait").touch()
    argv = command("eval", SHOUT, "--workers", "2", "--out", "run")
    # A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    running = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, **heeding)
    started = plugin / "started.txt"
    deadline = time.monotonic() + 60
    while not (started.exists() and len(started.read_text().split()) == 5):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in told
    assert told.splitlines()[-2:] == [
        "verigym: the verdicts so far are in run; the same command goes on from them",
        "verigym: interrupted",
    ]
    assert sorted(row["task_id"] for row in rows_of(plugin / "run" / "verdicts.jsonl")) == ["w0", "w1", "w2"]
    (plugin / "wait").unlink()
    started.unlink()
    assert subprocess.run(argv, capture_output=True).returncode == 0
    assert sorted(started.read_text().split()) == ["w3", "w4"]
    assert [row["task_id"] for row in rows_of(plugin / "run" / "verdicts.jsonl")] == ["w0", "w1", "w2", "w3", "w4"]


def test_a_reader_that_goes_away_is_no_error(plugin):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command("rollout", SHOUT), stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


def test_debug_shows_the_traceback(plugin, capsys, monkeypatch):
    monkeypatch.setenv("VERIGYM_DEBUG", "1")
    assert main(["eval", "mmlu"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_doctor_finds_what_is_there(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {row["name"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["python"]["ok"] is True
    assert findings["torch"]["ok"] is True
    assert {"gpu", "git", "sandbox local", "docker engine", "machine"} <= set(findings)
    assert all(row["ok"] or row["remedy"] for row in findings.values())


def test_doctor_tells_what_is_missing_and_ends_well(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setattr("verigym.envs.sandbox.local.is_possible", lambda: False)
    from verigym.envs.sandbox import choose

    choose._probed.cache_clear()
    assert main(["doctor"]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    choose._probed.cache_clear()
    assert "no git not found install git" in printed
    assert "no sandbox works on this machine (neither bwrap nor unshare is installed)" in printed
    assert "install bubblewrap" in printed
    assert "no docker engine none answers" in printed
    assert "torch 2." in printed


def test_threads_of_openmp_sleep_unless_told_otherwise(monkeypatch, capsys):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["recipes", "list"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(["recipes", "list"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


THREADS = """
import contextlib, ctypes, re, threading
from verigym.__main__ import main
with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit):
    main(["--version"])
libc, gate = ctypes.CDLL(None), threading.Barrier(8)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p

def allocate():
    gate.wait()
    ends.append(libc.malloc(50_000))

ends = []
threads = [threading.Thread(target=allocate) for _ in range(8)]
for one in threads: one.start()
for one in threads: one.join()
(start, end), = [re.match(r"(\\w+)-(\\w+)", line).groups() for line in open("/proc/self/maps") if "[heap]" in line]
print(sum(int(start, 16) <= one < int(end, 16) for one in ends))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of threads are glibc's")
@pytest.mark.parametrize("arenas", [None, "8"])
def test_threads_share_one_heap_unless_the_user_says_how_many(arenas):
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment |= {} if arenas is None else {"MALLOC_ARENA_MAX": arenas}
    found = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True)
    assert (int(found.stdout) == 8) == (arenas is None)
