"""What a run keeps of its episodes, for people to look at. Reading it imports no torch."""

from pydantic import Field

from .config import Settings


class RecordConfig(Settings):
    """What reinforcement learning writes beside its metrics: the score of every episode always, and of a share of its
    groups the conversation and the tokens. Groups are kept whole; the first group of a stage is always among them."""

    conversations: float = Field(default=1.0, ge=0, le=1)
    """Share of the groups whose conversations are kept."""
    conversations_mib: float = Field(default=4096.0, ge=0)
    """Most disk for the episodes of a stage; beyond it only scores are written, a line each."""
    tokens: float = Field(default=0.02, ge=0, le=1)
    """Share of the groups whose tokens are kept, with what the sampler and the trainer said of each."""
    tokens_mib: float = Field(default=1024.0, ge=0)
    """Most disk for the tokens of a stage; beyond it no more are kept."""
