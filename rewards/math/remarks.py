"""Words beside a value that say something of it, where others name its unit or what it counts."""

import re

from .numbers import number_word
from .text import TEXT

# Forms of "be" and other small verbs, pronouns, negations, conjunctions, comparisons, judgements, quantities: classes
# of words that are closed, or nearly, while the names of units and of counted things are not.
_WORDS = """
    not no nor never neither none nothing nope nah isnt arent wasnt doesnt cannot wont
    is are was were be been being has have had do does did will would could should might must shall
    it its this that these those they we you he she my our your which who what i
    or either whether maybe perhaps possibly probably presumably likely unlikely guess guessed unsure uncertain
    approximately roughly about around almost nearly
    if unless except excluding excluded excludes but however although though because since while otherwise instead
    rather than then less fewer greater larger bigger smaller lower higher under over below above beyond least most
    minimum maximum exceed exceeds exceeding between within
    wrong false incorrect invalid untrue erroneous inaccurate error mistake mistaken reject rejected impossible
    contradiction fake bogus nonsense unknown undefined other another correct right true answer
    without minus plus times divided multiplied half halves double twice triple dozen hundred thousand million billion
    trillion thirds fifths sixths sevenths eighths ninths tenths hundredths thousandths dozens gross hundreds thousands
    millions billions trillions doubled tripled quadrupled halved negated factorial inverse reciprocal root fails binary
    octal hexadecimal negative positive ignore disregard discard omit remove delete cancel cancelled void former
    previous strike
    struck ish lol jk kidding joking
"""
_REMARKS = frozenset(_WORDS.split())
# "boxes with neither pens nor pencils": of the things that are counted, not of their number.
_OF_THINGS = re.compile(r"(?<=[a-z] )neither [a-z ]+ nor [a-z]+")
_DENIALS = re.compile(r"n't\b|n\u2019t\b|[?\u00bf]|!=")


def is_remark(words: str) -> bool:
    """Whether words say something of a value ("is wrong", "or more", "not", "and two"), and are no unit."""
    plain = TEXT.sub(r" \1 ", words).casefold()
    plain = _OF_THINGS.sub("", plain)
    said = re.findall(r"[^\W\d_]+", plain)
    counted = any(number_word(word) is not None for word in said) or said in (["squared"], ["cubed"])
    return bool(_DENIALS.search(plain)) or counted or not _REMARKS.isdisjoint(said)
