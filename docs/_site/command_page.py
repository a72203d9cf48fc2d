"""The reference of the command line, from the parsers that read it."""

import argparse
import re
from collections.abc import Iterator

from verigym.__main__ import COMMANDS, build_parser

INTRODUCTION = """# The command line

One command, `verigym`. Each command prints a table for people and writes JSON for programs, shows progress on long
work on standard error, and ends with status 0; 2 where it could not do what was asked, with one message that names
the remedy; 130 where it was interrupted. `VERIGYM_DEBUG=1` adds the traceback.

This page is made from the parsers when the documentation is built."""


def command_page() -> str:
    """The page in Markdown: a section for each command, with its actions."""
    rows = [f"| [`verigym {name}`](#verigym-{name}) | {command.help} |" for name, command in COMMANDS.items()]
    parts = [INTRODUCTION, "\n".join(["| command | what it does |", "|---|---|", *rows])]
    parts += [_section(parser, level) for name in COMMANDS for parser, level in parsers(_parser_of(name))]
    return "\n\n".join(parts) + "\n"


def _parser_of(name: str) -> argparse.ArgumentParser:
    return _below(build_parser(name))[name]


def _below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def parsers(parser: argparse.ArgumentParser, level: int = 2) -> Iterator[tuple[argparse.ArgumentParser, int]]:
    """A command's parser and those of its actions, with the levels of their headings."""
    yield parser, level
    for one in _below(parser).values():
        yield from parsers(one, level + 1)


def _section(parser: argparse.ArgumentParser, level: int) -> str:
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    parts = [f"{'#' * level} {parser.prog}", _text(parser.description), f"```text\n{_wrapped(usage)}\n```"]
    shown = [one for one in parser._actions if one.help != argparse.SUPPRESS]
    rows = [
        _row(parser, one) for one in shown if not isinstance(one, argparse._SubParsersAction | argparse._HelpAction)
    ]
    if rows:
        parts.append("\n".join(["| option | what it does |", "|---|---|", *rows]))
    if parser.epilog:
        parts.append(_text(parser.epilog))
    return "\n\n".join(part for part in parts if part)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    values = parser._get_formatter()
    value = "" if action.nargs == 0 else values._format_args(action, values._get_default_metavar_for_optional(action))
    names = [f"{name} {value}".strip() for name in action.option_strings] or [
        values._format_args(action, values._get_default_metavar_for_positional(action))
    ]
    told = values._expand_help(action) if action.help else ""
    required = " (required)" if action.required and action.option_strings else ""
    return f"| {', '.join(f'`{name}`' for name in names)} | {_text(told)}{required} |".replace("{", "&#123;")


def _wrapped(usage: str, width: int = 96) -> str:
    """Usage in lines, broken between options; those after the first are indented."""
    lines, line = [], ""
    for word in re.findall(r"\[[^\]]*\](?:\s*\.\.\.)?|\S+", usage):
        if line.strip() and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = "   "
        line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
