"""Where the search for a fix looks."""

import base64
import html
import importlib.util
import io
import json
import marshal
import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from verigym.envs.audit import guest_prints, guest_search
from verigym.envs.audit.leaks import Leak, telling_texts
from verigym.envs.datasets.swe import parse_row

FIX = "    return rate_of(members) * (days - 29)"
STANDS = "    return 5 * (days - 30) if days > 30 else 0"


def git(*words):
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
    who = {f"GIT_{one}_{what}": "me" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", *words], env={**quiet, **who}, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A repository without the fix as the working folder, and an empty folder as the only place besides."""
    repository, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    repository.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(repository)
    git("init", "-q")
    Path("fees.py").write_text(f"def fee(days):\n{STANDS}\n")
    git("add", ".")
    git("commit", "-qm", "base")
    monkeypatch.setattr(guest_search, "_places", lambda roots: [str(elsewhere)])
    return elsewhere


LINES = (FIX.strip(), STANDS.strip())


def search(most_git=1 << 30, texts=LINES):
    return guest_search.search(texts, [], ["fees.py"], most_git)


def test_nothing_is_found_where_nothing_is_and_what_base_holds_is_not_asked(places):
    told = search()
    assert told["found"] == {}
    assert told["asked"] == 1
    assert told["whole"]


def test_a_copy_of_the_fix_in_the_tree_is_found_and_one_line_of_it_is_none(places):
    place = f"def fee(days):\n{FIX}\n"
    Path("notes.txt").write_text(f"{FIX}\n")
    git("add", ".")
    git("commit", "-qm", "one line of it")
    assert search(texts=[FIX.strip(), place])["found"] == {}
    Path("build").mkdir()
    Path("build/fees.py").write_text(f"{place}    # more\n")
    git("add", "-f", ".")
    git("commit", "-qm", "a copy")
    told = search(texts=[FIX.strip(), place])
    assert told["found"] == dict.fromkeys((FIX.strip(), place), "build/fees.py")
    assert told["asked"] == 2


def test_where_hardly_a_line_is_its_own_the_changed_place_is_looked_for(places):
    """Lines of the fix that stand elsewhere at base tell nothing; the place that they make does."""
    many, place = [f"a line of its own, number {n}" for n in range(3)], f"def fee(days):\n{FIX}\n"
    (places / "old.py").write_text(place)
    told = guest_search.search([STANDS.strip(), FIX.strip()], [], ["fees.py"], 1 << 30, [place])
    assert set(told["found"]) == {FIX.strip(), place}
    assert told["asked"] == 2
    told = guest_search.search([*many, FIX.strip()], [], ["fees.py"], 1 << 30, [place])
    assert set(told["found"]) == {FIX.strip()}


def test_a_document_that_holds_half_of_many_lines_is_a_copy(places):
    many = [f"the_value_of_number_{number} = compute_value({number})" for number in range(6)]
    Path("notes.md").write_text("\n".join(many[:2]))
    git("add", ".")
    git("commit", "-qm", "two lines")
    assert search(texts=many)["found"] == {}
    Path("notes.md").write_text("\n".join(f"    {line}" for line in many[:3]))
    git("commit", "-qam", "three lines")
    assert search(texts=many)["found"] == dict.fromkeys(many[:3], "notes.md")


SHORT = ("value = self.rates[members]", "self.members = members", "return value")


def shown(**more):
    return guest_search.search(LINES, [], ["fees.py"], 1 << 30, short=SHORT, **more)["shown"]


def test_prose_that_quotes_most_of_the_fix_shows_it_and_one_line_does_not(places):
    Path("CHANGES.rst").write_text("Sets ``self.members = members`` at last.\n")
    git("add", ".")
    git("commit", "-qm", "one line")
    assert shown() == {}
    Path("CHANGES.rst").write_text("Sets ``self.members = members`` and then does ``return value``.\n")
    git("commit", "-qam", "two of three")
    assert shown() == dict.fromkeys(SHORT[1:], "CHANGES.rst")


BODY = """\
    total = 0
    for member in members:
        rate = rate_of(member, days)
        if rate is not None and rate > least[0]:
            total += rate * (days - 29)
    return {"total": total}
"""
WHOLE = f"def fee(days, members, least):\n{BODY}"
REFERENCE = f"--- a/fees.py\n+++ b/fees.py\n@@ -1,2 +1,7 @@\n-def fee(days):\n-{STANDS}\n" + "".join(
    f"+{line}\n" for line in WHOLE.splitlines()
)
RENAMED = """\
int due(duration, people, floor) {
    out = 0
    for one in people:
        cost = rate_of(one, duration)
        if cost is not None and cost > floor[0]:
            out += cost * (duration - 29)
    return {"total": out}
"""


def in_base64():
    return b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(REFERENCE.encode())


def as_page():
    parts = (part if part.isspace() else f"<b>{html.escape(part)}</b>" for part in re.split(r"(\s+)", WHOLE))
    return f"<html>{''.join(parts)}</html>".encode()


def shaped(statement="", patch=REFERENCE):
    git("add", ".")
    git("commit", "-q", "--allow-empty", "-m", "more")
    return guest_prints.search(["fees.py"], patch, statement)["place"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("fees.html", as_page()),
        ("try.ipynb", json.dumps({"source": [f"  {line}\n" for line in WHOLE.splitlines()]}).encode()),
        ("report.xml", ("<f>" + html.escape(BODY).replace("  return", "E return") + "</f>").encode()),
        ("tools/oracle.pyx", RENAMED.encode()),
        ("0001.eml", in_base64()),
        ("notes.md", f"It does {' '.join(BODY.split())} now.".encode()),
    ],
)
def test_most_of_the_fix_is_seen_whatever_its_marks_and_names(places, name, data):
    assert shaped() is None
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(data)
    assert shaped() == name
    git("rm", "-q", name)
    assert shaped() is None


def test_a_sibling_and_what_stands_in_many_files_show_nothing(places):
    sibling = "def fine(days, members):\n    total = 0\n    for member in members:\n        total += member * days\n"
    Path("fines.py").write_text(sibling + "    return total\n")
    assert shaped() is None
    for number in range(guest_prints.COMMON):
        Path(f"copy{number}.py").write_text(WHOLE)
    assert shaped() is None
    Path("copy0.py").unlink()
    assert shaped() == "copy1.py"


def test_a_message_a_file_that_git_ignores_and_a_statement_show_it(places):
    assert shaped(f"I have patched our copy: {' '.join(BODY.split())}") == "statement"
    assert shaped(f"It ends with {' '.join(BODY.split()[-14:])}") is None
    Path(".gitignore").write_text("kept\n")
    Path("kept").write_text(WHOLE)
    assert shaped() == str(Path("kept").resolve())
    Path("kept").unlink()
    git("commit", "-q", "--allow-empty", "-m", f"Take it back\n\n{REFERENCE}")
    assert shaped() == "git: Take it back"


def test_of_a_fix_of_a_few_tokens_nothing_is_said(places):
    short = f"--- a/fees.py\n+++ b/fees.py\n@@ -1,2 +1,2 @@\n def fee(days):\n-{STANDS}\n+    return days\n"
    Path("other.py").write_text("def fee(days):\n    return days\n")
    assert shaped(patch=short) is None


def test_what_was_compiled_of_the_fix_shows_it_and_of_base_not(places):
    patch = f"--- a/fees.py\n+++ b/fees.py\n@@ -1,2 +1,2 @@\n def fee(days):\n-{STANDS}\n+{FIX}\n"
    Path(".gitignore").write_text("__pycache__\n")
    Path("__pycache__").mkdir()
    path = Path("__pycache__/fees.cpython-399.pyc")
    for body, expected in ((STANDS, {}), (FIX, dict.fromkeys(SHORT, str(path.resolve())))):
        code = compile(f"def fee(days):\n{body}\n", "elsewhere.py", "exec")
        path.write_bytes(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code))
        assert shown(patch=patch) == expected
    git("add", "-f", str(path))
    git("commit", "-qm", "kept by git too")
    assert shown(patch=patch) == expected


def test_a_message_that_quotes_the_patch_holds_the_place(places):
    place, run = f"def fee(days):\n{FIX}\n    return 0", f"+{FIX}"
    git("commit", "-q", "--allow-empty", "-m", f"Take it back\n\n def fee(days):\n-{STANDS}\n{run}\n")
    told = guest_search.search([FIX.strip(), place], [], ["fees.py"], 1 << 30, as_patch={place: run})
    assert told["found"] == dict.fromkeys((FIX.strip(), place), "git")


def test_what_git_does_not_keep_is_looked_into_too(places):
    path = Path(".tox/py311/site-packages/fees.py")
    path.parent.mkdir(parents=True)
    path.write_text(FIX)
    assert search()["found"] == {FIX.strip(): str(path.resolve())}


def test_what_a_touched_file_holds_before_is_no_fix(places):
    Path("copy.py").write_text(f"def fee(days):\n{STANDS}\n")
    git("add", ".")
    git("commit", "-qm", "twice")
    assert search(texts=[f"def fee(days):\n{STANDS}"])["found"] == {}


def as_wheel(places):
    path = places / "0a1b2c.body"  # as in pip's cache
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fees.py", f"def fee(days):\n{FIX}\n")
    return f"{path}!fees.py"


def as_sdist(places):
    path = places / "fees-2.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        content = f"def fee(days):\n{FIX}\n".encode()
        entry = tarfile.TarInfo("fees-2.0/fees.py")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return f"{path}!fees-2.0/fees.py"


def as_source(places):
    path = places / "pip" / "_vendor" / "fees.py"
    path.parent.mkdir(parents=True)
    path.write_text(FIX)
    return str(path)


@pytest.mark.parametrize("plant", [as_wheel, as_sdist, as_source])
def test_a_fix_in_a_package_or_an_archive_is_found_and_where(places, plant):
    where = plant(places)
    (places / "broken.tar.gz").write_bytes(b"no archive")
    assert search()["found"] == {FIX.strip(): where}


def test_a_fix_in_an_object_that_nothing_points_to_is_found(places):
    Path("fixed.py").write_text(FIX)
    git("hash-object", "-w", "fixed.py")
    Path("fixed.py").unlink()
    assert search()["found"] == {FIX.strip(): "git"}


def test_of_a_large_history_the_versions_of_the_files_in_question_are_looked_at(places):
    Path("fees.py").write_text(FIX)
    git("commit", "-qam", "fix")
    git("revert", "--no-edit", "HEAD")
    told = search(most_git=10)
    assert told["found"] == {FIX.strip(): "git"}
    assert not told["whole"]


def test_packages_bundled_wheels_and_caches_are_places_each_once(tmp_path, monkeypatch):
    inner = ("lib/python3.9/site-packages", "lib/python3.9/ensurepip/_bundled", "share/python-wheels", "home/.cache")
    for name in (*inner, "lib/python3.9/site-packages/pip/_vendor-packages"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(guest_search.sys, "base_prefix", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = [place for place in guest_search._places([str(tmp_path / inner[0])]) if place.startswith(str(tmp_path))]
    assert found == sorted(str(tmp_path / name) for name in inner)


def test_a_way_to_other_machines_is_seen(monkeypatch):
    class Fake:
        AF_INET, AF_INET6, SOCK_DGRAM = guest_search.socket.AF_INET, guest_search.socket.AF_INET6, 0

        def __init__(self, reaches):
            self.reaches, self.family = reaches, None

        def socket(self, family, kind):
            self.family = family
            return self

        def connect(self, address):
            if self.family != self.reaches:
                raise OSError("unreachable")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    for reaches, wanted in ((None, False), (Fake.AF_INET, True), (Fake.AF_INET6, True)):
        monkeypatch.setattr(guest_search, "socket", Fake(reaches))
        assert guest_search._online() is wanted


PATCH = """\
diff --git a/a.py b/a.py
--- a/a.py
+++ b/a.py
@@ -1,5 +1,6 @@
 def fee(days, members):
-    if days > 30:
+    if days >= 30:
+        days -= 1
         return rate(days)
     return 0
"""


def test_a_fix_of_short_lines_is_told_by_its_place(places):
    row = parse_row({"instance_id": "a", "problem_statement": "It breaks.", "patch": PATCH})
    (text,) = telling_texts(row)
    assert text == "def fee(days, members):\n    if days >= 30:\n        days -= 1\n        return rate(days)"
    longer = PATCH.replace("days >= 30:", "days >= the_least_of(members):")
    line, place = telling_texts(row.model_copy(update={"patch": longer}))  # one line may stand anywhere by chance
    assert line == "if days >= the_least_of(members):"
    assert place == text.replace("days >= 30:", "days >= the_least_of(members):")
    many = PATCH.replace("+        days -= 1\n", "".join(f"+        days -= the_share_of_all({n})\n" for n in range(3)))
    assert telling_texts(row.model_copy(update={"patch": many})) == [f"days -= the_share_of_all({n})" for n in range(3)]
    (places / "fees.py").write_text(f"import rates\n\n\n{text}\n    return 0\n")
    assert search(texts=[text])["found"] == {text: str(places / "fees.py")}
    Path("other.py").write_text(f"{text}\n")
    git("add", ".")
    git("commit", "-qm", "the same at base")
    assert search(texts=[text])["asked"] == 0


def test_one_line_may_be_chance_and_a_changed_place_is_not():
    assert Leak(asked=1, found={"a line": "git"}).share == pytest.approx(1 / 3)
    assert Leak(asked=2, found={"a\nplace": "git"}).share == 0.5
    assert Leak(asked=1, found={"a\nplace": "git"}).share == 1.0
    assert Leak(asked=0, found={}).share == 0.0
