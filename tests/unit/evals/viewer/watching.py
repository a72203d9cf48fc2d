"""A page in Debian's Chromium of which nothing may go wrong unseen, and the server that it is of."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
WITH_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (apt-get install chromium)")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
SERIOUS = {"serious", "critical"}


def serve(folder: Path, cache: Path):
    """(its address, the process): the command as people type it."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "verigym", "view", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]
    assert address.startswith("http://127.0.0.1:")
    return address, process


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


def id_of(watched, name):
    watched.open("/")
    link = watched.page.locator(f"a.name:text-is('{name}')")
    return link.get_attribute("href").removeprefix("#/run/")


def rows_of(watched, run):
    response = watched.page.request.get(f"{watched.address}/api/episodes?run={run}&limit=500")
    return response.json()["rows"]
