"""Whether what a program printed or returned is right, at a bounded price.

Python's own containers can be made to take hours by whoever chooses what is put into them: a set of numbers with one
hash is quadratic, so is reducing a fraction or comparing a decimal with a long integer. A report of ``SMALL``
characters costs a fraction of a second at worst and is read here; a larger one is read and compared in a process that
ends at its limits, and then is not right.
"""

import atexit
import json
import logging
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...rewards import values
from ..sandbox.background import on_thread
from ..sandbox.line_workers import LineWorkers
from . import plain
from .judge import PRINTED, RETURNED, agree

logger = logging.getLogger(__name__)

SMALL = 16_384
"""Characters of a report (and of a reported value that it is compared with) that are read in this process."""

SMALL_TEXT = 1 << 18
"""Characters of printed text that are compared in this process: linear, whatever they are."""

START_S = 60.0


async def same(kind: str, report: str, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether a report is right, as ``judge.agree``; False where finding out exceeds the limits.

    Raises:
        GradingError: no process can be started to compare in, or one hangs without using the processor.
    """
    if kind in PRINTED:
        small = len(report) <= SMALL_TEXT or report == expected
    else:
        size = len(report) if kind in RETURNED else max(len(report), len(expected))
        small = size <= SMALL
    if small:
        return agree(plain, values, kind, report, expected, tolerance)
    return await on_thread(default_comparer(), kind, report, expected, tolerance)


class Comparer:
    """A small pool of processes that compare. Callable from any thread."""

    def __init__(self, *, num_workers: int = 2, cpu_s: float = 10.0, memory_mib: int = 4096) -> None:
        """
        Args:
            num_workers: most processes at once; they start when first needed.
            cpu_s: processor time of one comparison. memory_mib: address space. Beyond either: not the same.
        """
        worker = Path(__file__).with_name("compare_worker.py")
        self._workers = LineWorkers(
            [sys.executable, "-I", str(worker), str(cpu_s), str(memory_mib)],
            does="compares reports",
            remedy="is there memory left?",
            num_workers=num_workers,
            start_s=START_S,
        )
        # A worker that waits for a core uses no processor time; this is when we stop to wait for it.
        self._wall_s = 10 * cpu_s + START_S

    def __call__(self, kind: str, report: str, expected: Any, tolerance: float = 0.0) -> bool:
        """As ``same``."""
        if kind in RETURNED:
            expected = plain.encode(expected)
        found = self._workers.ask(json.dumps([kind, report, expected, tolerance]).encode(), self._wall_s)
        if found is None:
            logger.info("a report of %d characters could not be compared within the limits", len(report))
        return found == b"true"

    def close(self) -> None:
        """Kill the idle processes. It can be used again."""
        self._workers.close()


@lru_cache(maxsize=1)
def default_comparer() -> Comparer:
    """The one that all gradings of this process share."""
    comparer = Comparer()
    atexit.register(comparer.close)
    return comparer
