"""Shows that a change changes no number: trains the same steps before and after it and compares every value bit for bit.

    make bit-equal BASE=main~5        or: python benchmarks/bit_equal.py --base REVISION [--steps 50]

Checks out REVISION into a temporary worktree and trains the demo's model from both trees with 1 and 2 processes, in float32
and bfloat16, with a report at every step. Compares all losses, gradient norms and diagnostics of metrics.jsonl, the sample
grids, and every tensor of the last checkpoint and of the last snapshot. Exits with 1 at the first difference. Uses only the
command line of each tree, so that the trees may differ in everything else.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from bench_common import argument_parser, write_smooth_noise
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[1]
BATCH = 32
UNEQUAL = ("cost/", "speed/", "memory/")  # metrics that no two runs share
CASES = [(processes, precision) for precision in ("fp32", "bf16") for processes in (1, 2)]


def main() -> None:
    """Compare all cases and print a line for each; exit with 1 if a value differs."""
    parser = argument_parser(__doc__)
    parser.add_argument("--base", required=True, metavar="REVISION", help="commit to compare the working tree with")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="optimizer steps of each run (default: 50)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, worktree(options.base, Path(scratch) / "base") as base:
        index = write_shards(Path(scratch))
        for processes, precision in CASES:
            runs = [
                train(tree, index, Path(scratch) / f"{name}-{processes}-{precision}", processes, precision, options.steps)
                for name, tree in (("before", base), ("after", ROOT))
            ]
            before, after = map(values, runs)
            if differing := sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key)):
                first = differing[0]
                sys.exit(
                    f"{processes} processes, {precision}: {len(differing)} of {len(before)} values differ, first {first}: "
                    f"{before.get(first)} before, {after.get(first)} after"
                )
            print(
                f"{processes} processes, {precision}: {options.steps} steps, {len(before)} values equal bit for bit", flush=True
            )


@contextmanager
def worktree(revision: str, path: Path) -> Iterator[Path]:
    """Check out `revision` at `path` for the duration of the block."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(path), revision], check=True)
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=True)


def write_shards(scratch: Path) -> Path:
    """Write shards of 512 patches of smooth noise, 32 px; return their index.json."""
    write_smooth_noise(scratch / "images")
    run(ROOT, "-m", "wavegan_dist", "shards", "write", scratch / "images", scratch / "shards", "--size", 32, "--patches")
    return scratch / "shards" / "index.json"


def train(tree: Path, index: Path, run_dir: Path, processes: int, precision: str, steps: int) -> Path:
    """Train from the sources in `tree`; return the run folder."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    settings = {
        "data.index": index,
        "data.workers": 0,
        "model.width": 16,
        "train.batch_size": BATCH,
        "train.precision": precision,
        "train.total_kimg": steps * BATCH / 1000,
        "train.report_kimg": BATCH / 1000,
        "train.snapshot_kimg": steps * BATCH / 1000,
        "train.checkpoint_kimg": steps * BATCH / 1000,
        "tracking.uri": f"sqlite:///{run_dir.parent}/mlflow.db",
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    config = ROOT / "configs" / "demo.yaml"
    run(tree, *launcher, "-m", "wavegan_dist", "train", "--config", config, "--run-dir", run_dir, *overrides)
    return run_dir


def run(tree: Path, *arguments: object) -> None:
    """Run Python on the sources in `tree`, one thread per process; exit with its output if it fails."""
    variables = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *map(str, arguments)]
    outcome = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True)
    if outcome.returncode:
        sys.exit(f"{tree}: {' '.join(command)} failed\n{outcome.stdout}{outcome.stderr}")


def values(run_dir: Path) -> dict[str, Any]:
    """Return everything that two equal runs share, by name: metrics as numbers, tensors and sample grids as sha256."""
    shared: dict[str, Any] = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        point = json.loads(line)
        shared |= {f"image {point['nimg']}: {name}": value for name, value in point.items() if not name.startswith(UNEQUAL)}
    for file in run_dir.glob("samples/*.png"):
        shared[str(file.relative_to(run_dir))] = sha256(file.read_bytes()).hexdigest()
    for folder in (*run_dir.glob("checkpoints/*"), *run_dir.glob("snapshots/*")):
        for file in folder.glob("*.safetensors"):  # trees may differ in which file of a checkpoint holds a tensor
            shared |= {f"{folder.relative_to(run_dir)}: {name}": digest(tensor) for name, tensor in load_file(file).items()}
    return shared


def digest(tensor: Tensor) -> str:
    """Return the sha256 of a tensor's bytes."""
    return sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    main()
