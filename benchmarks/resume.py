"""Cut runs short at random, over and over, and compare what they end as with a run that nobody touched, bit for bit.

A cut is SIGKILL to all processes of a run at a random moment of a drawn stage: start-up, the discriminators' phase, the
generators', the writing of a checkpoint, of a snapshot. Compared are every tensor of the last checkpoint (weights, moments,
EMA, buffers), the metrics (speed and memory left out), the sample grids and the snapshots' weights.

The processes are forked from one that has imported PyTorch, so that a start costs a fraction of a second, and log nothing to
MLflow (benchmarks/tracking.py cuts that).

    python benchmarks/resume.py [--cuts 100] [--processes 1,2] [--seed 0]
"""

import argparse
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

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from wavegan_dist.config import Experiment, parse
from wavegan_dist.data import write_shards
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train import checkpoint, loop, run_writer
from wavegan_dist.train.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
STAGES = ("start-up", "d phase", "g phase", "save", "snapshot")
STEPS, BATCH = 24, 32


class NoTracker:
    """Stands where the MLflow run is."""

    def __init__(self, *_: object) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Cut:
    """SIGKILL to this process group, at a random moment of the `turn`-th time that `stage` is entered.

    Args:
        stage: one of STAGES, or None: only measure how long the stages take.
        turn: counted from 0.
        fraction: of the stage's usual duration.
        usual: seconds of each stage.
    """

    def __init__(self, stage: str | None, turn: int = 0, fraction: float = 0.0, usual: dict[str, float] | None = None) -> None:
        self.stage, self.turn, self.delay = stage, turn, fraction * (usual or {}).get(stage or "", 0.0)
        self.seen: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {name: [] for name in STAGES}

    @contextmanager
    def entered(self, stage: str) -> Iterator[None]:
        """The block is a turn of the stage."""
        if stage == self.stage and self.seen[stage] == self.turn:
            threading.Thread(target=self._kill, daemon=True).start()
        self.seen[stage] += 1
        began = time.perf_counter()
        yield
        self.seconds[stage].append(time.perf_counter() - began)

    def _kill(self) -> None:
        time.sleep(self.delay)
        os.killpg(0, signal.SIGKILL)

    def watch(self, owner: Any, name: str, stage: str | Callable[..., str]) -> None:
        """Take each call of `owner.name` as a turn of the stage."""
        original = getattr(owner, name)

        def watched(*arguments: Any, **settings: Any) -> Any:
            with self.entered(stage if isinstance(stage, str) else stage(*arguments)):
                return original(*arguments, **settings)

        setattr(owner, name, watched)


def started(train_on: Callable[[Any], None], start_up: AbstractContextManager[None]) -> Callable[[Any], None]:
    """`train_on` that ends the start-up."""

    def begun(parts: Any) -> None:
        start_up.__exit__(None, None, None)
        train_on(parts)

    return begun


def process(experiment: Experiment, run: Path, rank: int, processes: int, port: int, cut: Cut) -> None:
    """What a forked process does; never returns."""
    code = 1
    try:
        if processes > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        with run.with_suffix(".log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if rank == 0:
            cut.watch(Trainer, "_run_phase", lambda _, phase, *__: f"{phase.name} phase")
            cut.watch(run_writer.RunWriter, "snapshot", "snapshot")
            cut.watch(checkpoint, "save", "save")
            start_up = cut.entered("start-up")
            start_up.__enter__()
            loop.train_to_end = started(loop.train_to_end, start_up)
        loop.train(experiment, run, make_tracker=NoTracker)  # type: ignore[arg-type]
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


def start(experiment: Experiment, run: Path, processes: int, cut: Cut) -> bool:
    """Train in so many processes, to the end (True) or to the cut (False)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group, pids = 0, []
    waiting, all_there = os.pipe()
    for rank in range(processes):
        pid = os.fork()
        if not pid:
            os.setpgid(0, group)
            os.close(all_there)
            os.read(waiting, 1)  # until the group is whole: a kill shall meet all of it
            process(experiment, run, rank, processes, port, cut)
        os.setpgid(pid, group or pid)
        group = group or pid
        pids.append(pid)
    os.close(all_there)
    os.close(waiting)
    codes = {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}
    if codes == {0}:
        return True
    if codes == {-signal.SIGKILL}:
        return False
    sys.exit(
        f"resume: exit codes {codes}; {run.with_suffix('.log')} tells why:\n" + run.with_suffix(".log").read_text()[-3000:]
    )


def state(run: Path) -> dict[str, Any]:
    """All that two equal runs have in common, by name."""
    folder = RunFolder(run)
    found: dict[str, Any] = {}
    for file in folder.checkpoints()[-1].glob("*.safetensors"):
        found |= {f"checkpoint {name}": value.numpy().tobytes() for name, value in load_file(file).items()}
    for line in folder.metrics.read_text().splitlines():
        point = json.loads(line)
        found |= {
            f"{name} at {point['nimg']}": value for name, value in point.items() if not name.startswith(("speed", "memory"))
        }
    files = [*run.glob("samples/*.png"), *run.glob("snapshots/*/model.safetensors")]
    return found | {str(file.relative_to(run)): file.read_bytes() for file in files}


def settings(folder: Path) -> Experiment:
    """A model so small that a step takes milliseconds, on noise."""
    pictures = folder / "pictures"
    pictures.mkdir()
    draws = np.random.default_rng(0)
    for number in range(8):
        coarse = Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((288, 288), Image.Resampling.BICUBIC).save(pictures / f"{number}.png")
    write_shards(str(pictures), folder / "set", 32, patches=True)
    kimg = BATCH / 1000
    lengths = {"total_kimg": STEPS * kimg, "snapshot_kimg": 4 * kimg, "checkpoint_kimg": 3 * kimg, "report_kimg": 2 * kimg}
    tree = {
        "data": {"index": str(folder / "set"), "workers": 0},
        "model": {"z_dim": 8, "width": 4},
        "train": {"batch_size": BATCH, **lengths},
    }
    return parse(tree, "benchmarks/resume.py")


def trial(experiment: Experiment, folder: Path, processes: int, cuts: int, draws: random.Random) -> dict[str, Any]:
    """Runs with `cuts` cuts altogether; what they were and how the runs ended."""
    straight = folder / f"straight-{processes}"
    assert start(experiment, straight, processes, Cut(None))
    expected, usual = state(straight), json.loads(straight.with_suffix(".json").read_text())
    done: Counter[str] = Counter()
    equal, runs = 0, 0
    while sum(done.values()) < cuts:
        run = folder / f"cut-{processes}-{runs}"
        finished = False
        while not finished:
            armed = sum(done.values()) < cuts
            stage = draws.choice(STAGES) if armed else None
            turn = 0 if stage == "start-up" else draws.randrange(2 if stage in ("save", "snapshot") else 8)
            finished = start(experiment, run, processes, Cut(stage, turn, draws.random(), usual))
            done[stage or ""] += not finished
        got = state(run)
        wrong = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
        runs, equal = runs + 1, equal + (not wrong)
        print(
            f"{processes} processes, run {runs}: {sum(done.values())} cuts so far, {'equal' if not wrong else wrong[:5]}",
            flush=True,
        )
    return {
        "processes": processes,
        "cuts": sum(done.values()),
        **{stage: done[stage] for stage in STAGES},
        "runs": runs,
        "equal": equal,
    }


def main() -> int:
    """Run the trials and print their table; 1 where a run ended differently."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cuts", type=int, default=100, help="for each number of processes")
    options.add_argument("--processes", default="1,2")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        experiment = settings(Path(folder))
        rows = [
            trial(experiment, Path(folder), int(processes), chosen.cuts, random.Random(chosen.seed))
            for processes in chosen.processes.split(",")
        ]
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(map(str, row.values())))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "resume.json").write_text(json.dumps({"rows": rows, "about": provenance()}, indent=2))
    return int(any(row["equal"] < row["runs"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
