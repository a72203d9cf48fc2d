"""Each sentence of a tool's description holds: a table of calls, and what they answer and leave."""

import asyncio
import os

import pytest

from verigym.envs.swe.cwm import CwmSWEEnv
from verigym.envs.swe.env import SWEEnv
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import ToolCall


def call(name, **arguments):
    return encode_calls([ToolCall(name=name, arguments=arguments)])


@pytest.fixture(scope="module")
def opened(vault):
    env = SWEEnv(sandbox=vault.backend, tasks=[vault.task], max_turns=1000)
    env.reset(options={"task": vault.task})
    yield env
    env.close()


@pytest.fixture
def do(opened):
    def answer(name, **arguments):
        return opened.step(call(name, **arguments))[0]

    answer("bash", command=f"cd {opened._row.root}")
    return answer


def bash_of(env):
    return lambda command: env.step(call("bash", command=command))[0]


def test_bash_lasts_and_says_how_a_command_ended(do):
    def bash(command):
        return do("bash", command=command)

    assert bash("mkdir -p deep; cd deep; x=1; f() { echo f; }; sleep 60 & p=$!") == ""
    assert bash("basename $PWD; echo $x; f; kill -0 $p && echo job") == "deep\n1\nf\njob"
    assert bash("cat; read line; echo $?") == "1"
    assert bash("echo out; echo err >&2; echo out2") == "out\nerr\nout2"
    assert bash("(exit 1)") == "[exit code 1]"
    assert bash("export kept=1; echo a; exit 3") == "a\n[exit code 3]"
    assert bash("basename $PWD; echo [$x] $kept") == "deep\n[] 1"
    long = bash("seq 20000")
    assert long.startswith("1\n2\n")
    assert long.endswith("\n19999\n20000")
    assert "bytes left out" in long
    assert len(long) < 33_000
    assert bash("(sleep 0.3; echo late; echo kept > late.txt) & echo now") == "now"
    assert bash("sleep 0.6; cat late.txt") == "kept"
    assert bash("kill $p 2>/dev/null; cd ..") in ("", "[exit code 1]")
    assert bash("set -n") == "[killed: shell]"
    assert bash("echo on") == "on"


def test_output_is_cut_between_characters(do):
    long = do("bash", command="for i in $(seq 3000); do printf '漢字é😀'; done")
    head, note, tail = long.split("\n")
    assert "bytes left out" in note
    assert "\ufffd" not in long
    assert len(head.encode()) + len(tail.encode()) + int(note.split()[1]) == 3000 * len("漢字é😀".encode())


def test_view_numbers_lines_as_grep_does(do):
    do("bash", command="printf 'a\\n\\fb\\nc\\r\\nneedle\\xe2\\x80\\xa8\\n' > v.txt")
    number = do("bash", command="grep -n needle v.txt | cut -d: -f1")
    assert f"{number}: needle<U+2028>" in do("view", path="v.txt")
    assert do("view", path="v.txt", start=2, end=3) == "2: <U+000C>b\n3: c<U+000D>"
    do("bash", command="seq 500 > many.txt; head -c 5000 /dev/zero | tr '\\0' x > wide.txt; seq -w 0 99999 > all.txt")
    assert do("view", path="many.txt").endswith("200: 200\n[lines 201 to 500 not shown]")
    assert "[... 3000 characters left out ...]" in do("view", path="wide.txt")
    assert len(do("view", path="all.txt")) < 30_100
    do("bash", command="cd /")
    assert do("view", path="v.txt", start=1, end=1) == "1: a"
    assert "no such file" in do("view", path="nosuch.txt")
    assert "is no window" in do("view", path="v.txt", start=9)


MODES = {"run.sh": "755", "secret": "600", "odd": "4640", "plain": "644"}


def test_edit_leaves_mode_owner_and_links(do):
    for name, mode in MODES.items():
        do(
            "bash",
            command=f"printf 'a\\nb\\n' > {name}; chmod {mode} {name}; ln {name} hard-{name}; ln -s {name} soft-{name}",
        )
        owner = do("bash", command=f"stat -c '%u:%g %i %h' {name}")
        assert do("edit", path=f"soft-{name}", search="a", replace="x") == f"edited soft-{name}"
        assert do("bash", command=f"stat -c '%u:%g %i %h' {name}") == owner
        kept = mode[-3:] if mode == "4640" else mode
        assert do("bash", command=f"stat -c %a {name}")[-3:] == kept
        assert do("bash", command=f"cat hard-{name}; [ -L soft-{name}  ] && echo link") == "x\nb\nlink"
    assert "100644" not in do("bash", command="git add run.sh; git diff --cached --summary run.sh")


def test_edit_wants_whole_lines_once(do):
    do("bash", command="printf 'a\\n  b\\na\\n' > e.txt")
    assert "matches 2 places" in do("edit", path="e.txt", search="a", replace="x")
    assert "apart from blanks" in do("edit", path="e.txt", search="b", replace="x")
    assert do("edit", path="e.txt", search="  b", replace="") == "edited e.txt"
    assert do("bash", command="cat e.txt") == "a\na"
    do("bash", command="printf 'p\\fq\\r\\nr\\n' > u.txt")
    assert do("edit", path="u.txt", search="p<U+000C>q", replace="p<U+000C>z") == "edited u.txt"
    assert do("bash", command="od -An -c u.txt | tr -s ' '") == " p \\f z \\r \\n r \\n"


def test_create_writes_new_files_alone(do):
    assert do("create", path="new/deep/file.txt", content="text\n") == "created new/deep/file.txt"
    assert do("bash", command="cat new/deep/file.txt; stat -c %a new/deep/file.txt") == "text\n644"
    assert "exists; use edit" in do("create", path="new/deep/file.txt", content="x")
    assert "names a folder" in do("create", path="newdir/", content="x")
    assert do("bash", command="[ -e newdir ]; echo $?; ln -s /nowhere dangling") == "1"
    assert "exists" in do("create", path="dangling", content="x")
    do("bash", command="cd /")
    assert do("create", path="at-root.txt", content="") == "created at-root.txt"
    do("bash", command="cd - > /dev/null")
    assert do("bash", command="ls at-root.txt") == "at-root.txt"


@pytest.mark.parametrize("name", ["view", "edit", "create", "bash"])
@pytest.mark.parametrize("half", ["\ud83d"])
def test_half_a_character_is_an_error_that_can_be_mended(do, name, half):
    arguments = {"view": {"path": half}, "edit": {"path": "a", "search": half, "replace": ""}}
    arguments |= {"create": {"path": "half.txt", "content": half}, "bash": {"command": f"echo {half}"}}
    answer = do(name, **arguments[name])
    assert "half of a surrogate pair" in answer or answer.startswith("error") or name == "bash"
    assert do("bash", command="echo alive") == "alive"


LEFT = (
    "mkdir closed && chmod 000 closed",
    "mkfifo pipe",
    "git init -q inner",
    "printf '\\xff\\n' > bytes",
    "mkdir dir",
)


def test_what_cannot_be_read_is_said(do):
    for command in LEFT:
        do("bash", command=command)
    root = os.geteuid() == 0
    assert do("view", path="pipe").startswith("error: pipe: not a regular file")
    assert "not UTF-8" in do("view", path="bytes")
    assert "directory" in do("view", path="dir")
    assert do("view", path="closed/x").startswith("error: closed/x") or root
    assert do("view", path="inner/.git/HEAD").startswith("1: ref:")
    assert "path is empty" in do("view", path="")
    do("bash", command="chmod 755 closed; rm -rf inner pipe")


def test_the_loop_stays_free_while_an_edit_fails(vault):
    """Between two turns of the loop no processor time of ours passes that depends on the file."""

    async def main():
        env = SWEEnv(sandbox=vault.backend, tasks=[vault.task])
        try:
            await env.start(vault.task)
            await env._box.write_file("wide.txt", b"x" * 3_000_000)
            turns = 0

            async def count():
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            counting = asyncio.create_task(count())
            with pytest.raises(Exception, match="does not match"):
                await env.edit("wide.txt", "x" * 12_000, "y")
            counting.cancel()
            assert turns > 10
        finally:
            await env.stop()

    asyncio.run(main())


def test_the_tools_of_the_code_world_model(vault):
    env = CwmSWEEnv(sandbox=vault.backend, tasks=[vault.task], strict=False)
    try:
        env.reset(options={"task": vault.task})
        bash = bash_of(env)
        bash("printf 'a\\n\\f\\nb\\nc\\n' > f.txt; chmod 700 f.txt")
        answer = env.step(call("edit", path="f.txt", search="b", replace="x\ny"))[0]
        assert "f.txt is changed at line 3:\n1: a\n2: <U+000C>\n3: x\n4: y\n5: c\n" in answer
        assert "700" in bash("stat -c %a f.txt")
        assert "names a folder" in env.step(call("create", path="pkg/", content="x"))[0]
        assert "does not exist" in env.step(call("create", path="nosuch/f", content="x"))[0]
        bash("mkdir sub; cd sub; set -x; git diff > p.patch; printf 'diff here\\n' > p.patch")
        assert "<submission>\ndiff here" in env.step(call("submit", result="p.patch"))[0]
        bash("set +x; pwd() { echo /; }; { echo diff; head -c 3000000 /dev/zero | tr '\\0' x; } > long.patch; false")
        answer = env.step(call("submit", result="long.patch"))[0]
        assert len(answer) < 34_000
        assert "characters left out" in answer
        assert "\n1\n" in bash("echo $?")
    finally:
        env.close()


def test_descriptions_say_what_a_reader_needs():
    for cls in (SWEEnv, CwmSWEEnv):
        env = cls(sandbox="local")
        tools = {name: bound.spec for name, bound in env._tools.items()}
        for name in ("edit", "create"):
            assert "relative" in tools[name].parameters["properties"]["path"]["description"]
        assert "background" in tools["bash"].description
        assert "exported variables" in tools["bash"].description
        env.close()
