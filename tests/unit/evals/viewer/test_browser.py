"""The page in Debian's Chromium: what people do on it, wide and on a phone.

Skipped where there is no Chromium or no playwright.
"""

import json
import re

import pytest

from .conftest import Training, audited, evaluation
from .watching import PHONE, WIDE, WITH_CHROMIUM, Watched, id_of, rows_of, serve

pytestmark = WITH_CHROMIUM


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A server of three runs: a training that goes on, one that has ended, an evaluation with another like it."""
    root = tmp_path_factory.mktemp("room")
    runs = root / "runs"
    live = Training(runs / "live")
    for number in (1, 2, 3):
        live.step(number)
    ended = Training(runs / "ended", "stages")
    for number in range(1, 8):
        ended.step(number)
    ended.end()
    passes = {
        f"{repo}-{number}": (number % 2 == 0, number % 3 == 0) for repo in ("astropy", "django") for number in range(6)
    }
    evaluation(runs / "first", passes)
    evaluation(runs / "second", {**passes, "astropy-1": (True, True), "django-2": (False, False)}, policy="engine:b")
    audited(runs / "first")
    address, process = serve(runs, root / "cache")
    yield address, live
    process.terminate()
    process.wait(10)
    live.end()


SIZES = [
    pytest.param((WIDE, "light"), id="wide"),
    pytest.param((PHONE, "dark"), id="phone", marks=pytest.mark.slow),
]


@pytest.fixture(params=SIZES)
def watched(browser, room, request):
    viewport, scheme = request.param
    one = Watched(browser, room[0], viewport, scheme)
    yield one
    one.context.close()


def test_the_list_of_runs_and_a_search_in_it(watched):
    watched.open("/")
    page = watched.page
    page.wait_for_selector("a.name")
    assert page.locator("tbody tr").count() == 4
    assert page.locator("tr:has(a.name:text-is('live')) .state").inner_text() == "running"
    watched.check("runs")
    page.keyboard.press("/")
    page.keyboard.type("training ended")
    assert page.locator("tbody tr").count() == 1


def test_a_live_run_its_curves_and_an_episode_that_comes_while_one_looks(watched, room):
    _, live = room
    page = watched.page
    run = id_of(watched, "live")
    watched.open(f"/run/{run}")
    page.wait_for_selector(".chart canvas")
    assert "reward" in page.locator(".chart h3").first.inner_text()
    watched.check("curves")
    page.click("text=tokens >> nth=0")
    page.locator("input[type=range]").fill("0.5")
    watched.check("smoothed over tokens")
    watched.open(f"/run/{run}/episodes")
    page.wait_for_selector(".episodes tbody a")
    newest = max((row["step"] for row in rows_of(watched, run)), default=0)
    live.step(newest + 1)
    page.wait_for_function(
        "step => document.querySelector('.episodes tbody tr:not(.space) td')?.textContent === String(step)",
        arg=newest + 1,
    )
    watched.check("episodes that come")


def test_a_page_that_is_open_before_the_first_step_shows_it_and_goes_along_to_the_next_stage(browser, tmp_path):
    one = Training(tmp_path / "runs" / "young")
    first = tmp_path / "runs" / "young" / "sft" / "metrics.jsonl"
    (one.path / "rl" / "metrics.jsonl").unlink()
    address, process = serve(tmp_path / "runs", tmp_path / "cache")
    watched = Watched(browser, address, WIDE)
    page = watched.page
    try:
        run = id_of(watched, "young")
        watched.open(f"/run/{run}")
        page.wait_for_selector("text=No metrics yet")
        watched.check("before the first step")
        first.parent.mkdir()
        first.write_text(json.dumps({"step": 1, "seconds": 1.0, "trainer/loss/mean": 2.0}) + "\n")
        page.wait_for_selector(".chart canvas")
        assert page.locator(".chart h3").all_inner_texts() == ["loss"]
        row = {"step": 1, "seconds": 2.0, "rollout/reward/mean": 0.5}
        (one.path / "rl" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        page.wait_for_selector(".chart h3:text-is('reward')")
        assert page.get_by_label("Stage").locator("[aria-pressed=true]").inner_text() == "rl"
        watched.check("the next stage")
    finally:
        process.terminate()
        process.wait(10)
        watched.context.close()
        one.end()


def test_episodes_are_filtered_and_the_address_keeps_the_filter(watched):
    page = watched.page
    run = id_of(watched, "ended")
    watched.open(f"/run/{run}/episodes")
    page.wait_for_selector(".episodes tbody a")
    page.get_by_label("Outcome").select_option("yes")
    page.get_by_label("Family").select_option("code")
    expected = sum(row["passed"] == 1 and row["family"] == "code" for row in rows_of(watched, run))
    page.wait_for_selector(f"text={expected} episodes")
    assert "passed=yes" in page.url
    page.reload()
    page.wait_for_selector(f"text={expected} episodes")
    page.get_by_label("Find text in episodes").fill("step 3")
    page.wait_for_function("() => location.hash.includes('text=step')")
    page.get_by_label("Rows").get_by_text("Groups").click()
    page.wait_for_selector("text=/^[0-9]+ groups?$/")
    watched.check("groups")


def test_an_episode_its_parts_and_every_overlay(watched):
    page = watched.page
    run = id_of(watched, "ended")
    watched.open(f"/run/{run}/episode/rl:7:1")
    page.wait_for_selector(".message")
    assert page.locator(".message").count() == 7
    assert page.locator("text=Run it again from here").count() == 1
    watched.check("conversation")
    page.click("nav.tabs >> text=Patch")
    page.wait_for_selector(".diff .a >> text=return sum(values)")  # the conversation has a diff of its own
    assert page.locator(".diff .a:not(.ln)").inner_text().strip() == "+    return sum(values)"
    watched.check("patch")
    page.click("nav.tabs >> text=Tests")
    page.wait_for_selector(".tests td")
    page.click("nav.tabs >> text=Tokens")
    page.wait_for_selector(".tokens .t")
    overlays = page.get_by_label("Overlay").locator("button")
    names = overlays.all_inner_texts()
    assert names == [
        "loss mask",
        "log-probability",
        "entropy",
        "trainer − sampler",
        "advantage",
        "ratio and clip",
        "policy version",
        "role",
    ]
    shades = set()
    for number in range(len(names)):
        overlays.nth(number).click()
        assert overlays.nth(number).get_attribute("aria-pressed") == "true"
        shades.add(page.evaluate("[...document.querySelectorAll('.tokens .t')].map(one => one.className).join()"))
    assert len(shades) >= 6
    assert "overlay=role" in page.url
    page.locator(".tokens").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert "assistant" in page.locator(".readout").inner_text()
    watched.check("tokens")
    page.go_back()


def test_the_keyboard_goes_from_episode_to_episode(watched):
    page = watched.page
    run = id_of(watched, "ended")
    watched.open(f"/run/{run}/episode/rl:7:1")
    page.wait_for_selector(".message")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("text=sample 0 ")
    page.keyboard.press("]")
    page.wait_for_selector("text=sample 1 ")
    page.keyboard.press("2")
    page.wait_for_selector(".diff")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    watched.check("after keys")


def test_samples_of_a_group_stand_beside_each_other(watched):
    page = watched.page
    run = id_of(watched, "ended")
    watched.open(f"/run/{run}/episodes?view=groups")
    page.wait_for_selector("tbody a.name")
    page.wait_for_timeout(500)  # rows are drawn again when news come: a link that has just gone cannot be clicked
    page.locator("tbody a.name").first.click()
    page.wait_for_selector(".side-by-side article .message")
    assert page.locator(".side-by-side > article").count() == 4
    assert "advantage" in page.locator(".side-by-side > article").first.inner_text()
    watched.check("group")


def test_two_runs_are_compared(watched):
    page = watched.page
    watched.open("/")
    page.wait_for_selector("a.name")
    for name in ("live", "ended"):
        page.get_by_label(f"Compare {name}").check()
    page.click("button:text-is('Compare')")
    page.wait_for_selector(".chart canvas")
    page.click("summary:has-text('What differs')")
    assert page.locator("td code").get_by_text("name", exact=True).is_visible()
    assert {"live", "ended"} <= set(re.findall(r"live|ended", page.locator(".chart .legend").first.inner_text()))
    watched.check("compared")


def test_two_evaluations_with_mcnemar_and_flipped_tasks(watched):
    page = watched.page
    first, second = id_of(watched, "first"), id_of(watched, "second")
    watched.open(f"/run/{second}/results")
    page.wait_for_selector("text=By repository")
    page.get_by_label("Another evaluation").select_option(first)
    page.wait_for_selector("text=McNemar p")
    tasks = page.locator("table:has(th:text-is('before')) tbody tr").all_inner_texts()
    assert sorted(row.split()[0] for row in tasks) == ["astropy-1", "django-2"]
    assert f"against={first}" in page.url
    watched.check("results")
    watched.open(f"/run/{first}/results")
    worth = page.locator("section:has(h2:has-text('What it is worth'))")
    worth.wait_for()
    assert "class weak" in worth.inner_text()
    page.locator("section:has(h2:has-text('Passes to look at')) a").first.click()
    page.wait_for_selector(".flags >> text=git log -p")
    watched.check("a pass to look at")
    for part in ("engines", "about", "results", "episodes"):
        watched.open(f"/run/{id_of(watched, 'ended')}/{part}")
        page.wait_for_selector(".tabs a[aria-current]")
        page.wait_for_timeout(300)
        watched.check(part)


def test_a_server_that_goes_away_is_told_and_one_that_comes_back_is_found(browser, tmp_path):
    one = Training(tmp_path / "runs" / "a")
    one.step(1)
    address, process = serve(tmp_path / "runs", tmp_path / "cache")
    watched = Watched(browser, address, WIDE)
    try:
        run = id_of(watched, "a")
        watched.open(f"/run/{run}/episodes")
        watched.page.wait_for_selector(".episodes tbody a")
        process.kill()
        process.wait(10)
        watched.page.wait_for_selector("text=does not answer")
    finally:
        process.kill()
        watched.context.close()
        one.end()
