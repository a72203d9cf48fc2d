"""Inside a workspace: which text shows most of the reference, whatever its marks, layout and local names. Fingerprints
as detectors of plagiarism use them: runs of tokens. Standard library only, Python 3.6 or later."""

import ast
import base64
import html
import json
import keyword
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter

RUN = 5
"""Tokens of a fingerprint."""
LEAST, SHARE, QUOTED = 6, 0.4, 0.65
"""So many fingerprints, and so large a share of all, show the fix; a statement may quote more of it."""
COMMON = 3
"""A fingerprint that stands in so many texts says nothing."""
MOST_FILE, MOST_TEXTS = 4 << 20, 100
_TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|[^\s\w\"'`,;\\]")
_MARGIN = re.compile(r"^[ \t]*(?:[-+>*|]+(?=[ \t\w@(\[{])|E (?= )|# )", re.M)
"""What diffs, mail, lists, reports of tests and comments put before a line."""
_TALK = re.compile(r"^[ \t]*[rbuRBU]*(\"\"\"|''')(?:.|\n)*?\1[ \t]*$|(?:^|(?<=\s))#.*", re.M)
_ENCODED = re.compile(r"(?:^[A-Za-z0-9+/]{60,76}\r?\n)+(?:^[A-Za-z0-9+/]+)?", re.M)
_ENCODED_LINE = "^[A-Za-z0-9+/]{60,76}$"


def search(paths, patch, statement=""):
    """The text that shows the reference: a file of HEAD or one that git does not keep, a commit's message, the task's
    statement; what stands in base64 is decoded.

    Args:
        paths: the files that the reference touches; what they hold at base tells nothing.
    Returns:
        {"place", "share", "of"}: where, the share of the reference's fingerprints, and how many these are; place is
        None where no text has enough of them.
    """
    code = [path for path in paths if path.endswith((".py", ".pyx", ".pyi"))] or list(paths)
    before, after = _versions(code, patch)
    prints = Prints(before, after)
    candidates = [("statement", statement)] if statement else []
    if prints.exact:
        candidates += _texts(prints.anchors(), set(paths))
    read = {}
    for _, place, text in sorted(_bounded(prints, candidates), reverse=True)[:MOST_TEXTS]:
        held = prints.held(text)
        read[place] = max(held, read.get(place, held), key=lambda one: len(one[0]) + len(one[1]))
    best = {"place": None, "share": 0.0, "of": len(prints.exact)}
    for form, telling in enumerate((prints.exact, prints.named)):
        seen = Counter(one for held in read.values() for one in held[form])
        rare = {one for one in telling if seen[one] < COMMON}
        for place, held in sorted(read.items()):
            told = len(held[form] & rare)
            share = told / len(rare) if rare else 0.0
            enough = share >= (QUOTED if place == "statement" else SHARE) and told >= LEAST
            if enough and share > best["share"]:
                best = {"place": place, "share": share, "of": len(rare)}
    return best


class Prints:
    """Fingerprints that the reference brings, as written (``exact``) and with what it binds locally numbered by order
    (``named``), so that other names hide nothing."""

    def __init__(self, before, after):
        local = set().union(*map(_bound_locally, after)) if after else set()
        fresh = [_tokens(_TALK.sub("", text)) for text in after]
        stood = [_tokens(form) for text in before for form in (text, _TALK.sub("", text))]
        self.fixed = {token for tokens in fresh for token in tokens if token not in local}
        self.fixed |= {*keyword.kwlist, "self", "cls"}
        old = {run for tokens in stood for run in _runs(tokens)}
        self.exact = {run for tokens in fresh for run in _runs(tokens)} - old
        shapes = {shape for tokens in fresh for shape in _runs(self._masked(tokens))}
        stood = {one for tokens in stood for one in self._numbered(tokens, shapes)}
        self.named = {one for tokens in fresh for one in self._numbered(tokens, shapes)} - stood
        self._shapes = {tuple("" if one[0] == "\0" else one for one in run) for run in self.named}

    def held(self, text):
        """(exact, named) of a text's fingerprints."""
        tokens = _tokens(text)
        return self.exact.intersection(_runs(tokens)), self.named.intersection(self._numbered(tokens, self._shapes))

    def _masked(self, tokens):
        return [token if token in self.fixed or not (token[0].isalpha() or token[0] == "_") else "" for token in tokens]

    def _numbered(self, tokens, shapes):
        """The runs of such shapes, each with its names that are not fixed numbered by order."""
        for run, shape in zip(_runs(tokens), _runs(self._masked(tokens))):
            if shape in shapes:
                order = {}
                yield tuple(same or f"\0{order.setdefault(one, len(order))}" for one, same in zip(run, shape))

    def words(self):
        """For each form the words of each fingerprint that a text must have to hold it."""
        forms = (self.exact, self.named)
        return [[{one for one in run if len(one) > 1 and one[0] != "\0"} for run in form] for form in forms]

    def anchors(self):
        """Words, the longest first, without which a text holds too little."""
        forms = self.words()
        found = []
        for word in sorted({one for form in forms for run in form for one in run}, key=lambda one: (-len(one), one)):
            if all(sum(run.isdisjoint(found) for run in form) < SHARE * len(form) for form in forms):
                break
            found.append(word)
        return found


def _bounded(prints, candidates):
    """(most fingerprints it may hold, place, text) of each text, in each way to read it, that may hold enough."""
    forms = prints.words()
    words = {one for form in forms for run in form for one in run}
    for place, written in candidates:
        for text in _readings(written):
            there = {word for word in words if word in text}
            bounds = [sum(run <= there for run in form) for form in forms]
            if any(bound >= LEAST and bound >= SHARE * len(form) for bound, form in zip(bounds, forms)):
                yield max(bounds), place, text


def _readings(text):
    """A text as it stands, without tags and entities, and what it holds in base64."""
    yield text
    plain = html.unescape(text)
    if plain != text:
        yield plain
    if re.search(r"</\w+>", text):
        yield html.unescape(re.sub(r"<[^<>]*>", "", text))
    for block in _ENCODED.findall(text):
        code = "".join(block.split())
        code = code[: len(code) - (len(code) % 4 == 1)]
        yield base64.b64decode(code + "=" * (-len(code) % 4)).decode("utf-8", "replace")


def _tokens(text):
    return _TOKEN.findall(_MARGIN.sub("", re.sub(r"\\[nrt]", " ", text)))


def _runs(tokens):
    return zip(*(tokens[start:] for start in range(RUN)))


def _bound_locally(text):
    """Parameters and variables of functions; none of what this Python cannot parse."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return set()
    inner = [one for one in ast.walk(tree) if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    parts = [part for one in inner for part in ast.walk(one)]
    parts += [part for one in ast.walk(tree) if isinstance(one, ast.comprehension) for part in ast.walk(one.target)]
    names = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return names | {part.arg for part in parts if isinstance(part, ast.arg)}


def _versions(paths, patch):
    """Texts of some files at base and with the reference."""
    with tempfile.TemporaryDirectory() as folder:
        before = []
        for path in paths:
            data = _git("cat-file", "blob", "HEAD:" + path)
            before.append(data.decode("utf-8", "replace"))
            if data:
                os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
                with open(os.path.join(folder, path), "wb") as file:
                    file.write(data)
        words = ["git", "apply", *("--include=" + path for path in paths), "-"]
        apply = subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        apply.communicate(patch.encode())
        after = []
        for path in paths:
            if os.path.isfile(os.path.join(folder, path)):
                with open(os.path.join(folder, path), "rb") as file:
                    after.append(file.read().decode("utf-8", "replace"))
    return before, after


def _texts(anchors, paths):
    """(place, text) of what has one of some words: files of HEAD, files that git does not keep, messages of commits."""
    asked = [word for anchor in anchors for word in ("-e", anchor)]
    names = _split(_git("grep", "-l", "-z", "-F", "-I", *asked, "HEAD", "--"))
    names += _split(_git("grep", "-l", "-z", "-I", "-E", "-e", _ENCODED_LINE, "HEAD", "--"))
    names = [one for one in dict.fromkeys(names) if one[len("HEAD:") :] not in paths and "\n" not in one]
    for name, data in _blobs(names):
        yield name[len("HEAD:") :], data.decode("utf-8", "replace")
    for name in _split(_git("ls-files", "--others", "-z")):
        if os.path.isfile(name) and os.path.getsize(name) <= MOST_FILE:
            with open(name, "rb") as file:
                data = file.read()
            if b"\0" not in data:
                yield os.path.abspath(name), data.decode("utf-8", "replace")
    grep = ["--grep=" + anchor for anchor in anchors]
    for message in _split(_git("log", "--all", "--reflog", "--format=%B%x00", "-F", *grep)):
        yield "git: " + message.strip().split("\n")[0][:60], message


def _blobs(names):
    """(name, bytes) of objects of git."""
    with tempfile.TemporaryFile() as asked:
        asked.write("".join(name + "\n" for name in names).encode("utf-8", "surrogateescape"))
        asked.seek(0)
        reader = subprocess.Popen(["git", "cat-file", "--batch"], stdin=asked, stdout=subprocess.PIPE)
        assert reader.stdout is not None
        for name in names:
            head = reader.stdout.readline().split()
            data = reader.stdout.read(int(head[2]) + 1)[:-1] if len(head) == 3 else b""
            if len(data) <= MOST_FILE:
                yield name, data
        reader.wait()


def _git(*words):
    return subprocess.run(["git", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def _split(told):
    return [one for one in told.decode("utf-8", "surrogateescape").split("\0") if one.strip()]


if __name__ == "__main__":
    json.dump(search(**json.load(sys.stdin)), sys.stdout)
