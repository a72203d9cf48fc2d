"""Documents of supervised training on disk: of a million, memory holds those in use."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from .documents import Document
from .packs import PackedBatch, join, plan_packs

_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u4"), ("observation_weight", "<f4")])
_TARGET = np.dtype([("token_id", "<i4"), ("marks", "u1")])
"""What is kept of a target: its id, and as bits whether it is trained and whether the assistant wrote it."""
_TRAINED, _WRITTEN, _SAYS_WRITTEN = 1, 2, 4


class StoredDocuments(Sequence[Document]):
    """Documents that are only appended, in a file without a name: it is gone with this object, or with the process.

    Reading makes a document anew each time, equal to the one that was appended; memory holds nothing of the others.
    Once all are there, several threads may read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """
        Args:
            folder: on the disk that is to hold them, about 5 bytes a token; None: where temporary files are.
        """
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._targets = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this object
        self._index = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._num, self._end, self._flushed = 0, 0, True

    def append(self, document: Document) -> None:
        """Raises ValueError where it has what only reinforcement learning knows (advantages, columns, a weight), or
        targets that do not follow its inputs."""
        if document.columns or np.any(document.advantage) or document.weight != 1.0:
            raise ValueError("a document with advantages, columns or a weight of its own cannot be stored; keep it")
        if not np.array_equal(document.token_ids[1:], document.targets[:-1]):
            raise ValueError("the targets of a document are its inputs shifted by one; make it with document_of")
        targets = np.zeros(_stored_length(len(document)), dtype=_TARGET)
        targets["token_id"] = np.concatenate([document.token_ids, document.targets[-1:]])
        marks = document.loss_mask * np.uint8(_TRAINED)
        if document.written is not None:
            marks = marks | document.written * np.uint8(_WRITTEN) | np.uint8(_SAYS_WRITTEN)
        targets["marks"][1:] = marks
        entry = np.array([(self._end, len(document), document.observation_weight)], dtype=_ENTRY)
        self._index.write(entry.tobytes())
        self._end += self._targets.write(targets.tobytes())
        self._num, self._flushed = self._num + 1, False

    def lengths(self) -> np.ndarray:
        """[N] int64, tokens of each."""
        self._flush()
        entries = os.pread(self._index.fileno(), len(self) * _ENTRY.itemsize, 0)
        return np.frombuffer(entries, dtype=_ENTRY)["length"].astype(np.int64)

    def __len__(self) -> int:
        return self._num

    @overload
    def __getitem__(self, place: int) -> Document: ...

    @overload
    def __getitem__(self, place: slice) -> list[Document]: ...

    def __getitem__(self, place: int | slice) -> Document | list[Document]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"document {place} of {len(self)}")
        self._flush()
        start = (place % len(self)) * _ENTRY.itemsize
        (entry,) = np.frombuffer(os.pread(self._index.fileno(), _ENTRY.itemsize, start), dtype=_ENTRY)
        length = int(entry["length"])
        size = _stored_length(length) * _TARGET.itemsize
        targets = np.frombuffer(os.pread(self._targets.fileno(), size, int(entry["offset"])), dtype=_TARGET)
        ids, marks = targets["token_id"].astype(np.int64), targets["marks"][1:]
        return Document(
            token_ids=ids[:-1],
            targets=ids[1:],
            loss_mask=(marks & _TRAINED).astype(bool),
            old_logprobs=np.full(length, np.nan, dtype=np.float32),
            written=(marks & _WRITTEN).astype(bool) if length and marks[0] & _SAYS_WRITTEN else None,
            observation_weight=float(entry["observation_weight"]),
        )

    def _flush(self) -> None:
        if not self._flushed:
            self._index.flush()
            self._targets.flush()
            self._flushed = True


def _stored_length(length: int) -> int:
    """Tokens of a document of so many targets: the first input predicts, and is no target."""
    return length + 1 if length else 0


class LazyPacks(Sequence[PackedBatch]):
    """Packs of documents, planned now and joined each time they are asked for."""

    def __init__(self, documents: Sequence[Document], *, max_tokens: int, ways: int = 1) -> None:
        """Raises ValueError where a document is longer than ``max_tokens``; see ``plan_packs``."""
        self._documents = documents
        self._plan = plan_packs(documents, max_tokens=max_tokens, ways=ways)

    def __len__(self) -> int:
        return len(self._plan)

    @overload
    def __getitem__(self, place: int) -> PackedBatch: ...

    @overload
    def __getitem__(self, place: slice) -> list[PackedBatch]: ...

    def __getitem__(self, place: int | slice) -> PackedBatch | list[PackedBatch]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        return join([self._documents[index] for index in self._plan[place]])


def stored(documents: Iterable[Document], folder: Path | None = None) -> StoredDocuments:
    """Documents put on disk one after another."""
    made = StoredDocuments(folder)
    for document in documents:
        made.append(document)
    return made
