"""What a recipe says of audited tasks. Reading it imports no torch."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from .config import Settings

KINDS = ("sound", "weak", "narrow", "underspecified", "flaky", "leaky", "unrelated", "broken", "unflagged")


class AuditConfig(Settings):
    """How often tasks of a class are trained on, beside those of other classes: 1 keeps, 0 drops, between them weights.

    Tasks without a certificate, and the tasks held out, stay as they are.
    """

    certificates: Path | None = None
    """Certificates (``verigym tasks audit``) of the family's rows; None: those beside them, ``ROWS.audit.jsonl``."""
    sound: float = Field(default=1.0, ge=0, le=1)
    """Weight of tasks that were measured and found sound."""
    unflagged: float = Field(default=1.0, ge=0, le=1)
    """Weight of tasks of whose text nothing was said."""
    weak: float = Field(default=1.0, ge=0, le=1)
    """Weight of tasks whose tests accept wrong solutions."""
    narrow: float = Field(default=1.0, ge=0, le=1)
    """Weight of tasks whose tests refuse right solutions."""
    underspecified: float = Field(default=1.0, ge=0, le=1)
    """Weight of tasks whose statement does not say what is right."""
    flaky: float = Field(default=1.0, ge=0, le=1)
    """Weight of tasks whose verdicts change."""
    leaky: float = Field(default=1.0, ge=0, le=1)
    """Weight of tasks whose fix can be read."""
    unrelated: float = Field(default=1.0, ge=0, le=1)
    """Weight of tasks with a deciding test that has nothing to do with them."""
    broken: float = Field(default=1.0, ge=0, le=1)
    """Weight of rows that are no task."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.certificates is not None and not self.is_on:
            raise ValueError(
                "audit names certificates and no class with a weight below 1; say weak = 0.5, or remove it"
            )
        return self

    @property
    def is_on(self) -> bool:
        return any(self.weight_of(kind) < 1 for kind in KINDS)

    def weight_of(self, kind: str) -> float:
        """The weight of a class; one that is not known counts whole."""
        return getattr(self, kind) if kind in KINDS else 1.0
