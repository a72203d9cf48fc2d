"""What a model says of rows: how narrow and underspecified it reads them, and whether it knows their fix by heart.

It stands beside the scores and gives no class: another model says something else.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ....errors import PolicyError, TaskError
from ....model.chat.messages import Message, ToolSpec
from ....model.chat.sampling import Sampling
from ...datasets.swe import SWERow, parse_row
from ...sandbox.background import all_or_first_error
from ..certificate import Certificate
from ..leaks import TELLING_CHARS
from .changes import change_of

AT_ONCE, MOST_CHARS, WORST = 8, 24_000, 3
ANSWER = Sampling(max_tokens=2048, temperature=0.0)

JUDGE = """\
Below are a task for a programmer, the reference solution, and the hidden tests that decide. Say two things about the \
task, each with a number from 0 (not at all) to 3 (badly):

narrow: would the hidden tests refuse reasonable solutions, because they ask for names, messages or details that the \
task does not state?
underspecified: does the task leave open what has to be done?

Answer in three lines and nothing else:
narrow: NUMBER
underspecified: NUMBER
because: ONE SENTENCE

# Task

{statement}

# Reference

{patch}

# Hidden tests

{tests}
"""
MEMORY = """\
A bug of {repo} was mended in {paths}. You cannot look at the repository. Write the lines of code that the fix added, \
as exactly as you remember them, and nothing else.

{statement}
"""


class Policy(Protocol):
    """What is asked; see ``verigym.agent.policy.Policy``."""

    async def respond(self, conversation: Sequence[Any], tools: Sequence[ToolSpec], sampling: Sampling) -> Any: ...


Question = Callable[[Policy, SWERow], Awaitable[dict[str, Any]]]


async def judged(policy: Policy, row: SWERow) -> dict[str, Any]:
    """{"narrow", "underspecified" (in [0, 1]), "because"}, or {"problem"} where the answer has not the form.

    Raises:
        PolicyError: the policy gave no answer.
    """
    told = {"statement": row.problem_statement, "patch": row.patch, "tests": row.test_patch}
    answer = await _answer(policy, JUDGE.format(**{name: text[:MOST_CHARS] for name, text in told.items()}))
    found: dict[str, Any] = {}
    for name in ("narrow", "underspecified"):
        match = re.search(rf"^\W*{name}\W*([0-{WORST}])\b", answer, re.M | re.I)
        if match is None:
            return {"problem": f"no line '{name}: NUMBER' in the answer: {answer[:200]!r}"}
        found[name] = round(int(match[1]) / WORST, 4)
    because = re.search(r"^\W*because\W*(.+)", answer, re.M | re.I)
    return {**found, "because": because[1].strip()[:500] if because else ""}


async def remembered(policy: Policy, row: SWERow) -> dict[str, Any]:
    """{"share", "lines"}: of the reference's long lines that the statement does not hold, those that the policy writes
    without seeing the repository; {"problem"} where there are none.

    Raises:
        PolicyError: the policy gave no answer.
    """
    change = change_of(row.patch)
    shown = {line.strip() for line in f"{change.before}\n{row.problem_statement}".splitlines()}
    added = dict.fromkeys(line.strip() for line in change.added.splitlines())
    lines = [line for line in added if len(line) >= TELLING_CHARS and line not in shown and line[0] != "#"]
    if not lines:
        return {"problem": "the reference has no line that is long enough to be recognised"}
    told = {"repo": row.repo, "paths": ", ".join(change.paths), "statement": row.problem_statement[:MOST_CHARS]}
    said = {line.strip().lstrip("+ ") for line in (await _answer(policy, MEMORY.format(**told))).splitlines()}
    found = [line for line in lines if line in said]
    return {"share": round(len(found) / len(lines), 4), "lines": found[:20], "asked": len(lines)}


QUESTIONS: Mapping[str, Question] = {"judge": judged, "memory": remembered}


async def ask_rows(
    name: str,
    spec: str,
    policy: Policy,
    rows: Sequence[Mapping[str, Any]],
    certificates: Sequence[Certificate],
    *,
    keep: Callable[[Certificate], None],
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Certificate]:
    """Ask a policy one question of QUESTIONS about each row.

    Args:
        name: of the question.
        spec: what the policy was asked for as; rows that it was asked about before are left as they are.
        certificates: of the rows, in their order; of broken rows nothing is asked.
        keep: is given each certificate as it is made.
    Returns:
        [N] certificates with the answer under ``asked[name]``; "problem" in it where there was none.
    """
    tell = progress or (lambda what, done, total: None)
    room, done = asyncio.Semaphore(AT_ONCE), 0

    async def one(raw: Mapping[str, Any], certificate: Certificate) -> Certificate:
        nonlocal done
        known = certificate.asked.get(name, {})
        if certificate.kind != "broken" and (known.get("policy") != spec or "problem" in known):
            async with room:
                try:
                    answer = await QUESTIONS[name](policy, parse_row(raw))
                except (PolicyError, TaskError) as error:
                    answer = {"problem": str(error)}
            asked = {**certificate.asked, name: {"policy": spec, **answer}}
            certificate = replace(certificate, asked=asked)
            keep(certificate)
        done += 1
        tell(f"rows asked ({name})", done, len(rows))
        return certificate

    return await all_or_first_error([one(raw, mine) for raw, mine in zip(rows, certificates, strict=True)])


async def _answer(policy: Policy, prompt: str) -> str:
    turn = await policy.respond([Message(role="user", content=prompt)], (), ANSWER)
    return turn.message.content
