"""Episodes of Harbor tasks in images without an engine: rewards, steps, tests in a sandbox of their own, time."""

import asyncio

import pytest

from verigym.envs.core import ToolEnv
from verigym.envs.datasets.harbor import harbor_rows
from verigym.envs.datasets.harbor_config import HarborConfig
from verigym.envs.harbor.env import HarborEnv
from verigym.envs.harbor.verify import resolved, reward_of
from verigym.envs.sandbox.oci.backend import OciBackend
from verigym.envs.sandbox.oci.store import ImageStore
from verigym.envs.task import Task
from verigym.errors import SandboxError, TaskError
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import ToolCall

from ..sandbox.archives import docker_archive, layer, member, programs_layer

pytestmark = pytest.mark.usefixtures("local_sandbox")

TEST = """#!/bin/bash
if [ "$(cat answer 2>/dev/null)" = 42 ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
echo "asked $ASKED in $PWD"
"""


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    from verigym.envs.sandbox.runtime import runtime_python

    folder = tmp_path_factory.mktemp("images")
    app = layer(member("app/"), member("app/start", b"here\n"))
    docker_archive(folder / "app.tar", [programs_layer(runtime_python()), app], names=["test/app:1"], WorkingDir="/app")
    store = ImageStore(folder / "store")
    store.add(str(folder / "app.tar"))
    made = OciBackend(store=store)
    yield made
    made.close()


def write(folder, toml="", files=None):
    texts = {
        "task.toml": f'[environment]\ndocker_image = "test/app:1"\n{toml}',
        "instruction.md": "Write 42 to answer.\n",
        "tests/test.sh": TEST,
        "solution/solve.sh": "#!/bin/bash\ncat start && echo $GOLD > answer\n",
        **(files or {}),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Task.from_json(harbor_rows(folder)[0].value)


GOLD = "[solution.env]\nGOLD = '42'\n"


async def play(env: ToolEnv, task, messages):
    await env.areset(options={"task": task})
    told = []
    for one in messages:
        observation, _, over, _, info = await env.astep(encode_calls(one.calls))
        told.append(observation)
        if over:
            return info["score"], told
    await env.aclose()
    raise AssertionError("the episode did not end")


def said(command):
    return encode_calls((ToolCall(name="bash", arguments={"command": command}),))


def test_gold_earns_one_and_empty_nothing(backend, tmp_path):
    task = write(tmp_path / "it", GOLD + "[verifier.env]\nASKED = '${WHO:-nobody}'\n")
    env = HarborEnv(sandbox=backend)
    score, told = asyncio.run(play(env, task, env.gold(task)))
    assert (score.value, score.passed, told[0]) == (1.0, True, "here")
    assert env.evidence["tests"] == "asked nobody in /app\n"
    score, _ = asyncio.run(play(env, task, env.empty(task)))
    assert (score.value, score.detail) == (0.0, "reward 0")


def test_a_reward_that_the_agent_left_is_not_the_tests(backend, tmp_path):
    task = write(tmp_path / "it", files={"tests/test.sh": "#!/bin/sh\nexit 3\n"})
    env = HarborEnv(sandbox=backend)

    async def main():
        await env.areset(options={"task": task})
        await env.astep(
            said(
                "mkdir -p /logs/verifier /tests; echo 1 > /logs/verifier/reward.txt; echo '#!/bin/sh' > /tests/test.sh"
            )
        )
        return (await env.astep(encode_calls((ToolCall(name="submit", arguments={}),))))[4]["score"]

    score = asyncio.run(main())
    assert (score.value, score.detail) == (0.0, "the tests wrote no reward")


def test_tests_meet_what_the_agent_started(backend, tmp_path):
    test = "#!/bin/bash\nkill -0 $(cat /app/pid) && echo 1 > /logs/verifier/reward.txt\n"
    task = write(tmp_path / "it", files={"tests/test.sh": test})
    env = HarborEnv(sandbox=backend)

    async def main():
        await env.areset(options={"task": task})
        await env.astep(said("sleep 600 & echo $! > pid"))
        return (await env.astep(encode_calls((ToolCall(name="submit", arguments={}),))))[4]["score"]

    assert asyncio.run(main()).value == 1.0


def test_tests_in_a_sandbox_of_their_own_see_the_artifacts_alone(backend, tmp_path):
    toml = "artifacts = ['answer', '/not/there']\n" + '[environment]\ndocker_image = "test/app:1"\n'
    toml += "[verifier]\nenvironment_mode = 'separate'\n" + GOLD
    other = "#!/bin/bash\ncat start; echo 42 > answer; echo 42 > other; ln -sf /bin/true /usr/bin/cat 2>/dev/null\n"
    test = TEST + "ls /app; [ ! -e other ] || echo 0 > /logs/verifier/reward.txt\n"
    task = write(tmp_path / "it", files={"task.toml": toml, "solution/solve.sh": other, "tests/test.sh": test})
    env = HarborEnv(sandbox=backend)
    score, _ = asyncio.run(play(env, task, env.gold(task)))
    assert (score.value, env.evidence["tests"]) == (1.0, "asked  in /app\nanswer\nstart\n")


NAMES = ("one", "two", "three")
IS_THERE = "#!/bin/bash\n[ -e {} ]; echo $((1 - $?)) > /logs/verifier/reward.txt\n"
STEPS = {
    **{f"steps/{name}/instruction.md": f"Now {name}.\n" for name in NAMES},
    **{f"steps/{name}/tests/test.sh": IS_THERE.format(name) for name in NAMES},
    **{f"steps/{name}/solution/solve.sh": f"#!/bin/bash\ntouch {name}\n" for name in NAMES},
}
NAMED = "".join(f"[[steps]]\nname = '{name}'\nmin_reward = 1.0\n" for name in NAMES)


def test_steps_are_told_one_after_the_other(backend, tmp_path):
    task = write(tmp_path / "it", NAMED, files=STEPS)
    assert task.prompt == "Now one.\n"
    env = HarborEnv(sandbox=backend)
    score, told = asyncio.run(play(env, task, env.gold(task)))
    assert told == ["", "Now two.\n", "", "Now three.\n", "", "submitted"]
    assert (score.value, score.passed) == (1.0, True)
    assert dict(score.breakdown) == {"step.one": 1.0, "step.two": 1.0, "step.three": 1.0}


@pytest.mark.parametrize(("strategy", "value"), [("mean", 0.5), ("final", 0.0)])
def test_a_step_below_its_least_reward_is_the_last(backend, tmp_path, strategy, value):
    toml = f"multi_step_reward_strategy = '{strategy}'\n" + '[environment]\ndocker_image = "test/app:1"\n' + NAMED
    task = write(tmp_path / "it", files={**STEPS, "task.toml": toml})
    env = HarborEnv(sandbox=backend)
    gold = env.gold(task)
    score, told = asyncio.run(play(env, task, [*gold[:2], gold[3]]))
    assert told == ["", "Now two.\n", "submitted"]
    assert (score.value, score.passed) == (value, False)


def test_when_the_time_is_over_the_work_is_tested_as_it_is(backend, tmp_path):
    task = write(tmp_path / "it", "[agent]\ntimeout_sec = 1.0\n")
    env = HarborEnv(sandbox=backend)

    async def main():
        await env.areset(options={"task": task})
        first = (await env.astep(said("echo 42 > answer; sleep 60")))[0]
        return first, await env.astep(said("echo 0 > answer"))

    first, (told, _, over, _, info) = asyncio.run(main())
    assert (first, told, over) == ("[killed: timeout]", "the time for the task is over; it is tested as it is", True)
    assert info["score"].value == 1.0


def test_a_turn_limit_is_tested_too(backend, tmp_path):
    task = write(tmp_path / "it")
    env = HarborEnv(sandbox=backend, max_turns=1)

    async def main():
        await env.areset(options={"task": task})
        return await env.astep(said("echo 42 > answer"))

    _, _, over, truncated, info = asyncio.run(main())
    assert (over, truncated, info["score"].value) == (False, True, 1.0)


def test_tests_that_take_too_long_have_an_ending_of_their_own(backend, tmp_path):
    task = write(tmp_path / "it", "[verifier]\ntimeout_sec = 0.5\n", files={"tests/test.sh": "#!/bin/sh\nsleep 60\n"})
    score, _ = asyncio.run(play(HarborEnv(sandbox=backend), task, HarborEnv().empty(task)))
    assert (score.value, score.ending) == (0.0, "test_timeout")


def test_a_healthcheck_is_waited_for(backend, tmp_path):
    command = "echo x >> /app/asked; [ $(wc -l < /app/asked) -ge 3 ]"
    check = f"[environment.healthcheck]\ncommand = '{command}'\ninterval_sec = 0.05\n"
    task = write(tmp_path / "it", check + "retries = 3\n")
    env = HarborEnv(sandbox=backend)

    async def main():
        await env.areset(options={"task": task})
        told = (await env.astep(said("wc -l < asked")))[0]
        await env.aclose()
        return told

    assert asyncio.run(main()) == "3"
    task = write(tmp_path / "other", check + "retries = 2\n")
    with pytest.raises(SandboxError, match="its healthcheck failed 2 times"):
        asyncio.run(env.areset(options={"task": task}))


def test_an_image_that_must_be_built_is_told_how_to_bring(backend, tmp_path):
    files = {"task.toml": "", "environment/Dockerfile": "FROM some/base\n"}
    task = write(tmp_path / "it", files=files)
    with pytest.raises(SandboxError, match=r"nothing here builds it.*tasks build-images harbor:.*images add"):
        asyncio.run(HarborEnv(sandbox=backend).areset(options={"task": task}))


@pytest.mark.parametrize(
    ("as_json", "as_text", "value", "passed", "detail"),
    [
        (None, b"1\n", 1.0, True, "reward 1"),
        (None, b"0.25", 0.25, False, "reward 0.25"),
        (b'{"reward": 0.5, "speed": 3}', b"1", 0.5, False, "reward 0.5"),
        (b'{"a": 1, "b": 0}', None, 0.5, False, "reward 0.5"),
        (b"1", None, 1.0, True, "reward 1"),
        (b'{"reward": 7}', None, 1.0, True, "reward 7, taken as 1"),
        (None, b"-3", 0.0, False, "reward -3, taken as 0"),
        (None, None, 0.0, False, "the tests wrote no reward"),
        (None, b"", 0.0, False, "the tests wrote a reward that is none"),
        (None, b"nan", 0.0, False, "the tests wrote a reward that is none"),
        (b"{}", b"1", 0.0, False, "the tests wrote a reward that is none"),
        (b'{"reward": "x"}', None, 0.0, False, "the tests wrote a reward that is none"),
        (b'{"reward": 1e999}', None, 0.0, False, "the tests wrote a reward that is none"),
        (b"not JSON", None, 0.0, False, "the tests wrote a reward that is none"),
    ],
)
def test_a_reward_file_is_read_or_worth_nothing(as_json, as_text, value, passed, detail):
    score = reward_of(as_json, as_text)
    assert (score.value, score.passed) == (value, passed)
    assert score.detail.startswith(detail)


def test_this_machines_variables_are_asked_for_by_name():
    assert resolved({"A": "x-${B}-${C:-d}"}, {"B": "1"}, where="it") == {"A": "x-1-d"}
    with pytest.raises(TaskError, match=r"it wants this machine's variable SECRET; allow it with host_env"):
        resolved({"A": "${SECRET}"}, {}, where="it")


ASKS = """network_mode = "allowlist"
allowed_hosts = ["good.org", "evil.org", "10.0.0.7"]
"""


@pytest.mark.parametrize(
    ("allowed", "said"), [({"hosts": ["good.org", "other.org"]}, "http://127.0.0.1:"), (None, "none")]
)
def test_a_task_gets_of_its_allow_list_what_the_environment_allows(backend, tmp_path, caplog, allowed, said):
    task = write(tmp_path, toml=ASKS)
    env = HarborEnv(sandbox=backend, network=allowed)

    async def main():
        await env.start(task)
        told = await env.bash("echo ${http_proxy:-none}")
        await env.stop()
        return told

    assert asyncio.run(main()).startswith(said)
    assert env._hosts(HarborConfig().environment) == (["good.org", "other.org"] if allowed else [])  # asks for all
    denied = "evil.org, 10.0.0.7" if allowed else "good.org, evil.org, 10.0.0.7"
    assert f"asks for {denied}, which is not allowed here" in caplog.text
