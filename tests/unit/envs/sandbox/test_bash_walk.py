"""Random sequences of commands with traps, options, jobs and signals: the session answers as one plain bash does."""

import asyncio
import random
import re

import pytest

from verigym.envs.sandbox.local import UnsafeBackend
from verigym.envs.sandbox.types import SandboxSpec

from .plain_bash import BashEnded, PlainBash, without_lines

STEPS = [
    *("echo a b", "echo $_", "true", "false", "echo $?", "(exit 7)", "false | true", "echo ${PIPESTATUS[*]}", "! true"),
    *(
        "x=$((x+1)); echo $x",
        "echo [$x] ${y-none}",
        "y=1",
        "unset y",
        "z=2; export z",
        "bash -c 'echo [$z]'",
        "unset z",
    ),
    *(
        "trap 'echo D' DEBUG",
        "trap 'n=$((n+1))' DEBUG",
        "trap - DEBUG",
        "echo n $n",
        "trap 'echo E$?' ERR",
        "trap - ERR",
    ),
    *(
        "trap 'echo U' USR1",
        "trap 'echo U' USR1; kill -USR1 $$",
        "trap '' USR1; kill -USR1 $$; echo x",
        "trap 'echo R' RETURN",
        "trap - RETURN",
        "trap",
        "trap 'echo C' CHLD",
    ),
    *(
        "trap - CHLD",
        "trap 'echo T' TERM",
        "trap 'echo T' TERM; kill $$; echo after",
        "trap '' TERM HUP",
        "trap 'false' DEBUG",
    ),
    *("set -x", "set +x", "set -f", "set +f", "set -a", "set +a", "set -o pipefail", "set +o pipefail", "set -T -E"),
    *(
        "set +T +E",
        "set -C",
        "set +C",
        "set -k",
        "set +k",
        "set -h",
        "set +B; echo {a,b}; set -B",
        "echo $-",
        "set -u; echo ${nosuch-u}; set +u",
        "echo $-",
    ),
    *(
        "set -e; true; set +e",
        "shopt -s nullglob",
        "shopt -u nullglob",
        "echo nosuch*",
        "shopt -s extglob",
        "shopt -u extglob",
    ),
    *(
        "f() { echo f $1; return 3; }",
        "f 1 || true",
        "f 2",
        "unset -f f; f() { :; }",
        "g() { local x=5; f; echo $x; }; g",
    ),
    *(
        "for i in 1 2; do echo $i; done",
        "if false; then echo no; else echo yes; fi",
        "while false; do :; done",
        "case a in a) echo c;; esac",
    ),
    *(
        "cat <<E\nhere $x\nE",
        "cat <<'E' | wc -l\n$x\nE",
        "echo $(echo in; false)",
        "v=$(false)",
        "echo \"$(echo 'q  q')\"",
    ),
    *(
        "echo $((1/0))",
        "echo $((1/0)) | cat; echo on",
        "ages['b c']=3",
        "m=08; echo ${months[$m]}",
        "nosuch_command",
        "nosuch | cat",
    ),
    *(
        "readonly Q=1 2>/dev/null",
        "Q=2",
        "Q=2 | cat; echo on",
        "cd /nosuch",
        "cat /nosuch",
        "echo x > /nosuch/y",
        "echo x >&77",
    ),
    *(
        "{ sleep 0 & wait $!; } 2>/dev/null",
        "{ (exit 4) & wait $!; } 2>/dev/null",
        "{ sleep 50 & kill -9 $!; wait $!; } 2>/dev/null",
        "{ (sleep 50) & kill -9 $!; wait $!; } 2>/dev/null; echo r",
    ),
    *(
        "{ sleep 50 & } 2>/dev/null",
        "{ kill -9 $!; wait $!; } 2>/dev/null",
        "jobs -r | wc -l",
        "disown -a",
        "{ echo late & wait $!; } 2>/dev/null",
    ),
    *("exec 8> eight", "echo to8 >&8", "exec 8>&-", "cat eight 2>/dev/null", "exec 9>&1", "echo nine >&9", "exec 9>&-"),
    *(
        "IFS=:; v=a:b; echo $v; unset IFS",
        "set -- p 'q r'; echo $#",
        "shift; echo $1",
        "read -r v <<< 'hi there'; echo $v",
        "cat",
        "read v",
    ),
    *(
        "break",
        "return 3",
        "local q",
        "alias ll='ls'",
        "unalias -a",
        "enable -n echo; echo still; enable echo",
        "hash -r",
        "umask 022; umask",
    ),
    *(
        'builtin() { command builtin "$@"; }',
        "unset -f builtin",
        "eval() { echo mine; }",
        "unset -f eval",
        "exit() { echo no; }",
        "unset -f exit",
    ),
    *(
        "test() { return 1; }",
        "unset -f test",
        "printf '%s-' 1 2; echo",
        "echo -n part",
        "echo out; echo err >&2",
        "{ echo g; (echo s); }",
    ),
    *(
        "echo 'a\nb'",
        "echo a \\\n b",
        "# comment\necho c",
        "declare -A d; d[k]=v; echo ${d[k]}",
        "a=(1 2); echo ${#a[@]}",
        "pwd | wc -l",
    ),
    *(
        "trap 'm=$((m+1))' CHLD",
        "echo m $m",
        "set -T",
        "trap 'k=$((k+1))' DEBUG",
        "echo k $k; (exit 6)",
        "trap 'echo B $BASH_SUBSHELL >> seen' DEBUG; set -T",
        "[[ a < b ]] && echo less",
        "case $x in 1) echo one;; *) echo other;; esac",
        "l=(1 'b c'); l+=(3); echo ${#l[@]} ${l[1]}",
        "h() { local v=$1; ((v > 1)) && echo big || echo small; }; h 2",
    ),
    *(
        "trap 'echo \"$BASH_COMMAND\" >> seen' DEBUG",
        "trap - DEBUG; cat seen 2>/dev/null; rm -f seen",
        "PS4='> '",
        "unset PS4",
        "LC_ALL=C",
    ),
]
PID = re.compile(r"(?<=kill -USR1 )\d+|(?<=kill )\d+|(?<=PPID=\")\d+")
ANY_PID = re.compile(r"\b\d{3,}\b")
ENDS = 40
"""A shell has a new partner after so many commands."""


def comparable(text, command):
    """What runs at the same time prints, and is traced, in any order."""
    text = (ANY_PID if command == "echo $_" else PID).sub("N", without_lines(text))
    return sorted(text.split("\n")) if "|" in command or "&" in command else text


def walk(folder, number, seed):
    """What differed: (the commands so far, bash's output, the session's answer)."""
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    draw = random.Random(seed)

    async def main():
        found = []
        for part in range(number // ENDS):
            (folder / str(part)).mkdir()
            plain, box, done = (
                PlainBash(folder / str(part), env),
                await UnsafeBackend().create(SandboxSpec(env=env)),
                [],
            )
            try:
                for _ in range(ENDS):
                    done.append(draw.choice(STEPS))
                    got = await box.aexec(done[-1], timeout_s=30)
                    try:
                        want = plain.run(done[-1])
                    except BashEnded:  # under `set -e`, by a DEBUG trap that fails
                        break
                    if comparable(want, done[-1]) != comparable(got.output, done[-1]) or got.killed:
                        found.append((done, want, got))
                        break
            finally:
                plain.close()
                await box.aclose()
        return found

    return asyncio.run(main())


def test_a_short_walk(tmp_path):
    found = walk(tmp_path, 160, 1)
    assert not found, "\n".join(map(str, found))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_a_long_walk(tmp_path, seed):
    found = walk(tmp_path, 2500, seed)
    assert not found, "\n".join(map(str, found))
