"""How the reference's tests are run besides the first time: what fails in one of these ways is flaky."""

from datetime import datetime

from ..synthesis.steady import LONG_SUITE_S, moved_clocks
from .bench import Manner

AGAIN_S, MOST_AGAIN = 12.0, 8
"""Seconds that plain repetitions of a suite may take together, and how many there are at most; one is made in any
case. A test that fails one time in five is missed by eight runs one time in six."""
HELD_UP = ("one", "two", "three")
"""Patterns in which a run is held up."""
SEEDS = {"with another hash seed": "4711", "with a third hash seed": "1", "with a fourth hash seed": "2"}
"""Two strings of a set are in the order of the first seed with every second of the others."""
OF_LONG_SUITES = (
    "again",
    "on a busy machine (one)",
    "shuffled",
    "with another hash seed",
    "on the last day of a year, five years later",
)
"""Names of the manners in which those are run: one of each kind."""


def manners(now: datetime, *, suite_s: float) -> dict[str, Manner]:
    """Name -> manner.

    Args:
        now: what the clocks of the sandbox show.
        suite_s: seconds that the tests take.
    """
    repeats = max(1, min(MOST_AGAIN, int(AGAIN_S / max(suite_s, 0.1))))
    again = {"again": Manner(whole=True)} | {
        f"again ({number})": Manner(whole=True) for number in range(2, repeats + 1)
    }
    held = {f"on a busy machine ({word})": Manner(whole=True, held_up=word) for word in HELD_UP}
    orders = {
        "in reverse order": Manner(whole=True, order="reversed"),
        "shuffled": Manner(whole=True, order="one"),
        "shuffled otherwise": Manner(whole=True, order="two"),
    }
    seeds = {name: Manner(whole=True, env={"PYTHONHASHSEED": seed}) for name, seed in SEEDS.items()}
    clocks = {name: Manner(whole=True, clock_s=seconds) for name, seconds in moved_clocks(now).items()}
    found = again | held | orders | seeds | clocks
    return found if suite_s <= LONG_SUITE_S else {name: one for name, one in found.items() if name in OF_LONG_SUITES}
