"""The embedded engine: token in, token out, for many callers on asyncio loops."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...errors import ConfigError
from ..chat.incremental import Decode
from ..decoder import Decoder
from .batch import Batch, OnWeightUpdate
from .callers import Callers
from .forward import Followers, Forward
from .graphs import cuda_capture
from .job import AnyJob
from .stats import EngineStats
from .weights import LoadWeights
from .worker import Worker


class Generator(Callers):
    """Continuous batching over a decoder that may be shared with a trainer; see ``model.chat.protocols.Engine``.

    A context manager, synchronous or asynchronous; ``close`` ends the thread.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        max_batch: int = 64,
        max_context: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        num_threads: int | None = None,
        max_waiting: int | None = None,
        decode: Decode | None = None,
        on_weight_update: OnWeightUpdate | None = None,
        page_size: int = 16,
        cache_tokens: int | None = None,
        step_tokens: int | None = None,
        cuda_graphs: bool = False,
        followers: Followers | None = None,
    ) -> None:
        """
        Args:
            decoder: on ``device``; its weights may change only between steps, see ``update_weights``.
            max_batch: sequences in work at once; more wait.
            max_context: tokens a prompt and its completion may have together.
            seed: of the stream that requests without a seed of their own draw from.
            num_threads: torch's threads for the engine's own thread; None for torch's setting. On the CPU 1 is
                fastest where other work, such as sandboxes, keeps the other cores busy.
            max_waiting: requests beyond ``max_batch`` that may wait; more are refused with QueueFull. None: any number.
            decode: text of ids, invalid UTF-8 replaced; needed for stop texts.
            on_weight_update: what becomes of the requests in flight when the weights change, see ``update_weights``;
                None: weights cannot change while there are any.
            page_size: tokens of a page, the unit in which keys and values are kept and shared.
            cache_tokens: tokens whose keys and values are kept, of running sequences and of prefixes for later ones,
                in each group of layers; None: as many as ``max_batch`` sequences of ``max_context`` have, within a
                share of the memory that is free. Where there are too few for all, sequences that came last give way
                and are computed again.
            step_tokens: most tokens fed in one step; longer prompts are fed in chunks, between the others' tokens.
                None: what suits the device.
            cuda_graphs: record decoding steps on CUDA and play them again. Off: that has not run on a GPU yet.
            followers: the other ranks of a tensor-parallel group, of which ``decoder`` is the first one's share; see
                ``tensor_parallel``. ``close`` ends them.
        """
        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}; it must be at least 1")
        limit = decoder.config.max_position_embeddings
        if not 2 <= max_context <= limit:
            raise ConfigError(f"max_context is {max_context}; this model takes 2 to {limit} tokens")
        if decoder.head.weight.device.type != torch.device(device).type:
            raise ConfigError(f"the decoder is on {decoder.head.weight.device}, the engine on {device}; move one")
        if cuda_graphs and torch.device(device).type != "cuda":
            raise ConfigError(f"cuda_graphs is set and the engine runs on {device}; leave it out")
        if cuda_graphs and followers is not None:
            raise ConfigError("cuda_graphs is set and the engine is tensor parallel; leave one of them out")
        if page_size < 1:
            raise ConfigError(f"page_size is {page_size}; it must be at least 1")
        super().__init__(
            max_context=max_context,
            vocab_size=decoder.config.num_ids or decoder.config.vocab_size,
            decode=decode,
            seed=seed,
        )
        self._followers = followers
        self._on_weight_update: OnWeightUpdate | None = on_weight_update
        self._forward = Forward(
            decoder,
            max_batch=max_batch,
            max_context=max_context,
            page_size=page_size,
            cache_tokens=cache_tokens,
            capture=cuda_capture if cuda_graphs else None,
            followers=followers,
        )
        self._batch = Batch(self._forward, step_tokens=step_tokens)
        most = None if max_waiting is None else max_batch + max_waiting
        self._worker = Worker(self._batch, num_threads=num_threads, most_requests=most)

    @property
    def policy_version(self) -> int:
        return self._batch.version

    def _submit(self, job: AnyJob) -> None:
        self._worker.submit(job)

    def stats(self) -> EngineStats:
        """Counts of now, and totals since the engine was made."""
        return self._worker.stats()

    def update_weights(
        self, version: int, load: LoadWeights | None = None, *, on_weight_update: OnWeightUpdate | None = None
    ) -> None:
        """Change the weights, or say that they have changed; prefixes kept from before are never used again.

        The engine stands still meanwhile. Requests that have no token yet begin under the new weights; for the others
        ``on_weight_update`` decides:

        - "recompute": what is there of them is computed again, so that their next tokens are those of an engine that
          had these weights from the start.
        - "keep": they go on over the keys and values of the old weights, until they give way to others for want of
          pages and are computed again.
        - "abort": they are answered as they are, with the finish reason "abort".

        Every token carries the version of the weights that sampled it.

        Args:
            version: of the weights from now on.
            load: puts them into the decoder (``weights`` has several); None: they are in it already, which without a
                pause is safe only while no request is in flight.
            on_weight_update: instead of the engine's own setting.
        Raises:
            PolicyError: requests are in flight, and neither says what becomes of them.
        """
        mode = on_weight_update or self._on_weight_update
        self._worker.update_weights(version, None if load is None else lambda: self._forward.load(load), mode)

    def forget_prefixes(self) -> None:
        """Drop what is kept for later prompts; running requests go on."""
        with self._worker.paused():
            self._batch.forget_prefixes()

    def pause(self) -> None:
        """Returns when no step runs; none will until ``resume``. Requests are taken on, and wait."""
        self._worker.pause()

    def resume(self) -> None:
        """Undo one ``pause``."""
        self._worker.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No step runs inside; weights that are shared with a trainer may change there."""
        with self._worker.paused():
            yield

    def close(self) -> None:
        """End the thread. Requests in flight get a PolicyError."""
        self._worker.close()
        followers, self._followers = self._followers, None
        if followers is not None:
            followers.close()
