"""Run a target on inputs: each must be accepted or refused with a documented error, in time and within a bound of memory."""

import faulthandler
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz.mutate import Files, mutated
from wavegan_dist.errors import WaveganError

DEADLINE = 10.0  # seconds of CPU time for one input
WAIT = 120.0  # seconds for one input that waits for something, on a machine that other processes keep busy
LONGEST_MESSAGE = 10_000  # characters
ADDRESS_SPACE = 16 * 2**30  # bytes above those at the start: the process ends before the machine runs out of memory
CORPUS = Path(__file__).parent / "corpus"


class OverdueError(BaseException):
    """An input took longer than DEADLINE or WAIT. No code under test catches it."""


class Target(ABC):
    """One reader of files that may be damaged or hostile.

    Attributes:
        errors: the documented errors. `wavegan` prints these as one line.
        memory: bytes that the memory of the process may grow by while it reads one input.
        share: share of the inputs that are tried when all targets run, below 1 for a slow one.
    """

    errors: tuple[type[Exception], ...] = (WaveganError, OSError)
    memory = 256 * 2**20
    share = 1.0

    @abstractmethod
    def seeds(self, scratch: Path) -> list[Files]:
        """Return valid inputs. `scratch` is an empty folder that stays until the end of the run."""

    @abstractmethod
    def read(self, folder: Path) -> None:
        """Read the files in `folder` as the package does."""

    def mutated(self, files: Files, rng: Random) -> Files:
        """Change a valid input."""
        return mutated(files, rng)

    def fitted(self, files: Files) -> Files:
        """Make digests that the files hold of each other fit, as an attacker would."""
        return files


class Fault(NamedTuple):
    """What an input has found.

    Args:
        kind: the same for inputs that find the same fault.
        detail: a traceback, or what was measured.
    """

    kind: str
    detail: str


class Result(NamedTuple):
    """How one input ended: refused by a documented error, a fault, or accepted if it is neither."""

    refused: bool
    fault: Fault | None
    memory: int  # bytes by which the memory of the process grew at most


def inputs(target: Target, name: str, seeds: list[Files], seed: int, numbers: range) -> Iterator[tuple[int, Files]]:
    """Yield the inputs of these numbers: number N depends on the target's name, the seed and N only."""
    for number in numbers:
        rng = Random(f"{name}/{seed}/{number}")
        yield number, target.mutated(rng.choice(seeds), rng)


def corpus(name: str) -> dict[str, Files]:
    """Return the inputs of a target that have found faults, by what is wrong: the files that differ from a valid input."""
    return {folder.name: read_files(folder) for folder in sorted((CORPUS / name).glob("*"))}


def try_input(target: Target, files: Files, scratch: Path) -> Result:
    """Run a target on one input."""
    folder = scratch / "input"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_files(folder, files)
    before = _reset_peak()
    refused, fault = False, None
    try:
        with deadlines(), stderr() as printed:
            target.read(folder)
    except target.errors as error:
        refused = True
        if len(str(error)) > LONGEST_MESSAGE:
            fault = Fault(f"message of {type(error).__name__}", f"{len(str(error)):,} characters: {str(error)[:300]}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        fault = Fault(_kind(error), "".join(traceback.format_exception(error)[-12:])[-6000:])
    memory = _memory("VmHWM") - before
    if fault is None and "Traceback" in printed.text:
        fault = Fault("traceback on stderr", printed.text[-6000:])
    if fault is None and memory > target.memory:
        fault = Fault("memory", f"{memory / 2**20:,.0f} MiB")
    return Result(refused, fault, memory)


@contextmanager
def deadlines() -> Iterator[None]:
    """Raise OverdueError in this thread after DEADLINE or WAIT; end the process if it does not react to that in time."""

    def stop(*_: object) -> None:
        raise OverdueError

    signal.signal(signal.SIGPROF, stop)
    signal.signal(signal.SIGALRM, stop)
    faulthandler.dump_traceback_later(2 * WAIT, exit=True)
    signal.setitimer(signal.ITIMER_PROF, DEADLINE)
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


class Printed:
    """What the block of `stderr` has printed."""

    text = ""


@contextmanager
def stderr() -> Iterator[Printed]:
    """Collect what the block, and programs and libraries that it calls, print to stderr."""
    printed = Printed()
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            printed.text = file.read().decode(errors="replace")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder in memory, if the machine has one."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None, prefix="fuzz-") as scratch:
        yield Path(scratch)


def limit_memory() -> None:
    """Let allocations fail that would exceed ADDRESS_SPACE, for the rest of the process."""
    limit = _memory("VmSize") + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def read_files(folder: Path) -> Files:
    """Return the content of all files below a folder, by their names relative to it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _kind(error: BaseException) -> str:
    """Name a fault by its type and by the last line of this package that raised it or called what raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/wavegan_dist/" in frame.filename] or frames
    return f"{type(error).__name__} in {Path(ours[-1].filename).name}, {ours[-1].name}"


def _memory(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def _reset_peak() -> int:
    """Make the peak of the memory begin at the current value, and return that in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children so far, in seconds."""
    return sum(os.times()[:4])


class Summary:
    """Counts of a run, and one input of each fault."""

    def __init__(self) -> None:
        self.tried = self.refused = self.memory = 0
        self.slowest = 0.0
        self.faults: dict[str, tuple[int | str, Fault, Files]] = {}  # by kind: the first input that found it
        self.counts: dict[str, int] = {}
        self.started = cpu_seconds()

    def add(self, number: int | str, files: Files, result: Result, seconds: float) -> None:
        """Count one input."""
        self.tried += 1
        self.refused += result.refused
        self.memory, self.slowest = max(self.memory, result.memory), max(self.slowest, seconds)
        if result.fault is not None:
            self.counts[result.fault.kind] = self.counts.get(result.fault.kind, 0) + 1
            if result.fault.kind not in self.faults:
                self.faults[result.fault.kind] = (number, result.fault, files)
                print(f"input {number}: {result.fault.kind}", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """CPU time since the start, in seconds."""
        return cpu_seconds() - self.started
