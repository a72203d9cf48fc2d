"""Consoles and bars for people, to whom everything told is text.

Test ids hold ``[/a/b]``, units ``[deg]``, names ``:id:``: what rich would read as markup or emoji is printed as it is.
Style comes from arguments and from ``rich.text.Text`` alone.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn


def console(**options: Any) -> "Console":
    """A rich console without markup. ``options`` are the constructor's own."""
    from rich.console import Console

    return Console(markup=False, emoji=False, **options)


def text_column(template: str) -> "TextColumn":
    """A column of a progress bar, without markup."""
    from rich.progress import TextColumn

    return TextColumn(template, markup=False)


def print_anything() -> None:
    """Let standard output and error take any text: what their encoding cannot hold is written as its escape."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
