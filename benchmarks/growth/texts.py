"""Long texts: what tools answer and are given, patches, and logs."""

from pathlib import Path

from verigym.envs.tools.files import edit_lines, view_lines
from verigym.envs.tools.spec import ToolError
from verigym.rewards.extraction import extract_program
from verigym.rewards.patches import changes_by_file, paths_of, reverse_patch

from .harness import Subject, Work

_LINE = "the quick brown fox jumps over the lazy dog\n"


def _text(size: int) -> str:
    return (_LINE * (size // len(_LINE) + 1))[:size] + "\n"


def viewed(size: int, folder: Path) -> Work:
    text = _text(size)
    return lambda: view_lines(text, "a.txt", 5, 50) and None


def one_line(size: int, folder: Path) -> Work:
    text = "x" * size + "\nlast\n"
    return lambda: view_lines(text, "a.txt") and None


def edited(size: int, folder: Path) -> Work:
    text = _text(size) + "here\n"
    return lambda: edit_lines(text, "here\n", "there\n", "a.txt") and None


def edit_fails(size: int, folder: Path) -> Work:
    text = _text(size)

    def work() -> None:
        try:
            edit_lines(text, "the quick brown fax\n", "", "a.txt")
        except ToolError:
            return

    return work


def _patch(size: int) -> str:
    body = "".join(f"-{_LINE}+{_LINE}" for _ in range(100))
    section = "diff --git a/{0} b/{0}\n--- a/{0}\n+++ b/{0}\n@@ -1,100 +1,100 @@\n" + body
    return "".join(section.format(f"f{n}.py") for n in range(size // len(section) + 1))


def patched(size: int, folder: Path) -> Work:
    """Which files it changes, what of each, and its reverse."""
    patch = _patch(size)

    def work() -> None:
        paths_of(patch)
        changes_by_file(patch)
        reverse_patch(patch)

    return work


def extracted(size: int, folder: Path) -> Work:
    """The program of a response with many fenced blocks."""
    text = "".join(f"```python\nprint({n})\n```\n" for n in range(size // 24))
    return lambda: extract_program(text, "") and None


_SIZES, _QUICK = (320_000, 1_280_000, 5_120_000, 20_480_000), (20_000, 80_000, 320_000, 1_280_000)
SUBJECTS = {
    "view": Subject(make=viewed, sizes=_SIZES, quick=_QUICK, unit="characters"),
    "view of one line": Subject(make=one_line, sizes=_SIZES, quick=_QUICK, unit="characters"),
    "edit": Subject(make=edited, sizes=_SIZES, quick=_QUICK, unit="characters"),
    "edit that finds nothing": Subject(make=edit_fails, sizes=_SIZES, quick=_QUICK, unit="characters"),
    "patch": Subject(make=patched, sizes=_SIZES, quick=_QUICK, unit="characters"),
    "program of a response": Subject(make=extracted, sizes=_SIZES, quick=_QUICK, unit="characters"),
}
