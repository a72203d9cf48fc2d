"""Inside a workspace: whether lines can be read in git's objects, packages, archives and caches, and whether there is a
way to other machines. Standard library only, Python 3.6 or later."""

import glob
import importlib.util
import json
import marshal
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile

MOST_FILE = 4 << 20
MANY = FEW = 3
PLAIN = (".py", ".patch", ".diff", ".orig", ".rej", ".txt")
PACKED = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
PROSE = (".md", ".rst", ".txt", ".adoc")


def search(lines, roots, paths, most_git, places=(), short=(), patch="", as_patch=None):
    """Look for texts of one or more lines. Those that HEAD's files hold are left out, unless one file holds so many of
    them that it is a copy of the fix.

    Args:
        roots: folders to look through, besides those of Python's packages.
        paths: the files that the reference touches; their versions are looked at where git's objects have more bytes
            than ``most_git``.
        places: texts that are looked for too where fewer than ``FEW`` of the lines stand nowhere in HEAD.
        short: all lines of the reference that say something, for text about it that quotes them.
        patch: the reference, for what is compiled of it.
        as_patch: place -> its added lines as a patch has them, which may be quoted in a message or be a file.
    Returns:
        {"found": line -> place, "asked": how many lines, "whole": whether all of git was looked at, "online",
        "shown": the same as "found" of what shows most of the reference, but not as its source}.
    """
    shown = list(lines)
    holders = {line: _holders(line) for line in lines}
    if sum(not files for files in holders.values()) < FEW:
        holders.update((place, _holders(place)) for place in places if place not in holders)
    found = _copied(holders, paths)
    copied = len(found)
    as_patch = as_patch or {}
    lines = {line: [line.encode()] for line in holders if not holders[line]}
    for line in lines:
        lines[line] += [b"\n" + as_patch[line].encode() + b"\n"] if line in as_patch else []

    def look(data, place):
        for line, texts in lines.items():
            if any(text in data for text in texts):
                found.setdefault(line, place)

    whole = True
    if lines:
        longest = max(len(text) for texts in lines.values() for text in texts)
        whole = _look_into_git(look, longest, paths, most_git)
        for path in [*_untracked(), *_files(_places(roots))]:
            try:
                _look_into(path, look)
            except Exception:  # nobody can read it here, or it is no archive after all
                continue
    told = {"found": found, "asked": len(lines) + copied, "whole": whole, "online": _online()}
    return {**told, "shown": _shown(shown, short, paths, patch)}


def _git(*words):
    return subprocess.run(["git", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def _holders(text):
    """The files of HEAD that hold a text, of one line or several."""
    some = max(text.splitlines(), key=len)
    told = _git("grep", "-l", "-z", "-F", "-I", "-e", some, "HEAD", "--").decode("utf-8", "surrogateescape")
    files = [name for name in told.split("\0") if name]
    return [name for name in files if "\n" not in text or text.encode() in _git("cat-file", "blob", name)]


def _copied(holders, paths):
    """Text -> file of HEAD, of the texts that one file besides ``paths`` holds: three or more that are half of all; of
    a file with a name of ``paths`` in its own (build/lib/a.py, a.py.orig), a changed place with the lines around it.
    What a file of ``paths`` holds itself is no fix."""
    touched = {"HEAD:" + path for path in paths}
    names = {os.path.basename(path) for path in paths}
    by_file = {}
    for text, files in holders.items():
        for name in files if touched.isdisjoint(files) else ():
            by_file.setdefault(name, []).append(text)
    found = {}
    for name, texts in sorted(by_file.items()):
        place = any("\n" in text for text in texts)
        if (place and any(one in os.path.basename(name) for one in names)) or (
            len(texts) >= MANY and 2 * len(texts) >= len(holders)
        ):
            for text in texts:
                found.setdefault(text, name[len("HEAD:") :])
    return found


def _shown(lines, short, paths, patch):
    """Line -> file that shows most of the reference otherwise than as source: a tracked text that quotes two of its
    lines or more and most of them, as one may be chance; a compiled file with all functions that it brings, and then
    all lines."""
    asked = [word for line in short for word in ("-e", line)]
    quoting = _names("grep", "-l", "-z", "-F", "-I", *asked, "HEAD") if asked else ()
    for name in (name[len("HEAD:") :] for name in quoting):
        if name.lower().endswith(PROSE) and name not in paths:
            data = _git("cat-file", "blob", "HEAD:" + name)
            text = _flat(data.decode("utf-8", "replace")) if len(data) <= MOST_FILE else ""
            held = [line for line in short if _flat(line) in text]
            if len(held) >= 2 and 2 * len(held) > len(short):
                return dict.fromkeys(held, name)
    name = _compiled(paths, patch)
    return dict.fromkeys(short or lines, name) if name else {}


def _compiled(paths, patch):
    """A file compiled for this Python that holds every function as the reference makes it; None where none is there."""
    files = [path for path in paths if path.endswith(".py") and os.path.isfile(path)]
    stems = {os.path.basename(path)[: -len("py")]: path for path in files}
    kept = [os.path.abspath(name) for name in _names("ls-files", "-z", "--", "*.pyc")]
    found = [(path, os.path.basename(path)) for path in [*kept, *_untracked()] if path.endswith(".pyc")]
    found = [(path, name.split(".")[0] + ".") for path, name in found if name.split(".")[0] + "." in stems]
    if not found or not patch:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
            shutil.copyfile(path, os.path.join(folder, path))
        apply = subprocess.Popen(["git", "apply", "-"], cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        apply.communicate(patch.encode())
        for path, stem in found:
            with open(stems[stem], "rb") as before, open(os.path.join(folder, stems[stem]), "rb") as after:
                fresh = _functions(compile(after.read(), "m", "exec")) - _functions(compile(before.read(), "m", "exec"))
            with open(path, "rb") as file:
                data = file.read()
            known = data[:4] == importlib.util.MAGIC_NUMBER  # what another Python compiled cannot be read here
            if known and fresh and fresh <= _functions(marshal.loads(data[16:])):
                return path
    return None


def _functions(code):
    """What each function of compiled code does, wherever it was compiled."""
    inner = [one for one in code.co_consts if hasattr(one, "co_code")]
    plain = [repr(one) for one in code.co_consts if not hasattr(one, "co_code")]
    found = {(code.co_name, code.co_code, tuple(plain), code.co_names)} if code.co_name != "<module>" else set()
    return found.union(*map(_functions, inner))


def _names(*words):
    """Names that git tells, each ended by NUL."""
    return [name for name in _git(*words).decode("utf-8", "surrogateescape").split("\0") if name]


def _flat(text):
    return re.sub(r"\s+", "", text)


def _untracked():
    """Files of the workspace that git does not keep, those that it ignores among them."""
    return [os.path.abspath(name) for name in _names("ls-files", "--others", "-z") if os.path.isfile(name)]


def _look_into_git(look, longest, paths, most_git):
    """In pieces: a history may be larger than the box. In the order in which git has packed it, which is several times
    quicker than that of names; without folders, which hold no lines. Whether all of it was looked at."""
    check = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    told = _git("cat-file", "--batch-all-objects", "--unordered", check)
    told = told or _git("cat-file", "--batch-all-objects", check)  # git before 2.19
    objects = [one for one in map(bytes.split, told.splitlines()) if one[1] != b"tree"]
    wanted, whole = [one[0] for one in objects], sum(int(one[2]) for one in objects) <= most_git
    if not whole:
        told = _git("rev-list", "--objects", "--full-history", "--all", "HEAD", "--", *paths)
        wanted = [line.split()[0] for line in told.splitlines()]
    with tempfile.TemporaryFile() as asked:
        asked.write(b"\n".join(wanted) + b"\n")
        asked.seek(0)
        reader = subprocess.Popen(["git", "cat-file", "--batch", "--buffer"], stdin=asked, stdout=subprocess.PIPE)
        kept = b""
        stdout = reader.stdout
        assert stdout is not None
        for piece in iter(lambda: stdout.read(8 << 20), b""):
            look(kept + piece, "git")
            kept = piece[-longest:]
        reader.wait()
    return whole


def _places(roots):
    """Folders of packages, of the interpreters' bundled wheels, of caches; none within another."""
    prefixes = {"/usr", "/usr/local", sys.prefix, sys.base_prefix}
    ends = ("lib*/python3*/*-packages", "lib*/python3*/ensurepip/_bundled", "share/python-wheels")
    asked = [path for prefix in prefixes for end in ends for path in glob.glob(prefix + "/" + end)]
    asked += [path for path in sys.path if "-packages" in path] + list(roots) + [os.path.expanduser("~/.cache")]
    found = {os.path.realpath(path) for path in asked if os.path.isdir(path)}
    return sorted(path for path in found if not any(path.startswith(other + "/") for other in found))


def _files(places):
    here = os.path.realpath(os.getcwd())
    for place in places:
        for folder, below, files in os.walk(place):
            below[:] = [name for name in below if os.path.realpath(os.path.join(folder, name)) != here]
            if folder != here:
                paths = (os.path.join(folder, name) for name in files)
                yield from (path for path in paths if os.path.isfile(path))


def _look_into(path, look):
    if path.endswith(PLAIN):
        if os.path.getsize(path) <= MOST_FILE:
            with open(path, "rb") as file:
                look(file.read(), path)
        return
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\3\4"  # pip's cache keeps wheels under names that say nothing
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                if one.filename.endswith(PLAIN) and one.file_size <= MOST_FILE:
                    look(archive.read(one), path + "!" + one.filename)
    elif path.endswith(PACKED):
        with tarfile.open(path) as archive:
            for one in archive:
                if one.isfile() and one.name.endswith(PLAIN) and one.size <= MOST_FILE:
                    member = archive.extractfile(one)
                    assert member is not None
                    look(member.read(), path + "!" + one.name)


def _online():
    """Whether the kernel knows a way to another machine; no packet leaves."""
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as one:
                one.connect((address, 9))
                return True
        except OSError:
            continue
    return False


if __name__ == "__main__":
    json.dump(search(**json.load(sys.stdin)), sys.stdout)
