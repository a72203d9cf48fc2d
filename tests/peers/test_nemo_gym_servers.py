"""The adapter at servers of NeMo Gym's own package, with the episodes that it ships: the same answers, the same scores.

Run by ``make test-peers``, which names in PEER_PYTHON the interpreter that has the package.
"""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false

import asyncio
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.adapters.nemo_gym import NemoGym
from verigym.envs.task import read_jsonl
from verigym.model.chat.items import from_items
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling

PYTHON = os.environ.get("PEER_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="PEER_PYTHON names no interpreter with nemo-gym; make test-peers")

SHIPPED = {
    "example_session_state_mgmt": 5,
    "example_single_tool_call": 5,
    "example_multi_step": 5,
    "example_multi_turn_gymnasium": 5,
}
"""Server of the package -> episodes that it ships."""


def shipped(server, file):
    found = [PYTHON, "-c", "import resources_servers as r; print(*r.__path__)"]
    folder = subprocess.run(found, capture_output=True, text=True, check=True).stdout.split()[0]
    return list(read_jsonl(Path(folder) / server / "data" / file))


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """The URL under which the servers of the package are, each by its name."""
    folder = tmp_path_factory.mktemp("servers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = str(Path(__file__).with_name("nemo_gym_server.py"))
    log = (folder / "log").open("w")
    process = subprocess.Popen([PYTHON, script, str(port), *SHIPPED], stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(3000):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            try:
                httpx.get(url, timeout=1)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def asked(row):
    told = row["responses_create_params"]["input"]
    return told if isinstance(told, str) else [(one["role"], one["content"]) for one in told]


def episode(env, task, said):
    policy = ScriptedPolicy(play(said))
    return asyncio.run(rollout(env, policy, task, budget=Budget(), sampling=Sampling()))


@pytest.mark.parametrize("name", SHIPPED)
def test_episodes_of_the_package_score_as_they_did_there(servers, name):
    rows, episodes = shipped(name, "example.jsonl"), shipped(name, "example_rollouts.jsonl")
    assert len(episodes) == SHIPPED[name]
    env = NemoGym(f"{servers}/{name}", data=rows)
    tasks = env.load()
    for one in episodes:
        place = next(place for place, row in enumerate(rows) if asked(row) == asked(one))
        there = from_items(one["response"]["output"])
        found = episode(env, tasks[place], [message for message in there if message.role == "assistant"])
        assert (found.reward, found.ending) == (one["reward"], "answered")
        assert [answer(message) for message in found.messages[-len(there) :]] == [answer(message) for message in there]


def answer(message):
    if message.role != "tool":
        return message.role, None if message.role == "assistant" else message.content
    return message.role, json.loads(message.content)


def test_sessions_are_the_episodes_own(servers):
    server = f"{servers}/example_session_state_mgmt"
    rows = shipped("example_session_state_mgmt", "example.jsonl")
    env = NemoGym(server, data=rows)
    said = [[Message(role="assistant", content="done")], *[from_items([add(count)]) for count in (1, 2)]]

    async def every():
        envs = [NemoGym(server, data=rows) for _ in range(12)]
        return await asyncio.gather(
            *(
                rollout(
                    one, ScriptedPolicy(play([*said[n % 3], said[0][0]])), one.load()[0], budget=Budget(),
                    sampling=Sampling(),
                )
                for n, one in enumerate(envs)
            )
        )  # fmt: skip

    first, wanted = rows[0]["initial_count"], rows[0]["expected_count"]
    rewards = [one.reward for one in asyncio.run(every())]
    assert rewards == [float(first + n % 3 == wanted) for n in range(12)]
    right = from_items([add(wanted - first)])
    assert episode(env, env.load()[0], [*right, said[0][0]]).reward == 1.0
    wrong = from_items([{**add(1), "arguments": "{}"}])
    assert "Field required" in episode(env, env.load()[0], [*wrong, said[0][0]]).messages[2].content


def add(count):
    arguments = json.dumps({"count": count})
    return {"type": "function_call", "name": "increment_counter", "call_id": "c", "arguments": arguments}
