"""Mathematics: does a response state the gold answer?

Pure text and exact arithmetic; the symbolic comparison is a function passed in, because it can run away and has to
live in a process that can be killed.
"""

from ..score import Score, verdict
from .answers import extract_answer
from .boxes import bare_gold
from .rules import Verify, decide


def grade_math(text: str, gold: str, *, verify: Verify, lenient: bool = True, problem: str | None = None) -> Score:
    """Score 1 where the stated answer equals the gold one.

    Args:
        text: the whole response.
        gold: the right answer, bare, in ``$...$`` or in a box.
        verify: the symbolic comparison; asked only where no rule decides.
        lenient: as in ``extract_answer``.
        problem: as in ``decide``: the question, where an expression that is left to be worked out is no answer.
    Returns:
        A score whose detail names the rule that decided, the answer and the gold one.
    """
    answer = extract_answer(text, lenient=lenient)
    if answer is None:
        return verdict(False, "no answer is stated" if lenient else "no answer is in a box")
    gold = bare_gold(gold)
    decision = decide(answer, gold, verify, problem=problem)
    return verdict(decision.same, f"by {decision.rule}: answer {_short(answer)}, expected {_short(gold)}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
