"""What the tests ask for that nobody was told: evidence for a person, one finding each."""

import re
from collections.abc import Callable, Iterator

from ...datasets.swe import SWERow
from ..certificate import Finding
from .changes import Change, change_of
from .wording import PLAIN, literals, names, parts, without_literals, words

Standing = Callable[[set[str]], set[str]]
"""Of some words, those that the repository holds at base."""

LINE_CHARS = 12
"""A line of the reference must have so many characters to be recognised elsewhere."""
_LINK = re.compile(r"https?://[^\s)>\]\"']+")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)|<img\b[^>]*>|https?://\S+\.(?:png|jpe?g|gif|svg)", re.I)
_UNSTABLE = re.compile(
    r"\b(?:time\.sleep|time\.time|perf_counter|datetime\.(?:now|today|utcnow)|date\.today|random\.\w+|uuid4|urandom|"
    r"urlopen|requests\.(?:get|post)|socket\.|threading\.Thread|os\.listdir|gc\.collect)\b"
)
_DECISION = re.compile(r"\b(?:if|elif|except|and|or|while|case)\b")
_CHECK = re.compile(r"\bassert\w*\b|\braises\b|\bwarns\b")
_FUNCTION = re.compile(r"^(\s*)(?:async )?def (\w+)", re.M)


def demanded(row: SWERow, stands: Standing | None = None) -> Iterator[Finding]:
    """Names, signatures, files, messages and other literals of the new tests that stand neither in the statement nor,
    as far as it can be seen, at base.

    Args:
        stands: looks into the repository at base; without it base is what the two patches show of it.
    """
    reference, tests = change_of(row.patch), change_of(row.test_patch)
    yield from _names(row, reference, tests, stands)
    told = row.problem_statement
    for path in reference.paths:
        made = path.rsplit("/", 1)[-1]
        if made in tests.added and made not in told and path not in told and f"/dev/null\n+++ b/{path}" in row.patch:
            yield Finding(kind="narrow", what="the tests name a file that the reference makes", shown=path)
    before = f"{reference.before}\n{tests.before}"
    seen: set[str] = set()
    own = literals(reference.added)
    for text in literals(tests.added):
        fresh = len(text) > 3 and text not in told and text not in before and text not in seen
        if not fresh or (stands is not None and not _unknown(text, stands)):
            continue
        seen.add(text)
        if any(text in one or (len(one) > 3 and one in text) for one in own):
            yield Finding(kind="narrow", what="the tests expect text that the reference words", shown=text[:300])
        elif len(words(text)) >= 3:
            yield Finding(kind="narrow", what="the tests hold text that nobody was told", shown=text[:300])


def _names(row: SWERow, reference: Change, tests: Change, stands: Standing | None) -> Iterator[Finding]:
    brought = names(without_literals(reference.added)) - names(reference.before)
    wanted = (brought & names(without_literals(tests.added))) - names(row.problem_statement) - names(tests.before)
    if stands is not None and wanted:
        wanted -= stands(wanted)
    for name in sorted(wanted):
        found = re.search(rf"^\s*((?:async )?def|class) {name}\b[^\n]*", reference.added, re.M)
        if found:
            what = f"the tests use a {'class' if found[1] == 'class' else 'function'} that the reference names"
            yield Finding(kind="narrow", what=what, shown=found[0].strip())
        else:
            yield Finding(kind="narrow", what="the tests use a name that the reference chose", shown=name)


def _unknown(text: str, stands: Standing) -> set[str]:
    found = names(text)
    return found - stands(found) if found else {text}


def fix_in_statement(row: SWERow) -> tuple[float, list[str]]:
    """The share of the reference's new lines of code that the statement holds word for word, and those lines."""
    change = change_of(row.patch)
    flat = _flat(row.problem_statement)
    lines = [line.strip() for line in change.added.split("\n")]
    before = _flat(change.before)
    lines = [line for line in lines if len(line) >= LINE_CHARS and line[0] != "#" and _flat(line) not in before]
    held = [line for line in lines if _flat(line) in flat]
    return sum(map(len, held)) / max(1, sum(map(len, lines))), held


def _flat(text: str) -> str:
    return re.sub(r"\s+", "", text)


def leans_on(row: SWERow) -> Iterator[Finding]:
    """Images and links of the statement: an agent without network sees neither."""
    text = row.problem_statement
    images = list(dict.fromkeys(_IMAGE.findall(text)))
    for image in images:
        yield Finding(kind="underspecified", what="the statement shows an image", where="statement", shown=image[:200])
    for link in dict.fromkeys(_LINK.findall(text)):
        if not any(link in image for image in images):
            yield Finding(kind="underspecified", what="the statement links", where="statement", shown=link[:200])


def unrelated_tests(row: SWERow) -> Iterator[Finding]:
    """Tests of FAIL_TO_PASS, shown whole by the test patch, that share no name with reference or statement."""
    reference, tests = change_of(row.patch), change_of(row.test_patch)
    about = parts(f"{reference.added}\n{reference.removed}\n{reference.context}\n{row.problem_statement}")
    about |= parts("\n".join((*reference.headings, *reference.paths)))
    bodies = functions_of(tests.added)
    for test in row.FAIL_TO_PASS:
        name = re.split(r"[\[ (]", test.rsplit("::", 1)[-1], maxsplit=1)[0].rsplit(".", 1)[-1]
        body = bodies.get(name)
        used = parts(without_literals(body or "")) - PLAIN
        if len(used) > 3 and not used & about:
            yield Finding(kind="unrelated", what="a test shares no name with reference or statement", where=test)


def functions_of(code: str) -> dict[str, str]:
    """Functions of code that need not parse: name -> text, up to what is indented less or equally."""
    found: dict[str, str] = {}
    starts = list(_FUNCTION.finditer(code))
    for number, start in enumerate(starts):
        later = [one.start() for one in starts[number + 1 :] if len(one[1]) <= len(start[1])]
        found[start[2]] = code[start.start() : later[0] if later else len(code)]
    return found


def instability(row: SWERow) -> tuple[float, list[str]]:
    """A sign of flakiness in [0, 0.6]: clocks, chance, threads and network in the new tests; and which."""
    found = sorted(set(_UNSTABLE.findall(change_of(row.test_patch).added)))
    return min(0.6, 0.2 * len(found)), found


def unchecked(row: SWERow) -> float:
    """A sign of weakness in [0, 0.5]: decisions that the reference adds, less checks that the tests add."""
    decisions = 1 + len(_DECISION.findall(without_literals(change_of(row.patch).added)))
    checks = len(_CHECK.findall(change_of(row.test_patch).added))
    return 0.5 * max(0.0, 1.0 - checks / decisions)
