"""The persistent shell: what lasts, what cannot unsettle it, its output and its deadline."""

from ..types import SandboxBackend
from .expect import gives, new_mark, none_alive, opened, same


async def check_session(backend: SandboxBackend) -> None:
    """The shell lasts: directory, variables, functions, $?; ``exit`` ends the command alone."""
    async with opened(backend) as sandbox:
        await gives(
            sandbox, "mkdir -p sub && cd sub && export WORD='two words' NEXT=$'a\\nb'; loose=1; f() { echo f; }", ""
        )
        await gives(sandbox, 'basename "$PWD"; echo "$WORD" "$loose"; f', "sub\ntwo words 1\nf\n")
        await gives(sandbox, "echo out; echo err >&2; (exit 7)", "out\nerr\n", code=7)
        await gives(sandbox, "echo $?", "7\n")
        await gives(sandbox, "cd ..; export WORD=later; exit 3", "", code=3)
        await gives(sandbox, 'echo "$WORD" "$NEXT"; ls -d sub', "later a\nb\nsub\n")
        await gives(sandbox, "false | true; echo ${PIPESTATUS[*]}", "1 0\n")
        await gives(sandbox, "cat <<'END'\n'quoted' \"text\" $HOME\nEND", "'quoted' \"text\" $HOME\n")
        await gives(sandbox, f": {'x' * 200_000}; echo long", "long\n")
        result = await sandbox.aexec("no-such-command-anywhere")
        same("exit code of an unknown command", result.exit_code, 127)


DESYNC: tuple[tuple[str, int | None], ...] = (
    ("", 0),
    ("# only a comment", 0),
    ("echo 'exit 0'; echo __verigym_code=0; echo ok", 0),
    ("cat", 0),
    ("read line", 1),
    ("echo 'open", None),
    ("cat <<END\nnever ended", 0),
    ("if true; then", None),
    ("echo trailing \\", 0),
    ("exit 5", 5),
    ("exec sh -c 'exit 6'", 6),
    ("exec >/dev/null 2>&1 </dev/zero", 0),
    ("exec 0<&- 1>&- 2>&-", 0),
    ('for fd in $(seq 3 255); do eval "exec $fd>&-"; done', 0),
    ("exec 10>/dev/null 11>/dev/null 12>/dev/null 250>/dev/null", 0),
    ("kill -9 $$", 137),
    ("kill -TERM 0", 143),
    ("printf 'a\\0b\\0'", 0),
    ("printf '\\377\\376\\200'", 0),
    ("head -c 1000000 /dev/zero | tr '\\0' x", 0),
    ("(sleep 0.2; echo late) &", 0),
    ("yes &", 0),
    ("break", 0),
    ("return 4", None),
    ("set -e; false; echo no", 1),
    ("set -u; echo $undefined", None),
    ("trap 'echo bye' EXIT", 0),
    ("trap 'echo bye' EXIT; exit 8", 8),
    ("printf() { echo bad; }; pwd() { echo bad; }; eval() { echo bad; }; read() { echo bad; }", 0),
    ("ulimit -n 4", 0),
    ("exit 0", 0),
    ("echo \"$BASH_EXECUTION_STRING\"; set +o | head -1 >/dev/null; shopt -s expand_aliases; alias echo='echo bad'", 0),
    ("unalias echo; cd /; umask 000; IFS=x; set -f", 0),
    ("unset PATH HOME", 0),
)
"""(a command that could lose the session, its exit code; None: any but 0)."""


async def check_desync(backend: SandboxBackend) -> None:
    """After each of ``DESYNC``, ``echo ok`` gives exactly ``ok``, and 0, and the one after gives its own code."""
    async with opened(backend) as sandbox:
        for command, code in DESYNC:
            result = await sandbox.aexec(command, timeout_s=20)
            if result.killed or (result.exit_code != code if code is not None else not result.exit_code):
                raise AssertionError(f"{command!r} gave {result}, expected exit code {code}")
            if "alias" not in command:
                await gives(sandbox, "echo ok", "ok\n", after=command)
            await gives(sandbox, "builtin echo so; (builtin exit 9)", "so\n", code=9, after=command)


async def check_output(backend: SandboxBackend) -> None:
    """Output of any bytes and any size: head and tail are kept, invalid UTF-8 is replaced."""
    async with opened(backend, output_bytes=1000) as sandbox:
        await gives(sandbox, "printf 'a\\0b\\377c'", "a\0b�c")
        result = await sandbox.aexec("echo first; seq 100000; echo last >&2")
        same("truncated", result.truncated, True)
        if not (result.output.startswith("first\n1\n") and result.output.endswith("100000\nlast\n")):
            raise AssertionError(f"head and tail were not kept: {result.output!r}")
        if len(result.output) > 1100:
            raise AssertionError(f"{len(result.output)} characters of output with a cap of 1000 bytes")
        result = await sandbox.aexec("head -c 1000000000 /dev/zero", timeout_s=60)
        same("1 GB of output", (result.exit_code, result.truncated), (0, True))
        result = await sandbox.aexec("echo before; sleep 600", timeout_s=0.3)
        same("output of a killed command", (result.output, result.killed), ("before\n", "timeout"))


async def check_deadline(backend: SandboxBackend) -> None:
    """At the deadline every process goes, also orphans and daemons; the session goes on where it was."""
    mark = new_mark()
    async with opened(backend) as sandbox:
        await gives(sandbox, "mkdir -p deep && cd deep && export KEPT=yes", "")
        await gives(sandbox, f"sleep {mark}1 &", "")
        commands = (
            f"(sleep {mark}2 & sleep {mark}3); wait",
            f"setsid sh -c 'sleep {mark}4 & sleep {mark}5' & cd /; sleep {mark}6",
        )
        for command in (*commands, "trap '' TERM INT; while :; do :; done", "kill -STOP $$"):
            result = await sandbox.aexec(command, timeout_s=0.4)
            same(f"outcome of {command!r}", (result.exit_code, result.killed), (None, "timeout"))
            await gives(sandbox, 'basename "$PWD"; echo "$KEPT"', "deep\nyes\n", after=command)
            await none_alive(sandbox, f"sleep {mark}")
