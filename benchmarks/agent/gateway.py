"""What the gateway adds to a turn, beside the policy asked directly: ``python -m benchmarks.agent.gateway``.

The engine answers at once with 32 tokens, so that nothing but the way to it is measured. A conversation grows by a call
of a tool and its answer each turn. "direct" is the policy's own ``respond``; "gateway" is the same turn asked for over
HTTP by a client that does nothing but write and read bytes on one connection.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verigym.agent.gateway.serve import Gateway
from verigym.agent.gateway.session import Limits, Session
from verigym.agent.policy import Entry, TokenPolicy
from verigym.model.chat.api import from_openai_tools
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Completion, Sampling
from verigym.model.tokenizer import Tokenizer, train_tokenizer

TURN = "I look.\n<tool: bash>\nls -l src\n</tool>"
ANSWER = "total 12\n-rw-r--r-- 1 agent agent 120 a.py\n" * 4
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOL = {"type": "function", "function": {"name": "bash", "description": "Runs.", "parameters": SCHEMA}}
SAMPLING = Sampling(max_tokens=64)


class Instant:
    """Says the same at once."""

    policy_version, max_context = 0, 1 << 20

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._ids = tuple(tokenizer.encode(TURN))

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        ids = (*self._ids, stop_token_ids[0])
        return Completion(
            token_ids=ids,
            logprobs=(-0.5,) * len(ids),
            policy_version=(0,) * len(ids),
            finish_reason="stop",
            stop_reason=stop_token_ids[0],
        )


Cost = tuple[float, float]
"""Wall clock and processor time, in seconds."""


def now() -> Cost:
    return time.perf_counter(), time.process_time()


def since(before: Cost) -> Cost:
    wall, processor = now()
    return wall - before[0], processor - before[1]


async def direct(policy: TokenPolicy, turns: int) -> list[float]:
    """Seconds of each turn."""
    conversation: list[Entry] = [Message(role="user", content="List.")]
    tools, found = from_openai_tools([TOOL]), []
    for _ in range(turns):
        before = time.perf_counter()
        turn = await policy.respond(conversation, tools, SAMPLING)
        found.append(time.perf_counter() - before)
        conversation += [turn, Message(role="tool", name="bash", content=ANSWER)]
    return found


class Connection:
    """One connection that is kept; no client's own work is measured."""

    def __init__(self, gateway: Gateway, session: Session) -> None:
        self._port, self._head = gateway.port, (
            f"POST /{session.id}/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {session.key}\r\ncontent-length: "
        )  # fmt: skip

    async def __aenter__(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()

    async def post(self, body: bytes) -> bytes:
        self._writer.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        answer = await self._reader.readexactly(size)
        assert b" 200 " in head[:20], answer
        return answer


async def through(gateway: Gateway, session: Session, turns: int) -> list[float]:
    """Seconds of each turn, from the first byte sent to the last one read; the client's JSON is not among them."""
    messages: list[Any] = [{"role": "user", "content": "List."}]
    found = []
    async with Connection(gateway, session) as connection:
        for _ in range(turns):
            body = json.dumps({"model": session.model, "messages": messages, "tools": [TOOL]}).encode()
            before = time.perf_counter()
            answer = await connection.post(body)
            found.append(time.perf_counter() - before)
            said = json.loads(answer)["choices"][0]["message"]
            calls = [{"role": "tool", "tool_call_id": one["id"], "content": ANSWER} for one in said["tool_calls"]]
            messages += [said, *calls]
    return found


async def measure(turns: int, runs: int, episodes: int) -> dict[str, Any]:
    tokenizer = train_tokenizer([TURN * 8, ANSWER * 8], 400)
    policy = TokenPolicy(Instant(tokenizer), CwmRenderer(tokenizer), CwmParser())
    limits = Limits(turns=10**6, tokens=1 << 20)
    rows = []
    async with Gateway().serving() as gateway:
        for _ in range(runs + 1):  # the first warms up
            ours = await direct(policy, turns)
            async with gateway.open(policy, SAMPLING, limits=limits) as session:
                theirs = await through(gateway, session, turns)
            rows.append((statistics.median(ours), statistics.median(theirs)))
        async with asyncio.timeout(600):
            many = await _many(gateway, policy, limits, episodes, turns)
    rows = rows[1:]
    return {
        "direct_ms": _spread([one[0] for one in rows]),
        "gateway_ms": _spread([one[1] for one in rows]),
        "added_ms": _spread([one[1] - one[0] for one in rows]),
        **many,
    }


async def _many(gateway: Gateway, policy: TokenPolicy, limits: Limits, episodes: int, turns: int) -> dict[str, Any]:
    """Turns a second with many episodes at once, both ways."""
    before = now()
    await asyncio.gather(*(direct(policy, turns) for _ in range(episodes)))
    ours = since(before)

    async def one() -> None:
        async with gateway.open(policy, SAMPLING, limits=limits) as session:
            await through(gateway, session, turns)
            assert session.counts.turns == turns

    before = now()
    await asyncio.gather(*(one() for _ in range(episodes)))
    theirs = since(before)
    count = episodes * turns
    found = {"direct": ours, "gateway": theirs}
    return {"episodes": episodes} | {
        f"many_{name}_{kind}_ms": 1e3 * cost / count
        for name, costs in found.items()
        for kind, cost in zip(("wall", "cpu"), costs, strict=True)
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Seconds as milliseconds."""
    return {"median": 1e3 * statistics.median(values), "least": 1e3 * min(values), "most": 1e3 * max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20, help="of an episode (default: 20)")
    parser.add_argument("--runs", type=int, default=7, help="episodes each way (default: 7)")
    parser.add_argument("--episodes", type=int, default=64, help="at once (default: 64)")
    parser.add_argument("--out", type=Path, help="write JSON there")
    args = parser.parse_args()
    found = asyncio.run(measure(args.turns, args.runs, args.episodes))
    found |= {"turns": args.turns, "runs": args.runs, "python": platform.python_version(), "load": os.getloadavg()[0]}
    for name in ("direct_ms", "gateway_ms", "added_ms"):
        row = found[name]
        print(f"{name:12} {row['median']:8.3f}   {row['least']:8.3f} to {row['most']:8.3f}")
    print(
        f"{found['episodes']} episodes at once, ms of processor a turn, the client's JSON among them: "
        f"{found['many_direct_cpu_ms']:.2f} direct, {found['many_gateway_cpu_ms']:.2f} through the gateway; "
        f"load {found['load']:.1f}"
    )
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
