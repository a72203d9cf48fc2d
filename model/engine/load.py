"""An engine from a checkpoint."""

from pathlib import Path

from ..checkpoint import load_checkpoint
from ..tokenizer import Tokenizer
from .generator import Generator


def load_engine(
    checkpoint: Path | str,
    *,
    max_batch: int = 64,
    max_context: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    num_threads: int | None = None,
    max_waiting: int | None = None,
) -> tuple[Generator, Tokenizer]:
    """Read a checkpoint and serve it.

    Args:
        max_context: None for what the model was made for.
        max_batch, seed, num_threads, max_waiting: of ``Generator``.
    Raises:
        CheckpointError: the checkpoint is missing or broken.
        ConfigError: the model cannot take ``max_context`` tokens.
    """
    decoder, tokenizer = load_checkpoint(checkpoint, device)
    context = decoder.config.max_position_embeddings if max_context is None else max_context
    engine = Generator(
        decoder,
        max_batch=max_batch,
        max_context=context,
        device=device,
        seed=seed,
        num_threads=num_threads,
        max_waiting=max_waiting,
        decode=tokenizer.decode,
    )
    return engine, tokenizer
