"""What is said of one row: scores, the evidence for them, a class by stated rules, and a signature."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ...errors import TaskError

VERSION = 14
"""Of the audit's rules: a certificate of another version is made again."""

NOT_RUN = "nothing could be run"
"""How ``problem`` begins where it is the machine's or the row's that no sandbox could measure it: tried again."""
CUT = "cut after"
"""How ``problem`` begins where a row took more minutes than it had."""

Kind = Literal["weak", "narrow", "underspecified", "flaky", "leaky", "unrelated", "broken"]
SCORES = ("weak", "narrow", "underspecified", "flaky", "leaky")
Basis = Literal["signs", "measured"]

MOST_FINDINGS = 40
"""Of one row; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One piece of evidence that a person can check.

    Attributes:
        kind: what it speaks for.
        what: one sentence.
        where: a test id, a path, or "statement".
        shown: the text in question: a name, a line, a patch.
    """

    kind: Kind
    what: str
    where: str = ""
    shown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The audit of one row.

    Attributes:
        instance_id, row_sha256: the row, and the digest of all that the audit reads of it.
        scores: of each of SCORES, in [0, 1]: 0 is sound.
        basis: of each score: read from "signs" in the row's text, or "measured" in a sandbox.
        kind: the class: "broken", "leaky", "flaky", "narrow", "weak", "unrelated", "underspecified", or "sound" where a
            sandbox was asked, wrong solutions among it, and nothing was found; "unflagged" where they were not.
        reason: the rule that gave the class, in words.
        findings: evidence, the strongest kinds first.
        signs: values that the scores from signs rest on.
        measured: counts of what ran: {"mutants": {"tried", "resolved"}, "rewrites": {...}, …}; empty without a sandbox.
        asked: what policies said of the row, by question ("judge", "memory"; ``asked.py``); it gives no class.
        problem: why the row, or part of the audit, could not be done; "" where all of it was.
        processor_s: of the static part; seconds of the processor.
    """

    instance_id: str
    row_sha256: str
    scores: Mapping[str, float]
    basis: Mapping[str, Basis]
    kind: str
    reason: str
    findings: Sequence[Finding] = ()
    signs: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    processor_s: float = 0.0
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Certificate":
        """Read what ``to_json`` wrote, signed or not; the signature is ``check_signature``'s.

        Raises:
            TaskError: it is no certificate.
        """
        try:
            known = {key: row[key] for key in cls.__dataclass_fields__ if key in row}
            return cls(**{**known, "findings": tuple(Finding(**one) for one in row.get("findings", ()))})
        except (TypeError, KeyError) as error:
            raise TaskError(f"a certificate cannot be read ({error}); make it again with verigym tasks audit") from None


def suite_seconds(measured: Mapping[str, Any]) -> float | None:
    """Of a certificate's ``measured`` how long its suite took; None where it does not say."""
    found = measured.get("seconds", {}).get("suite")
    return found if isinstance(found, int | float) else None


def digest_of(row: Mapping[str, Any]) -> str:
    """The digest of a row: of all its keys, whatever their order."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()


def signed(certificate: Certificate, key: bytes) -> dict[str, Any]:
    """A certificate's JSON with ``signature``: HMAC-SHA256 over all the rest by whoever holds ``key``, which
    ``signed_with`` tells from other keys."""
    content = {**certificate.to_json(), "signed_with": hashlib.sha256(b"key of " + key).hexdigest()[:16]}
    return {**content, "signature": _signature(content, key)}


def check_signature(content: Mapping[str, Any], key: bytes) -> bool:
    """Whether a certificate is as it was signed with ``key``."""
    rest = {name: value for name, value in content.items() if name != "signature"}
    return hmac.compare_digest(str(content.get("signature", "")), _signature(rest, key))


def _signature(content: Mapping[str, Any], key: bytes) -> str:
    return hmac.new(key, json.dumps(content, sort_keys=True).encode(), hashlib.sha256).hexdigest()
