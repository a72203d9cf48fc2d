"""What a program's report may cost whoever reads it: bounded, whatever it holds."""

import asyncio
import json
import time
from decimal import Decimal

import pytest

from verigym.envs.code import plain
from verigym.envs.code.compare import SMALL, Comparer, same
from verigym.envs.code.grade import ProgramGrader
from verigym.envs.task import Task

PRIME = (1 << 61) - 1
"""Python's numbers are hashed modulo this."""


def line(value):
    return json.dumps({"value": value})


def flood(count):
    return [{"int": hex(PRIME * number)} for number in range(1, count)]


# Reports that take minutes, or hours, where they are read without a limit; made where they are read.
COSTLY = {
    "a set of numbers with one hash": lambda: {"set": flood(30_000)},
    "keys with one hash": lambda: {"dict": [[key, 0] for key in flood(30_000)]},
    "a counter of them": lambda: {"Counter": [[key, 0] for key in flood(30_000)]},
    "tuples of them": lambda: {"frozenset": [{"tuple": [one, one]} for one in flood(20_000)]},
    "a fraction to reduce": lambda: {"Fraction": [hex(3**400_000), hex(5**300_000)]},
    "a decimal beside a long number": lambda: {"set": [{"Decimal": "1e4000000"}, {"int": hex(10**1_000_000)}]},
}
ODD = {
    "deep": "[" * 200_000,
    "deep tuples": '{"value":' + '{"tuple":[' * 50_000,
    "wide": line([[]] * 60_000),
    "no number": line({"int": "0x" + "g" * 100_000}),
    "digits": '{"value":' + "9" * 100_000 + "}",
    "a signaling NaN": line({"Decimal": "sNaN"}),
    "a list of them": line([{"Decimal": "sNaN"}] * 5000),
    "a set of them": line({"set": [{"Decimal": "sNaN"}]}),
    "over nothing": line({"Fraction": ["0x1", "0x0"]}),
    "halves of pairs": '{"value":"\\ud83d"}',
    "unknown": line({"pickle": "x"}),
    "two kinds": line({"int": "0x1", "float": "1"}),
    "a reference": line({"ref": 0}),
    "not JSON": '{"value":',
    "infinite": line({"float": "inf"}),
    "a number that is none": line({"float": "nan"}),
    "a date": line({"date": "9999-99-99"}),
}
KINDS = {"value": [1, 2], "returned": [1, 2], "reference": line([1, 2]), "equal": line([1, 2])}


@pytest.fixture(scope="module")
def comparer():
    made = Comparer(num_workers=1, cpu_s=0.5, memory_mib=2048)
    yield made
    made.close()


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_report_is_ended_and_the_next_is_read(comparer, name):
    report = line(COSTLY[name]())
    assert len(report) > SMALL
    assert not comparer("equal", report, line([1]))
    assert comparer("equal", line([1]), line([1]))


@pytest.mark.parametrize("name", [*ODD, *COSTLY])
def test_a_small_report_of_the_kind_costs_little_here(name):
    """What is read in this process is the same, cut to size."""
    report = ODD.get(name) or line(COSTLY[name]())
    if len(report) > SMALL:
        report = report[: SMALL - 20] + report[-20:]
    if name in COSTLY and isinstance(rows := next(iter(COSTLY[name]().values())), list) and len(rows) > 2:
        report = line({next(iter(COSTLY[name]())): rows[: SMALL // 60]})
    before = time.process_time()
    assert not asyncio.run(_any_same(report))
    assert time.process_time() - before < 1.0


async def _any_same(report):
    return any([await same(kind, report, expected) for kind, expected in KINDS.items()])


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_report_is_not_right(comparer, kind, name):
    assert not comparer(kind, ODD[name], KINDS[kind])
    assert not asyncio.run(same(kind, ODD[name], KINDS[kind]))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("value", list(range(30_000))),
        ("returned", [[1, 2.5, "x", None, True]] * 5000),
        ("reference", {"a": (1, {2, 3}, frozenset({4}), Decimal("1.5"), 10**400)}),
        ("equal", [(number, str(number), {number: {number}}) for number in range(3000)]),
    ],
)
def test_large_and_small_reports_are_judged_alike(comparer, kind, value):
    report = plain.dumps({"value": plain.encode(value)}).decode()
    expected = value if kind in ("value", "returned") else report
    wrong = [*value, 0] if isinstance(value, list) else {**value, "b": 1}
    other = plain.dumps({"value": plain.encode(wrong)}).decode()
    assert comparer(kind, report, expected)
    assert asyncio.run(same(kind, report, expected))
    assert not comparer(kind, other, expected)
    assert not asyncio.run(same(kind, other, expected))


@pytest.mark.parametrize("kind", ["printed", "lines"])
@pytest.mark.parametrize(
    "text",
    ["\n" * (1 << 20), "1 " * (1 << 19), "9" * (1 << 20), "`" * (1 << 20), "sNaN\n" * 1000, "1.5\n" * (1 << 18), " \n"],
    ids=["lines", "tokens", "digits", "marks", "signals", "decimals", "blank"],
)
def test_printed_text_of_any_size_is_compared(kind, text):
    assert asyncio.run(same(kind, text, "1\n2\n")) is False
    assert asyncio.run(same(kind, text, text)) is True
    assert asyncio.run(same(kind, text + "x", text)) is False


# program of a function, or of stdin, that must be wrong and cost little
PROGRAMS = {
    "prints sNaN": "print('sNaN')",
    "prints sNaN and a number": "print('sNaN 3')",
    "returns sNaN": "from decimal import Decimal\ndef f(x): return Decimal('sNaN')",
    "returns sNaN in a list": "from decimal import Decimal\ndef f(x): return [Decimal('sNaN')]",
    "returns a flood": f"def f(x): return set({PRIME} * n for n in range(5000))",
    "returns much": "def f(x): return [[]] * 60_000",
    "returns depth": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "returns a long number": "def f(x): return 7 ** 300_000",
    "writes its own line": "import os\ndef f(x): os.write(3, b'[' * 100_000 + b'\\n')",
    "writes a flood": (
        f"import os\ndef f(x):\n    n = ','.join('{{\"int\":\"%x\"}}' % ({PRIME} * n) for n in range(20000))\n"
        "    os.write(3, ('{\"value\":{\"set\":[' + n + ']}}\\n').encode())\n    os._exit(0)"
    ),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_programs_that_report_such_things_are_wrong(backend, case, comparer, monkeypatch):
    monkeypatch.setattr("verigym.envs.code.compare.default_comparer", lambda: comparer)
    program = PROGRAMS[case]
    called = "def f" in program
    tests = [{"args": [1], "expected": 2.0}] if called else [{"input": "", "output": "3.0"}]
    for compare in ("tokens", "livecodebench"):
        hidden = {"tests": tests, "compare": compare, "time_limit_s": 1.0} | ({"fn_name": "f"} if called else {})
        task = Task(id=case, family="code", prompt="", hidden=hidden)
        assert not asyncio.run(ProgramGrader(backend).score(task, program)).passed


def test_all_runs_together_print_a_bounded_amount(backend):
    """Each stays within its own limit; together they would fill the memory of whoever grades."""
    from verigym.envs.code.box import ProgramBox, RunLimits

    box = ProgramBox(backend, limits=RunLimits(output_bytes=1 << 20, total_output_bytes=2 << 20))
    runs = asyncio.run(box.run_stdin("print('x' * 900_000)", [""] * 9))
    assert [run.status for run in runs] == ["ok", "ok", "output", *["not_run"] * 6]
