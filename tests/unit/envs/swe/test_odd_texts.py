"""Every tool meets text that UTF-8 cannot hold, and what others cannot read: it answers, and the episode goes on."""

import pytest

from verigym.envs.swe.cwm import CwmSWEEnv
from verigym.envs.swe.env import SWEEnv
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import ToolCall

HALVES = ("a\ud83d", "\ude00\ud83d", "caf\udce9")
"""Half an emoji, its halves turned round, and a byte as Python reads it from a file's name that is not UTF-8."""
NUL = "a\0b"
HOLD_NUL = ("command", "replace", "content")

LEFT = (
    "mkdir -p closed/in; echo x > closed/in/f; chmod 000 closed; echo x > none; chmod 000 none",
    "mkdir inner; git init -q inner; echo x > inner/f; mkdir .GIT; echo x > .GIT/config",
    "printf 'caf\\xe9\\n' > latin; printf x > $'n\\xe9me'; mkfifo pipe; ln -s loop loop",
)
UNREADABLE = {
    "closed/in/f": "Permission denied",
    "none": "Permission denied",
    "latin": "not UTF-8",
    "pipe": "not a regular file",
    "loop": "symbolic links",
    "pkg": "directory",
}
READABLE = {"inner/.git/HEAD": "1: ref:", ".GIT/config": "1: x"}
"""Names that git keeps to itself, or would on another file system, are files like others here."""
CALLS = {
    "bash": {"command": "true"},
    "view": {"path": "pkg/calc.py"},
    "edit": {"path": "pkg/calc.py", "search": "def add(a, b):", "replace": "def add(b, a):"},
    "create": {"path": "new.txt", "content": "new"},
    "submit": {"result": "latin"},
}


@pytest.fixture(params=[SWEEnv, CwmSWEEnv])
def do(request, vault):
    """A call of a tool, whose answer can be sent and does not end the episode."""
    options = {"strict": False, "budget_turns": 1000} if request.param is CwmSWEEnv else {"max_turns": 1000}
    env = request.param(sandbox=vault.backend, tasks=[vault.task], rubric="similarity", **options)
    env.reset(options={"task": vault.task})

    def answer(name, **arguments):
        observation, _, ended, cut, _ = env.step(encode_calls([ToolCall(name=name, arguments=arguments)]))
        assert not ended, (name, arguments)
        assert not cut
        observation.encode()
        return observation

    answer.env = env
    answer.tools = [name for name in env._tools if name != "submit" or request.param is CwmSWEEnv]
    yield answer
    env.close()


def test_every_argument_of_every_tool_with_odd_text(do):
    for name in do.tools:
        for key in CALLS[name]:
            for text in HALVES:
                assert "half of a surrogate pair" in do(name, **(CALLS[name] | {key: text})), (name, key)
            answer = do(name, **(CALLS[name] | {key: NUL}))
            assert ("error" in answer) == (key not in HOLD_NUL), (name, key, answer)
    assert "alive" in do("bash", command="echo alive")


def test_every_tool_with_leftovers(do):
    for command in LEFT:
        do("bash", command=command)
    for path, why in UNREADABLE.items():
        for name in do.tools:
            if name == "create":
                assert "error" in do(name, path=path, content="x")
            elif name != "bash":
                first = next(iter(CALLS[name]))
                answer = do(name, **(CALLS[name] | {first: path}))
                assert why in answer or (path == "latin" and name == "submit" and "no change" in answer), (name, path)
    for path, begins in READABLE.items():
        if "view" in do.tools:
            assert do("view", path=path).startswith(begins)
    assert "caf\ufffd\nn\ufffdme" in do("bash", command="cat latin; ls n*me")
    if "submit" not in do.tools:
        info = do.env.step(encode_calls([ToolCall(name="submit", arguments={})]))[4]
        assert "score" in info
        for kept in ("closed/in/f", "inner/f", "none", "latin", r"n\351me", "loop"):
            assert f"a/{kept}" in do.env.patch
        assert ".git/" not in do.env.patch.lower()
