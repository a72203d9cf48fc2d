"""What a test may not do to those that run beside it in its process."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# monkeypatch.setattr(time, "monotonic", ...), setattr(module.time, "sleep", ...), setattr("module.time.time", ...)
CLOCK_FOR_ALL = re.compile(r"""setattr\(\s*(?:(?:\w+\.)*time\s*,\s*["']\w+["']|["'](?:\w+\.)*time\.\w+["'])""")


def test_no_test_moves_the_clock_of_the_whole_process():
    """A server's loop that asks how long to sleep while the clock is moved sleeps for hours, and cannot be closed:
    seen in other tests, now and then. A module's own name ``time`` can be given another clock."""
    for way in ('setattr(time, "monotonic", clock)', 'setattr(a.b.time, "time", clock)', 'setattr("a.b.time.time", x)'):
        assert CLOCK_FOR_ALL.search(way)
    assert not CLOCK_FOR_ALL.search('setattr("a.b.time", clock)')
    assert not CLOCK_FOR_ALL.search('setattr(module, "time", clock)')
    files = [file for file in TESTS.rglob("*.py") if file != Path(__file__).resolve()]
    assert [str(file) for file in files if CLOCK_FOR_ALL.search(file.read_text(encoding="utf-8"))] == []
