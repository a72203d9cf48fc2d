"""Boxes that the words right beside them take back: "\boxed{5} is wrong, it is 6", "it is not \boxed{5}"."""

import re

_FARTHEST = 300
"""Characters behind a box in which it can be taken back."""
_NEAREST = 60
"""Characters before a box in which it can be denied."""

# What closes the formula that the box stands in, and stops.
_CLOSED = r"(?:\\[)\]\\]|[$*_\s.,;:!?)\u2013\u2014-]|\\[,;! ])*+"
_WRONG = (
    r"(?:(?:also|clearly|certainly|completely|definitely|just|obviously|plainly|still|totally|simply)\s+)?"
    r"(?:(?:a\s+|an\s+|the\s+)?(?:wrong|incorrect|false|mistaken|mistake|error|erroneous|invalid|untrue)\b|"
    r"not\s+(?:(?:the|a|my|our|really|actually|quite)\s+)*(?:final\s+)?(?:answer|correct|right|true|it|valid|solution)\b)"
)
_IS = r"(?:is|was|seems|looks|appears|must\s+be|would\s+be|cannot\s+be|can['’]t\s+be)(?:\s+to\s+be)?\s+"
_IS_NOT = (
    r"(?:is|was)n['’]t\s+(?:(?:the|a|my|our|really|actually|quite)\s+)*(?:final\s+)?"
    r"(?:answer|correct|right|true|it|valid|solution)\b|"
    r"(?:cannot|can['’]t|could\s+not)\s+be\s+(?:(?:the|a)\s+)?(?:answer|correct|right|true|it|valid|solution)\b"
)
_IT = r"(?:(?:that|this|it|which|the\s+(?:answer|above|box(?:ed\s+(?:answer|value))?))(?:['’]s\s+|\s+))"
_ALAS = (
    r"(?:no|nope|wait|oops|sorry|hmm|actually|correction|scratch\s+that|never\s?mind|ignore\s+that|"
    r"on\s+second\s+thoughts?|i\s+mean|i\s+meant)"
)
_NUMBER = r"[$\\(*\s]*(?:\\boxed|\\frac|-?\d)"
_ANSWER_IS = r"(?:the\s+)?(?:\w+\s+)?answer\s+(?:is|should\s+be)\s*"
_INSTEAD = rf"(?:{_IT}(?:is|was|should\s+be)?\s*|{_ANSWER_IS}|should\s+be\s*)?{_NUMBER}"
_TAKEN_BACK = re.compile(
    rf"(?P<head>{_CLOSED}(?:{_ALAS}\b{_CLOSED})++)(?:{_IT}?(?:{_IS})?{_WRONG}|{_IT}?(?:{_IS_NOT})|{_INSTEAD})|"
    rf"{_CLOSED}(?:(?:but|however|well)\b{_CLOSED})?"
    rf"(?:{_IT}?(?:{_IS}{_WRONG}|{_IS_NOT})|{_IT}{_WRONG}|(?:wrong|incorrect|false)\b)",
    re.I,
)

_NOT_THIS = re.compile(
    r"(?:\bnot|\bnever|n['\u2019]t|(?:\bnot|\bnever|n['\u2019]t|\bcannot)\s+be|\binstead\s+of|\brather\s+than|"
    r"\b(?:wrong|incorrect|false)\s+(?:answer|value|result)\s+(?:is|was|would\s+be|of))\s*+(?:equal\s+to\s*+)?[$*\\(\[\s:]*+$",
    re.I,
)


def is_denied(before: str) -> bool:
    """Whether the words right before a box say that what stands in it is not the answer.

    Args:
        before: the text before the box.
    """
    return _NOT_THIS.search(before[-_NEAREST:]) is not None


def behind_denial(rest: str) -> str | None:
    """What follows the words that take the last box back; None where none do.

    The rule: right behind the box, with nothing between but what closes its formula, stands that it is wrong or not
    the answer, or a word of correction ("no", "wait", "actually") with such a judgement or another value behind it.
    What is said further on, of other things, takes nothing back.

    Args:
        rest: the text behind the last box.
    """
    match = _TAKEN_BACK.match(rest[:_FARTHEST])
    if match is None:
        return None
    return rest[len(match["head"]) :] if match["head"] else rest[match.end() :]
