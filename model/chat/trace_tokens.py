"""Execution traces as tokens, and exactly back; the text is ``trace``'s."""

from collections.abc import Iterator, Sequence

from ...errors import ChatFormatError
from .protocols import TextTokenizer
from .trace import END, EVENT_TOKENS, FRAME, RESERVED, Event, Frame, Piece, Trace, frames_of, pieces_of, trace_of


class TraceFormat:
    """Traces as tokens of a tokenizer. Text between reserved tokens is encoded by itself, so that no token spans two
    pieces, and a reserved token that the program spells stays text: reading back is exact."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """
        Raises:
            ChatFormatError: the tokenizer lacks a reserved token of traces.
        """
        self._tokenizer = tokenizer
        try:
            self._ids = {name: tokenizer.reserved(name) for name in RESERVED}
        except KeyError as error:
            raise ChatFormatError(f"the tokenizer has no reserved token {error}; CWM's traces need it") from None
        self._names = {token_id: name for name, token_id in self._ids.items()}

    @property
    def stop_token_ids(self) -> tuple[int, int]:
        """Ids that end a frame: the separator, and the end of the run."""
        return self._ids[FRAME], self._ids[END]

    def event_id(self, event: Event) -> int:
        return self._ids[EVENT_TOKENS[event]]

    def encode(self, trace: Trace) -> tuple[int, ...]:
        """Ids of a whole trace.

        Raises:
            ChatFormatError: source code that UTF-8 cannot hold.
        """
        return self._encode(pieces_of(trace))

    def prompt(self, trace: Trace) -> tuple[int, ...]:
        """Ids of a trace so far, after which the next frame is to be written."""
        return self._encode(piece for piece in pieces_of(trace) if piece[0] != END)

    def decode(self, token_ids: Sequence[int]) -> Trace:
        """Inverse of ``encode``.

        Raises:
            ChatFormatError: it is no trace; the message says where.
        """
        return trace_of(self._split(token_ids))

    def decode_frame(self, token_ids: Sequence[int]) -> Frame | None:
        """The frame that a model wrote, its terminator included or not; None where it wrote the end of the run.

        Raises:
            ChatFormatError: it is no frame.
        """
        pieces = self._split(token_ids)
        if pieces[:1] == [(END, "")]:
            return None
        if pieces and pieces[-1] in ((FRAME, ""), (END, "")):
            pieces = pieces[:-1]
        frames = frames_of(pieces)
        if len(frames) != 1:
            raise ChatFormatError(f"one frame was expected, these are {len(frames)}")
        return frames[0]

    def _encode(self, pieces: Iterator[Piece]) -> tuple[int, ...]:
        ids: list[int] = []
        for name, text in pieces:
            ids.append(self._ids[name])
            if text:
                if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                    raise ChatFormatError(f"{text[:80]!r} holds a surrogate, which UTF-8 cannot express")
                ids += self._tokenizer.encode(text)
        return tuple(ids)

    def _split(self, token_ids: Sequence[int]) -> list[Piece]:
        ids = list(token_ids)
        places = [place for place, token_id in enumerate(ids) if token_id in self._names]
        if ids and (not places or places[0]):
            raise ChatFormatError(f"a frame begins with a reserved token, not with {self._tokenizer.decode(ids[:8])!r}")
        ends = [*places[1:], len(ids)]
        return [
            (self._names[ids[start]], self._tokenizer.decode(ids[start + 1 : end]) if end > start + 1 else "")
            for start, end in zip(places, ends)
        ]
