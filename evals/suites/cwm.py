"""The settings of CWM's own evaluations, as its release states them."""

from ...agent.loop import Budget
from ...model.chat.sampling import Sampling
from .spec import Preset

RELEASE = "facebookresearch/cwm at 7930e02"
CONTEXT = 131_072
"""Tokens. Source: arXiv:2510.02387, abstract."""

MAX_TOKENS = 65_536
EPISODE_S = 7_200.0
"""Of an episode. CWM's release states none for answers and programs; ours, so that a server that hangs ends it."""


def single_turn(*, samples: int, config: str, environment: str) -> Preset:
    """One answer a sample, after thinking.

    Args:
        samples: of each task.
        config: file of the release with the sampling.
        environment: file and registered name, with the turn's length and the number of attempts.
    """
    return Preset(
        sampling=Sampling(max_tokens=MAX_TOKENS, temperature=1.0, top_p=0.95),
        budget=Budget(turns=1, tokens=CONTEXT, seconds=EPISODE_S),
        samples=samples,
        sources={
            "temperature": f"{RELEASE}, {config}",
            "top_p": f"{RELEASE}, {config}",
            "samples": f"{RELEASE}, {config} (samples_per_prompt)",
            "max_tokens": f"{RELEASE}, {environment} (max_action_len)",
            "max_turns": f"{RELEASE}, {environment} (max_attempts)",
        },
    )
