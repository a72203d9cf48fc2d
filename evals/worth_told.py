"""What a run is worth, in words and rows for people."""

from collections.abc import Mapping
from typing import Any


def worth_rows(worth: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, pass@1 or rate, of how many tasks) of each figure of ``worth_of``."""
    return [(what, _told(figure), tasks) for what, figure, tasks in worth_figures(worth)]


def report_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """``worth_rows`` of a report between its official pass@1 and its flagged passes; [] of a run without an audit."""
    if not report.get("worth"):
        return []
    rows = worth_rows(report["worth"])
    if report.get("interval"):
        rows.insert(0, ("pass@1 by the tests", _told(report), str(report["n"])))
    passes = report.get("passes") or {}
    if passes.get("resolved"):
        figure = {"pass@1": passes["share"], "interval": passes["interval"]}
        rows.append(("passes with a flag", _told(figure), f"{passes['flagged']} of {passes['resolved']} passes"))
    return rows


def worth_figures(worth: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """(what, its "pass@1" and "interval", of how many tasks) of each figure of ``worth_of``."""
    rows: list[tuple[str, Mapping[str, Any], str]] = []
    if worth["corrected"] is not None:
        tasks = f"{worth['errors']['accepts_wrong']['tasks']} measured of {worth['num_tasks']}"
        rows.append(("with the graders' errors counted in", worth["corrected"], tasks))
        for key, name in (("accepts_wrong", "wrong solutions accepted"), ("refuses_right", "right solutions refused")):
            rate = worth["errors"][key]
            rows.append((name, {"pass@1": rate["rate"], "interval": rate["interval"]}, str(rate["tasks"])))
    if worth["sound"] is not None:
        rows.append(("on sound tasks", worth["sound"], str(worth["sound"]["n"])))
    rows += [(f"class {kind}", one, str(one["n"])) for kind, one in worth["classes"].items() if kind != "sound"]
    return rows


def told_worth_of(report: Mapping[str, Any]) -> str:
    """The figures of a report, where it has them; else ""."""
    return told_worth(report["worth"]) if "worth" in report else ""


def told_worth(worth: Mapping[str, Any]) -> str:
    """The figures in lines."""
    lines = [f"{worth['audited']} of {worth['num_tasks']} tasks audited"]
    lines += [f"  {what}: {figure} ({tasks} tasks)" for what, figure, tasks in worth_rows(worth)]
    on_sound = worth.get("against_on_sound")
    if on_sound is not None:
        lines.append(
            f"  against the other run on {on_sound['n']} sound tasks: {on_sound['mean']:+.3f} "
            f"({on_sound['low']:+.3f} to {on_sound['high']:+.3f}), McNemar p = {on_sound['p_value']:.3g}"
        )
    return "\n".join(lines)


def _told(figure: Mapping[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['pass@1']:.3f}, {low:.3f} to {high:.3f}"
