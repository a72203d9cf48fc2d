"""What a statement must not say, because it gives the place of the bug away."""

import re
from collections.abc import Iterator, Mapping, Sequence


def leak(text: str, patch: str, secrets: Sequence[str] = ()) -> str | None:
    """What in a statement gives the place away: a path or changed line of the patch, a line number, a secret."""
    paths = set(re.findall(r"^(?:---|\+\+\+) [ab]/(.+)$", patch, flags=re.MULTILINE))
    words = [*paths, *(path.rpartition("/")[2] for path in paths), *secrets, *changed_lines(patch)]
    for word in words:
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text):
            return word
    numbered = re.search(r"\bline \d+|\.py\b", text)
    return numbered[0] if numbered else None


def changed_lines(patch: str) -> Iterator[str]:
    """The lines a patch adds or removes, without their indentation; those of punctuation alone are left out."""
    for line in patch.splitlines():
        if line[:1] in "+-" and not line.startswith(("+++ ", "--- ")) and re.search(r"\w", line[1:]):
            yield line[1:].strip()


def secret_words(module_path: str, tests: Sequence[str], locations: Mapping[str, tuple[str, int]]) -> list[str]:
    """What a statement must not say besides the patch: the module's dotted name, and the hidden tests' names."""
    parts = module_path.removeprefix("src/").removesuffix(".py").split("/")
    dotted = [] if len(parts) == 1 or parts[-1] == "__init__" else [".".join(parts)]
    names = {test.partition("[")[0].rpartition("::")[2] for test in tests}
    files = {path.rpartition("/")[2].removesuffix(".py") for path, _ in (locations[t] for t in tests if t in locations)}
    return [*dotted, *sorted(names), *sorted(file for file in files if file.startswith("test_"))]
