"""The audit's scores from text beside what people said: ``python -m benchmarks.audit.labels ROWS LABELS``.

ROWS are SWE-bench rows, LABELS a line each with "instance_id", "tests_reject_valid" and "underspecified" (0 to 3, the
severest of three people). Rows without a label are left out. Prints the area under the curve of each score with a
bootstrap interval, of a count of names beside it, and the rows on which score and people differ most.
"""

import argparse
import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verigym.envs.audit.text.signs import NARROW, UNDERSPECIFIED
from verigym.envs.audit.text.static import audit_text
from verigym.envs.datasets.files import read_rows

LABELS = {"narrow": "tests_reject_valid", "underspecified": "underspecified"}
SIGNS = {"narrow": NARROW, "underspecified": UNDERSPECIFIED}
RESAMPLES = 2_000


def area(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a faulty row has the higher score; ties count a half."""
    faulty, sound = scores[labels], scores[~labels]
    above = (faulty[:, None] > sound[None]).sum() + 0.5 * (faulty[:, None] == sound[None]).sum()
    return float(above / (faulty.size * sound.size))


def interval(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of ``area`` over rows."""
    rng = np.random.default_rng(0)
    found = []
    while len(found) < RESAMPLES:
        drawn = rng.integers(labels.size, size=labels.size)
        if 0 < labels[drawn].sum() < labels.size:
            found.append(area(labels[drawn], scores[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def refitted(
    signs: np.ndarray, labels: np.ndarray, *, folds: int = 10, repeats: int = 10, ridge: float = 10.0
) -> float:
    """The area where a logistic regression weighs the signs anew, fitted on other folds: what fitting would bring."""
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(repeats):
        order, scores = rng.permutation(labels.size), np.zeros(labels.size)
        for fold in range(folds):
            held = order[fold::folds]
            rest = np.setdiff1d(order, held)
            mean, spread = signs[rest].mean(axis=0), signs[rest].std(axis=0) + 1e-9
            weights = _logistic((signs[rest] - mean) / spread, labels[rest].astype(float), ridge)
            scores[held] = (signs[held] - mean) / spread @ weights[1:]
        areas.append(area(labels, scores))
    return float(np.mean(areas))


def _logistic(signs: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
    columns = np.column_stack([np.ones(len(signs)), signs])
    penalty = ridge * np.eye(columns.shape[1])
    penalty[0, 0] = 1e-6
    weights = np.zeros(columns.shape[1])
    for _ in range(50):
        share = 1 / (1 + np.exp(-columns @ weights))
        slope = columns.T @ (share - labels) + penalty @ weights
        weights -= np.linalg.solve(columns.T @ (columns * (share * (1 - share))[:, None]) + penalty, slope)
    return weights


def compare(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, Mapping[str, Any]], limit: int) -> dict[str, Any]:
    """Figures of both scores; ``limit`` is the label from which on a row counts as faulty."""
    labelled = [row for row in rows if row["instance_id"] in labels]
    began = time.process_time()
    certificates = [audit_text(row) for row in labelled]
    seconds = (time.process_time() - began) / max(1, len(labelled))
    report: dict[str, Any] = {"rows": len(labelled), "milliseconds_a_row": 1000 * seconds, "limit": limit}
    for name, label in LABELS.items():
        people = np.array([labels[one.instance_id][label] for one in certificates])
        scores = np.array([one.scores[name] for one in certificates])
        named = np.array(
            [sum("that the reference" in f.what and "text" not in f.what for f in one.findings) for one in certificates]
        )
        faulty = people >= limit
        signs = np.array([[one.signs[scale.sign.__name__] for scale in SIGNS[name]] for one in certificates])
        apart = np.argsort(-np.abs(scores - faulty))[:10]
        report[name] = {
            "faulty": int(faulty.sum()),
            "area": area(faulty, scores),
            "interval": interval(faulty, scores),
            "refitted_in_folds": refitted(signs, faulty),
            "names_alone": area(faulty, named),
            "differ_most": [
                {"task": certificates[i].instance_id, "people": int(people[i]), "score": float(scores[i])}
                for i in apart
            ],
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--limit", type=int, default=2, help="label from which on a row is faulty (2)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    rows = [row.value for row in read_rows(args.rows)]
    labels = {row.value["instance_id"]: row.value for row in read_rows(args.labels)}
    report = {**compare(rows, labels, args.limit), "machine": platform.processor() or platform.machine()}
    print(f"{report['rows']} rows, {report['milliseconds_a_row']:.1f} ms of the processor each")
    for name in LABELS:
        one = report[name]
        low, high = one["interval"]
        print(f"{name}: area {one['area']:.3f} [{low:.3f}, {high:.3f}], {one['faulty']} faulty;", end=" ")
        print(f"weights fitted in folds {one['refitted_in_folds']:.3f}, names alone {one['names_alone']:.3f}")
        for row in one["differ_most"]:
            print(f"  {row['task']:40} people {row['people']}, score {row['score']:.2f}")
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
