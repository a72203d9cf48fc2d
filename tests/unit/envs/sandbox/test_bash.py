"""The session answers as bash does: texts of many kinds beside a plain bash in the same sandbox."""

import asyncio
import re

import pytest

from verigym.envs.sandbox.choose import candidates
from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.local import UnsafeBackend
from verigym.envs.sandbox.types import SandboxSpec

from . import bash_cases
from .plain_bash import PlainBash, without_lines

NAMES = re.compile(r"(?:/tmp/text/)?bash: (?:eval: )?line|/tmp/text/bash")
PIDS = re.compile(r"\b\d+(?= (?:Terminated|Killed))")


def comparable(text):
    return PIDS.sub("N", NAMES.sub(lambda found: "bash" + ": line" * ("line" in found[0]), text))


async def differences(backend, spec, texts):
    """Of the single texts: (text, bash's outcome, the session's)."""
    box = await backend.create(spec)
    found = []
    try:
        for text in texts:
            await box.write_file("/tmp/text/bash", text.encode() + b"\n")
            start = 'cd "$1" && unset OLDPWD && exec bash --norc --noprofile /tmp/text/bash 2>&1'
            plain = await box.arun(["bash", "-c", start, "-", spec.workdir], timeout_s=20)
            ours = await box.aexec(text, timeout_s=20)
            code = plain.exit_code if plain.exit_code >= 0 else 128 - plain.exit_code
            want = comparable(plain.stdout.decode(errors="replace")), code
            got = comparable(ours.output), ours.exit_code
            if want != got or ours.killed:
                found.append((text, want, got, ours.killed))
            alive = await box.aexec("\\builtin echo alive", timeout_s=20)
            if "alive\n" not in alive.output or alive.exit_code:
                found.append((text, "the next command", alive))
            await box.aexec(f"exec env -i PATH=/usr/bin:/bin bash -c 'cd {spec.workdir}'")
            await box.aexec(f"cd {spec.workdir}; unset OLDPWD")
    finally:
        await box.aclose()
    return found


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_single_texts_in_the_local_sandbox(every):
    made = candidates()
    if not made:
        pytest.skip("no local sandbox here")
    found = asyncio.run(differences(made[0], SandboxSpec(), bash_cases.SINGLE[::every]))
    assert not found, "\n".join(map(str, found))


@pytest.mark.docker
def test_single_texts_in_docker(engine, base_image):
    backend = DockerBackend(engines=[engine])
    found = asyncio.run(differences(backend, SandboxSpec(image=base_image), bash_cases.SINGLE))
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_sequences_of_commands(tmp_path, every):
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}

    async def main():
        found = []
        for number, commands in enumerate(bash_cases.SEQUENCES[::every]):
            (tmp_path / str(number)).mkdir()
            plain = PlainBash(tmp_path / str(number), env)
            box = await UnsafeBackend().create(SandboxSpec(env=env))
            try:
                for command in commands:
                    want, got = plain.run(command), await box.aexec(command, timeout_s=20)
                    if without_lines(want) != without_lines(got.output):
                        found.append((commands, command, want, got))
            finally:
                plain.close()
                await box.aclose()
        return found

    found = asyncio.run(main())
    assert not found, "\n".join(map(str, found))


@pytest.mark.docker
def test_sequences_in_a_container_are_answered_as_on_this_machine(engine, base_image):
    """The session here is held against a plain bash above."""

    async def main():
        found, backend = [], DockerBackend(engines=[engine])
        for commands in bash_cases.SEQUENCES[::2]:
            env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
            box = await backend.create(SandboxSpec(image=base_image, env=env))
            here = await UnsafeBackend().create(SandboxSpec(env=env))
            try:
                for command in commands:
                    one, other = [await each.aexec(command, timeout_s=20) for each in (box, here)]
                    if (one.output, one.exit_code, one.killed) != (other.output, other.exit_code, other.killed):
                        found.append((commands, command, one, other))
            finally:
                await box.aclose()
                await here.aclose()
        return found

    found = asyncio.run(main())
    assert not found, "\n".join(map(str, found))


STEALS = (
    "timeout 1 head -c 9 /run/verigym/1/bash; timeout 1 head -c 9 /proc/$$/fd/255; echo $?",
    "(for f in /run/verigym/*/bash /proc/$$/fd/25?; do timeout 1 head -c 9 $f & done; wait) 2>/dev/null",
    "python3 -c 'import os; os.open(f\"/proc/{os.getppid()}/fd/255\", 0)' 2>/dev/null; echo $?",
)


def test_what_the_shell_is_told_nobody_else_reads():
    """The words of a report would let a command tell its own."""
    made = candidates()
    if not made:
        pytest.skip("no local sandbox here")

    async def main():
        box = await made[0].create(SandboxSpec())
        try:
            answers = [await box.aexec(text, timeout_s=20) for text in STEALS]
            return answers, await box.aexec("read -r -u 255 line; echo mine; (exit 3)", timeout_s=20)
        finally:
            await box.aclose()

    (first, second, third), last = asyncio.run(main())
    assert "No such file" in first.output
    assert first.output.count("Permission denied") == 1
    assert first.output.endswith("1\n")
    assert (second.output, second.killed) == ("", None)
    assert third.output == "1\n"
    assert last.killed is None
    assert last.output == "mine\n"


def test_a_command_that_holds_nul_is_not_run_and_says_so():
    async def main():
        box = await UnsafeBackend().create(SandboxSpec())
        try:
            refused = await box.aexec("echo a; echo b\0; touch made")
            return refused, await box.aexec("ls; echo $?")
        finally:
            await box.aclose()

    refused, after = asyncio.run(main())
    assert (refused.exit_code, refused.killed) == (126, None)
    assert "cannot hold a NUL byte; nothing was run" in refused.output
    assert after.output == "0\n"


def test_a_new_shell_is_where_the_last_one_was():
    async def main():
        box = await UnsafeBackend().create(SandboxSpec())
        try:
            for command in ("echo a", "export A=1", "cd /usr", "cd /usr/lib && A=2", "kill -9 $$"):
                await box.aexec(command, timeout_s=30)
            return (await box.aexec("echo $A $PWD $OLDPWD; cd -", timeout_s=30)).output
        finally:
            await box.aclose()

    assert asyncio.run(main()) == "2 /usr/lib /usr\n/usr\n"
