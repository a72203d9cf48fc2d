"""Statements and code taken apart, and the signs that are read from them."""

import math

import pytest

from verigym.envs.audit.text import signs
from verigym.envs.audit.text.changes import change_of
from verigym.envs.audit.text.signs import Reading, read_signs
from verigym.envs.audit.text.wording import literals, parts, prose_and_code, without_docs


def test_prose_and_code_are_told_apart():
    prose, code = prose_and_code(
        "It breaks.\n```\nload('')\n```\n>>> load(1)\n<!-- hint -->Really?\nx = {'a': [1, (2)]}"
    )
    assert prose.split() == ["It", "breaks.", "Really?"]
    assert "load('')" in code
    assert ">>> load(1)" in code
    assert "[1, (2)]" in code


def test_names_have_parts():
    assert parts("getHTTPName get_http_name x1") == {"get", "http", "name"}


def test_literals_are_contents_and_docs_can_be_left_out():
    code = 'def f():\n    """Say it."""\n    return "a\\"b" + \'c\'  # "no"\n'
    assert literals(code) == ["Say it.", 'a\\"b', "c", "no"]
    assert literals(without_docs(code)) == ['a\\"b', "c"]


def test_a_patch_is_what_it_adds_and_takes_away(reference):
    change = change_of(reference)
    assert change.paths == ("pkg/core.py",)
    assert change.removed == "    return open(path).read()"
    assert change.added.splitlines()[0] == "    if not path:"
    assert change.context.strip() == "def load(path):"
    assert change.headings == ("def load(path):",)


@pytest.mark.parametrize(
    ("sign", "value"),
    [
        (signs.own_text, math.log1p(1)),
        (signs.new_definitions, math.log1p(1)),
        (signs.shared_words, math.log1p(3)),  # no, was, given; "path" stands at base
        (signs.told_targets, 1 / 2),  # load is told, read_checked is not
        (signs.told_fix, 0.0),
        (signs.changed_expectations, 1.0),
        (signs.expectations, math.log1p(2)),  # "should raise", "instead of"
        (signs.title_words, 4.0),
        (signs.wishes, 0.0),
    ],
)
def test_a_sign_is_what_its_docstring_says(sign, value, row):
    found = sign(Reading(row("load takes empty paths\nIt should raise instead of reading.")))
    assert found == pytest.approx(value)


def test_doubt_counts_hedges_choices_and_questions(row):
    sure = signs.doubt(Reading(row("Fix load\nIt must raise a ValueError here.")))
    unsure = signs.doubt(Reading(row("Fix load\nMaybe it might raise, or either return? Not sure what is better?")))
    assert sure == 0.0
    assert unsure == pytest.approx((6 + 2) / 30 + 2 / 3 / 10)


def test_what_is_told_lowers_both_shares(row):
    vague = read_signs(row("Improve load?\nMaybe it could do something else, or perhaps not?"))
    told = read_signs(
        row(
            "load('') reads nothing where a ValueError is expected, with no path was given\n"
            "It should raise ValueError, 'no path was given'; read_checked(path) must be the function that opens it.\n"
            "```\nfrom pkg.core import load\nload('')\n```\nExpected: ValueError('no path was given')"
        )
    )
    assert signs.narrow_share(told) < 0.3 < 0.8 < signs.narrow_share(vague)
    assert signs.underspecified_share(told) < 0.2 < 0.7 < signs.underspecified_share(vague)


@pytest.mark.parametrize(("total", "share"), [(-1e6, 0.0), (0.0, 0.5), (1e6, 1.0)])
def test_texts_of_megabytes_have_a_share_too(total, share):
    assert signs.share_of(total, offset=0.0, slope=1.0) == share
