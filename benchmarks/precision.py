"""Does bf16 training reach the quality of float32? Trains the demo in both from several seeds and evaluates all runs.

    make bench-precision           or, in a quarter of its hour: python benchmarks/precision.py --kimg 48 --seeds 2

Each run is one process of one thread; the precisions take turns. The means of each metric are compared by Student's t-test with
the pooled variance over seeds. A difference counts as within the spread of the seeds if a difference that large occurs in at
least one of twenty comparisons of runs that differ only in their seeds. Runs stay in runs/precision, so that a benchmark that
was interrupted continues. Writes benchmarks/results/precision.json.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench_common import argument_parser, write_result
from scipy.stats import ttest_ind

from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder

DATA = Path("data/demo/index.json")
RUNS = Path("runs/precision")
METRICS = "fwd,spectrum,bands,fd"
SHOWN = ("fwd", "spectrum_db", "spectrum_db_top_half", "fd_efflite0@128")
SIGNIFICANT = 0.05
BATCH = 64  # of configs/demo.yaml: a run ends with a complete batch


def main() -> None:
    """Train and evaluate all runs, print a table and write the result."""
    options = parse_arguments()
    if not DATA.exists():
        wavegan("shards", "write", "embedded", DATA.parent, "--size", 32)
    results: dict[str, list[dict[str, float]]] = {"fp32": [], "bf16": []}
    for seeds in zip_longest(range(options.seeds), range(options.seeds_bf16)):
        for precision, seed in zip(results, seeds, strict=True):
            if seed is not None:
                results[precision].append(evaluate(train(precision, seed, options.kimg), options.count))
    untrained = evaluate(run_folder("fp32", 0, options.kimg).snapshot(0), options.count)
    rows = [
        compare(name, untrained[name], *([metrics[name] for metrics in runs] for runs in results.values()))
        for name in untrained
    ]
    print_table(rows, options)
    write_result("precision", {"kimg": options.kimg, "count": options.count, "rows": rows, **provenance()})


def print_table(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the metrics of SHOWN, then the names of all metrics that differ between the precisions."""
    print(f"{options.kimg:g} kimg, {options.count} images of each kind; p: of the difference, by the spread of the seeds")
    print(f"{'':<26}{'untrained':>10}  {'fp32':<24}{'bf16':<24}{'p':>6}")
    for row in rows:
        if row["metric"] in SHOWN:
            print("{metric:<26}{untrained:>10.4g}  {fp32_text:<24}{bf16_text:<24}{p:>6.2f}".format(**row, **texts(row)))
    different = [row["metric"] for row in rows if row["p"] < SIGNIFICANT]
    print(f"{len(rows)} metrics, outside the spread: {', '.join(different) or 'none'}")


def run_folder(precision: str, seed: int, kimg: float) -> RunFolder:
    """Return the run folder of a precision and a seed."""
    return RunFolder(RUNS / f"{kimg:g}-{precision}-{seed}")


def train(precision: str, seed: int, kimg: float) -> Path:
    """Train a run unless it is there already; return its last snapshot."""
    run = run_folder(precision, seed, kimg)
    settings = (f"seed={seed}", f"train.precision={precision}", f"train.total_kimg={kimg}", f"train.snapshot_kimg={kimg}")
    last = run.snapshot(math.ceil(kimg * 1000 / BATCH) * BATCH)
    if not last.exists():
        wavegan("train", "--config", "configs/demo.yaml", "--run-dir", run.path, "tracking.uri=null", *settings)
    return last


def evaluate(snapshot: Path, count: int) -> dict[str, float]:
    """Return the metrics of a snapshot by name, on `count` images of each kind."""
    out = RunFolder(snapshot.parents[1]).evaluation(f"{snapshot.name}-{count}")
    if not out.exists():
        wavegan("evaluate", "--snapshot", snapshot, "--data", DATA, "--metrics", METRICS, "--count", count, "--json", out)
    metrics: dict[str, float] = json.loads(out.read_text())["metrics"]
    return metrics


def compare(name: str, untrained: float, fp32: list[float], bf16: list[float]) -> dict[str, Any]:
    """Return the values of one metric and the p-value of the difference between the precisions."""
    p = float(ttest_ind(fp32, bf16).pvalue)
    return {"metric": name, "untrained": untrained, "fp32": fp32, "bf16": bf16, "p": p}


def texts(row: dict[str, Any]) -> dict[str, str]:
    """Format mean and range of each precision."""
    return {
        f"{precision}_text": f"{statistics.fmean(row[precision]):.4g} ({min(row[precision]):.4g}-{max(row[precision]):.4g})"
        for precision in ("fp32", "bf16")
    }


def wavegan(*arguments: object) -> None:
    """Run the `wavegan` command on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "wavegan_dist", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--kimg", type=float, default=144, metavar="K", help="length of a run (default: 144, as the demo)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs in fp32 (default: 3)")
    parser.add_argument("--seeds-bf16", type=int, default=2, metavar="N", help="runs in bf16 (default: 2)")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="evaluated images (default: 2000)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
