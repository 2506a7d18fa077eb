"""Kills runs at random moments, over and over, and compares their end bit for bit with a run that was not interrupted.

A cut is SIGKILL to all processes of a run at a random moment of a random stage: start-up, D phase, G phase, writing of a
checkpoint, writing of a snapshot. Compared are every tensor of the last checkpoint (weights, moments, EMA, buffers), the
metrics except cost, speed and memory, the sample grids and the weights of the snapshots.

The processes are forked from one that has imported PyTorch, so that a start takes a fraction of a second. The runs are not
tracked: benchmarks/tracking.py covers MLflow.

    python benchmarks/resume.py [--cuts 100] [--processes 1,2] [--seed 0]
"""

import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from bench_common import argument_parser, write_result, write_smooth_noise
from safetensors.torch import load_file

from wavegan_dist.config import Experiment, parse
from wavegan_dist.data import write_shards
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import Tracker
from wavegan_dist.train import checkpoint, loop, run_writer
from wavegan_dist.train.trainer import Trainer

STAGES = ("start-up", "d phase", "g phase", "save", "snapshot")
STEPS, BATCH = 24, 32


class Cut:
    """Sends SIGKILL to this process group at a moment of the `turn`-th time that `stage` is entered.

    Args:
        stage: one of STAGES, or None to only measure the duration of all stages.
        turn: counted from 0.
        fraction: of the stage's usual duration, from its beginning to the signal.
        usual: seconds of each stage.
    """

    def __init__(self, stage: str | None, turn: int = 0, fraction: float = 0.0, usual: dict[str, float] | None = None) -> None:
        self.stage, self.turn, self.delay = stage, turn, fraction * (usual or {}).get(stage or "", 0.0)
        self.entered: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {name: [] for name in STAGES}

    @contextmanager
    def enter(self, stage: str) -> Iterator[None]:
        """Count and time the block as one turn of the stage."""
        if stage == self.stage and self.entered[stage] == self.turn:
            threading.Thread(target=self._kill, daemon=True).start()
        self.entered[stage] += 1
        began = time.perf_counter()
        yield
        self.seconds[stage].append(time.perf_counter() - began)

    def _kill(self) -> None:
        time.sleep(self.delay)
        os.killpg(0, signal.SIGKILL)

    def watch(self, owner: Any, name: str, stage: str | Callable[..., str]) -> None:
        """Make each call of the function `owner.name` a turn of the stage, which may depend on the arguments."""
        original = getattr(owner, name)

        def watched(*arguments: Any, **settings: Any) -> Any:
            with self.enter(stage if isinstance(stage, str) else stage(*arguments)):
                return original(*arguments, **settings)

        setattr(owner, name, watched)


def ending_start_up(train_to_end: Callable[[Any], None], start_up: AbstractContextManager[None]) -> Callable[[Any], None]:
    """Return `train_to_end` that first leaves the context `start_up`."""

    def wrapped(parts: Any) -> None:
        start_up.__exit__(None, None, None)
        train_to_end(parts)

    return wrapped


def run_rank(experiment: Experiment, run: Path, rank: int, world_size: int, port: int, cut: Cut) -> None:
    """Train in a forked process and exit it; its output goes to RUN.log, the durations of its stages to RUN.json."""
    code = 1
    try:
        if world_size > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
        with run.with_suffix(".log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if rank == 0:
            cut.watch(Trainer, "_run_phase", lambda _, engine, *__: f"{engine.phase.name} phase")
            cut.watch(run_writer.RunWriter, "snapshot", "snapshot")
            cut.watch(checkpoint, "save", "save")
            start_up = cut.enter("start-up")
            start_up.__enter__()
            loop.train_to_end = ending_start_up(loop.train_to_end, start_up)  # type: ignore[assignment]
        loop.train(experiment, run, make_tracker=lambda *_: Tracker())  # discards everything
        if rank == 0:
            usual = {stage: sum(seconds) / len(seconds) for stage, seconds in cut.seconds.items() if seconds}
            run.with_suffix(".json").write_text(json.dumps(usual))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(experiment: Experiment, run: Path, world_size: int, cut: Cut) -> bool:
    """Train in `world_size` forked processes; return True if the run finished and False if it was cut."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group, pids = 0, []
    ready_to_read, ready_to_write = os.pipe()
    for rank in range(world_size):
        pid = os.fork()
        if not pid:
            os.setpgid(0, group)
            os.close(ready_to_write)
            os.read(ready_to_read, 1)  # until all processes are in the group: the cut must kill all of them
            run_rank(experiment, run, rank, world_size, port, cut)
        os.setpgid(pid, group or pid)
        group = group or pid
        pids.append(pid)
    os.close(ready_to_write)
    os.close(ready_to_read)
    codes = {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}
    if codes == {0}:
        return True
    if codes == {-signal.SIGKILL}:
        return False
    log = run.with_suffix(".log")
    sys.exit(f"resume: exit codes {codes}; the end of {log}:\n{log.read_text()[-3000:]}")


def state(run: Path) -> dict[str, Any]:
    """Return everything that two equal runs share, by name: tensors as bytes, metrics as numbers, files as bytes."""
    folder = RunFolder(run)
    values: dict[str, Any] = {}
    for file in folder.checkpoints()[-1].glob("*.safetensors"):
        values |= {f"checkpoint {name}": value.numpy().tobytes() for name, value in load_file(file).items()}
    for line in folder.metrics.read_text().splitlines():
        point = json.loads(line)
        equal = {name: value for name, value in point.items() if not name.startswith(("cost", "speed", "memory"))}
        values |= {f"{name} at {point['nimg']}": value for name, value in equal.items()}
    files = [*run.glob("samples/*.png"), *run.glob("snapshots/*/model.safetensors")]
    return values | {str(file.relative_to(run)): file.read_bytes() for file in files}


def make_experiment(folder: Path) -> Experiment:
    """Write shards of noise; return the experiment of a model so small that a step takes milliseconds."""
    write_smooth_noise(folder / "pictures")
    write_shards(str(folder / "pictures"), folder / "set", 32, patches=True)
    kimg = BATCH / 1000
    lengths = {"total_kimg": STEPS * kimg, "snapshot_kimg": 4 * kimg, "checkpoint_kimg": 3 * kimg, "report_kimg": 2 * kimg}
    tree = {
        "data": {"index": str(folder / "set"), "workers": 0},
        "model": {"z_dim": 8, "width": 4},
        "train": {"batch_size": BATCH, **lengths},
    }
    return parse(tree, "benchmarks/resume.py")


def trial(experiment: Experiment, folder: Path, world_size: int, cuts: int, draws: random.Random) -> dict[str, Any]:
    """Train runs with `cuts` cuts altogether; return a row with the cuts by stage and the number of equal runs."""
    straight = folder / f"straight-{world_size}"
    assert start(experiment, straight, world_size, Cut(None))
    expected, usual = state(straight), json.loads(straight.with_suffix(".json").read_text())
    done: Counter[str] = Counter()
    equal, runs = 0, 0
    while done.total() < cuts:
        run = folder / f"cut-{world_size}-{runs}"
        finished = False
        while not finished:
            stage = draws.choice(STAGES) if done.total() < cuts else None
            turn = 0 if stage == "start-up" else draws.randrange(2 if stage in ("save", "snapshot") else 8)
            finished = start(experiment, run, world_size, Cut(stage, turn, draws.random(), usual))
            done[stage or ""] += not finished
        result = state(run)
        wrong = sorted(name for name in expected.keys() | result.keys() if expected.get(name) != result.get(name))
        runs, equal = runs + 1, equal + (not wrong)
        outcome = "equal" if not wrong else wrong[:5]
        print(f"{world_size} processes, run {runs}: {done.total()} cuts so far, {outcome}", flush=True)
    by_stage = {stage: done[stage] for stage in STAGES}
    return {"processes": world_size, "cuts": done.total(), **by_stage, "runs": runs, "equal": equal}


def main() -> int:
    """Run the trials, print their table and write the result; return 1 if a run ended with other numbers."""
    parser = argument_parser(__doc__)
    parser.add_argument("--cuts", type=int, default=100, help="for each number of processes")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(Path(folder))
        rows = [
            trial(experiment, Path(folder), int(world_size), options.cuts, random.Random(options.seed))
            for world_size in options.processes.split(",")
        ]
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(map(str, row.values())))
    write_result("resume", {"rows": rows, "about": provenance()})
    return int(any(row["equal"] < row["runs"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
