"""Slurm commands for the tests, and the state of jobs, runs and the machine."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.helpers import ROOT, environment

LOCAL = ROOT / "slurm" / "local"
SLURM_CONF = "/tmp/wavegan-slurm/slurm.conf"
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED")
NEEDED = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "ip")


def missing() -> str:
    """Returns the reason why no cluster can be started on this machine, or an empty string."""
    if absent := [program for program in NEEDED if shutil.which(program) is None]:
        return f"{', '.join(absent)} missing: slurm/local/install.sh installs a real Slurm for these tests"
    return "" if os.geteuid() == 0 else "starting Slurm's daemons needs root"


def without(reason: str) -> NoReturn:
    """Skips the test, or fails it where WAVEGAN_NEEDS_SLURM is set, as in CI."""
    if os.environ.get("WAVEGAN_NEEDS_SLURM"):
        pytest.fail(reason)
    pytest.skip(reason)


def traces() -> set[str]:
    """Returns everything that a cluster may leave on the machine: processes, mounts, network devices, namespaces, files."""
    found = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}
    found |= {str(path) for folder in ("/sys/class/net", "/run", "/var/run", "/run/netns") for path in Path(folder).glob("*")}
    found |= {str(path) for path in Path("/tmp").glob("wavegan-slurm*")}
    for process in psutil.process_iter(["pid", "name", "status", "cmdline"]):
        name, words = process.info["name"], process.info["cmdline"] or []
        command = " ".join([name, *words])
        # An editor, or a fuzz of Slurm's output, has the word among its arguments.
        is_trace = re.search("slurm|munged|mariadb", " ".join([name, *words[:1]])) or "wavegan-slurm" in command
        if process.info["status"] != psutil.STATUS_ZOMBIE and is_trace:
            found.add(f"process {process.info['pid']}: {command}")
    return found


def slurm(*command: object) -> str:
    """Runs a Slurm command and returns its stdout."""
    variables = environment(SLURM_CONF=SLURM_CONF)
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, env=variables, timeout=60).stdout


def until(what: str, condition: Callable[[], object], seconds: float = 120) -> None:
    """Waits until `condition` returns true; fails with the name `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.1)


def states(job: str) -> list[str]:
    """Returns the states of all starts of a job, oldest first, from Slurm's accounting."""
    output = slurm("sacct", "-X", "--noheader", "--parsable2", "--duplicates", "-o", "State", "-j", job)
    return [line.split()[0] for line in output.splitlines()]


def ended(job: str) -> bool:
    """Whether the job has ended for good: in slurmctld and in the accounting database, which lags behind it."""
    state = slurm("squeue", "--noheader", "--states", "all", "--jobs", job, "-o", "%T").strip()
    return state in ("", *FINAL) and states(job)[-1:] in ([state] for state in FINAL)


def trainers(run: Path) -> list[psutil.Process]:
    """Returns the training processes of a run on all nodes, with their loader workers and without their launchers."""
    return [process for process in _processes(run, "train") if process not in launchers(run)]


def launchers(run: Path) -> list[psutil.Process]:
    """Returns the `accelerate launch` processes of a run, in the order of their start."""
    return sorted(_processes(run, "accelerate.commands.launch"), key=lambda process: process.create_time())


def _processes(run: Path, word: str) -> list[psutil.Process]:
    """Returns the processes whose command line has both the run folder and `word` as arguments."""
    wanted = {str(run), word}
    return [process for process in psutil.process_iter(["cmdline"]) if wanted <= set(process.info["cmdline"] or [])]


def mlflow_run(run: Path, store: str) -> Run:
    """Returns the MLflow run of this run folder; fails unless there is exactly one."""
    client, tracking = MlflowClient(store), json.loads((run / "tracking.json").read_text())
    experiment = client.get_experiment_by_name("wavegan")
    assert experiment is not None
    (only,) = client.search_runs([experiment.experiment_id], f"tags.`wavegan.key` = '{tracking['key']}'")
    return only


def job_of(outcome: subprocess.CompletedProcess[str]) -> str:
    """Returns the job id that `wavegan submit` or sbatch printed."""
    assert outcome.returncode == 0, outcome.stderr
    return first_match(r"job (\w+)", outcome.stdout)


def first_match(pattern: str, text: str) -> str:
    """Returns the first group of the first match of `pattern`; fails if there is none."""
    match = re.search(pattern, text)
    assert match is not None, f"no {pattern} in {text}"
    return match[1]


def log_of(run: Path, job: str) -> str:
    """Returns the log of a job, empty before the job's start."""
    log = run / "cluster" / "jobs" / f"{job}_0_log.out"
    return log.read_text() if log.exists() else ""


def received() -> int:
    """Returns the number of bytes that node2 has received over its network."""
    return int(Path("/sys/class/net/wgslurm-v2/statistics/tx_bytes").read_text())


def documented(section: str) -> list[str]:
    """Returns the commands of a section of docs/cluster.md, without their comments."""
    text = (ROOT / "docs" / "cluster.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [re.sub(r"\s+#.*", "", line.strip()) for line in text.splitlines() if line.startswith("    ")]
