"""A patch as the text that it adds, takes away, and leaves around."""

from dataclasses import dataclass
from functools import lru_cache

from ....rewards.patches import paths_of, sections_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a patch does, over all its files.

    Attributes:
        paths: of the files after it; of a file that goes away, before.
        added, removed, context: lines, without their marks.
        headings: what git writes behind the second "@@" of each hunk: the function it is in.
    """

    paths: tuple[str, ...]
    added: str
    removed: str
    context: str
    headings: tuple[str, ...]

    @property
    def before(self) -> str:
        """What the patch shows of the state before it."""
        return f"{self.removed}\n{self.context}"


@lru_cache(maxsize=8)
def change_of(patch: str) -> Change:
    """Take a patch apart; of a binary file nothing but its name is said."""
    lines: dict[str, list[str]] = {"+": [], "-": [], " ": []}
    headings: list[str] = []
    for section in sections_of(patch):
        _, found, hunks = section.partition("\n@@ ")
        for line in ("@@ " + hunks).splitlines() if found else ():
            if line.startswith("@@ "):
                headings.append(line.split("@@", 2)[-1].strip())
            elif line[:1] in lines:
                lines[line[0]].append(line[1:])
    added, removed, context = ("\n".join(lines[mark]) for mark in "+- ")
    paths = tuple(new or old for old, new in paths_of(patch))
    return Change(paths=paths, added=added, removed=removed, context=context, headings=tuple(filter(None, headings)))
