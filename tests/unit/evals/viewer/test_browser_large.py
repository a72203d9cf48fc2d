"""A hundred thousand episodes, and a training that really goes on, in Debian's Chromium."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Training
from .watching import PHONE, WIDE, WITH_CHROMIUM, Watched, id_of, rows_of, serve

pytestmark = [WITH_CHROMIUM, pytest.mark.slow]


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


def test_a_smoke_run_is_followed_from_its_first_step_to_its_report(browser, tmp_path, local_sandbox):
    """``verigym train smoke`` as people type it, the page beside it; then what it has left, wide and on a phone."""
    runs = tmp_path / "runs"
    runs.mkdir()
    one = Training(runs / "other")
    one.step(1)
    one.end()
    command = [sys.executable, "-m", "verigym", "train", "smoke", "--out", str(runs / "smoke"), "--set", "threads=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    training = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    address, server = serve(runs, tmp_path / "cache")
    watched = Watched(browser, address, WIDE)
    page = watched.page
    try:
        watched.open("/")
        state = page.locator("tr:has(a.name:text-is('smoke')) .state")
        state.get_by_text("running").wait_for(timeout=120_000)
        run = id_of(watched, "smoke")
        watched.open(f"/run/{run}")
        page.wait_for_selector(".chart canvas", timeout=240_000)
        first = last_step(page)
        page.wait_for_function(f"() => ({LAST_STEP})() > {first}", timeout=120_000)  # it grows, unasked
        assert training.poll() is None
        watched.check("live curves")
        watched.open(f"/run/{run}/episodes")
        page.wait_for_selector(".episodes tbody a", timeout=240_000)
        assert training.poll() is None
        seen = len(rows_of(watched, run))
        page.wait_for_function(
            f"() => Number(document.querySelector('.tabs .count').textContent) > {seen}", timeout=240_000
        )
        watched.check("live episodes")
        told, _ = training.communicate(timeout=600)
        assert training.returncode == 0, told
        page.wait_for_selector(".state.ended")
    finally:
        training.kill()
        training.communicate()
        watched.context.close()
    try:
        for viewport in (WIDE, PHONE):
            finished(Watched(browser, address, viewport), run)
    finally:
        server.terminate()
        server.wait(10)


LAST_STEP = "() => Math.max(...[...document.querySelectorAll('.chart')].map(one => one.chart.columns?.[0].at(-1) ?? 0))"


def last_step(page):
    return page.evaluate(LAST_STEP)


def finished(watched, run):
    """A finished run: filters, an episode, its overlays, its evaluations, and another run beside it."""
    page = watched.page
    watched.open(f"/run/{run}/episodes")
    page.wait_for_selector(".episodes tbody a")
    page.get_by_label("Family").select_option("code")
    expected = sum(row["family"] == "code" for row in rows_of(watched, run))
    page.wait_for_selector(f"text={expected} episodes")
    watched.check("filtered")
    key = next(row["key"] for row in rows_of(watched, run) if row["has_tokens"])
    watched.open(f"/run/{run}/episode/{key}?tab=tokens")
    page.wait_for_selector(".tokens .t")
    for button in page.get_by_label("Overlay").locator("button").all():
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
    watched.check("overlays")
    watched.open(f"/run/{run}/results")
    page.wait_for_selector("text=Report: pass@1")
    watched.check("evaluations")
    watched.open("/")
    for name in ("smoke", "other"):
        page.get_by_label(f"Compare {name}").check()
    page.click("button:text-is('Compare')")
    page.wait_for_selector(".chart canvas")
    watched.check("compared")
    watched.context.close()
