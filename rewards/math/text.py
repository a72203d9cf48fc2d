"""LaTeX as models write it: what carries no meaning is taken away, what has several spellings gets one."""

import re
import unicodedata

from .python_text import from_python

_SYMBOLS = {
    "−": "-",
    "–": "-",
    "π": r"\pi ",
    "θ": r"\theta ",
    "×": r"\times ",
    "·": r"\cdot ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "∪": r"\cup ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "≠": r"\ne ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "±": r"\pm ",
    "°": r"^{\circ}",
    "ℝ": r"\mathbb{R}",
    "\u00a0": " ",
    "\u202f": " ",
    "\u200b": "",
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|\w))")
# A response that was escaped once more than it should be. Between rows of a matrix two backslashes stand before none of
# these words.
_ESCAPED = re.compile(
    r"(?<!\\)\\\\(?=(?:[dt]?frac|sqrt|boxed|text|pi|theta|infty|leq?|geq?|neq?|in|cup|cap|pm|times|cdot|left|right|mathbb)"
    r"(?![a-zA-Z]))"
)
_SPELLINGS = (
    (re.compile(r"\\(?:phantom|color|label|tag)\s*\{[^{}]*\}|\\(?:overset|underset)\s*\{\s*\}"), ""),
    (re.compile(r"\\textcolor\s*\{[^{}]*\}(?=\s*\{)|\\(?:underline|underbrace)(?=\s*\{)"), ""),
    (re.compile(r"\\q?quad"), " "),
    (re.compile(r"\{\s*\\rm\s+(\w+)\s*\}|\\rm\s*\{\s*(\w+)\s*\}"), r"\\mathrm{\1\2}"),
    (re.compile(r"(?<=[\d)}])(or|and)(?=[A-Z\d(\\-]|[a-z]\()"), r" \1 "),
    (re.compile(r"_\{\s*(\w)\s*\}"), r"_\1"),
    (re.compile(r"\\colon(?![a-zA-Z])|\{:\}"), ":"),
    (re.compile(r"(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(?=\d)"), ":"),
    (re.compile(r"\\neq?(?![a-zA-Z])"), r"\\ne "),
    (re.compile(r"\\backslash(?![a-zA-Z])"), r"\\setminus "),
    (re.compile(r"\\langle(?![a-zA-Z])"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"\\log_\{?e\}?(?![a-zA-Z])"), r"\\ln "),
    (re.compile(r"\(\s*\\b?mod(?![a-zA-Z])\s*\{?\s*(\d+)\s*\}?\s*\)"), r"\\pmod{\1}"),
    (re.compile(r"\\pmod(?![a-zA-Z])\s*\{?\s*(\d+)\s*\}?"), r"\\pmod{\1}"),
    (re.compile(r"\\b?mod(?![a-zA-Z])\s*\{?\s*(\d+)\s*\}?"), r"\\bmod{\1}"),
    (re.compile(r"^\s*\+\s*/?\s*-(?=\s*[\d\\a-zA-Z])"), r"\\pm "),
    (re.compile(r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:le|leq|leqslant|leqq)(?![a-zA-Z])"), r"\\le "),
    (re.compile(r"\\(?:ge|geq|geqslant|geqq)(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">=|=>"), r"\\ge "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}"), r"\\emptyset "),
    (re.compile(r"\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|\\degrees?(?![a-zA-Z])"), r"^{\\circ}"),
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"(?<!\\)\\\\\s*\[[\d.]+\s*\w\w\]"), r"\\\\"),  # the space between rows of a matrix
    (re.compile(r"\\frac\s*([a-zA-Z0-9])\s*([a-zA-Z0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s+([a-zA-Z])\s*([a-zA-Z0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\mathbb\s*(?:\{\s*R\s*\}|R(?![a-zA-Z]))"), r"\\mathbb{R}"),
)
# "12th", as a number: "\\text{June 20th}" is words.
_ORDINAL = re.compile(
    r"(?<=\d)\s*(?:\^\s*)?(?:\{\s*\\(?:text|textrm|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}"
    r"|\\(?:text|textrm|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}|\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)(?![a-zA-Z]))"
)
_LINES = re.compile(
    r"\\begin\s*\{(aligned|align|alignat|gathered|split|equation|eqnarray|cases)(\*?)\}(.*)\\end\s*\{\1\2\}\s*\.?", re.S
)
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_ANGLE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\{\\circ\}")
# Not the powers of "x**2 + y**2".
_BOLD = re.compile(r"(?<![\w)\]}])\*\*(?=[^\s*])([^*]+)(?<=\S)\*\*(?!\w)")
_FONT = re.compile(r"\\(?:mathbf|boldsymbol|mathit|bm)\s*\{([^{}]*)\}")
TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
# Around a formula or before an amount of money: neither changes the answer.
_BARE_DOLLAR = re.compile(r"(?<!\\)\$")
_MOST_BRACES = 8
_SAID = {
    **dict.fromkeys(("all real numbers", "all reals", "the set of all real numbers", "all real x"), r"\mathbb{R}"),
    **dict.fromkeys(("no solution", "no solutions", "there is no solution", "there are no solutions"), r"\emptyset"),
    **dict.fromkeys(("the empty set", "empty set"), r"\emptyset"),
}
"""Words that have a sign."""


def to_latex(text: str) -> str:
    """Unicode signs of mathematics as LaTeX, decimal digits of any script as ASCII."""
    text = _ROOT.sub(lambda m: rf"\sqrt{{{next(filter(None, m.groups()), '')}}}", text)
    text = _SUPERSCRIPT.sub(lambda m: f"^{{{m.group().translate(_SUPERSCRIPTS)}}}", text)
    return "".join(_SYMBOLS.get(character) or _ascii(character) for character in text if character != "\u200b")


def canonical(text: str) -> str:
    """One spelling: no dollars of a formula, sizes, bold type or full stop at the end; one name for each relation."""
    text = re.sub(r"\s{2,}", " ", text)
    text = _BARE_DOLLAR.sub("", _BOLD.sub(r"\1", to_latex(text).strip().strip("`")))
    text = _in_one_line(from_python(_ESCAPED.sub(r"\\", text)))
    text = _ORDINAL.sub("", text)
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    text = _FONT.sub(r"\1", text).strip()
    if _TRIGONOMETRIC.search(text):
        text = _ANGLE.sub(r"{(\\frac{\1\\pi}{180})}", text)
    text = re.sub(r"^\\[(\[]|\\[)\]]$", "", text).strip()
    for _ in range(_MOST_BRACES):
        if not text.startswith("{") or matching(text, 0) != len(text) - 1:
            break
        text = text[1:-1].strip()
    text = re.sub(r"(?:\\\\|\\[,;:! ]|~|\s|(?<!\\)\\$)+$", "", text)
    text = re.sub(r"(?<!\.)\.$", "", text).strip()
    return _SAID.get(words_of(text) or "", text)


def _in_one_line(text: str) -> str:
    """The rows of "aligned" and its like as a list; a row that begins with "=" goes on from the one before."""
    match = _LINES.fullmatch(text.strip())
    if match is None or (match.group(1) == "cases" and "&" in match.group(3)):
        return text
    rows: list[str] = []
    for row in re.split(r"\\\\(?:\s*\[[\d.]+\s*\w\w\])?", match.group(3)):
        row = row.replace("&", " ").strip().rstrip(",").strip()
        if rows and row.startswith("="):
            rows[-1] += f" {row}"
        elif row:
            rows.append(row)
    return ", ".join(rows)


def bare(text: str) -> str:
    """Canonical text without spaces, ``\\text`` and signs of money: what is the same here is the same answer."""
    text = re.sub(r"\\[!,]", "", TEXT.sub(r"\1", text.replace("\\$", "")))
    text = re.sub(r"\\[;: ]|~|\s+", " ", text)
    # Between digits a space means something: 3 1/2 is not 31/2.
    return re.sub(r"(?<!\d) | (?!\d)", "", text).removesuffix(".")


def words_of(text: str) -> str | None:
    """The words of an answer that is words, in lower case; None where there is anything else in it."""
    plain = TEXT.sub(lambda m: f" {m.group(1)} ", text)
    plain = re.sub(r"(?<=[ap])\.(?=m\b)|(?<=\b[ap]m)\.|(?<=\d)(?:st|nd|rd|th)\b", "", plain.casefold())
    plain = " ".join(plain.split()).strip(" .!'\"")
    return plain if re.fullmatch(r"[^\W\d_][\w\s,'’:.-]*", plain) else None


def matching(text: str, start: int) -> int:
    """The index of the brace that closes the one at ``start``; -1 where none does."""
    depth, escaped = 0, False
    for i in range(start, len(text)):
        if escaped:
            escaped = False
        elif text[i] == "\\":
            escaped = True
        elif text[i] in "{}":
            depth += 1 if text[i] == "{" else -1
            if depth == 0:
                return i
    return -1


def _ascii(character: str) -> str:
    if character < "\x80":
        return character
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(int(digit))
    # Vulgar fractions, and letters of another width.
    wide = unicodedata.normalize("NFKC", character)
    return wide.replace("\u2044", "/") if wide.isascii() or "\u2044" in wide else character
