"""What runs on the device: the decoder over pages and lanes of keys and values. It is told what to do by plans and
decides nothing, so that the ranks of a tensor-parallel group can do alike, each with its share of the heads."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ..attention import Documents, choose_backend
from ..decoder import Attention, Decoder
from .cache import KeyValuePages, layer_groups
from .graphs import Capture, DecodeGraphs, Step, run_step
from .lanes import LaneDecode, LanePrefill, Lanes
from .memory import tokens_kept
from .paged import PagedPrefill
from .plans import DecodePlan, PrefillPlan
from .prompt import PromptCache
from .sampler import logits_of, raw_logprobs
from .weights import LoadWeights

Method = TypeVar("Method", bound=Callable[..., Any])
# Rows of logits over the whole vocabulary that scoring a prompt makes at once.
_SCORED_ROWS = 512


class Followers(Protocol):
    """Processes that repeat what this one does; see ``tensor_parallel``."""

    def tell(self, method: str, arguments: tuple) -> None:
        """Have them call a method of their ``Forward``."""
        ...

    def lose(self) -> None:
        """This process failed in the midst of a call: they may wait for it in vain, and are of no use any more."""
        ...

    def close(self) -> None:
        """End them."""
        ...


def _repeated(method: Method) -> Method:
    """The followers repeat the call."""

    @functools.wraps(method)
    def call(self: "Forward", *arguments: Any) -> Any:
        if self.followers is None:
            return method(self, *arguments)
        self.followers.tell(method.__name__, arguments)
        try:
            return method(self, *arguments)
        except CheckpointError:  # of which all ranks know
            raise
        except BaseException:
            self.followers.lose()
            raise

    return cast("Method", call)


class Forward:
    """A decoder with room for the keys and values of some rows.

    Attributes:
        num_rows, capacity: sequences at once, and most tokens of one.
        num_pages: of each group of layers, the scratch page included.
        windows: of each group of layers.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        max_batch: int,
        max_context: int,
        page_size: int = 16,
        cache_tokens: int | None = None,
        capture: Capture | None = None,
        followers: Followers | None = None,
    ) -> None:
        """
        Args:
            page_size: tokens of a page.
            cache_tokens: of all sequences and kept prefixes together, in each group of layers; None: see
                ``memory.tokens_kept``.
            capture: records decoding steps where the kernels run; None: every step is launched anew.
        Raises:
            ConfigError: too few pages for one context, or attention that cannot run here (``Decoder.use_attention``).
        """
        blocks = -(-max_context // page_size)
        if cache_tokens is None:
            cache_tokens = tokens_kept(decoder, max_batch=max_batch, max_context=blocks * page_size)
        pages = cache_tokens // page_size
        if pages < blocks:
            raise ConfigError(
                f"cache_tokens is {cache_tokens}; it must hold one whole context, {blocks * page_size} tokens"
            )
        self.decoder, self.followers = decoder, followers
        self.num_rows, self.capacity, self.page_size = max_batch, max_context, page_size
        self.windows = [group.window for group in layer_groups(decoder.config)]
        self.num_pages = [pages + 1] * len(self.windows)
        weight = decoder.head.weight
        self._device = weight.device
        attention = cast("Attention", decoder.layers[0].attention)
        self._pages = KeyValuePages(
            decoder.config,
            self.num_pages,
            page_size,
            num_heads=attention.num_kv_heads,
            dtype=weight.dtype,
            device=weight.device,
        )
        chosen = choose_backend(decoder.attention, weight.device, weight.dtype, attention.head_dim)
        # Only the kernels read pages; what else attention may run on reads lanes.
        self._lanes = None if chosen == "triton" else Lanes(self._pages, max_batch, max_context)
        self._graphs = None if capture is None else DecodeGraphs(decoder, self._pages, capture)
        self._prompt = PromptCache(self.decoder.attention)

    @property
    def has_lanes(self) -> bool:
        """Whether attention reads lanes; otherwise the kernels read pages."""
        return self._lanes is not None

    @_repeated
    @torch.inference_mode()
    def copy(self, group: int, source: int, target: int, count: int) -> None:
        """Copy the first tokens of a page to another."""
        self._pages.copy(group, source, target, count)

    @_repeated
    @torch.inference_mode()
    def fill(self, row: int, tables: Sequence[np.ndarray], length: int) -> None:
        """Fill a row's lane with the ``length`` tokens that its pages hold, [blocks] of each group."""
        if self._lanes is not None:
            self._lanes.load(row, tables, length)

    @_repeated
    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Move a row's lane."""
        assert self._lanes is not None
        self._lanes.move(source, target, length)

    @_repeated
    @torch.inference_mode()
    def clear(self) -> None:
        """Forget numbers that are not finite, which no mask could hide."""
        self._pages.clear()
        if self._lanes is not None:
            self._lanes.clear()

    @_repeated
    def load(self, load_weights: LoadWeights) -> None:
        """Put new weights into the decoder."""
        load_weights(self.decoder)

    @_repeated
    def weights_changed(self) -> None:
        """The weights may lie elsewhere now."""
        if self._graphs is not None:
            self._graphs.forget()

    @_repeated
    @torch.inference_mode()
    def prefill(self, plan: PrefillPlan) -> Tensor | None:
        """Logits [N, V] after the tokens that ``plan.drawn`` names; None where it names none."""
        places = self._pages.places(plan.slots)
        if self._lanes is None:
            view = PagedPrefill(self._pages, plan.tables, plan.pieces, places)
        else:
            view = LanePrefill(self._lanes, plan.pieces, places)
        documents = Documents([count for _, _, count in plan.pieces], self._tensor(plan.positions))
        hidden = self.decoder(self._tensor(plan.fed), documents, view)
        return logits_of(self.decoder, hidden[self._tensor(plan.drawn)]) if len(plan.drawn) else None

    @_repeated
    @torch.inference_mode()
    def decode(self, plan: DecodePlan) -> Tensor:
        """Logits [N, V] of the rows that count."""
        places = self._pages.places(plan.slots)
        longest = int(plan.positions[plan.drawn].max()) + 1
        if self._lanes is None:
            step = Step(
                fed=self._tensor(plan.fed),
                positions=self._tensor(plan.positions),
                lengths=self._tensor((plan.positions + 1).astype(np.int32)),
                tables=[self._tensor(table.astype(np.int32)) for table in plan.tables],
                places=places,
            )
            run = self._graphs.run if self._graphs is not None else self._run_step
            return logits_of(self.decoder, run(step, longest))
        view = LaneDecode(self._lanes, plan.positions, longest, places)
        documents = Documents([1] * len(plan.fed), self._tensor(plan.positions))
        hidden = self.decoder(self._tensor(plan.fed), documents, view)
        whole = len(plan.drawn) == len(plan.fed)
        return logits_of(self.decoder, hidden if whole else hidden[self._tensor(plan.drawn)])

    @_repeated
    @torch.inference_mode()
    def score(
        self, token_ids: np.ndarray, start: int, targets: np.ndarray, num_top: int
    ) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
        """Go on with a prompt, beside the pages, and score what follows each of its tokens.

        Args:
            token_ids: [T] its next tokens, from place ``start``; a prompt that starts at 0 takes the place of the last.
            targets: what follows them; one less than T at the prompt's end, which also ends what is kept of it.
        Returns:
            (log-probability of each target, the ``num_top`` likeliest tokens in its place).
        """
        documents = Documents.from_lengths([len(token_ids)], starts=[start], device=self._device)
        if not start:
            self._prompt = PromptCache(self.decoder.attention)
        hidden = self.decoder(self._tensor(token_ids), documents, self._prompt)[: len(targets)]
        if len(targets) < len(token_ids):
            self._prompt = PromptCache(self.decoder.attention)
        logprobs: list[float] = []
        tops: list[tuple[tuple[int, float], ...]] = []
        for rows, after in zip(hidden.split(_SCORED_ROWS), self._tensor(targets).split(_SCORED_ROWS), strict=True):
            own, top_ids, top = raw_logprobs(logits_of(self.decoder, rows), after, num_top)
            logprobs += own.tolist()
            tops += [tuple(zip(*row)) for row in zip(top_ids.tolist(), top.tolist())]
        return logprobs, tops

    @_repeated
    def drop_prompt(self) -> None:
        """Forget the prompt that was being scored."""
        self._prompt = PromptCache(self.decoder.attention)

    def _run_step(self, step: Step, longest: int) -> Tensor:
        return run_step(self.decoder, self._pages, step, longest)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)
