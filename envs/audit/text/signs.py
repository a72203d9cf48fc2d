"""Signs of narrow and underspecified tasks in the text of a row: few, each with a reason, all counted alike.

No sign's weight is fitted: each is taken relative to its mean and spread over the rows of SWE-bench Verified and Lite,
and they are added. Only the last step, from that sum to a share in [0, 1], knows labels of people, by two numbers each.
docs/design/030-audit.md has how well that agrees with people.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ...datasets.swe import SWERow
from .changes import Change, change_of
from .wording import PLAIN, literals, names, parts, prose_and_code, title_of, without_docs, without_literals, words

_HEDGE = re.compile(
    r"\b(maybe|perhaps|might|could|can we|think|not sure|unsure|guess|imo|imho|either|alternativ\w+|probably|suppose|"
    r"seems?|somehow|some way|or not|wonder\w*|confus\w+|possibl[ey]|not clear|unclear|idea|whether|feel|ideally|"
    r"nicer?|better|discuss\w*|opinion|thoughts?)\b"
)
_CHOICE = re.compile(r"\b(or|either|alternativ\w+|option|another|otherwise|versus|vs)\b")
_EXPECTED = re.compile(
    r"expected|should (?:be|return|give|print|raise|have|not|also|only|work)|instead of|i(?:'d| would) expect|must|"
    r"supposed to|rather than|correct(?:ly)?\b|the fix|can be fixed|fix(?:ed)? by|solution"
)
_ASKS = re.compile(
    r"\b(add|allow|make|support|feature|enh|enhancement|improve\w*|propos\w+|suggest\w*|request|consider|remove|change|"
    r"provide|introduce|expose|implement|rename|deprecat\w+|refactor|need\w*|it would be|should)\b"
)
_REPORTS = re.compile(
    r"\b(bug|crash\w*|traceback|exception|fails?|failing|failed|broken|breaks?|wrong\w*|incorrect\w*|error|regression|"
    r"unexpected\w*|doesn't|does not|not work\w*|cannot|can't|invalid)\b"
)
_IDENTIFIER = re.compile(r"\b\w+(?:_\w+)|\w+\.\w+|\w+\(\)")
_CHECKS = re.compile(r"assert|==|raises|Equal")
_DEFINITION = re.compile(r"^\s*(?:def|class) ", re.M)


@dataclass(frozen=True)
class Reading:
    """A row as its signs see it; what several signs need is worked out once."""

    row: SWERow

    @property
    def statement(self) -> str:
        return self.row.problem_statement

    @property
    def reference(self) -> Change:
        return change_of(self.row.patch)

    @property
    def tests(self) -> Change:
        return change_of(self.row.test_patch)

    @cached_property
    def prose(self) -> str:
        return prose_and_code(self.statement)[0]

    @cached_property
    def code(self) -> str:
        return prose_and_code(self.statement)[1]

    @cached_property
    def said(self) -> set[str]:
        """Parts of the statement's names and words."""
        return parts(self.statement)


def own_text(reading: Reading) -> float:
    """String literals that the reference brings and the statement does not give: messages, keys, documentation."""
    change = reading.reference
    own = [
        text
        for text in literals(change.added)
        if len(text) > 2 and text not in change.removed and text not in reading.statement
    ]
    return math.log1p(len(own))


def new_definitions(reading: Reading) -> float:
    """Functions and classes that the reference defines: what is new has a name and a signature of its own."""
    return math.log1p(len(_DEFINITION.findall(reading.reference.added)))


def shared_words(reading: Reading) -> float:
    """Words that the tests' literals share with the reference's, and with nothing that could be read before."""
    return math.log1p(len(words_in_common(reading)))


def words_in_common(reading: Reading) -> set[str]:
    """The words of ``shared_words``."""
    reference, tests = reading.reference, reading.tests

    def new(code: str, before: str) -> set[str]:
        fresh = [text for text in literals(code) if len(text) > 1 and text not in before]
        return {word for text in fresh if text not in reading.statement for word in words(text)}

    told = set(words(reading.statement)) | set(words(reference.before)) | set(words(tests.before))
    return (new(without_docs(reference.added), reference.before) & new(tests.added, tests.before)) - told


def unsaid(reading: Reading) -> float:
    """Parts of names and words that the reference brings and the statement never uses: what had to be decided."""
    change = reading.reference
    return math.log1p(len(parts(without_docs(change.added)) - parts(change.before) - reading.said))


def told_targets(reading: Reading) -> float:
    """Share of the names that both tests and reference use which the statement gives: is it said what is tested?"""
    change, stated = reading.reference, names(reading.statement)
    about = names(without_literals(change.added + "\n" + change.removed)) | names(change.context)
    targets = names(without_literals(reading.tests.added)) & about
    return len(targets & stated) / max(1, len(targets))


def told_tests(reading: Reading) -> float:
    """Share of the words and name parts of the new tests that the statement uses."""
    used = parts(reading.tests.added) - PLAIN
    return len(used & reading.said) / max(1, len(used))


def told_fix(reading: Reading) -> float:
    """Share of the names that the reference brings which the statement gives; a half where it brings none."""
    change = reading.reference
    brought = names(without_literals(change.added)) - names(change.before)
    return len(brought & names(reading.statement)) / len(brought) if brought else 0.5


def changed_expectations(reading: Reading) -> float:
    """Whether the tests take away checks that held at base: what was right before is now to be wrong."""
    return float(any(_CHECKS.search(line) for line in reading.tests.removed.split("\n")))


def expectations(reading: Reading) -> float:
    """How often the statement says what should be: expected, should return, instead of, must."""
    return math.log1p(len(_EXPECTED.findall(reading.statement.lower())))


def title_words(reading: Reading) -> float:
    """Words of the title: a short one says less about what is wanted."""
    return float(len(words(title_of(reading.statement))))


def doubt(reading: Reading) -> float:
    """Hedges, alternatives and questions for each word of prose: somebody thinks aloud, and has not decided."""
    prose = reading.prose.lower()
    length = max(30, len(words(prose)))
    sentences = [one for one in re.split(r"[.?!\n]+", reading.prose) if len(one.split()) > 2]
    asked = len(re.findall(r"\?(?:\s|$)", reading.prose)) / max(1, len(sentences))
    return (len(_HEDGE.findall(prose)) + len(_CHOICE.findall(prose))) / length + asked / 10


def wishes(reading: Reading) -> float:
    """Whether the title asks for something (1) or reports that something is broken (-1)."""
    title = title_of(reading.statement).lower()
    return float(bool(_ASKS.search(title))) - float(bool(_REPORTS.search(title)))


def shown_code(reading: Reading) -> float:
    """Words of code in the statement: what can be run is seldom vague."""
    return math.log1p(len(words(reading.code)))


def identifiers(reading: Reading) -> float:
    """Names of code for each word of prose."""
    return len(_IDENTIFIER.findall(reading.prose)) / max(30, len(words(reading.prose)))


@dataclass(frozen=True, slots=True)
class Scale:
    """A sign's direction, and its mean and spread over 707 rows (Verified and Lite together)."""

    sign: Callable[[Reading], float]
    direction: int
    mean: float
    spread: float


def sum_of(values: Mapping[str, float], scales: tuple[Scale, ...]) -> float:
    """The mean of the signs, each relative to its own mean and spread, in the direction that it points."""
    total = sum(one.direction * (values[one.sign.__name__] - one.mean) / one.spread for one in scales)
    return total / math.sqrt(len(scales))


def share_of(total: float, *, offset: float, slope: float) -> float:
    """The share of rows with such a sum that people found faulty."""
    # A statement of megabytes is so far from the mean that the exponential is none.
    return 0.5 + 0.5 * math.tanh((offset + slope * total) / 2.0)


NARROW = (
    Scale(own_text, +1, 0.333, 0.542),
    Scale(new_definitions, +1, 0.173, 0.401),
    Scale(shared_words, +1, 0.056, 0.260),
    Scale(unsaid, +1, 0.931, 0.893),
    Scale(told_targets, -1, 0.429, 0.425),
    Scale(told_tests, -1, 0.432, 0.234),
    Scale(told_fix, -1, 0.318, 0.323),
    Scale(changed_expectations, +1, 0.161, 0.368),
    Scale(expectations, -1, 0.683, 0.583),
    Scale(title_words, -1, 9.030, 3.090),
    Scale(doubt, +1, 0.014, 0.019),
)
"""Would the tests refuse a right solution? The reference decides what the statement leaves open, and tests look."""

UNDERSPECIFIED = (
    Scale(doubt, +1, 0.014, 0.019),
    Scale(wishes, +1, -0.232, 0.704),
    Scale(unsaid, +1, 0.931, 0.893),
    Scale(title_words, -1, 9.030, 3.090),
    Scale(shown_code, -1, 3.496, 1.936),
    Scale(identifiers, -1, 0.057, 0.040),
    Scale(expectations, -1, 0.683, 0.583),
)
"""Does the statement say what a right solution is?"""


def read_signs(row: SWERow) -> dict[str, float]:
    """Every sign's value, by its name."""
    reading = Reading(row)
    return {sign.__name__: sign(reading) for sign in dict.fromkeys(one.sign for one in (*NARROW, *UNDERSPECIFIED))}


def narrow_share(values: Mapping[str, float]) -> float:
    """Of rows with such signs, the share whose tests refuse right solutions, as people see it (2 or 3 of 3)."""
    return share_of(sum_of(values, NARROW), offset=-0.14, slope=0.79)


def underspecified_share(values: Mapping[str, float]) -> float:
    """Of rows with such signs, the share that people called underspecified (2 or 3 of 3)."""
    return share_of(sum_of(values, UNDERSPECIFIED), offset=-1.10, slope=0.55)
