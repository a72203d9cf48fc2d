"""What is noted of tests while they run, whatever runs them: outcomes, planted tests, and whether all is still itself.

Part of the program that runs in the sandbox (``testing_guest.py``): standard library only.
"""

import contextlib
import random
from typing import Any

from .testing_integrity import changed, matters_most, of_modules

MOST_TRACEBACKS, TRACEBACK_CHARS = 100, 3000
"""Tests whose tracebacks are told, and how much of each."""

RANK = ("passed", "xpassed", "xfailed", "skipped", "failed", "error")  # of two statuses of a test the later one counts


class Outcomes:
    """Keeps each test's worst status, and knows which tests were planted and what they must say.

    A runner's own class plays the tests (``play_round``) and says what they are: things with ``nodeid``, ``name`` and
    ``obj``, the function or method that is the test.
    """

    def __init__(self, pristine, rounds=None):
        """
        Args:
            rounds: what runs the tests in their own place (``testing_rounds.py``), or None.
        """
        self._pristine, self.rounds = pristine, rounds
        self.play: Any = None
        """Called with what holds the tests (its ``items``) before they run; says whether it has played rounds."""
        self._intact, self._close_watch, self._support = [], [], []
        self._codes, self._functions = {}, {}
        self.strange, self.tampered, self.planted = [], None, {}
        self.canaries = self.planted
        """Those of the planted tests that are to run."""
        self.restart(set())

    def restart(self, items):
        """Forget what was noted; these tests are to run."""
        self.statuses, self.messages, self.tracebacks = {}, {}, {}
        self.collected, self.finished = set(items), set()

    def arm(self, found):
        """Watch what a snapshot holds, from now on."""
        self._intact = [*self._intact, *found]
        self._close_watch = matters_most(self._intact)

    def arm_loaded(self, module):
        """Watch a module of the repository's own test support, which has just been loaded from its file's own code."""
        self._support += of_modules([module])

    def check(self, found=None):
        if self.tampered is None:
            self.tampered = changed(self._intact if found is None else found)
        if self.tampered is None:
            self.tampered = changed(self._support, self._pristine.is_its_code)

    def check_closely(self):
        """What is small enough to be looked at after every test."""
        self.check(self._close_watch)

    def know(self, item):
        """Note the code that a test must run: that of its file as it was read first."""
        obj = getattr(item, "obj", None)
        if obj is None:
            return
        key = id(getattr(obj, "__func__", obj))
        if key not in self._functions:
            name = getattr(item, "originalname", None) or item.name
            self._functions[key] = (self._pristine.function_of(obj, name), obj)
        function = self._functions[key][0]
        if function is None:
            self.strange.append(item.nodeid)
        else:
            self._codes[item.nodeid] = (function, function.__code__)

    def end(self, nodeid):
        """A test has come to its end, its fixtures too."""
        self.finished.add(nodeid)
        self.check_closely()
        function, code = self._codes.get(nodeid, (None, None))
        if self.rounds is None and function is not None and function.__code__ is not code:
            self.tampered = self.tampered or f"the code of {nodeid}"

    def play_round(self, items, swaps):
        """Run collected tests in this order, each while its swap holds.

        Args:
            swaps: item -> ``testing_rounds.Swap``.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def swapped(self, item, swaps):
        swap = swaps.get(item)
        with swap or contextlib.nullcontext():
            yield
        if swap is not None and not swap.held:
            self.tampered = self.tampered or f"the code of {item.nodeid}"

    def few_canaries(self):
        """Of the planted tests one that must pass and one that must fail, for a round."""
        dice = random.SystemRandom()
        kinds = ([n for n, want in self.planted.items() if want == kind] for kind in ("passed", "failed"))
        self.canaries = {name: self.planted[name] for name in map(dice.choice, kinds)}
        return self.canaries

    def places_of_canaries(self, borders):
        """Where some are planted: at the first border for what is broken on import, at the last for what
        is broken later, and between."""
        dice = random.SystemRandom()
        if self.rounds is not None:
            return [dice.choice(borders)]
        if len(borders) <= 2:
            return [borders[-1], borders[0]]
        return sorted([borders[0], dice.choice(borders[1:]), borders[-1]], reverse=True)

    def add(self, nodeid, status, message="", traceback=None):
        """
        Args:
            traceback: makes the whole text of a failure; it is for a teacher's eyes, and decides nothing.
        """
        if RANK.index(status) >= RANK.index(self.statuses.get(nodeid, "passed")):
            self.statuses[nodeid] = status
        if message:
            self.messages.setdefault(nodeid, message)
        if traceback is None or self.rounds is not None or nodeid in self.planted or nodeid in self.tracebacks:
            return
        if len(self.tracebacks) < MOST_TRACEBACKS:
            with contextlib.suppress(Exception):  # of an error whose text cannot be had
                self.tracebacks[nodeid] = shortened(traceback())

    def summary(self):
        """Outcomes so far, without the planted tests'."""
        canaries_ok = bool(self.canaries) and all(self.statuses.get(n) == want for n, want in self.canaries.items())
        return {
            "statuses": {n: status for n, status in self.statuses.items() if n not in self.canaries},
            "finished": self.finished == self.collected | set(self.canaries),
            "canaries_ok": canaries_ok and self.tampered is None,
            "tampered": self.tampered,
        }

    def result(self, code):
        """What the "done" line says; code is 1 where a runner has seen the planted tests fail."""
        found = self.summary()
        failed = any(status in ("failed", "error") for status in found["statuses"].values())
        messages = {n: text for n, text in self.messages.items() if n not in self.canaries}
        return {
            **found,
            "complete": found["finished"] and code == 1,  # 1: some failed, as canaries must
            "exit_code": int(failed) if code == 1 else code,
            "strange": self.strange,
            "messages": dict(list(messages.items())[:20]),
            "tracebacks": self.tracebacks,
        }


def shortened(text):
    """The beginning and the end of a text that is too long."""
    half = TRACEBACK_CHARS // 2 - 30  # room for what is said between
    left_out = len(text) - 2 * half
    return text if left_out <= 0 else f"{text[:half]}\n[... {left_out} characters left out ...]\n{text[-half:]}"
