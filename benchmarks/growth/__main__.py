"""Cost over size of everything that a long run repeats.

    python -m benchmarks.growth [--quick] [--only SUBJECT ...] [--timeout S] [--json FILE]

Prints processor seconds at each size, the exponent of the seconds (1 is in line with the work), and the peak memory of
the largest. Processor seconds hardly depend on what else the machine does; the wall clock does, and is in the JSON.
"""

import argparse
import json
import math
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .harness import LINEAR, Point, exponent, measure, subjects


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="smaller sizes: minutes, not hours")
    parser.add_argument("--only", nargs="+", default=[], metavar="SUBJECT", help="beginnings of names")
    parser.add_argument("--timeout", type=float, default=1800, metavar="S", help="of one size (default: 1800)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all points there")
    args = parser.parse_args()
    rows: dict[str, Any] = {}
    chosen = subjects(args.only or [""])
    if not chosen:
        print(f"no subject begins with {' or '.join(args.only)}; there are {', '.join(subjects())}", file=sys.stderr)
        return 2
    print(
        "| subject | sizes | CPU seconds | exponent | peak MiB, smallest and largest |\n|---|---|---|---|---|",
        flush=True,
    )
    for name, subject in chosen.items():
        found: list[Point | str] = []
        for size in subject.quick if args.quick else subject.sizes:
            found.append(measure(name, size, timeout_s=args.timeout))
            if isinstance(found[-1], str):
                break  # larger ones will not do better
        points = [one for one in found if isinstance(one, Point)]
        slope = exponent([one.size for one in points], [one.cpu_s for one in points])
        rows[name] = {
            "unit": subject.unit,
            "exponent": None if math.isnan(slope) else round(slope, 3),
            "points": [asdict(one) for one in points],
            "failed": [one for one in found if isinstance(one, str)],
        }
        print(_row(name, subject.unit, points, slope, rows[name]["failed"]), flush=True)
        if args.json is not None:
            about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
            about |= {"load": os.getloadavg(), "python": platform.python_version(), "torch": version("torch")}
            args.json.write_text(json.dumps({**about, "quick": args.quick, "subjects": rows}, indent=2) + "\n")
    return 0


def _row(name: str, unit: str, points: list[Point], slope: float, failed: list[str]) -> str:
    sizes = ", ".join(f"{one.size:,}" for one in points)
    seconds = ", ".join(f"{one.cpu_s:.2f}" for one in points)
    fitted = "-" if math.isnan(slope) else f"{slope:.2f}" + (" (above)" if slope > LINEAR else "")
    peaks = f"{points[0].peak_mib:.0f}, {points[-1].peak_mib:.0f}" if points else "-"
    note = f"; {points[-1].note}" if points and points[-1].note else ""
    note += f"; then {failed[0]}" if failed else ""
    return f"| {name} | {sizes} {unit}{note} | {seconds} | {fitted} | {peaks} |"


if __name__ == "__main__":
    raise SystemExit(main())
