"""The session beside plain bash over a public shell specification: the cases of oils' spec/*.test.sh.

    python benchmarks/sandbox/shell_spec.py SPEC [--docker IMAGE] [--only PART | --named] [--every N] [--out FILE]

SPEC is a checkout's folder of such files (github.com/oils-for-unix/oils, spec/). Of each case the text between two
lines "#### name" without its "##" annotations is run by `bash FILE` and by a fresh session, each in an empty folder of
one sandbox. At the end of its file bash ends, so the session is then told `exit`. They agree where output (stdout and
stderr together, lines in any order where jobs run beside each other) and exit code are the same in one of three tries.
After each case the session is asked for a random word; one that does not give it is counted as broken. Files about
other shells are left out. What is known to differ is named in tests/unit/envs/sandbox/spec_rest.toml with the reason.
"""

import argparse
import asyncio
import json
import re
import secrets
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.local import LocalBackend
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import SandboxError

OTHER_SHELLS = re.compile(r"ysh-|hay|zsh-|ble-|interactive|stateful|osh-|toysh|oil|strict-options|.*-osh")
VARYING = (
    (re.compile(r"(?:/tmp/text-[0-9a-f]+/)?bash: (?:eval: )?line"), "bash: line"),
    (re.compile(r"/tmp/text-[0-9a-f]+/bash"), "bash"),
    (re.compile(r"process group \(\d+\)"), "process group"),
    (re.compile(r"/tmp/case-[0-9a-f]+"), "/tmp/case"),
    (re.compile(r"\d+m\d+\.\d+s|\b\d+\.\d\d \d+\b"), "TIME"),
    (re.compile(r"\b\d{1,7}\b(?= (?:Terminated|Killed|Done))|(?<=pid=)\d+|(?<=/proc/)\d+|sh-thd[.-]\d+"), "N"),
)
"""What differs between any two runs, and bash's own name for where text came from."""

ENV = {"SH": "bash", "LANG": "C.UTF-8"}
COMMAND_S = 20.0
TRIES = 3
REST = Path(__file__).parents[2] / "tests/unit/envs/sandbox/spec_rest.toml"


def cases(folder):
    """(file, name, text) of each."""
    for path in sorted(folder.glob("*.test.sh")):
        if OTHER_SHELLS.match(path.name):
            continue
        for part in re.split(r"^#### ", path.read_text(errors="replace"), flags=re.M)[1:]:
            name, _, body = part.partition("\n")
            body = re.split(r"^## ", body, maxsplit=1, flags=re.M)[0]
            yield path.name.removesuffix(".test.sh"), name.strip(), body.rstrip("\n") + "\n"


def comparable(text, folder):
    text = text.replace(folder, "/tmp/case")
    for pattern, common in VARYING:
        text = pattern.sub(common, text)
    return text


async def create(backend, spec):
    for _ in range(5):
        try:
            return await backend.create(spec)
        except SandboxError as error:
            print(error, file=sys.stderr)
            await asyncio.sleep(5)
    return await backend.create(spec)


async def run_case(backend, spec, text):
    box = await create(backend, spec)
    try:
        folders = [f"/tmp/case-{secrets.token_hex(4)}" for _ in range(2)]
        await box.arun(["mkdir", "-m", "777", *folders])
        file = f"/tmp/text-{secrets.token_hex(4)}/bash"
        await box.write_file(file, text.encode())
        script = (
            'cd "$1" && export TMP="$1" OLDPWD && unset OLDPWD && exec bash --norc --noprofile "$0" 2>&1 </dev/null'
        )
        plain = await box.arun(["bash", "-c", script, file, folders[0]], timeout_s=COMMAND_S, output_bytes=30_000)
        await box.aexec(f"cd {folders[1]}; export TMP=$PWD; unset OLDPWD")
        ours = await box.aexec(text, timeout_s=COMMAND_S)
        if ours.killed is None:
            ended = await box.aexec("\\exit", timeout_s=COMMAND_S)
            ours = replace(ours, output=ours.output + ended.output, exit_code=ended.exit_code, killed=ended.killed)
        word = secrets.token_hex(8)
        asked = await box.aexec(f"\\builtin printf %s {word}; (\\exit 7)", timeout_s=COMMAND_S)
        code = plain.exit_code if plain.exit_code is None or plain.exit_code >= 0 else 128 - plain.exit_code
        order = sorted if re.search(r"(?<!&)&(?![&>\d])|>\(", text) else list
        want = (order(comparable(plain.stdout.decode(errors="replace"), folders[0]).split("\n")), code, plain.killed)
        got = (order(comparable(ours.output, folders[1]).split("\n")), ours.exit_code, ours.killed)
        return want, got, word in asked.output or not asked.killed
    finally:
        await box.aclose()


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path)
    parser.add_argument("--docker", metavar="IMAGE")
    parser.add_argument("--only", default="", help="cases whose FILE: NAME begins so")
    parser.add_argument("--named", action="store_true", help="only the cases that are known to differ")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    backend = DockerBackend() if args.docker else LocalBackend()
    spec = SandboxSpec(image=args.docker, env=ENV)
    count, rest = Counter(), []
    known = {name for names in tomllib.loads(REST.read_text()).values() for name in names}
    for file, name, text in list(cases(args.spec))[:: args.every]:
        if not f"{file}: {name}".startswith(args.only) or (args.named and f"{file}: {name}" not in known):
            continue
        for _ in range(TRIES):
            want, got, alive = await run_case(backend, spec, text)
            if want == got and alive:
                break
        verdict = "equal" if want == got else "hangs" if got[2] == "timeout" != want[2] else "differs"
        count[verdict] += 1
        count["broken"] += not alive
        if verdict != "equal" or not alive:
            rest.append({"file": file, "name": name, "text": text, "bash": want, "session": got, "alive": alive})
            named = "" if f"{file}: {name}" in known else " (not named)"
            count["not named"] += bool(named)
            print(f"{verdict:8} {file}: {name}{named}", file=sys.stderr)
    total = count["equal"] + count["differs"] + count["hangs"]
    print(f"{count['equal']} of {total} equal ({count['equal'] / max(total, 1):.1%}), {dict(count)}")
    if args.out:
        args.out.write_text(json.dumps(rest, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
