"""The other speakers of a family's episodes, opened from what the recipe says of them."""

from collections.abc import Awaitable, Callable, Mapping

from ...agent.sources import PolicySource
from ...agent.speakers import Answers, Seat
from ..policies import build_policy
from ..recipe.family import SeatConfig


async def nothing_to_close() -> None:
    """Nobody has a seat."""


def open_seats(configs: Mapping[str, SeatConfig]) -> tuple[dict[str, Seat], Callable[[], Awaitable[None]]]:
    """(name -> who has the seat, what closes their policies).

    Raises:
        ConfigError: a SPEC that is no policy for a seat. CheckpointError: its checkpoint is missing or broken.
    """
    sources: dict[str, PolicySource] = {}
    seats = {}
    for name, config in configs.items():
        source = None
        if config.policy != "self":
            if config.policy not in sources:
                sources[config.policy] = build_policy(config.policy, max_batch=64)
            source = sources[config.policy]
        seats[name] = Seat(
            policy=None if source is None else source.shared(),
            spec=config.policy,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            train=config.train,
            answers=Answers(config.answers),
        )

    async def close() -> None:
        for source in sources.values():
            await source.aclose()

    return seats, close
