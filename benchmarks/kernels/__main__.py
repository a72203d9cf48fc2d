"""Our kernels beside their peers, on this machine: ``python -m benchmarks.kernels [--smoke] [--out FILE.json]``.

Every row is timed in this process, peers next to ours. The ceilings, a large copy and a large matrix product, are
measured first, and shares are shares of those. --smoke takes tiny shapes, and on a CPU only what runs there: it shows
that the benchmark works, and its times mean nothing.
"""

import argparse
import json
from pathlib import Path

import torch

from .attention import attention_rows, decode_rows
from .loss_head import loss_head_rows
from .timing import Row, ceilings, environment, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes; runs on a CPU")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/kernels.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.smoke:
        parser.exit(2, "there is no CUDA device; run this on one, or pass --smoke to see that it runs\n")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    limits = ceilings(device, smoke=arguments.smoke)
    rows: list[Row] = []
    for make in (attention_rows, decode_rows, loss_head_rows):
        rows += make(device, smoke=arguments.smoke)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"environment": environment(device), "smoke": arguments.smoke, "ceilings": limits}
    arguments.out.write_text(json.dumps(record | {"rows": [row.as_dict(limits) for row in rows]}, indent=1))
    print(table(rows, limits))
    print(f"written to {arguments.out}")


main()
