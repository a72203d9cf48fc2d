"""What an episode came to, as text for a teacher: what its policy was not shown. Pure: episodes in, text out."""

from collections.abc import Callable, Sequence

from ..envs.tools.bounds import shown_as_text
from .trajectory import Trajectory

ABOUT_ITSELF = ("verdict", "tests", "feedback")
"""Parts that say how the episode itself went, and none how it is done."""
_TITLES = {
    "verdict": "How your attempt ended:",
    "tests": "Tests that did not pass:",
    "feedback": "Feedback on your attempt:",
    "sibling": "A correct solution of another attempt:",
    "sibling_episode": "Another attempt, which solved it:",
    "reference": "The reference solution:",
    "demonstration": "How an expert did it:",
}
_AFTER = "Now solve the task."


def block_of(
    episode: Trajectory,
    group: Sequence[Trajectory],
    parts: Sequence[str],
    *,
    reference: Callable[[Trajectory], str] = lambda _: "",
    demonstration: Callable[[Trajectory], str] = lambda _: "",
    feedback_with_sibling: bool = True,
) -> str:
    """The block of text that a teacher reads beside an episode; "" where there is nothing to tell.

    Args:
        group: all episodes of its task in the step, itself among them; what it is told of others is of those that
            passed, never of itself.
        parts: names of what it may hold, see ``_TITLES``; in the order of ``parts``.
        reference, demonstration: the gold answer to an episode's task, and an expert's episode of it; "" where there is
            none.
        feedback_with_sibling: whether it is told of itself where another passed.
    """
    sibling = sibling_of(episode, group)
    found = []
    for part in parts:
        if part in ABOUT_ITSELF and sibling is not None and not feedback_with_sibling:
            continue
        match part:
            case "sibling":
                text = "" if sibling is None else answer_of(sibling)
            case "sibling_episode":
                text = "" if sibling is None else story_of(sibling)
            case "reference":
                text = reference(episode)
            case "demonstration":
                text = demonstration(episode)
            case _:
                text = _of_itself(part, episode)
        if text.strip():
            found.append(f"{_TITLES[part]}\n{text.strip()}")
    return "\n\n".join(["", *found, _AFTER]) if found else ""


def sibling_of(episode: Trajectory, group: Sequence[Trajectory]) -> Trajectory | None:
    """Another episode of the group that passed: the next one after this, so that not all are told the same."""
    place = next((index for index, one in enumerate(group) if one is episode), 0)
    others = [*group[place + 1 :], *group[:place]]
    return next((one for one in others if one.passed and one is not episode and one.speaker == episode.speaker), None)


def answer_of(episode: Trajectory) -> str:
    """What it handed in: its patch, else its last message."""
    patch = episode.evidence.get("patch")
    if isinstance(patch, str) and patch.strip():
        return patch
    said = [message for message in episode.messages if message.role == "assistant"]
    return said[-1].content or shown_as_text(said[-1:]) if said else ""


def story_of(episode: Trajectory) -> str:
    """All that was said after the task was given."""
    start = next((index for index, one in enumerate(episode.messages) if one.role == "assistant"), 0)
    return shown_as_text(episode.messages[start:])


def _of_itself(part: str, episode: Trajectory) -> str:
    if part == "verdict":
        if episode.passed is None:
            return ""
        return f"It {'passed' if episode.passed else 'did not pass'} ({episode.ending}). {episode.detail}"
    if part == "tests":
        tests = episode.evidence.get("tests") or {}
        return "\n".join(f"{name}: {outcome}" for name, outcome in tests.items() if outcome != "passed")
    told = episode.evidence.get("feedback")
    return told if isinstance(told, str) else ""
