"""Resources servers of NeMo Gym: a stand-in that speaks its two protocols, over the wire."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false

import asyncio
import json
import uuid

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.adapters.nemo_gym import NemoGym
from verigym.errors import ConfigError, TaskError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling

ADD = {"type": "function", "name": "add", "description": "Adds.", "strict": True}
ADD["parameters"] = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
OPENING = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Count to five."}]
ROW = {"responses_create_params": {"input": OPENING, "tools": [ADD]}, "initial": 3, "expected": 5}


class Session:
    """A cookie for each session, as NeMo Gym's own middleware gives one."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        given = dict(scope["headers"]).get(b"cookie", b"").decode()
        name = given.removeprefix("gym=") or uuid.uuid4().hex
        scope["session_name"] = name

        async def sent(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"set-cookie", f"gym={name}".encode()))
            await send(message)

        await self.app(scope, receive, sent)


class Server:
    """Counters by session, and all that was asked."""

    def __init__(self):
        self.asked, self.counters, self.broken = [], {}, set()

    def route(self, path, answer):
        async def handle(request):
            body = json.loads(await request.body())
            self.asked.append((path, body))
            if path in self.broken:
                return JSONResponse({"detail": "broken"}, status_code=500)
            return answer(request.scope["session_name"], body)

        return Route(path, handle, methods=["POST"])

    # The protocol of /seed_session and /verify.

    def seed(self, session, body):
        self.counters[session] = body["initial"]
        return JSONResponse({})

    def add(self, session, body):
        if not isinstance(body.get("count"), int):
            return JSONResponse({"detail": "count: Field required"}, status_code=422)
        self.counters[session] += body["count"]
        return JSONResponse({"success": True})

    def verify(self, session, body):
        right = float(self.counters[session] == body["expected"])
        told = {"reward": right, "off": abs(self.counters[session] - body["expected"]), "text": "for people"}
        return JSONResponse({**body, **told})

    def verifying(self):
        routes = {"/seed_session": self.seed, "/add": self.add, "/verify": self.verify}
        routes = [self.route(path, answer) for path, answer in routes.items()]
        return Starlette(routes=routes, middleware=[Middleware(Session)])

    # The protocol of /reset and /step.

    def reset(self, session, body):
        self.counters[session] = body["initial"]
        return JSONResponse({"observation": f"It is {body['initial']}.", "info": {"supports_explicit_close": True}})

    def step(self, session, body):
        items = body["response"]["output"]
        calls = [item for item in items if item["type"] == "function_call"]
        for call in calls:
            self.counters[session] += json.loads(call["arguments"])["count"]
        outputs = [{"call_id": call["call_id"], "output": str(self.counters[session])} for call in calls]
        if calls:
            told = "go on" if len(calls) > 1 else None
            return JSONResponse({"observation": told, "reward": 0.1, "info": {"tool_outputs": outputs}})
        right = self.counters[session] == body["expected"]
        return JSONResponse({"observation": None, "reward": 0.8 * right, "terminated": True, "info": {}})

    def close(self, session, body):
        del self.counters[session]
        return JSONResponse({})

    def stepping(self):
        routes = {"/reset": self.reset, "/step": self.step, "/close": self.close}
        routes = [self.route(path, answer) for path, answer in routes.items()]
        return Starlette(routes=routes, middleware=[Middleware(Session)])


def call(*counts, name="add"):
    calls = tuple(ToolCall(name=name, arguments={"count": count}) for count in counts)
    return Message(role="assistant", content="", calls=calls)


def episode(env, *said, task=0, **budget):
    messages = [one if isinstance(one, Message) else Message(role="assistant", content=one) for one in said]
    tasks = env.load()
    policy = ScriptedPolicy(play(messages))
    return asyncio.run(rollout(env, policy, tasks[task], budget=Budget(**budget), sampling=Sampling()))


def test_calls_are_routes_and_the_server_scores_the_trajectory(serve):
    server = Server()
    found = episode(NemoGym(serve(server.verifying()), data=[ROW]), call(1), call("x"), call(1), "five")
    assert [(one.role, one.content) for one in found.messages] == [
        ("system", "Be brief."),
        ("user", "Count to five."),
        ("assistant", ""),
        ("tool", '{"success":true}'),
        ("assistant", ""),
        ("tool", '{"detail":"count: Field required"}'),
        ("assistant", ""),
        ("tool", '{"success":true}'),
        ("assistant", "five"),
    ]
    assert (found.reward, found.passed, found.ending) == (1.0, True, "answered")
    assert found.breakdown == {"reward": 1.0, "off": 0.0}
    path, body = server.asked[-1]
    assert (path, {key: body[key] for key in ROW}) == ("/verify", ROW)
    items = body["response"]["output"]
    assert [item["type"] for item in items] == ["function_call", "function_call_output"] * 3 + ["message"]
    assert [item["call_id"] for item in items[:-1]] == ["call_0", "call_0", "call_1", "call_1", "call_2", "call_2"]
    assert items[-1]["content"][0]["text"] == "five"


def test_sessions_are_the_episodes_own_and_limits_are_scored_as_they_are(serve):
    server = Server()
    url = serve(server.verifying())

    async def every():
        envs = [NemoGym(url, data=[{**ROW, "initial": 3 - n}]) for n in range(4)]
        scripts = [ScriptedPolicy(play([call(*[1] * (2 + n)), call(0)])) for n in range(4)]
        budget, tasks = Budget(turns=1), [env.load()[0] for env in envs]
        return await asyncio.gather(
            *(
                rollout(env, script, task, budget=budget, sampling=Sampling())
                for env, script, task in zip(envs, scripts, tasks, strict=True)
            )
        )

    found = asyncio.run(every())
    assert [(one.ending, one.reward) for one in found] == [("turn_limit", 1.0)] * 4
    assert len(server.counters) == 4


def test_steps_are_rewarded_and_calls_of_one_turn_are_one_step(serve):
    server = Server()
    env = NemoGym(serve(server.stepping()), data=[ROW])
    found = episode(env, call(1), call(2, -1), "five")
    assert [one.content for one in found.messages] == [
        "Be brief.", "Count to five.", "It is 3.", "", "4", "", "5", "5", "go on", "five",
    ]  # fmt: skip
    assert found.turn_rewards == pytest.approx((0.1, 0.1, 0.8))
    assert (found.reward, found.passed, found.ending) == (pytest.approx(1.0), True, "answered")
    sent = [body["response"]["output"] for path, body in server.asked if path == "/step"]
    assert [[item.get("call_id") for item in items] for items in sent] == [["call_0"], ["call_1", "call_2"], [None]]
    assert server.asked[-1][0] == "/close"
    assert server.counters == {}
    cut = episode(env, call(1), call(1), turns=1)
    assert (cut.ending, cut.reward) == ("turn_limit", pytest.approx(0.1))


def test_tools_that_the_row_does_not_have_are_no_routes(serve):
    server = Server()
    found = episode(NemoGym(serve(server.verifying()), data=[ROW]), call(1, name="verify"), "four")
    assert found.messages[3].content == "error: there is no tool 'verify'; the tools are add"
    assert [path for path, _ in server.asked] == ["/seed_session", "/verify"]


def test_what_the_server_fails_at_is_the_infrastructure(serve):
    server = Server()
    env = NemoGym(serve(server.verifying()), data=[ROW])
    for route, ending in (("/verify", "grader_failure"), ("/seed_session", "sandbox_failure")):
        server.broken = {route}
        found = episode(env, "five")
        assert (found.ending, found.reward) == (ending, None)
        assert f"{route} answered 500" in found.detail
    server.broken = {"/add"}
    assert '"broken"' in episode(env, call(1), "five").messages[3].content  # told, as NeMo Gym's own agent does
    gone = episode(NemoGym("http://127.0.0.1:9", data=[ROW], seconds=5), "five")
    assert (gone.ending, gone.reward) == ("sandbox_failure", None)


def test_what_is_no_row_or_no_server_is_said(serve, tmp_path):
    for row, told in (
        ({"question": "?"}, "no responses_create_params with an input"),
        (
            {"responses_create_params": {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}},
            "text alone",
        ),
        ({"responses_create_params": {"input": "?", "tools": [{"type": "web_search"}]}}, "tools"),
    ):
        with pytest.raises(TaskError, match=told):
            NemoGym("http://127.0.0.1:9", data=[row]).load()
    with pytest.raises(ConfigError, match="'verify' or 'step'"):
        NemoGym("http://127.0.0.1:9", protocol="mcp")
    with pytest.raises(ConfigError, match="neither /seed_session nor /reset"):
        episode(NemoGym(serve(Starlette()), data=[ROW]), "five")
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "expected": 3}) + "\n")
    env = NemoGym(serve(Server().verifying()), data=file)
    assert [task.id for task in env.load()] == ["row-0", "row-1"]
    assert episode(env, "three", task=1).reward == 1.0
