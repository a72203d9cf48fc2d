"""Whether a text was cut before its end: inside a formula, a bracket, a program or a sentence."""

import re

_TAIL = 4_000
_ENDED = re.compile(r"""[.!?…。][\s*_"'”’)\]}$`\\]*+$|\\[\])]\s*+$|\$\$?\s*+$|```\s*+$|\\end\s*\{\w+\*?\}\s*+$""")
# Nothing ends with one of these: signs that want a second side, words that want another.
_SIGN = re.compile(
    r"(?:[-+*/^_=<>,:;&({\[|~]|\\(?:cdot|times|frac|sqrt|le|leq|ge|geq|ne|neq|approx|equiv|in|to|pm|div|left|text|"
    r"quad|qquad|implies|Rightarrow|boxed)?)\s*+$"
)
_WORDS = """
    a an the this that these those my our its their his her each every some any no
    and or but nor so if then when where while because since although whether unless until than as like
    of to in on at by for from with without into onto over under between among through per about after before
    is are was were be been being am has have had do does did can could will would shall should may might must
    i we you he she it they let lets let's there which who whose what how
    equals plus minus times gives get gets getting need needs still also only very more most
"""
_DANGLING = frozenset(_WORDS.split())
_FORMULAS = (("\\[", "\\]"), ("\\(", "\\)"), ("\\begin{", "\\end{"))
# Behind an open dollar: a letter or a command, or a number that goes on as a formula; "$5 * 16 = 80" is money.
_IN_FORMULA = re.compile(r"[ \t]*+(?:[a-zA-Z\\(]|[-\d. \t]*+(?:[\\^_{]|[a-zA-Z](?![a-zA-Z]))|[-+\d. \t*/=]*+\\)")
_CONTINUED = re.compile(
    r"\W*(?:but|wait|however|let|now|then|so|next|hmm|actually|also|alternatively|if|for|since|because|to|we|i|maybe|"
    r"perhaps|still|first|second|therefore|thus|hence|although|given|using|consider|suppose)\b",
    re.I,
)
_STOP = re.compile(r"(?<=[^\s.])[.!?](?=[\s*_)\"'$]|$)|\n\s*\n")


def is_open(text: str) -> bool:
    """Whether the text ends inside a formula, a bracket, a block of code, or behind a sign or word that wants more."""
    tail = text[-_TAIL:].rstrip()
    for opener, closer in _FORMULAS:
        if tail.rfind(opener) > tail.rfind(closer):
            return True
    if tail.count("$$") % 2 or tail.count("```") % 2 or _open_dollar(tail):
        return True
    last = tail[_last_stop(tail) :]
    if _depth(last) > 0 or _SIGN.search(last):
        return True
    words = re.findall(r"[^\W\d_](?:[^\W\d_]|')*+$", last)
    return bool(words) and words[0].casefold() in _DANGLING


def rest_after(text: str, end: int) -> str:
    """The sentence that a text ends within, where the place ``end`` lies in one before it; "" elsewhere."""
    tail = text[-_TAIL:].rstrip()
    if _ENDED.search(tail):
        return ""
    start = len(text.rstrip()) - len(tail) + _last_stop(tail)
    return text[start:].strip() if start >= end else ""


def goes_on(rest: str) -> bool:
    """Whether an unfinished sentence takes the argument up again: "But I still have to find"."""
    return _CONTINUED.match(rest) is not None


def _last_stop(tail: str) -> int:
    """Where the last sentence begins."""
    return max((stop.end() for stop in _STOP.finditer(tail) if stop.end() < len(tail)), default=0)


def _open_dollar(tail: str) -> bool:
    """Whether a lone "$" opens a formula that is not closed; before an amount of money it opens none."""
    plain = tail.replace("\\$", "  ")
    if plain.count("$") % 2 == 0:
        return False
    before, _, after = plain.rpartition("$")
    if re.search(r"\d\s?$", before):
        return False  # "2,74 $"
    return _IN_FORMULA.match(after) is not None and "\n\n" not in after


def _depth(text: str) -> int:
    depth = 0
    for character in text:
        depth = max(0, depth + (character in "({[") - (character in ")}]"))
    return depth
