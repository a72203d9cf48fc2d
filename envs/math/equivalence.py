"""Mathematical equality of two answers, decided by sympy in processes that can be killed."""

import atexit
import json
import logging
import sys
from functools import lru_cache
from pathlib import Path

from ...rewards.math.expression_tokens import LONGEST
from ...rewards.math.expressions import read_statement
from ...rewards.math.text import canonical
from ..sandbox.line_workers import LineWorkers

logger = logging.getLogger(__name__)

START_S = 60.0
"""Wall-clock seconds a worker may take to import sympy; only a machine in trouble needs them."""


class EquivalenceChecker:
    """A small pool of workers. Callable from any thread, any number at once; results do not depend on the thread."""

    def __init__(self, *, num_workers: int = 2, cpu_seconds: float = 5.0, memory_mib: int = 2048) -> None:
        """
        Args:
            num_workers: most processes at once; they start when first needed.
            cpu_seconds: processor time one pair may take; beyond it the answers count as not equal.
            memory_mib: address space of a worker; beyond it likewise.
        """
        worker = Path(__file__).with_name("equivalence_worker.py")
        self._workers = LineWorkers(
            [sys.executable, "-I", str(worker), str(cpu_seconds), str(memory_mib)],
            does="compares answers",
            remedy="try: python -c 'import latex2sympy2_extended'",
            num_workers=num_workers,
            start_s=START_S,
        )
        # A sleeping or swapping worker uses no processor time; this is when we stop to wait for one.
        self._wall_s = 4 * cpu_seconds + 10

    def __call__(self, answer: str, gold: str) -> bool:
        """Whether two answers are equal; False where the comparison exceeds its limits.

        Raises:
            GradingError: no worker can be started, or one hangs without using the processor.
        """
        if max(len(answer), len(gold)) > LONGEST:
            return False
        texts = [canonical(text) for text in (answer, gold)]
        line = self._workers.ask(json.dumps([*texts, *map(read_statement, texts)]).encode(), self._wall_s)
        if line is None:
            logger.info("comparing %.80r with %.80r exceeded its limits; counted as not equal", answer, gold)
            return False
        return json.loads(line)

    def close(self) -> None:
        """Kill the idle workers. The checker can be used again."""
        self._workers.close()


@lru_cache(maxsize=1)
def default_checker() -> EquivalenceChecker:
    """The checker that all environments of this process share."""
    checker = EquivalenceChecker()
    atexit.register(checker.close)
    return checker
