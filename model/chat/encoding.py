"""Text that a model, a program or a file system wrote, as bytes and back: the one place that decides how.

A Python string can hold halves of surrogate pairs, which UTF-8 cannot. They come from ``"\\ud83d"`` in JSON, and, as
U+DC80 to U+DCFF, from bytes of file names and patches that are no UTF-8 (PEP 383). Two halves that stand together are
the character they make; a byte that was kept so is that byte again; any other half is "?".
"""

import re

_HALF = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def to_bytes(text: str) -> bytes:
    """UTF-8 of any text: files, paths, patches and commands that go into a sandbox. Never raises."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return path_text(text).encode("utf-8", errors="surrogateescape")


def from_bytes(data: bytes) -> str:
    """The text of any bytes, such that ``to_bytes`` gives them back: names and patches. What is only read by people or
    models is decoded with ``errors="replace"`` instead."""
    return data.decode("utf-8", errors="surrogateescape")


def valid_text(text: str) -> str:
    """The text with nothing that UTF-8 cannot hold: what tokenizers, servers and terminals take."""
    if text.isascii() or not has_halves(text):
        return text
    return _HALF.sub("?", _joined(text))


def path_text(text: str) -> str:
    """The text as ``os.fsencode`` and ``exec`` take it: kept bytes stay, any other half of a pair is "?"."""
    if text.isascii() or not has_halves(text):
        return text
    return _NO_BYTE.sub("?", _joined(text))


def has_halves(text: str) -> bool:
    """Whether a text holds halves of surrogate pairs."""
    return _HALF.search(text) is not None


def _joined(text: str) -> str:
    return _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
