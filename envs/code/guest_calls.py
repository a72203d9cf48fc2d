"""Inside the sandbox: the pipe between tests that embed their expected values and the program they test.

Names that the tests use and do not define are looked for in the program; calling one sends plain data over and plain
data comes back, so a comparison in the tests compares values that the program cannot act on. What is no plain data
stays on its side and is passed as a reference:

- an object of the program (an instance of a class it defines, a generator) is a ``Remote`` in the tests: it can be
  called, iterated, indexed, asked for attributes, for its text and truth, each in the program's process. It equals
  nothing but itself.
- an object of the tests, passed as an argument, is a ``Remote`` in the program's process. It can be called, which
  calls back into the tests, and nothing else: a function's attributes lead to the tests' source.

What a call changes in lists, dictionaries and sets it was given is changed in the tests' as well.
"""

import builtins
import socket
from collections.abc import Callable, Mapping
from typing import Any

from .plain import decode, dumps, encode, loads

MOST_BYTES = 64 << 20
"""Of one message."""


def describe(error: BaseException) -> list[str]:
    """(name of the built-in class nearest to it, text of one line)."""
    names = [one.__name__ for one in type(error).__mro__ if getattr(builtins, one.__name__, None) is one]
    try:
        text = str(error)[:300]
    except Exception:
        text = ""
    return [names[0] if names else "Exception", f"{type(error).__name__}: {text}" if text else type(error).__name__]


class Ended(BaseException):
    """The other side is gone."""


class Raised(Exception):
    """The program raised something that is no built-in exception, or gave an answer that is none."""


class Line:
    """One end of the pipe between the two processes: requests, answers, and requests while one waits for an answer."""

    def __init__(self, descriptor: int, operations: Mapping[str, Callable[..., Any]], *owned: Any) -> None:
        """
        Args:
            operations: what the other side may do with objects of this one, besides calling them.
            owned: objects the other side knows from the start, as ``Remote(line, 0)``, ...
        """
        self._socket = socket.socket(fileno=descriptor)
        self._operations = operations
        self._owned: list[Any] = []
        self._numbers: dict[int, int] = {}
        for one in owned:
            self.refer(one)

    def ask(self, *request: Any) -> Any:
        """Send a request and wait for its answer; serve what the other side asks meanwhile."""
        arguments = request[2] if request[0] == "call" else ()
        self.send(["ask", *[self._encode(part) for part in request]])
        while True:
            kind, *parts = self._receive()
            if kind == "ask":
                self._serve(parts)
            elif kind == "answer":
                value, changed = parts
                for index, content in changed:
                    _replace(arguments[index], self._decode(content))
                return self._decode(value)
            elif kind == "error":
                name, text = parts
                known = getattr(builtins, str(name), None)
                known = known if isinstance(known, type) and issubclass(known, Exception) else Raised
                raise known(text)
            else:
                raise Raised(f"not a message: {kind!r}")

    def serve(self) -> None:
        """Serve requests until the other side is gone."""
        while True:
            kind, *parts = self._receive()
            if kind == "ask":
                self._serve(parts)

    def _serve(self, parts: list[Any]) -> None:
        try:
            what, target, *rest = [self._decode(part) for part in parts]
            given: list[Any] = []
            if what == "call":
                given = rest[0]
                before = [_mutable(one) and self._encode(one) for one in given]
                value = target(*given, **rest[1])
                after = [_mutable(one) and self._encode(one) for one in given]
                changed = [[at, new] for at, (old, new) in enumerate(zip(before, after)) if old != new]
            else:
                if what not in self._operations:
                    raise TypeError(f"an object of the tests can be called, and nothing else ({what})")
                value, changed = self._operations[what](target, *rest), []
            answer = ["answer", self._encode(value), changed]
        except Ended:
            raise
        except Exception as error:
            answer = ["error", *describe(error)]
        self.send(answer)

    def _encode(self, value: Any) -> Any:
        return encode(value, self.refer)

    def refer(self, value: Any) -> Any:
        """What stands for an object on the other side."""
        if isinstance(value, Remote) and object.__getattribute__(value, "_line") is self:
            return {"ref": -1 - object.__getattribute__(value, "_number")}
        number = self._numbers.setdefault(id(value), len(self._owned))
        if number == len(self._owned):
            self._owned.append(value)  # kept, so that its id stays its own
        return {"ref": number}

    def _decode(self, value: Any) -> Any:
        return decode(value, self._resolve)

    def _resolve(self, number: int) -> Any:
        return self._owned[-1 - number] if number < 0 else Remote(self, number)

    def send(self, message: list[Any]) -> None:
        """Send a message as it is. Raises Ended."""
        data = dumps(message)
        try:
            self._socket.sendall(len(data).to_bytes(4, "big") + data)
        except OSError:
            raise Ended from None

    def _receive(self) -> list[Any]:
        size = int.from_bytes(self._bytes(4), "big")
        if size > MOST_BYTES:
            raise Ended
        try:
            message = loads(self._bytes(size))
        except (ValueError, RecursionError):
            raise Ended from None
        if not isinstance(message, list) or not message:
            raise Ended
        return message

    def _bytes(self, count: int) -> bytearray:
        data = bytearray()
        while len(data) < count:
            try:
                piece = self._socket.recv(min(count - len(data), 1 << 20))
            except OSError:
                piece = b""
            if not piece:
                raise Ended
            data += piece
        return data


def _mutable(value: Any) -> bool:
    return type(value) in (list, dict, set)


def _replace(old: Any, new: Any) -> None:
    if type(old) is not type(new) or not _mutable(old):
        return
    if isinstance(old, list):
        old[:] = new
    else:
        old.clear()
        old.update(new)


class Remote:
    """An object of the other process."""

    def __init__(self, line: Line, number: int) -> None:
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _ask(self, "call", list(args), kwargs)

    def __getattr__(self, name: str) -> Any:
        return _ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", name, value)

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "item", key)

    def __iter__(self) -> Any:
        iterator = _ask(self, "iter")
        while True:
            piece = _ask(iterator, "next")
            if not piece:
                return
            yield piece[0]

    def __next__(self) -> Any:
        piece = _ask(self, "next")
        if not piece:
            raise StopIteration
        return piece[0]

    def __len__(self) -> int:
        return _plain(_ask(self, "len"), int)

    def __bool__(self) -> bool:
        return _plain(_ask(self, "bool"), bool)

    def __str__(self) -> str:
        return _plain(_ask(self, "str"), str)

    def __repr__(self) -> str:
        return _plain(_ask(self, "repr"), str)

    def __float__(self) -> float:
        return _plain(_ask(self, "float"), float)

    def __int__(self) -> int:
        return _plain(_ask(self, "int"), int)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and _identity(self) == _identity(other)

    def __hash__(self) -> int:
        return hash(_identity(self))


def _identity(remote: Remote) -> tuple[int, int]:
    return id(object.__getattribute__(remote, "_line")), object.__getattribute__(remote, "_number")


def _ask(remote: Any, what: str, *rest: Any) -> Any:
    if not isinstance(remote, Remote):
        raise Raised(f"an object was expected, {type(remote).__name__} came")
    # A request is (what, target, ...); of a call the arguments come third.
    return object.__getattribute__(remote, "_line").ask(what, remote, *rest)


def _plain(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} was expected, {type(value).__name__} came")
    return value


def _next(iterator: Any) -> list[Any]:
    for value in iterator:
        return [value]
    return []


class _Iterator:
    """Not encoded as data, whatever it runs over."""

    def __init__(self, values: Any) -> None:
        self._values = iter(values)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._values)


PROGRAM_OPERATIONS: dict[str, Callable[..., Any]] = {
    "get": lambda target, name: getattr(target, name),
    "set": lambda target, name, value: setattr(target, name, value),
    "item": lambda target, key: target[key],
    "iter": lambda target: _Iterator(target),
    "next": _next,
    "len": lambda target: len(target),
    "bool": lambda target: bool(target),
    "str": lambda target: str(target),
    "repr": lambda target: repr(target),
    "float": lambda target: float(target),
    "int": lambda target: int(target),
}
