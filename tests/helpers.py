"""Helpers that several test modules share: commands, process groups, and what a run writes."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.forked import ForkedProgram
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import sync
from wavegan_dist.tracking.spool import Spool
from wavegan_dist.wavelet.cpu.build import library

ROOT = Path(__file__).parents[1]
PROFILES = ROOT / "launchers" / "accelerate"
KERNELS = library().parent  # the user's compiled kernels, found before any test changes XDG_CACHE_HOME
PATIENCE = 300.0  # seconds for what takes seconds on a machine that is not busy; half the time-out of collectives
Command = Callable[..., subprocess.CompletedProcess[str]]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with `variables` added and without those that a launcher or MLflow reads."""
    removed = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "ACCELERATE_", "MLFLOW_TRACKING")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    return {**inherited, "OMP_NUM_THREADS": "1", **variables}


def free_port() -> str:
    """Return a TCP port of this machine on which no process listens.

    Linux gives the ports from 32768 on to outgoing connections, possibly before a program of the test listens.
    """
    while True:
        port = random.SystemRandom().randrange(20000, 32768)  # tests may seed the other generators
        with socket.socket() as free, suppress(OSError):
            free.bind(("", port))
            return str(port)


def fresh_cache(folder: Path) -> str:
    """Return `folder` as an XDG_CACHE_HOME that holds only the compiled kernels: compiling them takes half a minute."""
    (folder / "wavegan").mkdir(parents=True, exist_ok=True)
    KERNELS.mkdir(parents=True, exist_ok=True)
    if not (folder / "wavegan" / "kernels").exists():
        (folder / "wavegan" / "kernels").symlink_to(KERNELS)
    return str(folder)


def refused(outcome: subprocess.CompletedProcess[str], *words: str, exit_code: int = 2) -> None:
    """Assert that a command failed with `exit_code` and exactly one line on stderr, which contains all `words`."""
    assert outcome.returncode == exit_code, outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1, outcome.stderr
    assert outcome.stderr.startswith("wavegan: ")
    for word in words:
        assert word in outcome.stderr


def points(run: Path) -> list[dict[str, Any]]:
    """Return the reports of a training run, in order: the lines of its metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until `condition` holds; fail after PATIENCE seconds, or if `process` ends before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None or condition(), process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_points(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a training run has written `count` reports."""
    metrics = RunFolder(run).metrics
    wait_for(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= count, process)


def deliver(run: Path) -> None:
    """Send to MLflow what the sidecar of a run that has ended did not send in its 30 seconds."""
    with Spool(RunFolder(run).spool("train")).lock(wait=True):  # the sidecar has ended
        pass
    sync(run)


@contextmanager
def running(*command: object, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a new process group, which is killed at the end of the block. The standard streams are pipes."""
    process = subprocess.Popen(
        list(map(str, command)),
        env=environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also the children of a command that has ended
        process.communicate()


def environments(world_size: int, variables: dict[str, str]) -> list[dict[str, str]]:
    """Return the environment of each rank of a new process group, with `variables` added."""
    sizes = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    group = {**sizes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **variables}
    return [environment(**group, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(world_size)]


@contextmanager
def start_ranks(world_size: int, *arguments: object, **variables: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start `python ARGUMENTS` once per rank, with the variables from which the ranks form one process group.

    stderr of each rank is a pipe. Kills the ranks that still run at the end of the block.
    """
    command = [sys.executable, *map(str, arguments)]
    ranks = [
        subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
        for env in environments(world_size, variables)
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            if rank.poll() is None:
                os.killpg(rank.pid, signal.SIGKILL)
                rank.communicate()


def run_ranks(world_size: int, *arguments: object, exit_code: int = 0, timeout: float = 400, **variables: str) -> list[str]:
    """Run `python ARGUMENTS` as one process group, assert every rank's exit code and return every rank's stderr."""
    outcomes = run_each([arguments] * world_size, environments(world_size, variables), timeout)
    errors = [outcome.stderr for outcome in outcomes]
    codes = [outcome.returncode for outcome in outcomes]
    assert codes == [exit_code] * world_size, "\n".join(text[-1500:] for text in errors)
    return errors


def run_each(
    commands: Sequence[Sequence[object]], environments_of: Sequence[dict[str, str]], timeout: float
) -> list[subprocess.CompletedProcess[str]]:
    """Run `python COMMAND` of each rank at once, with the rank's environment, and wait for all."""
    ranks = [ForkedProgram(command, env) for command, env in zip(commands, environments_of, strict=True)]
    try:
        return [rank.finish(timeout) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


def accelerate_command(*arguments: object) -> list[str]:
    """Return the command `accelerate launch ARGUMENTS` of this Python environment."""
    return [str(Path(sys.executable).with_name("accelerate")), "launch", *map(str, arguments)]


def accelerate_launch(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `accelerate launch ARGUMENTS` and capture its output."""
    command = accelerate_command(*arguments)
    return subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE)


def two_processes() -> list[object]:
    """Return the arguments with which `accelerate launch` runs `wavegan` in two CPU processes."""
    return ["--config_file", PROFILES / "cpu2.yaml", "--main_process_port", free_port(), "-m", "wavegan_dist"]
