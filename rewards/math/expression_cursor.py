"""A place in the tokens of a formula, and what can be asked of it."""

from collections.abc import Sequence

from .expression_tokens import Token

DEEPEST = 60
"""Levels of a formula; a deeper one is not read."""


class NotRead(Exception):
    """The text is no formula of this grammar."""


class Cursor:
    """Tokens, and the place up to which they are read."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = list(tokens)
        self.at = 0
        self.depth = 0
        self.bars = 0

    def peek(self, ahead: int = 0) -> Token | None:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def is_sign(self, *signs: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind == "sign" and token.text in signs

    def is_command(self, *names: str) -> bool:
        token = self.peek()
        return token is not None and token.kind == "command" and token.text in names

    def take(self, sign: str) -> None:
        if not self.is_sign(sign):
            raise NotRead
        self.at += 1
