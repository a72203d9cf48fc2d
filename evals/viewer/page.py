"""Trajectories as one HTML page.

What an episode holds was written by models and by programs they ran, so every piece of it is text here: escaped, its
control characters spelled out, and the page itself forbids scripts and anything from elsewhere.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from ...agent.trajectory import Segment, Trajectory
from ...agent.transcript import printable
from ...model.chat.messages import Message

MAX_CHARS = 20_000
"""Most characters of one text; a longer one keeps its head and its tail."""

MAX_TOKENS = 4_000
"""Most tokens of one segment that are shown one by one."""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f4; padding: .5em .7em; margin: .3em 0; }
table { border-collapse: collapse; } td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top; }
section { border-top: 2px solid #ccc; margin-top: 2em; }
.message { border-left: 4px solid #bbb; padding-left: .8em; margin: .8em 0; }
.assistant { border-color: #2a7; } .tool { border-color: #c90; } .user { border-color: #38c; }
.who { font-weight: 600; } .passed { color: #185; } .failed { color: #a22; } .none { color: #777; }
.tokens i { font: 11px monospace; padding: 0 .2em; margin: 1px; display: inline-block; background: #eee; }
.tokens i.s { background: hsl(calc(140 - 140 * var(--u)) 70% 82%); } summary { cursor: pointer; }
""".strip()

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The page, in pieces.

    Args:
        rows: of ``Trajectory.to_json``; "index" beside its keys is the sample's number.
    """
    yield (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>\n<h1>{_text(title)}</h1>\n"
    )
    count = 0
    for row in rows:
        one = Trajectory.from_json({key: value for key, value in row.items() if key != "index"})
        yield "".join(_episode(one, row.get("index")))
        count += 1
    yield f"<p>{count} episodes.</p>\n</body></html>\n"


def _episode(one: Trajectory, index: int | None) -> Iterator[str]:
    sample = "" if index is None else f", sample {index:d}"
    verdict = {True: "passed", False: "failed", None: "none"}[one.passed]
    told = "no reward" if one.reward is None else f"reward {one.reward:.3g}"
    yield f'<section><h2>{_text(one.task_id)}<span class="none">{sample}</span></h2>\n'
    facts = {
        "ended": f"{one.ending}, {told}",
        "parts": ", ".join(f"{name} {value:.3g}" for name, value in one.breakdown.items()),
        "detail": one.detail,
        "turns": f"{one.num_turns}, format errors {one.num_format_errors}",
        "seconds": ", ".join(f"{name} {value:.2f}" for name, value in one.timings.items()),
        "tokens": f"{one.num_sampled} sampled in {len(one.segments)} segments" if one.segments else "",
    }
    yield f'<table class="{verdict}">'
    yield from (f"<tr><th>{name}</th><td>{_text(value)}</td></tr>" for name, value in facts.items() if value)
    yield "</table>\n<details><summary>conversation</summary>\n"
    turn = 0
    for message in one.messages:
        turn += message.role == "assistant"
        yield from _message(message, turn)
    yield "</details>\n"
    for number, segment in enumerate(one.segments, start=1):
        yield from _segment(segment, number)
    yield "</section>\n"


def _message(message: Message, turn: int) -> Iterator[str]:
    who = f"assistant, turn {turn}" if message.role == "assistant" else f"{message.role} {message.name or ''}".strip()
    yield f'<div class="message {_text(message.role)}"><div class="who">{_text(who)}</div>'
    if message.thinking:
        yield f"<details><summary>thinking</summary>{_block(message.thinking)}</details>"
    if message.content or not message.calls:
        yield _block(message.content)
    for call in message.calls:
        yield f"<div>calls <b>{_text(call.name)}</b></div><table>"
        for name, value in call.arguments.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"<tr><th>{_text(name)}</th><td>{_block(text)}</td></tr>"
        yield "</table>"
    yield "</div>\n"


def _segment(segment: Segment, number: int) -> Iterator[str]:
    """Every token: its id; who wrote it, its log-probability and version when pointed at; the less likely a sampled one
    was, the redder."""
    sampled = [
        value for value, mask in zip(segment.logprobs, segment.loss_mask, strict=True) if mask and value == value
    ]
    mean = f", mean log-probability {sum(sampled) / len(sampled):.3f}" if sampled else ""
    total = len(segment.token_ids)
    yield f'<details class="tokens"><summary>segment {number}: {total} tokens, {segment.num_sampled} in the loss{mean}'
    yield "</summary><p>"
    columns = zip(
        segment.token_ids, segment.loss_mask, segment.logprobs, segment.policy_version, segment.roles, strict=True
    )
    for place, (token, mask, logprob, version, role) in enumerate(columns):
        if place == MAX_TOKENS:
            yield f" … {total - MAX_TOKENS} more"
            break
        known = logprob == logprob
        told = f"{role}, log-probability {logprob:.4f}, version {version}" if known else role
        unlikely = min(1.0, -logprob / 5) if known else 0.0
        shade = f' class="s" style="--u:{max(0.0, unlikely):.2f}"' if mask else ""
        yield f'<i{shade} title="{_text(told)}">{token:d}</i>'
    yield "</p></details>\n"


def _block(text: str) -> str:
    left_out = len(text) - MAX_CHARS
    if left_out > 0:
        half = MAX_CHARS // 2
        text = f"{text[:half]}\n[… {left_out} characters left out …]\n{text[-half:]}"
    return f"<pre>{_text(text)}</pre>"


def _text(text: str) -> str:
    """Any text as HTML's text, also between quotes."""
    return escape(printable(text), quote=True)
