"""Patches as text: reversed, compared, rewarded."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.rewards.patches import changes_by_file, patch_of_texts, reverse_patch
from verigym.rewards.rubric import SWE_RUBRICS, swe_rubric
from verigym.rewards.score import verdict
from verigym.rewards.similarity import hybrid_score, patch_similarity, similarity_score

TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "++ c\n", "-- d\n", "--- e\n", "\n", "@@ -1 +1 @@\n"]), max_size=12)


def state(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@settings(deadline=None, max_examples=25)
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
    with pytest.raises(ValueError, match="threshold is 2"):
        hybrid_score(failed, near, GOLD, threshold=2)


def test_rubrics_have_names():
    failed = verdict(False)
    assert swe_rubric("tests").judge(failed, GOLD, GOLD) is failed
    assert swe_rubric("similarity").judge(None, GOLD, GOLD) == similarity_score(GOLD, GOLD)
    assert swe_rubric("hybrid").judge(failed, GOLD, GOLD).value == 1.0
    with pytest.raises(ValueError, match=f"choose one of {', '.join(SWE_RUBRICS)}"):
        swe_rubric("vibes")
