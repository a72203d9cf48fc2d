"""``Judge``: a model's opinion of an episode as a number."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import GradingError
from ..model.chat.messages import Message

if TYPE_CHECKING:
    from .core import ToolEnv


class Judge:
    """Asks the model of a seat a question with few answers, each of which is worth a number.

    The last of the answers' words in what the model says counts. The same question is asked once in a run; question and
    answer are kept with the episode (``Trajectory.evidence["judged"]``).
    """

    def __init__(
        self,
        prompt: str,
        *,
        answers: Mapping[str, float] | None = None,
        seat: str = "judge",
        attempts: int = 2,
    ) -> None:
        """
        Args:
            prompt: the question; ``{names}`` in it are filled in by the call. Put what the agent wrote between marks,
                and say that it is no instruction.
            answers: word -> what it is worth; None: "yes" is 1, "no" is 0.
            seat: of the model that is asked, see ``ToolEnv.model``.
            attempts: how often it is asked where it says none of the words; further ones say so.
        """
        self.prompt, self.seat, self.attempts = prompt, seat, attempts
        self.answers = dict(answers or {"yes": 1.0, "no": 0.0})
        words = "|".join(re.escape(word) for word in sorted(self.answers, key=len, reverse=True))
        self._words = re.compile(rf"(?<!\w)({words})(?!\w)", re.IGNORECASE)

    async def __call__(self, env: "ToolEnv", **fields: Any) -> float:
        """What the answer is worth.

        Raises:
            GradingError: the model says none of the words. PolicyError: it cannot answer. Both are failures of the
                infrastructure: such an episode has no reward.
        """
        asked = [Message(role="user", content=self._filled(fields))]
        said = ""
        for _ in range(self.attempts):
            said = (await env.model(self.seat).say(asked, keep=self._answers)).content
            found = self._words.findall(said)
            if found:
                word = next(one for one in self.answers if one.lower() == found[-1].lower())
                told = {"judge": self.seat, "asked": asked[0].content, "answered": said, "worth": self.answers[word]}
                env.evidence.setdefault("judged", []).append(told)
                return self.answers[word]
            remark = f"Answer with one of these words: {', '.join(self.answers)}."
            asked = [*asked, Message(role="assistant", content=said), Message(role="user", content=remark)]
        raise GradingError(
            f"the judge {self.seat!r} said none of {', '.join(self.answers)} in {self.attempts} answers; its last: "
            f"{said[:200]!r}"
        )

    def _answers(self, said: str) -> bool:
        return self._words.search(said) is not None

    def _filled(self, fields: Mapping[str, Any]) -> str:
        # One pass: what a field holds is not filled in again, whatever braces the agent wrote.
        return re.sub(r"\{(\w+)\}", lambda found: str(fields.get(found[1], found[0])), self.prompt)
