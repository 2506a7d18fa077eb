"""The life of a run in one process: `python life.py FOLDER [START_METHOD]`, with the folder's name repeated in all paths.

Writes shards, trains with tracking, resumes, evaluates, samples, and makes a page. Prints the exit code of each command, and
the sha256 of the last snapshot's weights. With CLOCK_JUMP_1 in the environment, checks that the faults of shim.c have happened.
"""

import fcntl
import json
import multiprocessing
import os
import re
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from wavegan_dist.cli import main
from wavegan_dist.files import sha256


def write_pictures(folder: Path, name: str) -> None:
    """Write six pictures of smooth noise in three folders, the classes; the name of one is not UTF-8."""
    draws = np.random.default_rng(0)
    for number in range(6):
        coarse = Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        path = folder / (f"{name} 0", f"{name} 1", os.fsdecode(b"\xff"))[number % 3] / f"{name}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((160, 160), Image.Resampling.BICUBIC).save(path)


def live(folder: Path) -> None:
    """Run the commands in `folder`."""
    name = folder.name
    pictures, shards, run = folder / f"pictures {name}", folder / f"shards {name}", folder / f"run {name}"
    write_pictures(pictures, name)
    config = folder / f"{name}.yaml"
    model = {"width": 4, "z_dim": 8, "num_classes": 3}
    train = {"batch_size": 32, "total_kimg": 0.064, "snapshot_kimg": 0.032, "checkpoint_kimg": 0.032, "keep_checkpoints": 1}
    data = {"index": str(shards / "index.json"), "workers": 1}
    config.write_text(json.dumps({"data": data, "model": model, "train": train}, ensure_ascii=False), "utf-8")
    snapshot = run / "snapshots" / "kimg-000000.128"
    commands: list[tuple[object, ...]] = [
        ("shards", "write", pictures, shards, "--size", 32, "--patches", "--labels", "--workers", 2),
        ("shards", "verify", shards, "--workers", 2),
        ("shards", "info", shards),
        ("train", "--config", config, "--run-dir", run),
        ("train", "--config", config, "--run-dir", run, "train.total_kimg=0.128"),
        ("evaluate", "--snapshot", snapshot, "--data", shards, "--metrics", "fwd", "--count", 193),
        ("sample", "--snapshot", snapshot, "--count", 4, "--out", folder / f"samples {name}", "--class", f"{name} 1"),
        ("compare", run, "--out", folder / f"page {name}"),
        ("explain", "--snapshot", snapshot, "--count", 2, "--class", os.fsdecode(b"\xff"), "--out", folder / f"explain {name}"),
        ("track", "sync", run),
    ]
    for command in commands:
        code = main([*map(str, command)])
        print(code, *command[:2], flush=True)
        if code:
            sys.exit(code)
    if "CLOCK_JUMP_1" in os.environ:
        check_faults(run)
    print(sha256(snapshot / "model.safetensors"))


def check_faults(run: Path) -> None:
    """Assert that there are no locks, that an open file stays when it is deleted, and that the clock went back in training."""
    log = (run / "log.txt").read_text(errors="replace")
    times = [datetime.fromisoformat(time) for time in re.findall(r"^\d{4}-\d\d-\d\dT[\d:]{8}", log, re.MULTILINE)]
    assert sum(later < earlier - timedelta(hours=12) for earlier, later in pairwise(times)) == 2, times
    with (run / "open").open("w") as file:
        Path(file.name).unlink()
        assert (run / f".nfs{os.fstat(file.fileno()).st_ino:016x}").exists()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            return
        raise AssertionError("flock has succeeded")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        multiprocessing.set_start_method(sys.argv[2])
    live(Path(sys.argv[1]))
