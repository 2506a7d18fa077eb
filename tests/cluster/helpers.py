"""Commands of Slurm, and what the tests ask about jobs, runs and the machine."""

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
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
NEEDED = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "ip")


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    if absent := [program for program in NEEDED if shutil.which(program) is None]:
        return f"{', '.join(absent)} missing: slurm/local/install.sh installs a real Slurm for these tests"
    return "" if os.geteuid() == 0 else "starting Slurm's daemons needs root"


def without(what: str) -> NoReturn:
    """Skip the tests that need it; in CI, which is to have it, they fail."""
    (pytest.fail if os.environ.get("WAVEGAN_NEEDS_SLURM") else pytest.skip)(what)
    raise AssertionError


def traces() -> set[str]:
    """What a cluster may leave on the machine: processes, mounts, network devices, namespaces, files."""
    found = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}
    found |= {str(path) for folder in ("/sys/class/net", "/run", "/var/run", "/run/netns") for path in Path(folder).glob("*")}
    found |= {str(path) for path in Path("/tmp").glob("wavegan-slurm*")}
    for process in psutil.process_iter(["pid", "name", "status", "cmdline"]):
        told = [process.info["name"], *(process.info["cmdline"] or [])]
        if process.info["status"] != psutil.STATUS_ZOMBIE and re.search("slurm|munged|mariadb", " ".join(told)):
            found.add(f"process {process.info['pid']}: {' '.join(told)}")
    return found


def slurm(*command: object) -> str:
    """What one of Slurm's commands prints."""
    variables = environment(SLURM_CONF=SLURM_CONF)
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, env=variables, timeout=60).stdout


def until(what: str, condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait for a condition; fails naming `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.1)


def states(job: str) -> list[str]:
    """States of all starts of a job, oldest first, as accounting knows them."""
    told = slurm("sacct", "-X", "--noheader", "--parsable2", "--duplicates", "-o", "State", "-j", job)
    return [line.split()[0] for line in told.splitlines()]


def ended(job: str) -> bool:
    """Ended for good, in the controller's eyes and in the accounts, which follow later."""
    told = slurm("squeue", "--noheader", "--states", "all", "--jobs", job, "-o", "%T").strip()
    return told in ("", *FINAL) and states(job)[-1:] in ([state] for state in FINAL)


def trainers(run: Path) -> list[psutil.Process]:
    """The training processes of a run, on all nodes."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(run) in words and "train" in words and "accelerate.commands.launch" not in words:
            found.append(process)
    return found


def mlflow_run(run: Path, store: str) -> Run:
    """The one MLflow run of this run folder."""
    client, tracking = MlflowClient(store), json.loads((run / "tracking.json").read_text())
    experiment = client.get_experiment_by_name("wavegan").experiment_id
    (only,) = client.search_runs([experiment], f"tags.`wavegan.key` = '{tracking['key']}'")
    return only


def job_of(outcome: subprocess.CompletedProcess[str]) -> str:
    """The id in what `wavegan submit` or sbatch printed."""
    assert outcome.returncode == 0, outcome.stderr
    return re.search(r"job (\w+)", outcome.stdout)[1]


def log_of(run: Path, job: str) -> str:
    return (run / "cluster" / "jobs" / f"{job}_0_log.out").read_text()


def received() -> int:
    """Bytes that node2 got over its network so far."""
    return int(Path("/sys/class/net/wgslurm-v2/statistics/tx_bytes").read_text())


def documented(section: str) -> list[str]:
    """The commands of a section of docs/cluster.md, without their comments."""
    text = (ROOT / "docs" / "cluster.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [re.sub(r"\s+#.*", "", line.strip()) for line in text.splitlines() if line.startswith("    ")]
