"""The run room with many episodes: how long the index takes, the first paint, and a new episode's way to the screen.

    python benchmarks/room.py --episodes 100000 [--folder KEPT] [--out FILE]

Episodes are written by what a training writes them with; the server is ``verigym view``, in a process of its own; the
browser Chromium, through playwright (both of the dev extra, and Debian's chromium). Seconds are a clock's: beside
other work they say little, so the processor's seconds of the server stand beside them.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from verigym.agent.trajectory import Trajectory
from verigym.envs.runs.lock import RunLock
from verigym.model.chat.messages import Message, ToolCall
from verigym.trainer.loops.loop import StepResult
from verigym.trainer.recipe.record import RecordConfig
from verigym.trainer.run.recording import EpisodeRecorder

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
GROUPS, SIZE, REPEATS = 32, 8, 5
SCREEN: Any = {"width": 1400, "height": 900}
SEEN = """new PerformanceObserver(list => {
    if (list.getEntriesByName("rows").length) requestAnimationFrame(() => (globalThis.shown ??= performance.now()));
}).observe({ type: "mark" });"""
"""The table's own mark stands in the task that made its rows; the frame after it is the one that shows them."""


def step(number: int) -> StepResult:
    """A step of 256 episodes, each with a conversation of about 6,000 characters."""
    output = "tests/test_module.py::test_case PASSED\n" * 100
    episodes = []
    for place in range(GROUPS * SIZE):
        group, passed = place // SIZE, (number + place) % 3 == 0
        call = ToolCall(name="bash", arguments={"command": "python -m pytest -q"})
        messages = (
            Message(role="user", content=f"Mend the repository of task {group}. " * 20),
            Message(role="assistant", content="First I look at the tests.", calls=(call,)),
            Message(role="tool", name="bash", content=output),
            Message(role="assistant", content="Done."),
        )
        one = Trajectory(
            task_id=f"repository-{number % 50}-{group}",
            family=("swe", "code", "math")[group % 3],
            group_id=f"{group}/repository-{number % 50}-{group}",
            ending="submitted",
            messages=messages,
            reward=float(passed),
            passed=passed,
            breakdown={"tests": float(passed)},
            detail="all tests passed" if passed else "tests/test_module.py::test_case: failed",
            num_turns=2,
            timings={"policy": 1.0, "environment": 0.5, "grading": 0.5, "total": 2.0},
        )
        episodes.append(one)
    return StepResult(step=number, metrics={}, trajectories=tuple(episodes), advantages=(0.5,) * len(episodes))


def recorded(count: int, folder: Path) -> tuple[EpisodeRecorder, int]:
    """What writes the run's episodes, and how many it has written; those of an earlier call are written no more."""
    run, steps = folder / "runs" / "large", -(-count // (GROUPS * SIZE))
    is_new = not (run / "rl").is_dir()
    if is_new:
        (run / "rl").mkdir(parents=True)
        (run / "recipe.json").write_text('{"name": "large", "families": []}')
        (run / "rl" / "metrics.jsonl").write_text("")
    recorder = EpisodeRecorder(run / "rl", RecordConfig(conversations_mib=1e6), seed=0, resume_step=steps)
    for number in range(1, steps + 1) if is_new else ():
        recorder.write(step(number))
    return recorder, steps * GROUPS * SIZE


def measured(count: int, folder: Path) -> dict[str, Any]:
    """The figures: seconds, and MiB of the server at its largest."""
    from playwright.sync_api import sync_playwright

    recorder, episodes = recorded(count, folder)
    files = (folder / "runs" / "large" / "rl" / "episodes").iterdir()
    found: dict[str, Any] = {"episodes": episodes, "mib": round(sum(one.stat().st_size for one in files) / 2**20)}
    shutil.rmtree(folder / "cache", ignore_errors=True)
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "verigym", "view", str(folder / "runs"), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    address = server.stdout.readline().split()[0]
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no chromium; apt-get install chromium")
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport=SCREEN)
            number = page.request.get(f"{address}/api/runs").json()["runs"][0]["id"]
            place = f"{address}/#/run/{number}/episodes"
            started = time.perf_counter()
            page.goto(place)
            page.wait_for_selector(".episodes tbody tr:not(.space) a")
            found["first_rows_while_indexing_s"] = round(time.perf_counter() - started, 2)
            while page.request.get(f"{address}/api/poll?run={number}").json()["behind"]:
                time.sleep(0.1)
            found["indexed_s"] = round(time.perf_counter() - started, 1)
            found["indexed_cpu_s"] = round(cpu_s(server.pid), 1)
            before = cpu_s(server.pid)
            found["first_rows_s"] = median_of(lambda: opened(browser, place)[1])
            found["first_rows_server_cpu_s"] = round((cpu_s(server.pid) - before) / REPEATS, 3)
            found["first_paint_s"] = median_of(lambda: opened(browser, place)[0])
            found["opened_again_s"] = median_of(lambda: painted(page, place))
            found["sorted_s"] = median_of(
                lambda: asked(page, f"{address}/api/episodes?run={number}&sort=reward&limit=100")
            )
            found["filtered_s"] = median_of(
                lambda: asked(page, f"{address}/api/episodes?run={number}&family=code&passed=yes&limit=100")
            )
            found["text_found_s"] = median_of(
                lambda: asked(page, f"{address}/api/episodes?run={number}&text=nobody+said")
            )
            page.goto(place)
            page.wait_for_selector(".episodes tbody tr:not(.space) a")
            found["new_on_screen_s"] = median_of(lambda: appeared(page, recorder))
            browser.close()
        status = Path(f"/proc/{server.pid}/status").read_text()
        found["server_peak_mib"] = round(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024)
    finally:
        server.terminate()
        server.wait(10)
        recorder.close()
    return found


def opened(browser: Any, place: str) -> tuple[float, float]:
    """Seconds to the first content that a browser paints which has kept nothing of the page, and ``painted``."""
    context = browser.new_context(viewport=SCREEN)
    try:
        page = context.new_page()
        rows = painted(page, place)
        paint = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN")
        return paint / 1000, rows
    finally:
        context.close()


def painted(page: Any, place: str) -> float:
    """Seconds from the page's first request to its rows, by the browser's own clock: to the frame that shows them."""
    page.add_init_script(SEEN)
    page.goto("about:blank")
    page.goto(place, wait_until="commit")
    return page.wait_for_function("() => globalThis.shown").json_value() / 1000


def asked(page: Any, address: str) -> float:
    started = time.perf_counter()
    assert page.request.get(address).ok
    return time.perf_counter() - started


LAST = [100_000]


def appeared(page: Any, recorder: EpisodeRecorder) -> float:
    """From the end of the write to a row of that step in the table."""
    LAST[0] += 1
    result = step(LAST[0])
    recorder.write(result)
    started = time.perf_counter()
    told = f"{LAST[0]:,}"
    page.wait_for_function(
        "told => document.querySelector('.episodes tbody tr:not(.space) td')?.textContent === told",
        arg=told,
        polling=20,
    )
    return time.perf_counter() - started


def cpu_s(process: int) -> float:
    """Seconds of the processor that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def median_of(measure: Any) -> dict[str, float]:
    values = [measure() for _ in range(REPEATS)]
    return {"median": round(statistics.median(values), 3), "most": round(max(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keep the episodes there, for the next time")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = args.folder or Path(folder)
        recorded(args.episodes, folder)[0].close()
        # Held as a training holds it: the page asks more often of what goes on.
        with RunLock(folder / "runs" / "large"):
            found = measured(args.episodes, folder)
        found |= {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    text = json.dumps(found, indent=2)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
