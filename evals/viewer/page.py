"""Episodes as one HTML page, to hand on.

What an episode holds was written by models and by programs they ran, so every piece of it is text here: escaped, its
control characters spelled out, and the page itself forbids scripts and anything from elsewhere.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

from ...agent.trajectory import Segment, Trajectory
from ...agent.transcript import printable
from ...model.chat.messages import Message

MAX_CHARS = 20_000
"""Most characters of one text; a longer one keeps its head and its tail."""

MAX_TOKENS = 4_000
"""Most tokens of one segment that are shown one by one."""

STYLE = """
:root { color-scheme: light dark; --g: #fff; --p: #f8f8f6; --l: #e6e5e1; --t: #1d1c1a; --m: #66645e; --a: #0f62b4;
  --good: #1a7243; --bad: #b1271b; --goodg: #e6f4ea; --badg: #fcebe9; }
@media (prefers-color-scheme: dark) { :root { --g: #131312; --p: #1b1b19; --l: #2c2b28; --t: #eae8e3; --m: #a5a29a;
  --a: #7ab5f5; --good: #6cc792; --bad: #f58d80; --goodg: #14291c; --badg: #351a17; } }
* { box-sizing: border-box; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1.2em; color: var(--t);
  background: var(--g); font-variant-numeric: tabular-nums; }
h1 { font-size: 20px; overflow-wrap: anywhere; } h2 { font-size: 16px; margin: 0 0 .3em; overflow-wrap: anywhere; }
h2 span { font-weight: 400; }
pre { font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--p); padding: .5em .7em; margin: .3em 0; border-radius: 4px; unicode-bidi: plaintext; }
table { border-collapse: collapse; }
td, th { padding: .15em .9em .15em 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 400; color: var(--m); white-space: nowrap; }
section { border-top: 1px solid var(--l); margin-top: 2em; padding-top: 1.2em; contain: paint; }
.message { border-left: 2px solid var(--l); padding-left: .9em; margin: .9em 0; } .assistant { border-color: var(--a); }
.who { font-weight: 600; } .passed td:first-of-type { color: inherit; } .none { color: var(--m); }
.passed > tbody > tr:first-child td, .passed tr:first-child td { color: var(--good); }
.failed tr:first-child td { color: var(--bad); }
.add { color: var(--good); background: var(--goodg); } .del { color: var(--bad); background: var(--badg); }
.tokens i { font: 11px ui-monospace, monospace; padding: 0 .2em; margin: 1px; display: inline-block;
  background: var(--p); border-radius: 2px; }
.tokens i.s { background: color-mix(in srgb, #e0701a calc(var(--u) * 60%), var(--goodg)); }
summary { cursor: pointer; color: var(--a); margin: .4em 0; }
""".strip()

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_FIELDS = frozenset(Trajectory.__dataclass_fields__)


def page(
    title: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    worth: Sequence[tuple[str, str, str]] = (),
    flags: Mapping[tuple[str, int], str] = MappingProxyType({}),
) -> Iterator[str]:
    """The page, in pieces.

    Args:
        worth: (what, figure, tasks) of the run's figures, for a table at the top (``worth_told.report_rows``).
        flags: (task, sample) -> what a person should look at in that episode.
        rows: of ``Trajectory.to_json``, with or without segments and messages; beside its keys "index" (the sample's
            number), "step" and "advantage", as runs write them.
    """
    yield (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>\n<h1>{_text(title)}</h1>\n"
    )
    if worth:
        yield "<table><tr><th>what it is worth</th><th>pass@1 or rate, 95 % interval</th><th>tasks</th></tr>\n"
        for figures in worth:
            yield f"<tr>{''.join(f'<td>{_text(one)}</td>' for one in figures)}</tr>\n"
        yield "</table>\n"
    count = 0
    for row in rows:
        fields = {key: value for key, value in row.items() if key in _FIELDS and value is not None}
        fields |= {"reward": row.get("reward"), "passed": row.get("passed")}
        one = Trajectory.from_json(fields)
        yield "".join(_episode(one, row, flags.get((one.task_id, row.get("index") or 0), "")))
        count += 1
    yield f"<p>{count} episodes.</p>\n</body></html>\n"


def _episode(one: Trajectory, row: Mapping[str, Any], flagged: str) -> Iterator[str]:
    place = [
        f"{name} {row[key]:d}" for key, name in (("step", "step"), ("index", "sample")) if row.get(key) is not None
    ]
    verdict = {True: "passed", False: "failed", None: "none"}[one.passed]
    told = "no reward" if one.reward is None else f"reward {one.reward:.3g}"
    yield f'<section><h2>{_text(one.task_id)}<span class="none">{"".join(f", {name}" for name in place)}</span></h2>\n'
    advantage = row.get("advantage")
    facts = {
        "ended": f"{one.ending}, {told}",
        "advantage": "" if advantage is None else f"{advantage:.3g}",
        "parts": ", ".join(f"{name} {value:.3g}" for name, value in one.breakdown.items()),
        "detail": one.detail,
        "to look at": flagged,
        "turns": f"{one.num_turns}, format errors {one.num_format_errors}",
        "seconds": ", ".join(f"{name} {value:.2f}" for name, value in one.timings.items()),
        "tokens": f"{one.num_sampled} sampled in {len(one.segments)} segments" if one.segments else "",
    }
    yield f'<table class="{verdict}">'
    yield from (f"<tr><th>{name}</th><td>{_text(value)}</td></tr>" for name, value in facts.items() if value)
    yield "</table>\n"
    if one.messages:
        yield "<details><summary>conversation</summary>\n"
        turn = 0
        for message in one.messages:
            turn += message.role == "assistant"
            yield from _message(message, turn)
        yield "</details>\n"
    if one.evidence.get("patch"):
        yield f"<details><summary>patch</summary>{_patch(str(one.evidence['patch']))}</details>\n"
    tests = one.evidence.get("tests")
    if isinstance(tests, Mapping) and tests:
        yield "<details><summary>tests</summary><table>"
        yield from (
            f"<tr><th>{_text(str(state))}</th><td>{_text(str(name))}</td></tr>" for name, state in tests.items()
        )
        yield "</table></details>\n"
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


def _patch(patch: str) -> str:
    """A diff, its lines in colour."""
    lines = []
    for line in _cut(patch).split("\n"):
        kind = (
            "add"
            if line.startswith("+") and line[:3] != "+++"
            else "del"
            if line[:1] == "-" and line[:3] != "---"
            else ""
        )
        lines.append(f'<span class="{kind}">{_text(line)}</span>' if kind else _text(line))
    return "<pre>" + "\n".join(lines) + "</pre>"


def _block(text: str) -> str:
    return f"<pre>{_text(_cut(text))}</pre>"


def _cut(text: str) -> str:
    left_out = len(text) - MAX_CHARS
    if left_out <= 0:
        return text
    half = MAX_CHARS // 2
    return f"{text[:half]}\n[… {left_out} characters left out …]\n{text[-half:]}"


def _text(text: str) -> str:
    """Any text as HTML's text, also between quotes."""
    return escape(printable(text), quote=True)
