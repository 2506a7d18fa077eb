"""Does a run that was killed and resumed on the GPU equal the uninterrupted run bit for bit, with which settings, at what cost?

For each precision, one run trains without interruption. Another one is killed (SIGKILL) in the middle and resumed. Compared are
every tensor of the last checkpoint, the metrics except speed and memory, sample grids and snapshots (`resume.state`). The runs
train at the same time. Only if runs with the default settings differ are PyTorch's deterministic algorithms tried. The cost of
a setting is the median time of a step, relative to steps without `cudnn.deterministic`, which the training loop sets: steps
with and without it take turns in one process, with CUBLAS_WORKSPACE_CONFIG set throughout. The section `tests` may compute on
the same GPU meanwhile, so small differences of costs mean nothing.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resume import state

from gpu.common import ERROR_END, ROOT, Section
from gpu.exact_run import NOT_DETERMINISTIC, SETTINGS, apply
from gpu.step import our_step
from gpu.training import settings
from wavegan_dist.config import Experiment
from wavegan_dist.files import atomic_file
from wavegan_dist.run_folder import RunFolder

REPORT_STEPS, TINY_REPORT_STEPS = 10, 2
REPORTS, REPORTS_PER_CHECKPOINT, REPORTS_BEFORE_KILL = 12, 2, 4
BATCH = 64
TIMED_STEPS = 30
PRECISIONS = ("bf16", "fp32")

Processes = list["subprocess.Popen[bytes]"]


def main() -> None:
    """Train, kill, resume and compare all runs, then measure the costs. Prints a line per setting; fails if a run failed."""
    section = Section("exact", __doc__)
    precisions = ("fp32",) if section.tiny else PRECISIONS
    print(f"{'settings':<26} {'dtype':<5} {'killed and resumed':<24} time of a step")
    errors: list[str] = []
    for name in SETTINGS:
        with tempfile.TemporaryDirectory() as folder, processes_killed() as processes:
            outcomes = list(compare(section, [(name, precision) for precision in precisions], Path(folder), processes))
        for precision, outcome in zip(precisions, outcomes, strict=True):
            cost = step_cost(section, precision, name)
            section.add(settings=name, precision=precision, step_cost=cost, **outcome)
            equal = "equal bit for bit" if outcome["equal"] else f"{outcome['differing']} of {outcome['values']} values differ"
            print(f"{name:<26} {precision:<5} {equal:<24} {'-' if cost is None else f'{cost:.2f}'}", flush=True)
        errors += [outcome["error"] for outcome in outcomes if "error" in outcome]
        if errors or all(outcome["equal"] for outcome in outcomes):
            break
    if errors:
        raise SystemExit(f"exact: {len(errors)} runs failed, the first: {errors[0]}")


@contextmanager
def processes_killed() -> Iterator[Processes]:
    """Yield a list of processes, which are killed at the end of the block if they still run."""
    processes: Processes = []
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


def compare(section: Section, cases: list[tuple[str, str]], folder: Path, processes: Processes) -> Iterator[dict[str, Any]]:
    """Yield for each case whether both of its runs are equal, how many values differ, and the name of the first."""
    for precision in {precision for _, precision in cases}:
        with atomic_file(folder / f"{precision}.yaml") as file:
            file.write(experiment(section, precision).to_yaml())
    runs = [(folder / f"straight-{number}", folder / f"cut-{number}") for number in range(len(cases))]

    def start(run: Path, case: tuple[str, str]) -> subprocess.Popen[bytes]:
        processes.append(start_run(run, *case))
        return processes[-1]

    straight = [start(run, case) for (run, _), case in zip(runs, cases, strict=True)]
    killed = [start(run, case) for (_, run), case in zip(runs, cases, strict=True)]
    kill({run: process for (_, run), process in zip(runs, killed, strict=True)})
    resumed = [start(run, case) for (_, run), case in zip(runs, cases, strict=True)]
    for ends, (expected, actual) in zip(zip(straight, resumed, strict=True), runs, strict=True):
        codes = [process.wait() for process in ends]
        if any(codes):
            error = f"{end_of_log(expected)}\n{end_of_log(actual)}"
            yield {"equal": False, "differing": 0, "values": 0, "first": [], "error": error}
            continue
        of_straight, of_resumed = state(expected), state(actual)
        names = of_straight.keys() | of_resumed.keys()
        differing = sorted(name for name in names if of_straight.get(name) != of_resumed.get(name))
        yield {"equal": not differing, "differing": len(differing), "values": len(names), "first": differing[:20]}


def experiment(section: Section, precision: str) -> Experiment:
    """Return the settings of a short run with several checkpoints."""
    batch_size = 8 if section.tiny else BATCH
    report_kimg = batch_size * (TINY_REPORT_STEPS if section.tiny else REPORT_STEPS) / 1000
    lengths = {"total": REPORTS, "snapshot": REPORTS, "checkpoint": REPORTS_PER_CHECKPOINT, "report": 1}
    overrides = [f"train.{name}_kimg={reports * report_kimg}" for name, reports in lengths.items()]
    return settings(section, ["data.workers=0", f"train.batch_size={batch_size}", f"train.precision={precision}", *overrides])


def start_run(run: Path, name: str, precision: str) -> subprocess.Popen[bytes]:
    """Start or resume a run in a new process; its stderr goes to RUN.log."""
    train = ("train", "--config", run.with_name(f"{precision}.yaml"), "--run-dir", run)
    with run.with_suffix(".log").open("ab") as log:
        command = [sys.executable, "-m", "gpu.exact_run", name, *map(str, train)]
        env = os.environ | {"OMP_NUM_THREADS": "1"}  # many processes run at the same time
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=log)


def kill(processes: dict[Path, "subprocess.Popen[bytes]"]) -> None:
    """Kill each run as soon as it has reported REPORTS_BEFORE_KILL times and saved a checkpoint, unless it fails before."""
    while alive := {run: process for run, process in processes.items() if process.poll() is None}:
        for run, process in alive.items():
            folder = RunFolder(run)
            reports = folder.metrics.read_text().count("\n") if folder.metrics.exists() else 0
            if reports >= REPORTS_BEFORE_KILL and folder.checkpoints():
                process.kill()
        time.sleep(0.005)
    if finished := [run.name for run, process in processes.items() if process.returncode == 0]:
        raise RuntimeError(f"{', '.join(finished)} ended before they were killed")


def end_of_log(run: Path) -> str:
    """Return the end of a run's stderr."""
    return run.with_suffix(".log").read_text()[-ERROR_END:]


def step_cost(section: Section, precision: str, name: str) -> float | None:
    """Return the median time of a step with a setting, relative to NOT_DETERMINISTIC; None if an operator refuses it."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    step = our_step(section, experiment(section, precision))
    times: dict[str, list[float]] = {NOT_DETERMINISTIC: [], name: []}
    try:
        for _ in range(3 if section.tiny else TIMED_STEPS):
            for setting, seconds in times.items():
                seconds.append(timed_step(section, setting, step))
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        return None
    return statistics.median(times[name][1:]) / statistics.median(times[NOT_DETERMINISTIC][1:])


def timed_step(section: Section, name: str, step: Callable[[], object]) -> float:
    """Return the seconds of a step with one of SETTINGS."""
    apply(name)
    section.synchronize()
    began = time.perf_counter()
    try:
        step()
        section.synchronize()
    finally:
        apply("default")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
