"""A second tracer, that shares no code with ours, and work of the standard library to run under both.

Standard library alone, so that any Python can run it:

    python second_tracer.py FOLDER_OF_OUR_TRACER KIND <PROGRAMS.json      (KIND: settrace, monitoring)
"""

import argparse
import ast
import base64
import calendar
import colorsys
import configparser
import copy
import csv
import difflib
import email.message
import email.parser
import fnmatch
import fractions
import gettext
import graphlib
import html
import html.parser
import importlib
import inspect
import io
import ipaddress
import json
import locale
import mimetypes
import optparse
import pickle
import plistlib
import posixpath
import pprint
import random
import shlex
import statistics
import string
import sys
import textwrap
import tokenize
import tomllib
import types
import urllib.parse
import uuid
import xml.etree.ElementTree
from json import decoder, encoder, scanner

MOST = 40_000
"""Events of one piece of work that are compared."""


class Second:
    """What happens, by ``sys.settrace``: [event, line, {name: text of a plain value, or None}, text or None]."""

    def __init__(self, files):
        self.files, self.told, self.functions = files, [], set()

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename not in self.files:
            return None
        self.functions.add(frame.f_code)
        names = None
        if event in ("call", "line"):
            names = {
                name: plain(value) for name, value in frame.f_locals.items() if name[:1] != "." and name[:2] != "__"
            }
        self.told.append(
            (event, frame.f_lineno, names, plain(argument) if event == "return" and argument is not None else None)
        )
        return self

    def start(self):
        self.before = sys.gettrace()
        sys.settrace(self)

    def stop(self):
        sys.settrace(self.before)


class SecondByMonitoring(Second):
    """The same by ``sys.monitoring`` (Python 3.12 and newer), whose events are switched on in each function of the
    files, and in no other."""

    TOOL = 5

    def start(self):
        self.lines = {}
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(self.TOOL, "second")
        inside = {
            events.PY_RESUME: lambda code, at: self.tell("call"),
            events.PY_RETURN: lambda code, at, value: self.tell("return", value),
            events.PY_YIELD: lambda code, at, value: self.tell("return", value),
            events.STOP_ITERATION: lambda code, at, error: self.tell("exception"),
            events.LINE: lambda code, line: self.tell("line"),
            events.JUMP: self.jumped,
        }
        everywhere = {  # these cannot be switched on in one function
            events.PY_THROW: lambda code, at, error: self.tell("call"),
            events.PY_UNWIND: lambda code, at, error: self.tell("return"),
            events.RAISE: lambda code, at, error: self.tell("exception"),
        }
        self.inside = sum(inside)
        for event, callback in {**inside, **everywhere, events.PY_START: self.started}.items():
            sys.monitoring.register_callback(self.TOOL, event, callback)
        sys.monitoring.set_events(self.TOOL, sum(everywhere) | events.PY_START)

    def stop(self):
        sys.monitoring.set_events(self.TOOL, 0)
        for code in self.functions:
            sys.monitoring.set_local_events(self.TOOL, code, 0)
        sys.monitoring.free_tool_id(self.TOOL)

    def started(self, code, at):
        if code.co_filename in self.files:
            if code not in self.functions:
                self.functions.add(code)
                sys.monitoring.set_local_events(self.TOOL, code, self.inside)
            self.tell("call")

    def jumped(self, code, at, to):
        lines = {place: line for start, end, line in code.co_lines() for place in range(start, end, 2)}
        if to < at and lines.get(to) is not None and lines.get(to) == lines.get(at):
            self.tell("line")

    def tell(self, event, value=None):
        frame = sys._getframe(2)  # past the callback
        if frame.f_code.co_filename in self.files:
            self(frame, event, value)


def plain(value, depth=2):
    """The text of small plain data; None for anything else. A large number may be an address."""
    if type(value) is int and abs(value) > 10**12:
        return None
    if value is None or (type(value) in (bool, int, float) and len(repr(value)) < 100):
        return repr(value)
    if type(value) is str and len(value) < 40:
        return repr(value)
    if type(value) in (list, tuple) and len(value) < 5 and depth:
        texts = [plain(one, depth - 1) for one in value]
        if None not in texts:
            inner = ", ".join(texts)
            return f"[{inner}]" if type(value) is list else f"({inner}{',' * (len(value) == 1)})"
    return None


def ours(trace, files, work):
    """The same by our tracer: ``trace`` is its package, or one that stands for it."""
    told, known = [], {}

    def note(event, frame, line, depth, shown, value):
        names = None
        if shown is not None:
            before = {} if event == "call" else known.get(id(frame), {})
            names = known[id(frame)] = {name: before[name] if text == ".." else text for name, text in shown.items()}
        told.append((event, line, names, value))

    tracer = trace.guest_tracer.Tracer(files, trace.guest_values.Values(), note, 10 * MOST)
    tracer.start()
    try:
        work()
    finally:
        tracer.stop()
    assert not tracer.errors
    assert not tracer.flags
    return told


def compare(trace, kind, files, work):
    """Numbers of (events, plain values) that are the same, and the functions that were entered."""
    work()  # caches are filled
    mine = ours(trace, files, work)
    second = {"settrace": Second, "monitoring": SecondByMonitoring}[kind](files)
    second.start()
    try:
        work()
    finally:
        second.stop()
    values = 0
    for number, (one, other) in enumerate(zip(mine, second.told)):
        assert one[:2] == other[:2], (number, one, other)
        assert (one[2] or {}).keys() == (other[2] or {}).keys(), (number, one, other)
        pairs = [(one[2][name], text) for name, text in (other[2] or {}).items() if text is not None]
        pairs += [(one[3], other[3])] if other[3] is not None else []
        for text, wanted in pairs:
            assert text == wanted, (number, one, other)
        values += len(pairs)
    assert len(mine) == len(second.told)
    return len(mine), values, second.functions


def compare_program(trace, kind, source, call):
    """Numbers of (events, plain values) of a generated program."""
    names = {"__name__": "program", "print": lambda *values: None}
    exec(compile(source, "program.py", "exec"), names)
    code = compile(call, "call", "eval")
    return compare(trace, kind, {"program.py": True}, lambda: eval(code, dict(names)))[:2]


def compare_library(trace, kind):
    """Numbers of (events, plain values, functions) of the work of the standard library."""
    functions, total = set(), [0, 0]
    for modules, work in WORK.values():
        events, values, entered = compare(trace, kind, {module.__spec__.origin: True for module in modules}, work)
        functions |= entered
        total = [total[0] + events, total[1] + values]
    return *total, len(functions)


class Reader(html.parser.HTMLParser):
    def handle_data(self, data):
        pass


class Shape:
    def __init__(self):
        self.side, self.next = 3, [1, {"a": (2, 3)}]


def arguments():
    parser = argparse.ArgumentParser(prog="p", description="words " * 9)
    parser.add_argument("--number", type=int, default=3, help="a number")
    parser.add_argument("names", nargs="*")
    parser.parse_args(["--number", "4", "a", "b"])
    return parser.format_help()


def options():
    parser = optparse.OptionParser(prog="p")
    parser.add_option("-n", "--number", type="int", default=1, help="a number")
    parser.parse_args(["-n", "3", "x"])
    return parser.format_help()


def configuration():
    parser = configparser.ConfigParser()
    parser.read_string("[a]\nx = 1\ny = %(x)s2\n[b]\nz: yes\n")
    parser.write(io.StringIO())
    return parser.getint("a", "y"), parser.getboolean("b", "z"), parser.has_option("a", "q")


def addresses():
    one = ipaddress.ip_network("10.1.0.0/28")
    six = ipaddress.ip_address("2001:db8::1")
    return (
        list(one.subnets(1)),
        one.broadcast_address,
        six.exploded,
        six.is_private,
        list(one.hosts())[:3],
        one.supernet(),
    )


def mail():
    message = email.message.EmailMessage()
    message["Subject"], message["To"] = "A word", "a@example.org"
    message.set_content("Some words.\n")
    return email.parser.Parser().parsestr(message.as_string())["Subject"]


def graph():
    sorter = graphlib.TopologicalSorter({"a": {"b", "c"}, "b": {"c"}})
    return list(sorter.static_order())


def tree():
    root = xml.etree.ElementTree.Element("a")
    for name in "bc":
        xml.etree.ElementTree.SubElement(root, name, at="1").text = "t"
    xml.etree.ElementTree.indent(root)
    return root.find("b"), root.findall(".//c[@at='1']"), xml.etree.ElementTree.tostring(root)


SOURCE = """def f(a, *b, c=1, **d):
    'Of f.'
    try:
        return [x for x in a if x] + {1: 2}[c]
    except KeyError as e:
        raise
"""
DATA = {"a": [1, 2.5, None, True], "b": {"c": "d\né", "e": []}}
WORK = {
    "json": ((json, decoder, encoder, scanner), lambda: json.loads(json.dumps(DATA, indent=1, sort_keys=True))),
    "textwrap": (
        (textwrap,),
        lambda: (
            textwrap.fill("some words " * 30, 40),
            textwrap.dedent("  a\n   b\n"),
            textwrap.shorten("a b c d e", 5),
        ),
    ),
    "difflib": (
        (difflib,),
        lambda: (
            list(difflib.unified_diff(["a\n", "b\n"], ["a\n", "c\n"])),
            difflib.get_close_matches("appel", ["ape", "apple"]),
            list(difflib.ndiff(["one\n", "two\n"], ["ore\n", "tree\n"])),
        ),
    ),
    "statistics": (
        (statistics,),
        lambda: (
            statistics.mean([1, 2, 4]),
            statistics.stdev([1.5, 2.5, 4]),
            statistics.median([3, 1, 2]),
            statistics.quantiles(range(9)),
            statistics.linear_regression([1, 2, 3], [2, 4, 7]),
            statistics.NormalDist(1, 2).cdf(1.5),
            statistics.multimode("aabb"),
        ),
    ),
    "fractions": (
        (fractions,),
        lambda: (
            fractions.Fraction(3, 4) + fractions.Fraction("1/6"),
            fractions.Fraction(7, 3) // 2,
            fractions.Fraction(0.5) ** 2,
            round(fractions.Fraction(7, 3), 1),
            fractions.Fraction(3.1416).limit_denominator(99),
        ),
    ),
    "argparse": ((argparse,), arguments),
    "optparse": ((optparse,), options),
    "configparser": ((configparser,), configuration),
    "ipaddress": ((ipaddress,), addresses),
    "shlex": ((shlex,), lambda: (shlex.split("a 'b c' \"d\" # e", comments=True), shlex.join(["a b", "c"]))),
    "string": (
        (string,),
        lambda: (
            string.Template("$a ${b}").substitute(a=1, b=2),
            string.Formatter().format("{0!r:>4} {a[b]}", 1, a={"b": 2}),
            string.capwords("a bc"),
        ),
    ),
    "urllib.parse": (
        (urllib.parse,),
        lambda: (
            urllib.parse.urlsplit("https://a:b@c.d:80/e?f=g&h=i#j"),
            urllib.parse.urljoin("http://a/b/c", "../d"),
            urllib.parse.parse_qs("a=1&b=2&a=3"),
            urllib.parse.urlencode({"a": "b c"}),
            urllib.parse.quote("a b/é"),
            urllib.parse.unquote("%41%zz"),
        ),
    ),
    "ast": (
        (ast,),
        lambda: (
            ast.unparse(ast.parse(SOURCE)),
            ast.dump(ast.parse("a = 1"), indent=1),
            ast.literal_eval("[1, {'a': (2,)}]"),
        ),
    ),
    "csv": (
        (csv,),
        lambda: (
            list(csv.DictReader(io.StringIO("a,b\n1,2\n"))),
            csv.DictWriter(io.StringIO(), ["a"]).writerow({"a": 1}),
            csv.Sniffer().sniff("a;b\n1;2\n3;4\n"),
        ),
    ),
    "html": (
        (html.parser, html),
        lambda: (
            Reader().feed("<a href='b'>c &amp; d</a><!-- e --><br/>"),
            html.escape("<a>"),
            html.unescape("&lt;&#65;"),
        ),
    ),
    "email": ((email.message, email.parser), mail),
    "calendar": (
        (calendar,),
        lambda: (
            calendar.month(2024, 2),
            calendar.monthrange(2023, 2),
            calendar.HTMLCalendar().formatmonth(2024, 2),
            calendar.leapdays(1900, 2000),
        ),
    ),
    "colorsys": (
        (colorsys,),
        lambda: (
            colorsys.rgb_to_hsv(0.1, 0.5, 0.2),
            colorsys.hls_to_rgb(0.3, 0.4, 0.5),
            colorsys.rgb_to_yiq(0.1, 0.2, 0.3),
            colorsys.hsv_to_rgb(0.9, 0.2, 0.7),
            colorsys.rgb_to_hls(0.3, 0.2, 0.1),
        ),
    ),
    "copy": ((copy,), lambda: (copy.deepcopy(DATA), copy.deepcopy(Shape()), copy.copy(Shape()))),
    "posixpath": (
        (posixpath,),
        lambda: (
            posixpath.normpath("a/../b//c"),
            posixpath.relpath("/a/b", "/a/c"),
            posixpath.splitext("a.b.c"),
            posixpath.commonpath(["/a/b", "/a/c"]),
            posixpath.expanduser("~/a"),
        ),
    ),
    "fnmatch": ((fnmatch,), lambda: (fnmatch.translate("a*[!b]?"), fnmatch.filter(["ab", "cd"], "a*"))),
    "graphlib": ((graphlib,), graph),
    "pprint": (
        (pprint,),
        lambda: (pprint.pformat({"a": list(range(40)), "b": ("c" * 90, {1, 2})}, width=30), pprint.saferepr(DATA)),
    ),
    "pickle": ((pickle,), lambda: pickle._loads(pickle._dumps([DATA, (1, "a"), {2}, b"c", 10**30]))),
    "plistlib": ((plistlib,), lambda: plistlib.loads(plistlib.dumps({"a": [1, True, "b"], "c": b"d"}))),
    "inspect": (
        (inspect,),
        lambda: (
            inspect.signature(compare),
            inspect.getdoc(plain),
            inspect.cleandoc("a\n  b"),
            inspect.getsourcelines(plain),
            inspect.getmembers(Shape),
        ),
    ),
    "tokenize": (
        (tokenize,),
        lambda: (list(tokenize.generate_tokens(io.StringIO(SOURCE).readline)), tokenize.untokenize([(1, "a")])),
    ),
    "tomllib": (
        (sys.modules["tomllib._parser"],),
        lambda: tomllib.loads('a = [1, 2.5]\n[b.c]\nd = "e\\n"\nf = {g = true}\nh = 2020-01-01\n'),
    ),
    "uuid": (
        (uuid,),
        lambda: (
            uuid.UUID(int=5).hex,
            uuid.uuid5(uuid.NAMESPACE_DNS, "a"),
            uuid.UUID("12345678123456781234567812345678").fields,
        ),
    ),
    "base64": (
        (base64,),
        lambda: (
            base64.b32encode(b"abc"),
            base64.b85decode(base64.b85encode(b"hello")),
            base64.a85encode(b"hello"),
            base64.b64decode("aGk="),
        ),
    ),
    "elements": ((xml.etree.ElementTree, sys.modules["xml.etree.ElementPath"]), tree),
    "gettext": ((gettext,), lambda: (gettext.c2py("n != 1 ? 1 : 0")(3), gettext.NullTranslations().gettext("a"))),
    "mimetypes": (
        (mimetypes,),
        lambda: (mimetypes.guess_type("a.tar.gz"), mimetypes.guess_all_extensions("text/plain")),
    ),
    "locale": (
        (locale,),
        lambda: (locale.normalize("de_DE.utf8"), locale.format_string("%d", 5), locale.delocalize("1.5")),
    ),
    "random": (
        (random,),
        lambda: (
            random.Random(1).sample(range(99), 5),
            random.Random(2).gauss(0, 1),
            random.Random(3).choices("ab", [1, 2], k=3),
            random.Random(4).shuffle(list("abc")),
            random.Random(5).triangular(),
        ),
    ),
}


if __name__ == "__main__":
    folder, how = sys.argv[1:]
    package = types.ModuleType("package")
    package.__path__ = [folder]
    sys.modules["package"] = package
    for name in ("guest_tracer", "guest_values"):
        importlib.import_module(f"package.{name}")
    found = [compare_program(package, how, *program) for program in json.load(sys.stdin)]
    print(json.dumps({"programs": found, "library": compare_library(package, how)}))
