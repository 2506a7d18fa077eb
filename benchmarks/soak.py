"""Trains with two processes under random faults for as long as asked, and compares the end with a run without faults.

    python benchmarks/soak.py [--steps 10000] [--minutes 60 | --faults N] [--every 20,60] [--stopped 30] [--seed 0]

First trains `--steps` steps without a fault. Then trains the same steps again and again until `--minutes` are over, or N faults
have happened; every 20 to 60 s one fault is injected, chosen at random without replacement until each has happened:

    worker    SIGKILL to a loader worker          sidecar   SIGKILL to the process that delivers to MLflow
    rank      SIGKILL to a rank                   server    SIGKILL to the MLflow server, which starts again 1 to 10 s later
    disk      the disk of the run folder is full  stopped   SIGSTOP to a rank, SIGCONT after `--stopped` s
    shard     4 KB of a shard are overwritten     index     another index.json, and SIGKILL to a rank

After each death the same command is started again, once the disk, the shard or the index is as before. Compared at the end of
each run: tensors, metrics, sample grids and snapshots (`resume.state`), bit for bit; the names of all files in the run folder;
what MLflow has. Needs root, for a tmpfs that can be full. Ctrl-C ends the run; what was seen so far is written. The exit code
is 1 if a run differs, hangs, ends by itself or leaves something behind.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from bench_common import RESULTS, argument_parser, write_json, write_smooth_noise
from mlflow_server import MlflowServer
from resume import state
from tracking import compare, sidecars

from wavegan_dist.data import write_shards
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder

FAULTS = ("worker", "rank", "sidecar", "server", "disk", "stopped", "shard", "index")
BATCH, WORLD_SIZE, DISK = 32, 2, "96M"
HANG_SECONDS = 90.0  # a run that has neither ended nor reported for so long hangs
CONFIG = f"""
data: {{index: FOLDER/set, workers: 1, max_bad_fraction: 0}}
model: {{resolution: 32, z_dim: 8, width: 4}}
train: {{batch_size: {BATCH}, total_kimg: KIMG, snapshot_kimg: 3.2, checkpoint_kimg: 0.8, report_kimg: 0.512}}
tracking: {{uri: "URI"}}
"""


class BrokenRunError(Exception):
    """The run hangs, ended by itself, or differs from the one without faults."""


class Run:
    """Two ranks of `wavegan train`, started as often as needed; `samples` has the memory of its processes once a second.

    Args:
        folder: the run folder.
        config: the YAML file.
        overrides: further settings.
    """

    def __init__(self, folder: Path, config: Path, *overrides: str) -> None:
        self.folder, self.log, self.starts = RunFolder(folder), config.with_name(f"{folder.name}.log"), 0
        self.command = [sys.executable, "-m", "wavegan_dist", "train", "--config", str(config), "--run-dir", str(folder)]
        self.command += overrides
        self.ranks: list[psutil.Popen] = []
        self.samples: list[tuple[int, float]] = []  # (start, MB)
        self.pids: set[int] = set()

    def start(self) -> None:
        """Start both ranks; their output is appended to `log`."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        sizes = {"WORLD_SIZE": str(WORLD_SIZE), "LOCAL_WORLD_SIZE": str(WORLD_SIZE), "OMP_NUM_THREADS": "1"}
        group = {**os.environ, **sizes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with self.log.open("a") as log:
            self.ranks = [
                psutil.Popen(self.command, env=group | {"RANK": rank, "LOCAL_RANK": rank}, stdout=log, stderr=log)
                for rank in map(str, range(WORLD_SIZE))
            ]
        self.starts += 1

    def codes(self) -> list[int | None]:
        """Return the exit code of each rank, None for one that runs."""
        return [rank.poll() for rank in self.ranks]

    def processes(self) -> list[psutil.Process]:
        """Return the running ranks, their loader workers and the sidecar."""
        found: list[psutil.Process] = []
        for rank in self.ranks:
            with suppress(psutil.NoSuchProcess):
                found += [rank, *rank.children(recursive=True)]
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the loader workers of both ranks."""
        apart = {process.pid for process in (*self.ranks, *sidecars(self.folder))}
        return [process for process in self.processes() if process.pid not in apart]

    def nimg(self) -> int:
        """Return the image number of the last report, 0 before the first."""
        lines = self.folder.metrics.read_bytes().splitlines() if self.folder.metrics.exists() else []
        with suppress(ValueError, IndexError):
            return int(json.loads(lines[-1])["nimg"])
        return 0

    def until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait until a condition holds; return False if it does not within `seconds`. Measures the memory meanwhile."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            with suppress(psutil.NoSuchProcess):
                processes = self.processes()
                self.pids |= {process.pid for process in processes}
                self.samples.append((self.starts, sum(process.memory_info().rss for process in processes) / 2**20))
            time.sleep(0.5)
        return True

    def ended(self) -> bool:
        """Return whether all ranks have ended."""
        return None not in self.codes()

    def wait_for_end(self, seconds: float = HANG_SECONDS) -> bool:
        """Wait for the end of all ranks; return False if all of them still run after `seconds`.

        Raises:
            BrokenRunError: one rank has ended and the other has not.
        """
        if self.until(self.ended, seconds):
            return True
        if self.codes() != [None] * WORLD_SIZE:
            raise BrokenRunError(f"a rank hangs without the other: exit codes {self.codes()}; {self.tail()}")
        return False

    def wait_for_report(self) -> None:
        """Wait until the run has reported further on than now, or has finished.

        Raises:
            BrokenRunError: the run ended with another exit code than 0, or hangs.
        """
        before = self.nimg()
        if not self.until(lambda: self.ended() or self.nimg() != before, HANG_SECONDS):
            raise BrokenRunError(f"no report within {HANG_SECONDS:g} s: {self.tail()}")
        if self.ended() and self.codes() != [0] * WORLD_SIZE:
            raise BrokenRunError(f"ended by itself with exit codes {self.codes()}: {self.tail()}")

    def tail(self) -> str:
        """Return the last lines of the log."""
        return self.log.read_text(errors="replace")[-1500:]

    def kill(self) -> None:
        """Send SIGKILL to everything that runs."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.until(self.ended, 10)


class Faults:
    """The faults. Each method injects one, waits for its consequence and undoes it; the run may be dead afterwards.

    Args:
        run: the run.
        data: folder of the shards.
        server: the MLflow server.
        draws: random numbers.
        stopped_seconds: how long a rank is stopped.
    """

    def __init__(self, run: Run, data: Path, server: MlflowServer, draws: random.Random, stopped_seconds: float) -> None:
        self.run, self.data, self.server, self.draws, self.stopped_seconds = run, data, server, draws, stopped_seconds

    def worker(self) -> None:
        """SIGKILL to a loader worker."""
        self.draws.choice(self.run.workers()).kill()
        self._must_end()

    def rank(self) -> None:
        """SIGKILL to a rank."""
        self.draws.choice(self.run.ranks).kill()
        self._must_end()

    def sidecar(self) -> None:
        """SIGKILL to the sidecar; training continues."""
        for process in sidecars(self.run.folder):
            process.kill()

    def server_killed(self) -> None:
        """SIGKILL to the MLflow server, which starts again later; training continues."""
        self.server.kill()
        self.run.until(lambda: False, self.draws.uniform(1, 10))
        self.server.start()

    def disk(self) -> None:
        """Fill the disk until the run has ended."""
        filler = self.run.folder.path.with_name("filler")
        try:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            self._must_end()
        finally:
            filler.unlink()

    def stopped(self) -> None:
        """SIGSTOP to a rank, SIGCONT later; training continues."""
        rank = self.draws.choice(self.run.ranks)
        rank.suspend()
        self.run.until(lambda: False, self.stopped_seconds)
        rank.resume()

    def shard(self) -> None:
        """Overwrite 4 KB of a shard until the run has ended."""
        path = self.draws.choice(sorted(self.data.glob("*.tar")))
        before = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(self.draws.randrange(len(before) // 2))
            file.write(self.draws.randbytes(4096))
        try:
            self._must_end()
        finally:
            path.write_bytes(before)

    def index(self) -> None:
        """Replace index.json and kill a rank: the next start must refuse the index, because there is a checkpoint."""
        self.run.until(lambda: self.run.folder.checkpoints() or self.run.ended(), HANG_SECONDS)
        path = self.data / "index.json"
        before = path.read_text()
        content = json.loads(before)
        content["band_std"]["low"] *= 2
        path.with_name("new").write_text(json.dumps(content))
        path.with_name("new").rename(path)
        try:
            self.rank()
            self.run.start()
            self._must_end()
            if self.run.codes()[0] != 2:
                raise BrokenRunError(f"another index was not refused: {self.run.codes()}; {self.run.tail()}")
        finally:
            path.write_text(before)

    def _must_end(self) -> None:
        if not self.run.wait_for_end():
            raise BrokenRunError(f"the run did not end: {self.run.tail()}")


def soak(
    run: Run,
    faults: Faults,
    every: tuple[float, float],
    is_over: Callable[[], bool],
    bag: list[str],
    rows: list[dict[str, Any]],
) -> None:
    """Train the run to its end and inject faults until `is_over`; append a row for each to `rows`.

    Args:
        run: the run, not started.
        faults: the faults.
        every: shortest and longest time in seconds between the recovery from one fault and the next.
        is_over: returns whether no further fault is to be injected.
        bag: the names of the next faults; shuffled and filled again when it is empty.
        rows: one for each fault: its name, `nimg`, whether the run ended, the seconds until the next report.
    """
    run.start()
    run.wait_for_report()
    while not run.until(run.ended, faults.draws.uniform(*every)):
        if is_over():
            run.until(run.ended, 3600)
            break
        bag[:] = bag or faults.draws.sample(FAULTS, len(FAULTS))
        fault = bag.pop()
        row: dict[str, Any] = {"fault": fault, "nimg": run.nimg(), "began": time.monotonic()}
        {"server": faults.server_killed}.get(fault, getattr(faults, fault))()
        row |= {"ended": run.ended(), "codes": run.codes()}
        if run.codes() != [0] * WORLD_SIZE:
            if run.ended():
                run.start()
            run.wait_for_report()
        row["seconds"] = time.monotonic() - row.pop("began")
        rows.append(row)
        print(row, flush=True)
    if run.codes() != [0] * WORLD_SIZE:
        raise BrokenRunError(f"ended by itself with exit codes {run.codes()}: {run.tail()}")


def check(run: Run, straight: Run, uri: str) -> dict[str, Any]:
    """Compare a run that has ended with the one without faults; return what was compared.

    Raises:
        BrokenRunError: the runs differ, a file or a process is left over, or MLflow lacks a value or has one twice.
    """
    subprocess.run([sys.executable, "-m", "wavegan_dist", "track", "sync", str(run.folder.path)], check=True)
    expected, result = state(straight.folder.path), state(run.folder.path)
    wrong = sorted(name for name in expected.keys() | result.keys() if expected.get(name) != result.get(name))
    left = sorted(files(run.folder.path) - files(straight.folder.path))
    names = [path.name for path in Path("/dev/shm").iterdir()]
    left += [name for name in names if set(name.split("_")) & set(map(str, run.pids))]
    left += [" ".join(process.cmdline()) for process in running(run.pids)]
    stored = compare(run.folder, uri)
    if wrong or left or stored["missing"] or stored["doubled"]:
        raise BrokenRunError(f"{len(wrong)} values differ: {wrong[:5]}; left over: {left[:5]}; MLflow: {stored}")
    first = [mb for start, mb in run.samples if start == 1]
    last = [mb for start, mb in run.samples if start == run.starts]
    return {"values": len(expected), "starts": run.starts, "points": stored["points"], "mb": [max(first), max(last)]}


def files(folder: Path) -> set[str]:
    """Return the relative paths of the files below `folder`, without those of tracking and of reports about errors."""
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {path for path in paths if not path.startswith(("tracking", "data_errors", "diagnostics"))}


def running(pids: set[int]) -> Iterator[psutil.Process]:
    """Yield the processes of these ids that train or deliver."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "wavegan_dist" in " ".join(psutil.Process(pid).cmdline()):
                yield psutil.Process(pid)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a tmpfs of size DISK at `folder` for the duration of the block."""
    folder.mkdir()
    subprocess.run(["mount", "-n", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def train_straight(folder: Path, config: Path) -> tuple[Run, dict[str, float]]:
    """Train without faults and without tracking; return the run and its memory in MB, in the second and the last fifth."""
    run = Run(folder / "straight", config, "tracking.enabled=false")
    run.start()
    run.wait_for_report()
    if not run.until(run.ended, 3600) or run.codes() != [0] * WORLD_SIZE:
        raise BrokenRunError(f"the run without faults failed: {run.tail()}")
    trained = [mb for _, mb in run.samples][:-3]  # the last ones are measured while processes end
    fifth = len(trained) // 5
    return run, {"second fifth": max(trained[fifth : 2 * fifth] or trained), "last fifth": max(trained[-fifth:] or trained)}


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--faults", type=int, metavar="N", help="end after N faults, not after --minutes")
    parser.add_argument("--every", default="20,60", metavar="A,B", help="seconds between faults (default: 20,60)")
    parser.add_argument("--stopped", type=float, default=30, metavar="S", help="seconds that a rank is stopped (default: 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json", help="JSON file (default: %(default)s)")
    return parser.parse_args()


class Soak:
    """All runs of one call, and what was seen: it is complete at any moment, so that Ctrl-C loses nothing.

    Args:
        options: those of the command line.
        folder: an empty folder.
        disk: the folder of the runs, on a small disk.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, disk: Path) -> None:
        self.options, self.folder, self.disk = options, folder, disk
        self.rows: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.memory: dict[str, float] = {}
        self.server = MlflowServer(folder)
        self.active: list[Run] = []

    def train(self) -> None:
        """Train without faults, then with them until the time is over or enough faults have happened.

        Raises:
            BrokenRunError: see `soak` and `check`.
        """
        options, config = self.options, self._prepare()
        straight, self.memory = train_straight(self.folder, config)
        print(f"without faults: {self.memory}", flush=True)
        draws, deadline = random.Random(options.seed), time.monotonic() + 60 * options.minutes
        shortest, longest = map(float, options.every.split(","))
        bag: list[str] = []

        def is_over() -> bool:
            return bool(len(self.rows) >= options.faults if options.faults else time.monotonic() > deadline)

        while not is_over():
            run = Run(self.disk / f"run-{len(self.runs)}", config)
            self.active.append(run)
            faults = Faults(run, self.folder / "set", self.server, draws, options.stopped)
            soak(run, faults, (shortest, longest), is_over, bag, self.rows)
            self.runs.append(check(run, straight, self.server.uri))
            print(f"run {len(self.runs)}: equal, {self.runs[-1]}", flush=True)
            shutil.rmtree(run.folder.path)

    def _prepare(self) -> Path:
        """Write shards and the config, whose path is returned, and start the server."""
        write_smooth_noise(self.folder / "pictures")
        write_shards(str(self.folder / "pictures"), self.folder / "set", 32, patches=True)
        text = CONFIG.replace("FOLDER", str(self.folder)).replace("URI", self.server.uri)
        config = self.folder / "config.yaml"
        config.write_text(text.replace("KIMG", str(self.options.steps * BATCH / 1000)))
        self.server.start()
        return config

    def stop(self) -> None:
        """Kill what runs."""
        for run in self.active:
            run.kill()
        self.server.kill()

    def summary(self) -> list[dict[str, Any]]:
        """Return a row for each fault: how often, how often the run ended, the median of the seconds until the next report."""
        table = []
        for fault in FAULTS:
            mine = [row for row in self.rows if row["fault"] == fault]
            seconds = statistics.median([row["seconds"] for row in mine] or [0])
            table.append({"fault": fault, "count": len(mine), "ended": sum(row["ended"] for row in mine), "seconds": seconds})
        return table


def main() -> int:
    """Run the soak, print a table of the faults and write the result."""
    options, problem = parse_arguments(), ""
    with TemporaryDirectory(prefix="wavegan-soak-") as name, small_disk(Path(name) / "disk") as disk:
        all_runs = Soak(options, Path(name), disk)
        try:
            all_runs.train()
        except (BrokenRunError, KeyboardInterrupt) as error:
            problem = str(error) or "interrupted"
            print(problem, file=sys.stderr)
        finally:
            all_runs.stop()
        if problem not in ("", "interrupted"):
            print("kept in", shutil.copytree(name, options.out.with_suffix(".kept"), dirs_exist_ok=True), file=sys.stderr)
    table = all_runs.summary()
    print(" | ".join(table[0]))
    for row in table:
        print(" | ".join(f"{value:.0f}" if isinstance(value, float) else str(value) for value in row.values()))
    content = {"steps": options.steps, "minutes": options.minutes, "faults": table, "runs": all_runs.runs, "problem": problem}
    write_json(options.out, content | {"memory_mb_without_faults": all_runs.memory, "about": provenance()})
    return int(bool(problem))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
