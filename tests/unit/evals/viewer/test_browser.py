"""The page in Debian's Chromium: what people do on it, wide and on a phone, and what hostile episodes do not do.

Skipped where there is no Chromium or no playwright.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from verigym.__main__ import main

from .conftest import HOSTILE, Training, episode, evaluation

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (apt-get install chromium)")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield one
        one.close()


def serve(folder: Path, cache: Path):
    """(its address, the process): the command as people type it."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "verigym", "view", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]
    assert address.startswith("http://127.0.0.1:")
    return address, process


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
    address, process = serve(runs, root / "cache")
    yield address, live
    process.terminate()
    process.wait(10)
    live.end()


class Watched:
    """A page of which nothing may go wrong unseen."""

    def __init__(self, browser, address, viewport, scheme="light"):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page, self.address, self.wrong = self.context.new_page(), address, []
        self.page.set_default_timeout(60_000)
        self.page.on("console", lambda told: told.type in ("error", "warning") and self.wrong.append(told.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._asked)

    def _asked(self, request):
        if not request.url.startswith((self.address, "data:")):
            self.wrong.append(f"asked {request.url}")

    def open(self, place):
        self.page.goto(f"{self.address}/#{place}")

    def check(self, what):
        """Nothing on the console, nothing asked elsewhere, nothing beside the screen, no serious fault for axe."""
        assert self.wrong == [], what
        beyond = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond <= 0, f"{what}: {beyond} pixels beyond the screen"
        found = axe.Axe().run(self.page).response["violations"]
        told = [(one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found]
        assert [one for one in told if one[1] in SERIOUS] == [], what


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


def id_of(watched, name):
    watched.open("/")
    link = watched.page.locator(f"a.name:text-is('{name}')")
    return link.get_attribute("href").removeprefix("#/run/")


def test_the_list_of_runs_and_a_search_in_it(watched):
    watched.open("/")
    page = watched.page
    page.wait_for_selector("a.name")
    assert page.locator("tbody tr").count() == 4
    assert page.locator("tr:has(a.name:text-is('live')) .state").inner_text() == "running"
    watched.check("runs")
    page.keyboard.press("/")
    page.keyboard.type("ended")
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


def rows_of(watched, run):
    response = watched.page.request.get(f"{watched.address}/api/episodes?run={run}&limit=500")
    return response.json()["rows"]


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
    for part in ("engines", "about", "results", "episodes"):
        watched.open(f"/run/{id_of(watched, 'ended')}/{part}")
        page.wait_for_selector(".tabs a[aria-current]")
        page.wait_for_timeout(300)
        watched.check(part)


def test_hostile_episodes_are_text_on_the_page_and_in_the_file(browser, tmp_path):
    def make(**changes):
        one = episode(**{**changes, "text": HOSTILE})
        message = replace(one.messages[1], name=HOSTILE, role="tool")
        return replace(
            one,
            task_id=HOSTILE,
            ending=HOSTILE,
            detail=HOSTILE,
            messages=(*one.messages, message),
            breakdown={HOSTILE: 1.0},
            evidence={"patch": f"diff --git a/{HOSTILE} b/x\n@@ -1 +1 @@\n+{HOSTILE}\n", "tests": {HOSTILE: HOSTILE}},
        )

    runs = tmp_path / "runs"
    one = Training(runs / "hostile")
    one.step(1, make=make)
    one.end()
    address, process = serve(runs, tmp_path / "cache")
    try:
        for viewport in (WIDE, PHONE):
            watched = Watched(browser, address, viewport)
            page, run = watched.page, id_of(watched, "hostile")
            title = page.title()
            for place in ("episodes", "episodes?view=groups", "engines", "about"):
                watched.open(f"/run/{run}/{place}")
                page.wait_for_timeout(400)
                watched.check(place)
            key = rows_of(watched, run)[0]["key"]
            for tab in ("conversation", "patch", "tests", "tokens"):
                watched.open(f"/run/{run}/episode/{key}?tab={tab}")
                page.wait_for_selector("aside")
                page.keyboard.press("e")
                page.wait_for_timeout(200)
                watched.check(tab)
            assert "owned" not in {page.title(), title}
            assert page.locator("main img, main script, main iframe, main svg[onload]").count() == 0
            shown = page.locator("body").inner_text()
            assert not re.search("[\\x00-\\x08\\x0b-\\x1f\\x7f\\u202a-\\u202e]", shown)
            watched.context.close()
    finally:
        process.terminate()
        process.wait(10)
    assert main(["view", str(runs / "hostile"), "--html", str(tmp_path / "page.html")]) == 0
    watched = Watched(browser, (tmp_path / "page.html").as_uri(), PHONE)
    watched.page.goto(watched.address)
    watched.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert "owned" not in watched.page.title()
    assert watched.page.locator("img, script, svg").count() == 0
    assert watched.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert watched.wrong == []
    watched.context.close()


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


@pytest.mark.slow
def test_a_hundred_thousand_episodes(browser, tmp_path):
    """What stands in the table is right wherever it is scrolled to, and the server stays small."""
    count, size, groups = 100_000, 8, 8
    one = Training(tmp_path / "runs" / "large")
    for step in range(1, count // (size * groups) + 2):
        one.step(step, num_groups=groups, size=size)
    address, process = serve(tmp_path / "runs", tmp_path / "cache")
    watched = Watched(browser, address, WIDE)
    try:
        page, run = watched.page, id_of(watched, "large")
        watched.open(f"/run/{run}/episodes")
        page.wait_for_selector(".episodes tbody a")
        deadline = time.monotonic() + 120
        while page.request.get(f"{address}/api/poll?run={run}").json()["behind"] and time.monotonic() < deadline:
            time.sleep(0.5)
        total = page.request.get(f"{address}/api/episodes?run={run}&limit=1").json()["total"]
        assert total >= count
        page.reload()
        page.wait_for_selector(f"text={total:,} episodes")
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.episodes tbody tr:not(.space)')].at(-1)?.textContent.startsWith('1')"
        )
        rows = page.locator(".episodes tbody tr:not(.space)")
        assert rows.count() < 100
        assert rows.last.get_attribute("aria-rowindex") == str(total + 1)
        status = Path(f"/proc/{process.pid}/status").read_text()
        [peak] = re.findall(r"VmHWM:\s+(\d+)", status)
        assert int(peak) < 500 * 1024  # KiB
        assert json.loads(page.request.get(f"{address}/api/facets?run={run}").text())["total"] == total
        watched.check("large")
    finally:
        process.terminate()
        process.wait(10)
        watched.context.close()
        one.end()
