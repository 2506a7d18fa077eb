"""Does bf16 reach what float32 reaches? The demo trained with both from several seeds, and `wavegan evaluate` of their ends.

    make bench-precision           or, in a quarter of its hour: python benchmarks/precision.py --kimg 48 --seeds 2

One process of one thread a run, precisions in turn. Each metric's means are compared by Student's t with the spread of the
seeds, pooled: within it where a difference so large is no rarer than one in twenty between runs that differ by their seeds
alone. Runs are kept in runs/precision: a benchmark that was cut goes on. Writes benchmarks/results/precision.json.
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

from scipy.stats import ttest_ind

from wavegan_dist.files import atomic_file
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import label

DATA = Path("data/demo/index.json")
RUNS = Path("runs/precision")
METRICS = "fwd,spectrum,bands,fd"
SHOWN = ("fwd", "spectrum_db", "spectrum_db_top_half", "fd_efflite0@128")
RARE = 0.05
BATCH = 64  # of configs/demo.yaml: a run ends with a whole one


def main() -> None:
    """Train, evaluate, print a table, write JSON."""
    options = parse()
    if not DATA.exists():
        wavegan("shards", "write", "embedded", DATA.parent, "--size", 32)
    ends: dict[str, list[dict[str, float]]] = {"fp32": [], "bf16": []}
    for seeds in zip_longest(range(options.seeds), range(options.seeds_bf16)):
        for precision, seed in zip(ends, seeds, strict=True):
            if seed is not None:
                ends[precision].append(evaluated(trained(precision, seed, options.kimg), options.count))
    untrained = evaluated(RUNS / f"{options.kimg:g}-fp32-0/snapshots/kimg-000000", options.count)
    rows = [compared(name, untrained[name], *([end[name] for end in each] for each in ends.values())) for name in untrained]
    print(f"{options.kimg:g} kimg, {options.count} images of each kind; p: of the difference, by the spread of the seeds")
    print(f"{'':<26}{'untrained':>10}  {'fp32':<24}{'bf16':<24}{'p':>6}")
    for row in rows:
        if row["metric"] in SHOWN:
            print("{metric:<26}{untrained:>10.4g}  {fp32_text:<24}{bf16_text:<24}{p:>6.2f}".format(**row, **texts(row)))
    rare = [row["metric"] for row in rows if row["p"] < RARE]
    print(f"{len(rows)} metrics, outside the spread: {', '.join(rare) or 'none'}")
    out = Path(__file__).parent / "results" / "precision.json"
    with atomic_file(out) as file:
        json.dump({"kimg": options.kimg, "count": options.count, "rows": rows, **provenance()}, file, indent=2)
    print(out)


def trained(precision: str, seed: int, kimg: float) -> Path:
    """The last snapshot of a run."""
    run = RUNS / f"{kimg:g}-{precision}-{seed}"
    settings = (f"seed={seed}", f"train.precision={precision}", f"train.total_kimg={kimg}", f"train.snapshot_kimg={kimg}")
    last = run / "snapshots" / label(math.ceil(kimg * 1000 / BATCH) * BATCH)
    if not last.exists():
        wavegan("train", "--config", "configs/demo.yaml", "--run-dir", run, "tracking.uri=null", *settings)
    return last


def evaluated(snapshot: Path, count: int) -> dict[str, float]:
    """Its metrics."""
    out = snapshot.parents[1] / "evaluations" / f"{snapshot.name}-{count}.json"
    if not out.exists():
        wavegan("evaluate", "--snapshot", snapshot, "--data", DATA, "--metrics", METRICS, "--count", count, "--json", out)
    metrics: dict[str, float] = json.loads(out.read_text())["metrics"]
    return metrics


def compared(name: str, untrained: float, fp32: list[float], bf16: list[float]) -> dict[str, Any]:
    """One metric's values and the probability of so large a difference."""
    p = float(ttest_ind(fp32, bf16).pvalue)
    return {"metric": name, "untrained": untrained, "fp32": fp32, "bf16": bf16, "p": p}


def texts(row: dict[str, Any]) -> dict[str, str]:
    """Mean and range of each precision."""
    return {
        f"{precision}_text": f"{statistics.fmean(row[precision]):.4g} ({min(row[precision]):.4g}-{max(row[precision]):.4g})"
        for precision in ("fp32", "bf16")
    }


def wavegan(*arguments: object) -> None:
    """Run the command on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "wavegan_dist", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kimg", type=float, default=144, metavar="K", help="images of a run (default: 144, the demo's)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of fp32 (default: 3)")
    parser.add_argument("--seeds-bf16", type=int, default=2, metavar="N", help="of bf16 (default: 2)")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="images evaluated (default: 2000)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
