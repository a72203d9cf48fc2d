"""Patches as text: reversed, compared, rewarded."""

import os
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.rewards.patch_rubrics import SWE_RUBRICS, swe_rubric
from verigym.rewards.patches import changes_by_file, is_patch, patch_of_texts, paths_of, reverse_patch, sections_of
from verigym.rewards.score import verdict
from verigym.rewards.similarity import hybrid_score, patch_similarity, similarity_score

TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "++ c\n", "-- d\n", "--- e\n", "\n", "@@ -1 +1 @@\n"]), max_size=12)


def state(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@settings(max_examples=25)
@given(before=TEXTS, after=TEXTS, tail=st.sampled_from(["", "no end"]))
def test_a_reversed_patch_undoes_it_for_git(tmp_path_factory, before, after, tail):
    folder = tmp_path_factory.mktemp("tree")
    texts = {
        "f": ("".join(before), "".join(after) + tail),
        "g": ("x\ny", "x\nz\n"),
        "new": ("", "n\n"),
        "old": ("o\n", ""),
    }
    for name, (first, _) in texts.items():
        if first:
            (folder / name).write_text(first)
    begin = state(folder)
    patch = patch_of_texts(texts)

    def apply(text):
        subprocess.run(["git", "apply", "-"], cwd=folder, input=text.encode(), check=True)

    apply(patch)
    assert state(folder) == {name: text for name, (_, text) in texts.items() if text}
    apply(reverse_patch(patch))
    assert state(folder) == begin
    assert reverse_patch(reverse_patch(patch)) == patch


def test_a_binary_change_has_no_reverse():
    with pytest.raises(ValueError, match="binary"):
        reverse_patch("diff --git a/x b/x\nGIT binary patch\nliteral 0\n")


def git(folder, *arguments, **options):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, **options).stdout


def bare(patch):
    """As ``diff -u`` writes it: no line of git's own."""
    return "".join(
        line for line in patch.splitlines(keepends=True) if not line.startswith(("diff ", "new ", "deleted "))
    )


CHANGE = {
    "a b/c d.py": ("x\n-- q\n++ r\n", "x\n--- e\n+++ f\ny"),
    "p/é.py": ("a\fb\u2028c\n", "a\fb\u2028d\n"),
    "new.py": ("", "@@ -1 +1 @@\n--- a/none\n+++ b/none\n"),
    "old.py": ("o\n\n", ""),
    "z": ("1\n2\r\n", "1\n3\r\n"),
}


@pytest.mark.parametrize("kind", ["git's", "bare", "in a mail", "with an index"])
def test_patches_of_several_files_are_taken_apart_and_reversed_whoever_wrote_them(kind, tmp_path):
    patch = patch_of_texts(CHANGE)
    if kind != "git's":
        patch = bare(patch)
    if kind == "in a mail":
        patch = (
            f"From 0 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] x\n\n--- is no header\n---\n 5 files changed\n\n{patch}"
        )
    if kind == "with an index":
        patch = re.sub(r"^--- (?=a/|/dev)", "Index: x\n====\n--- ", patch, flags=re.M)
    assert is_patch(patch)
    assert {old or new for old, new in paths_of(patch)} == set(CHANGE)
    assert [pair for pair in paths_of(patch) if not all(pair)] == [("", "new.py"), ("old.py", "")]
    assert set(changes_by_file(patch)) == set(CHANGE)
    for path, (before, _) in CHANGE.items():
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        if before:
            (tmp_path / path).write_bytes(before.encode())
    git(tmp_path, "apply", "-", input=patch.encode())
    assert {path: (tmp_path / path).read_bytes().decode() for path, (_, after) in CHANGE.items() if after} == {
        path: after for path, (_, after) in CHANGE.items() if after
    }
    git(tmp_path, "apply", "-", input=reverse_patch(patch).encode())
    for path, (before, _) in CHANGE.items():
        assert (tmp_path / path).exists() is bool(before)
        assert not before or (tmp_path / path).read_bytes() == before.encode()


def test_what_git_writes_of_odd_names_binaries_modes_and_moves_is_read_and_reversed(tmp_path):
    git(tmp_path, "init", "-q")
    names = ["plain.py", "with blank.py", 'quo"te.py', "t\tab.py", "é\n.py", "a b/c b/d.py"]
    for name in [*names, "binary", "moved", "mode"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\1\2" * 50 if name == "binary" else b"1\n2\n3\n4\n")
    (tmp_path / os.fsdecode(b"\xff.py")).write_text("1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "x")
    before = git(tmp_path, "write-tree")
    for name in [*names, os.fsdecode(b"\xff.py")]:
        (tmp_path / name).write_text("1\nx\n3\n4\n")
    (tmp_path / "binary").write_bytes(b"\0\1\3" * 60)
    (tmp_path / "moved").rename(tmp_path / "moved here")
    (tmp_path / "mode").chmod(0o755)
    git(tmp_path, "add", "-A")
    after = git(tmp_path, "write-tree")
    patch = os.fsdecode(git(tmp_path, "diff", "--cached", "--binary", "-M"))
    told = {*((name, name) for name in [*names, "binary", "mode", os.fsdecode(b"\xff.py")]), ("moved", "moved here")}
    assert set(paths_of(patch)) == told
    assert len(sections_of(patch)) == len(told)
    git(tmp_path, "apply", "--index", "-", input=os.fsencode(reverse_patch(patch)))
    assert git(tmp_path, "write-tree") == before
    git(tmp_path, "apply", "--index", "-", input=os.fsencode(reverse_patch(reverse_patch(patch))))
    assert git(tmp_path, "write-tree") == after


@pytest.mark.parametrize(
    "text", ["", "I changed nothing.", "+ a\n- b\n", " diff --git a/x b/x", "1c1\n< a\n---\n> b\n"]
)
def test_texts_without_a_change(text):
    assert not is_patch(text)
    assert paths_of(text) == ()


GOLD = patch_of_texts({"a.py": ("x = 1\ny = 2\n", "x = 1\ny = 3\n"), "b.py": ("p\n", "q\n")})


def test_similarity_is_one_for_the_gold_patch_and_zero_for_none_or_other_files():
    other = patch_of_texts({"c.py": ("p\n", "q\n")})
    assert patch_similarity(GOLD, GOLD) == 1.0
    assert patch_similarity("", GOLD) == patch_similarity(other, GOLD) == patch_similarity(GOLD, "") == 0.0
    assert patch_similarity(GOLD + other, GOLD) == 1.0
    half = patch_of_texts({"b.py": ("p\n", "q\n")})
    assert patch_similarity(half, GOLD) == 0.5
    near = patch_of_texts({"a.py": ("x = 1\ny = 2\n", "x = 1\ny = 4\n"), "b.py": ("p\n", "q\n")})
    assert 0.9 < patch_similarity(near, GOLD) < 1.0


@given(st.text(max_size=200), st.text(max_size=200))
def test_similarity_is_a_share_whatever_the_texts(one, other):
    assert 0.0 <= patch_similarity(one, other) <= 1.0


def test_a_rename_is_a_change():
    patch = "diff --git a/x.py b/y.py\nsimilarity index 100%\nrename from x.py\nrename to y.py\n"
    assert changes_by_file(patch) == {"x.py": "rename from x.py to y.py"}


def test_the_hybrid_rule_pays_tests_first_and_nearness_from_the_threshold_on():
    near = patch_of_texts({"a.py": ("x = 1\ny = 2\n", "x = 1\ny = 4\n"), "b.py": ("p\n", "q\n")})
    passed, failed = verdict(True), verdict(False, "t: failed")
    assert hybrid_score(passed, "", GOLD).value == 1.0
    shaped = hybrid_score(failed, near, GOLD)
    assert (0.9 < shaped.value < 1.0, shaped.passed) == (True, False)
    assert hybrid_score(failed, near, GOLD, threshold=1.0).value == 0.0
    assert hybrid_score(failed, "", GOLD, threshold=0.0).value == 0.0
    half = patch_of_texts({"b.py": ("p\n", "q\n")})
    assert hybrid_score(failed, half, GOLD, threshold=0.5).value == 0.5
    with pytest.raises(ValueError, match="threshold is 2"):
        hybrid_score(failed, near, GOLD, threshold=2)


def test_rubrics_have_names():
    failed = verdict(False)
    assert swe_rubric("tests").judge(failed, GOLD, GOLD) is failed
    assert swe_rubric("similarity").judge(None, GOLD, GOLD) == similarity_score(GOLD, GOLD)
    assert swe_rubric("hybrid").judge(failed, GOLD, GOLD).value == 1.0
    with pytest.raises(ValueError, match=f"choose one of {', '.join(SWE_RUBRICS)}"):
        swe_rubric("vibes")
