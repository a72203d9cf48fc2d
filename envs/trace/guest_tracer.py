"""Inside the sandbox: the events of a run, by ``sys.settrace`` or ``sys.monitoring``, the same either way.

Standard library only, Python 3.8 and newer. Nothing raised here reaches the program.
"""

# pyright: reportOptionalMemberAccess=false
import _thread
import opcode
import os
import sys

GENERATOR = 0x20 | 0x80 | 0x200
"""co_flags of generators, coroutines and asynchronous generators: frames that are entered again."""

_RETURNS = {opcode.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in opcode.opmap}
_YIELD, _YIELD_FROM = opcode.opmap["YIELD_VALUE"], opcode.opmap.get("YIELD_FROM")
_MONITORING = getattr(sys, "monitoring", None)  # from Python 3.12
_ATOMS = frozenset(map(id, (type(None), bool, int, float, str, bytes)))
"""By identity: a metaclass can write __hash__ and __eq__ for its classes."""
_OTHER = object()
_PROXY = type((lambda: sys._getframe().f_locals)())
"""A plain dictionary, or, from Python 3.13, a view of the frame's variables."""


class Tracer:
    """Records what happens in some files, in the thread that started it.

    ``note(event, frame, line, depth, shown, value)`` is called for each event: ``shown`` is {name: text} with ".." for
    what has not changed (call, line), ``value`` the text of what was returned or raised, None where a scope was left
    by an exception.
    """

    def __init__(self, files, values, note, max_events):
        """``files`` maps a code's file name to anything; other files are not recorded."""
        self.files, self.values, self.note = files, values, note
        self.max_events = max_events
        self.num_events = 0
        self.depth = 0
        self.flags = set()
        self.errors = []
        self.switching = False
        self.following = True
        """Whether the frame that was entered last is to tell of its lines, too."""
        self._seen = {}
        self._process = os.getpid()
        self._backend = None

    def start(self, backend=""):
        if not backend:
            backend = "settrace" if _MONITORING is None else "monitoring"
        self._backend = _Monitoring(self) if backend == "monitoring" else _Settrace(self)
        self.switching = True
        self._backend.start()
        self.switching = False

    def stop(self):
        if self._backend is not None:
            self.switching = True
            self._backend.stop()
            self._backend = None
            self.switching = False

    def leave(self):
        """Stop for good, having recorded as much as was asked for; the program goes on."""
        self.flags.add("events")
        self.stop()

    def record(self, event, frame, line, value=None, unwound=False):
        if self._process != os.getpid():
            self.stop()
            return
        try:
            self._record(event, frame, line, value, unwound)
        except RecursionError:
            # The program stands at its own limit: the event is lost, its error is not ours to change.
            self.flags.add("recursion")
            if event == "call":
                self.depth += 1
            elif event == "return":
                self.depth -= 1
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            self.flags.add("tracer")
            self.stop()

    def _record(self, event, frame, line, value, unwound):
        if self.num_events >= self.max_events:
            self.leave()
            return
        self.num_events += 1
        shown = text = None
        if event == "call":
            self.depth += 1
        if event == "call" or event == "line":
            shown = self._locals(frame, event == "call")
        elif event == "exception":
            text = self.values.raised(value)
        elif not unwound:
            text = self.values.text(value)
        self.note(event, frame, line, self.depth, shown, text)
        if event == "return":
            self.depth -= 1
            if not frame.f_code.co_flags & GENERATOR:
                self._seen.pop(id(frame), None)

    def _locals(self, frame, entering):
        text = self.values.text
        shown, now = {}, {}
        found = frame.f_locals
        if type(found) is not dict and type(found) is not _PROXY:
            return shown  # a class body whose metaclass brings a mapping of its own: asking it would run its code
        before = {} if entering else self._seen.get(id(frame), {})
        for name, value in found.items():
            if type(name) is not str or name[:1] == "." or name[:2] == "__":
                continue
            known = before.get(name)
            if known is not None and known[1] is value:
                now[name], shown[name] = known, ".."
                continue
            one = text(value)
            # What cannot change is known by itself. Anything else is not kept alive, and is written anew each time;
            # what is not written in full may have changed where it cannot be seen.
            now[name] = (one if self.values.whole else None, value if id(type(value)) in _ATOMS else _OTHER)
            shown[name] = ".." if known is not None and known[0] == one and self.values.whole else one
        self._seen[id(frame)] = now
        return shown


def was_unwound(frame, after_exception):
    """Whether a return event without a value means that an exception leaves the frame.

    ``after_exception``: whether the event before this one was an exception in the same frame, and not one that only
    says that an iterator has ended.
    """
    code, at = frame.f_code.co_code, frame.f_lasti
    if at < 0:
        return True
    if code[at] in _RETURNS:
        return False
    # An exception can be thrown into a yield. From Python 3.13 a frame stands behind it, before 3.10 ahead of it.
    yields = code[at] == _YIELD or (at >= 2 and code[at - 2] == _YIELD)
    awaits = _YIELD_FROM is not None and at + 2 < len(code) and code[at + 2] == _YIELD_FROM
    return after_exception if yields or awaits else True


class _Settrace:
    def __init__(self, tracer):
        self._tracer = tracer
        self._before = None
        self._raised_in = 0

    def start(self):
        self._before = sys.gettrace()
        sys.settrace(self._enter)

    def stop(self):
        sys.settrace(self._before)

    def _enter(self, frame, event, argument):
        tracer = self._tracer
        if frame.f_code.co_filename not in tracer.files:
            return None
        tracer.record("call", frame, frame.f_lineno)
        return self._inside if tracer.following else None

    def _inside(self, frame, event, argument):
        record = self._tracer.record
        raised_in, self._raised_in = self._raised_in, 0
        if event == "line":
            record("line", frame, frame.f_lineno)
        elif event == "return":
            unwound = argument is None and was_unwound(frame, raised_in == id(frame))
            record("return", frame, frame.f_lineno, argument, unwound)
        elif event == "exception":
            if argument[0] is not StopIteration and argument[0] is not StopAsyncIteration:
                self._raised_in = id(frame)
            record("exception", frame, frame.f_lineno, argument[:2])
        return self._inside


class _Monitoring:
    """The events that CPython itself turns into those of ``sys.settrace`` (Python/legacy_tracing.c)."""

    def __init__(self, tracer):
        self._tracer = tracer
        self._thread = _thread.get_ident()
        self._tool = None
        self._last_line = {}

    def start(self):
        monitoring = _MONITORING
        self._tool = next(tool for tool in (4, 3, 1, 2, 0, 5) if monitoring.get_tool(tool) is None)
        monitoring.use_tool_id(self._tool, "verigym-trace")
        callbacks = {
            "PY_START": self._started,
            "PY_RESUME": self._entered,
            "PY_THROW": self._thrown,
            "PY_RETURN": self._returned,
            "PY_YIELD": self._returned,
            "PY_UNWIND": self._unwound,
            "RAISE": self._raised,
            "STOP_ITERATION": self._stopped,
            "LINE": self._line,
            "JUMP": self._jumped,
        }
        wanted = 0
        for name, callback in callbacks.items():
            event = getattr(monitoring.events, name)
            monitoring.register_callback(self._tool, event, callback)
            wanted |= event
        monitoring.set_events(self._tool, wanted)
        monitoring.restart_events()

    def stop(self):
        monitoring = _MONITORING
        if self._tool is not None and monitoring.get_tool(self._tool) == "verigym-trace":
            monitoring.set_events(self._tool, 0)
            monitoring.free_tool_id(self._tool)
        self._tool = None

    def _is_ours(self, code):
        return code.co_filename in self._tracer.files

    def _is_here(self):
        return _thread.get_ident() == self._thread

    def _started(self, code, offset):
        if not self._is_ours(code):
            return _MONITORING.DISABLE
        if self._is_here():
            frame = sys._getframe(1)
            self._last_line.pop(id(frame), None)  # of a frame that had its place
            self._tracer.record("call", frame, frame.f_lineno)
        return None

    def _entered(self, code, offset):
        if not self._is_ours(code):
            return _MONITORING.DISABLE
        if self._is_here():
            frame = sys._getframe(1)
            self._tracer.record("call", frame, frame.f_lineno)
        return None

    def _thrown(self, code, offset, exception):
        if self._is_ours(code) and self._is_here():
            frame = sys._getframe(1)
            self._tracer.record("call", frame, frame.f_lineno)

    def _returned(self, code, offset, value):
        if not self._is_ours(code):
            return _MONITORING.DISABLE
        if self._is_here():
            frame = sys._getframe(1)
            self._tracer.record("return", frame, frame.f_lineno, value)
        return None

    def _unwound(self, code, offset, exception):
        if self._is_ours(code) and self._is_here():
            frame = sys._getframe(1)
            self._tracer.record("return", frame, frame.f_lineno, None, True)

    def _raised(self, code, offset, exception):
        if self._is_ours(code) and self._is_here():
            frame = sys._getframe(1)
            self._tracer.record("exception", frame, frame.f_lineno, (type(exception), exception))

    def _stopped(self, code, offset, exception):
        if not self._is_ours(code):
            return _MONITORING.DISABLE
        if self._is_here():
            frame = sys._getframe(1)
            self._tracer.record("exception", frame, frame.f_lineno, (type(exception), exception))
        return None

    def _line(self, code, line):
        if not self._is_ours(code):
            return _MONITORING.DISABLE
        if self._is_here():
            frame = sys._getframe(1)
            self._last_line[id(frame)] = line
            self._tracer.record("line", frame, line)
        return None

    def _jumped(self, code, offset, destination):
        """A jump back within one line runs the line once more."""
        if destination > offset or not self._is_ours(code):
            return _MONITORING.DISABLE
        frame = sys._getframe(1)
        line = line_at(code, destination)
        if line is None or line != self._last_line.get(id(frame)):
            return _MONITORING.DISABLE  # the event of its line comes by itself
        if self._is_here():
            self._tracer.record("line", frame, line)
        return None


def line_at(code, offset):
    """The line of the instruction at an offset; None where it has none."""
    return next((line for start, end, line in code.co_lines() if start <= offset < end), None)
