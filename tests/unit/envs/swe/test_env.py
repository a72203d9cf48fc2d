"""``verigym/SWE-v0``: the episode, its tools, and what it hides."""

import asyncio
import warnings
from dataclasses import replace

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.datasets.swe import row_of
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.sandbox.types import SandboxSpec
from verigym.envs.swe import prepared
from verigym.envs.swe.env import SWEEnv
from verigym.errors import GradingError, SandboxError
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.encoding import to_bytes
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import Score
from verigym.rewards.swe import TestReport


def tool_call(tool: str, **arguments) -> ToolCall:
    return ToolCall(name=tool, arguments=arguments)


def call(name: str, **arguments) -> str:
    return encode_calls([tool_call(name, **arguments)])


@pytest.fixture
def env(local_backend):
    env = SWEEnv(sandbox=local_backend, reuse_verdicts=True)
    yield env
    env.close()


def play_through(env, task, messages):
    policy = ScriptedPolicy(play(messages))
    return asyncio.run(rollout(env, policy, task, budget=Budget(), sampling=Sampling()))


def test_it_passes_gymnasiums_check_without_a_warning(local_backend):
    env = gymnasium.make("verigym/SWE-v0", sandbox=local_backend, reuse_verdicts=True).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("task", example_tasks(), ids=lambda task: task.id)
def test_gold_scores_one_and_empty_zero(env, task):
    gold = play_through(env, task, env.gold(task))
    assert (gold.ending, gold.reward, gold.passed) == ("submitted", 1.0, True), gold.detail
    assert "+" in env.patch
    assert gold.evidence["patch"] == env.patch
    outcomes = gold.evidence["tests"]
    assert outcomes
    assert set(outcomes.values()) == {"passed"}
    empty = play_through(env, task, env.empty(task))
    assert (empty.ending, empty.reward, empty.passed) == ("submitted", 0.0, False)
    assert empty.breakdown["pass_to_pass"] == 1.0
    assert empty.evidence["patch"] == ""
    assert empty.evidence["tests"].keys() == outcomes.keys()
    assert "failed" in empty.evidence["tests"].values()


HALF, BYTE = chr(0xD83D), chr(0xDCFF)
NOT_UTF8 = """echo new > $'\\xff.py'; mkdir $'d\\xe9' && printf 'caf\\xe9\\n' > $'d\\xe9/\\xf6 b.txt';
ln -s $'\\xfe' link; echo tab > $'t\\tab "quoted" \\303\\251'; printf '\\0\\1' > zero.bin"""


def test_files_that_utf8_cannot_name_are_handed_in_and_graded(env):
    """The patch applies to base, byte by byte, and hides nothing of what mends the code."""
    task = example_tasks()[0]
    *gold, submit = env.gold(task)
    found = play_through(env, task, [*gold, replace(gold[0], calls=(tool_call("bash", command=NOT_UTF8),)), submit])
    assert (found.ending, found.reward) == ("submitted", 1.0), found.detail
    patch = to_bytes(env.patch)
    assert rb'"a/\377.py"' in patch
    assert rb'"a/d\351/\366 b.txt"' in patch
    assert b"+\xfe\n" in patch


@pytest.mark.parametrize("text", [HALF, f"a{BYTE}b", f"{BYTE}{HALF}"], ids=ascii)
def test_halves_of_pairs_are_answered_wherever_they_stand(env, text):
    calls = [
        tool_call("bash", command=f"echo {text}"),
        tool_call("view", path=text),
        tool_call("view", path="shelf.py", start=text),
        tool_call("create", path="new.py", content=text),
        tool_call("create", path=text, content="a"),
        tool_call("edit", path="shelf.py", search=text, replace=text),
        tool_call("bash", **{text: "ls"}),
        tool_call(text, command="ls"),
    ]
    task = example_tasks()[0]
    messages = [Message(role="assistant", content=text, calls=(one,)) for one in calls]
    found = play_through(env, task, [*messages, *env.gold(task)[1:2], env.gold(task)[-1]])
    assert (found.ending, found.reward) == ("submitted", 1.0), found.detail
    answers = [message.content for message in found.messages if message.role == "tool"][: len(calls)]
    assert all(answer.startswith("error: ") for answer in answers), answers


@pytest.mark.parametrize("text", [HALF, BYTE, f"diff --git a/{HALF} b/{HALF}\n+{BYTE}"], ids=ascii)
def test_a_patch_of_halves_is_graded(env, text):
    task = example_tasks()[0]
    score = asyncio.run(env.score_patch(task, text))
    assert not score.passed
    assert "apply" in score.detail
    good = row_of(task).patch
    note = f"diff --git a/note b/note\nnew file mode 100644\n--- /dev/null\n+++ b/note\n@@ -0,0 +1 @@\n+{text[:1]}\n"
    assert asyncio.run(env.score_patch(task, good + note)).passed


def test_the_tools_are_these_in_this_order(env):
    assert [spec.name for spec in env.tool_specs] == ["bash", "view", "edit", "create", "submit"]
    assert list(env.tool_specs[2].parameters["properties"]) == ["path", "search", "replace"]


def test_the_tools_answer_tersely(env):
    env.reset(options={"task": example_tasks()[0]})

    def answer(name, **arguments):
        return env.step(call(name, **arguments))[0]

    assert answer("bash", command="echo hi") == "hi"
    assert answer("bash", command="echo hi; false") == "hi\n[exit code 1]"
    assert answer("bash", command="python -c 'import shelf; print(shelf.Shelf(3).free())'") == "3"
    assert answer("bash", command="python -m pytest -q -p no:cacheprovider | tail -1").startswith("2 passed")
    assert answer("view", path="shelf.py", start=4, end=5) == "4: class Shelf:\n5:     def __init__(self, width):"
    assert answer("view", path="none.py") == "error: none.py: no such file"
    assert answer("view", path="tests").startswith("error: tests: ")
    assert answer("create", path="new/a.py", content="x = 1\n") == "created new/a.py"
    assert answer("create", path="new/a.py", content="x = 1\n") == "error: new/a.py exists; use edit"
    assert answer("edit", path="new/a.py", search="x = 1", replace="x = 2") == "edited new/a.py"
    assert answer("edit", path="new/a.py", search="x = 1", replace="").endswith("the nearest lines are:\n1: x = 2")
    assert answer("bash", command="git status --porcelain") == "?? new/"


def test_a_final_message_hands_in_the_work_tree_whatever_happened_to_git(env):
    """New, binary, undecodable and ignored files; commits, and a repository that is gone."""
    task = example_tasks()[0]
    env.reset(options={"task": task})
    env.step(call("bash", command="sed -i 's/thickness < /thickness <= /' shelf.py && git commit -qam 'mine' 2>&1"))
    env.step(
        call("bash", command="printf '\\0\\1\\2' > blob; printf 'caf\\351\\n' > latin.txt; echo '*' > .gitattributes")
    )
    env.step(call("bash", command="mkdir __pycache__; echo x > __pycache__/a.pyc; rm -rf .git"))
    _, reward, terminated, _, info = env.step("All done.")
    assert (reward, terminated, info["ending"]) == (1.0, True, "answered"), info["score"]
    assert "thickness <= self.free()" in env.patch or "GIT binary patch" in env.patch
    assert "b/blob" in env.patch
    assert "b/latin.txt" in env.patch
    assert "pycache" not in env.patch
    env.patch.encode("utf-8")


def test_a_truncated_episode_has_handed_in_nothing(local_backend):
    env = SWEEnv(sandbox=local_backend, max_turns=1)
    task = example_tasks()[0]
    env.reset(options={"task": task})
    _, reward, terminated, truncated, info = env.step(call("bash", command="sed -i 's/ < / <= /' shelf.py"))
    assert (reward, terminated, truncated, info["ending"]) == (0.0, False, True, "turn_limit")


def test_hidden_tests_and_grading_are_out_of_reach(env):
    """Trap 19: a probing agent greps everything, and writes a verdict wherever it can."""
    task = example_tasks()[0]
    name = row_of(task).FAIL_TO_PASS[0].split("::")[1]
    env.reset(options={"task": task})
    pattern = f"{name[:-1]}[{name[-1]}]"  # not what the search itself is called
    places = "/proc/[0-9]*/cmdline /proc/[0-9]*/environ /proc/[0-9]*/fd/*"
    search = f"find / /dev/shm -xdev -type f -exec grep -l '{pattern}' {{}} +; timeout 5 grep -la '{pattern}' {places}"
    found = env.step(call("bash", command=f"({search}) 2>/dev/null"))[0]
    # The search reads the pipe that the shell reads, of which nothing is left then: the shell is replaced, and says so.
    assert [line for line in found.splitlines() if not line.startswith(("[exit code", "[killed: shell"))] == []
    log = env.step(call("bash", command="git log --all --oneline | wc -l; env | grep -i verigym; ls ~"))[0]
    assert log.splitlines()[0] == "1"
    spread = 'find / -xdev -type d -writable 2>/dev/null | while read d; do echo 1.0 > "$d/reward.txt"; done'
    env.step(call("bash", command=spread))
    _, reward, *_ = env.step(call("submit"))
    assert reward == 0.0


class Failing:
    """A backend whose sandboxes fail at one kind of call, from the nth sandbox on."""

    name = "failing"

    def __init__(self, inner, method: str, from_sandbox: int) -> None:
        self.inner, self.method, self.from_sandbox, self.made = inner, method, from_sandbox, 0
        self.closed: set[int] = set()  # closing twice is allowed

    async def create(self, spec: SandboxSpec):
        self.made += 1
        if self.method == "create" and self.made >= self.from_sandbox:
            raise SandboxError("the machine is full")
        sandbox, count = await self.inner.create(spec), self.made
        outer, close = self, sandbox.aclose

        async def fail(*args, **kwargs):
            raise SandboxError("the box is gone")

        async def aclose():
            outer.closed.add(count)
            await close()

        if count >= self.from_sandbox:
            setattr(sandbox, self.method, fail)
        sandbox.aclose = aclose
        return sandbox


@pytest.mark.parametrize(
    ("method", "from_sandbox"),
    [
        ("create", 1),
        ("put_archive", 1),
        ("aexec", 1),
        ("arun", 1),
        ("create", 2),
        ("put_archive", 2),
        ("arun", 2),
    ],
)
def test_a_sandbox_that_fails_is_recorded_and_never_scored(local_backend, method, from_sandbox, monkeypatch):
    """Trap 18: at the start, at a step, and at grading."""
    monkeypatch.setattr(prepared, "_TREES", prepared.Spool())  # a kept tree would be brought another way
    monkeypatch.setattr(prepared, "_requests", {})
    backend = Failing(local_backend, method, from_sandbox)
    env, task = SWEEnv(sandbox=backend), example_tasks()[1]
    trajectory = play_through(env, task, env.gold(task))
    assert trajectory.ending == "sandbox_failure"
    assert (trajectory.reward, trajectory.passed) == (None, None)
    assert len(backend.closed) == backend.made - (method == "create")


def test_an_environment_that_cannot_be_graded_in_is_a_grader_failure(local_backend):
    env, task = SWEEnv(sandbox=local_backend), example_tasks()[1]
    broken = {**task.hidden, "test_patch": task.hidden["test_patch"].replace('"10:00"', '"10:01"')}
    task = type(task)(id="broken", family="swe", prompt="", hidden=broken)
    trajectory = play_through(env, task, env.empty(task))
    assert (trajectory.ending, trajectory.reward) == ("grader_failure", None)
    env.reset(options={"task": task})
    with pytest.raises(GradingError, match="test_patch does not apply"):
        env.step(call("submit"))


@pytest.mark.parametrize(("reuse", "times"), [(True, 2), (False, 6)])
def test_samples_that_hand_in_the_same_at_once_are_graded_once(local_backend, monkeypatch, reuse, times):
    task, graded = example_tasks()[0], []

    async def grade(backend, task, patch, **settings):
        graded.append(patch)
        await asyncio.sleep(0.01)
        report = TestReport(statuses={}, complete=False, exit_code=None)
        return Score(value=0.0, passed=False, breakdown={"resolved": 0.0}), report

    monkeypatch.setattr("verigym.envs.swe.env.grade_patch", grade)
    patches = [f"{reuse}", "another"] * 3

    async def main():
        envs = [SWEEnv(sandbox=local_backend, reuse_verdicts=reuse) for _ in patches]
        return await asyncio.gather(*(env.score_patch(task, patch) for env, patch in zip(envs, patches)))

    assert [score.value for score in asyncio.run(main())] == [0.0] * 6
    assert len(graded) == times


@pytest.mark.parametrize(("allowed", "said"), [({"ports": {"web": 0}}, "from the host"), (None, "nothing")])
def test_a_task_reaches_what_it_asks_for_and_the_environment_allows(local_backend, allowed, said):
    task = example_tasks()[0]
    asking = replace(task, hidden={**task.hidden, "network": {"ports": ["web"], "hosts": ["pypi.org"]}})

    async def main():
        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nfrom the host")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        env = SWEEnv(sandbox=local_backend, network=allowed and {"ports": {"web": port}})
        async with server:
            await env.start(asking)
            get = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}').read().decode())"
            told = await env.bash(f'python -c "{get}" 2>/dev/null || echo nothing')
            reached = await env.bash("env | grep -ci _proxy")
            await env.stop()
        return told, reached

    told, reached = asyncio.run(main())
    assert told == said
    assert reached.startswith("0")  # pypi.org was asked for and is not allowed
