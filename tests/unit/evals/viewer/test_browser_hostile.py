"""What hostile episodes do not do to the page in Debian's Chromium, served and as one file."""

import re
from dataclasses import replace

from verigym.__main__ import main

from .conftest import HOSTILE, Training, episode
from .watching import PHONE, WIDE, WITH_CHROMIUM, Watched, id_of, rows_of, serve

pytestmark = WITH_CHROMIUM


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
