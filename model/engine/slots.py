"""Models of transformers, with a request in each slot of a batch: one enters when another ends.

All rows end at the same column of the keys and values, so that a step appends to all at once, and a shorter row has
masked columns before it. Keys of layers with a window are kept whole; the model's own mask cuts them.
"""

import inspect
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from .drawing import Draw, Row
from .request import Request

# Of prompts that are fed in one forward, padding included.
_PADDED_TOKENS = 2048
# Columns that there is room for at first.
_FEWEST_COLUMNS = 64
_OF_THE_LONGEST = ("dynamic", "longrope")


def why_rounds(model: Any) -> str | None:
    """Why rows cannot come and go in a model's batch; None where they can."""
    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False):
        return "it keeps other state than keys and values"
    try:
        kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    except (AttributeError, KeyError, TypeError, ValueError):
        return "its cache is not transformers' own"
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return "it keeps other state than keys and values"
    if any(kind in _OF_THE_LONGEST for kind in _rope_types(config.to_dict())):
        return "its frequencies depend on the longest row"
    return None


def _rope_types(settings: Any) -> Iterable[str]:
    if isinstance(settings, dict):
        yield from (str(settings[name]) for name in ("rope_type", "type") if isinstance(settings.get(name), str))
        for value in settings.values():
            yield from _rope_types(value)


class _Layer(DynamicLayer):
    """Keys and values of one layer, [rows, heads, columns, channels]."""

    def __init__(self, slots: "Slots") -> None:
        super().__init__()
        self._slots = slots
        self.held: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        slots, width = self._slots, key_states.shape[2]
        for held, new in zip(self.held, (key_states, value_states), strict=True):
            held[: new.shape[0], :, slots.end : slots.end + width] = new
        keys, values = (held[: key_states.shape[0], :, slots.start : slots.end + width] for held in self.held)
        return keys, values

    def get_seq_length(self) -> int:
        return self._slots.end - self._slots.start

    def fit(self, like: Sequence[Tensor], rows: int, columns: int, start: int, end: int, to: int) -> None:
        """Have room for so many rows and columns, with what lies in [start, end) ending at ``to``."""
        before, self.held = self.held, []
        for index, one in enumerate(like):
            held = one.new_zeros((rows, one.shape[1], columns, one.shape[3]))
            if before:
                held[:, :, to - (end - start) : to] = before[index][:, :, start:end]
            self.held.append(held)


class Slots:
    """A batch of rows that are drawn for, one token a step.

    Attributes:
        rows: those that go on.
        start, end: columns in which the longest row has keys.
    """

    def __init__(self, model: Any, num_ids: int, num_slots: int) -> None:
        """
        Args:
            num_ids: the head's rows above are padding, and none is drawn.
            num_slots: most rows at once.
        """
        self._model, self._num_ids, self._num_slots = model, num_ids, num_slots
        self._takes = inspect.signature(model.forward).parameters
        self.rows: list[Row] = []
        self._draw: Draw | None = None
        self._reset()

    def _reset(self) -> None:
        self.start = self.end = self._columns = 0
        self._layers: list[_Layer] = []
        self._lengths: list[int] = []
        self._last: list[int] = []

    @property
    def num_free(self) -> int:
        return self._num_slots - len(self.rows)

    @torch.inference_mode()
    def advance(self, new: Sequence[Row], version: int) -> tuple[int, list[Row]]:
        """Draw the next token of every row, and the first one of new rows.

        Args:
            new: at most ``num_free``.
            version: of the weights, the same until ``rows`` is empty.
        Returns:
            (tokens drawn, the rows that are no longer in work: answered, or left by their callers).
        """
        before = sum(row.count for row in (*self.rows, *new))
        drawn_for = [*self.rows, *new]
        if self.rows:
            self._step(version)
        for group in _alike(new):
            self._admit(group, version)
        ended = [row for row in drawn_for if row.done or row.request.abandoned]
        self.drop([row.request for row in ended])
        return sum(row.count for row in drawn_for) - before, ended

    def drop(self, requests: Collection[Request[Any]]) -> int:
        """Free the slots of requests; how many had one."""
        gone = [index for index, row in enumerate(self.rows) if row.request in requests]
        for index in reversed(gone):
            self._remove(index)
        if not self.rows:
            self._reset()
        return len(gone)

    def clear(self) -> None:
        """Leave all rows as they are."""
        self.rows, self._draw = [], None
        self._reset()

    def _step(self, version: int) -> None:
        width = self.end - self.start
        if self.end + 1 > self._columns:
            self._fit(width, 2 * (width + 1))
        lengths = torch.tensor(self._lengths)[:, None]
        mask = torch.arange(width + 1)[None] >= width - lengths
        logits = self._forward(torch.tensor(self._last)[:, None], mask, lengths, Cache(layers=[*self._layers]))
        self.end += 1
        self._lengths = [length + 1 for length in self._lengths]
        self.start = self.end - max(self._lengths)
        if self._draw is None:
            self._draw = Draw([*self.rows], self._num_ids, version, logits.device)
        self._last = self._draw(logits)

    def _admit(self, new: Sequence[Row], version: int) -> None:
        width = max(len(row.prompt_ids) for row in new)
        ids = torch.zeros((len(new), width), dtype=torch.int64)
        lengths = [len(row.prompt_ids) for row in new]
        for index, row in enumerate(new):
            ids[index, width - lengths[index] :] = torch.tensor(list(row.prompt_ids))
        places = torch.arange(width)[None] - (width - torch.tensor(lengths))[:, None]
        cache = DynamicCache()
        logits = self._forward(ids, places >= 0, places.clamp(min=0), cache)
        drawn = Draw(new, self._num_ids, version, logits.device)(logits)
        for index, row in enumerate(new):
            if not row.done and not row.request.abandoned:
                self._put(row, cache, index, lengths[index], drawn[index])

    def _forward(self, ids: Tensor, mask: Tensor, places: Tensor, cache: Cache) -> Tensor:
        """Logits after the last column, [R, V]."""
        device = self._model.device
        more: dict[str, Any] = {"position_ids": places.to(device)} if "position_ids" in self._takes else {}
        if "logits_to_keep" in self._takes:
            more["logits_to_keep"] = 1
        found = self._model(
            input_ids=ids.to(device),
            attention_mask=mask.long().to(device),
            past_key_values=cache,
            use_cache=True,
            **more,
        )
        return found.logits[:, -1]

    def _put(self, row: Row, cache: DynamicCache, index: int, length: int, drawn: int) -> None:
        """Copy a prompt's keys and values into the next slot."""
        if not self._layers:
            self._layers = [_Layer(self) for _ in cache.layers]
            self._fit(length, max(_FEWEST_COLUMNS, 2 * length), cache)
        elif self.end < length:
            self._fit(length, max(self._columns, 2 * length))
        place = len(self.rows)
        for layer, fed in zip(self._layers, cache.layers, strict=True):
            for held, new in zip(layer.held, _pair(fed), strict=True):
                held[place, :, self.end - length : self.end] = new[index, :, -length:]
        self.rows.append(row)
        self._lengths.append(length)
        self._last.append(drawn)
        self.start = min(self.start, self.end - length)
        self._draw = None

    def _remove(self, index: int) -> None:
        last = len(self.rows) - 1
        if index != last:
            for layer in self._layers:
                for held in layer.held:
                    held[index, :, self.start : self.end] = held[last, :, self.start : self.end]
        for kept in (self.rows, self._lengths, self._last):
            kept[index] = kept[last]  # type: ignore[index]
            kept.pop()
        if self.rows:
            self.start = self.end - max(self._lengths)
        self._draw = None

    def _fit(self, to: int, columns: int, cache: DynamicCache | None = None) -> None:
        """Have so many columns, and the rows end at column ``to``."""
        fed = self._layers if cache is None else cache.layers
        for layer, like in zip(self._layers, fed, strict=True):
            pair = layer.held if cache is None else _pair(like)
            layer.fit(pair, self._num_slots, columns, self.start, self.end, to)
        self.start, self.end, self._columns = to - (self.end - self.start), to, columns


def _pair(layer: Any) -> list[Tensor]:
    """Keys and values of a layer; none where it shares another's."""
    return [layer.keys, layer.values] if layer.is_initialized else []


def _alike(new: Sequence[Row]) -> list[list[Row]]:
    """Rows to feed together: of like lengths, and not too many tokens."""
    groups: list[list[Row]] = []
    for row in sorted(new, key=lambda row: len(row.prompt_ids)):
        padded = len(row.prompt_ids) * (len(groups[-1]) + 1 if groups else 1)
        if groups and padded <= _PADDED_TOKENS:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
