"""A real Slurm on this machine, one for all tests of the session, and the jobs that several tests look at."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from tests.conftest import environment

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "slurm" / "local"
SLURM_CONF = "/tmp/wavegan-slurm/slurm.conf"
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
NEEDED = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "ip")


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    if absent := [program for program in NEEDED if shutil.which(program) is None]:
        return f"{', '.join(absent)} missing: slurm/local/install.sh installs a real Slurm for these tests"
    return "" if os.geteuid() == 0 else "starting Slurm's daemons needs root"


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


@pytest.fixture(scope="session")
def cluster():
    """Two nodes, partitions `low` and `high`; seconds that the start took."""
    if reason := missing():
        if os.environ.get("WAVEGAN_NEEDS_SLURM"):
            pytest.fail(reason)
        pytest.skip(reason)
    began = time.monotonic()
    was_up = "is up already" in subprocess.run([LOCAL / "up.sh"], check=True, capture_output=True, text=True).stdout
    yield SimpleNamespace(seconds=time.monotonic() - began, was_up=was_up)
    if not was_up:
        subprocess.run([LOCAL / "down.sh"], check=True)


@pytest.fixture(scope="session")
def submit(cluster):
    """Runs `wavegan ARGUMENTS`, as a user of the cluster does."""

    def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wavegan_dist", *map(str, arguments)]
        variables = environment(SLURM_CONF=SLURM_CONF, **settings.pop("env", {}))
        return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=180, **settings)

    return run


def job_of(outcome: subprocess.CompletedProcess[str]) -> str:
    """The id in what `wavegan submit` or sbatch printed."""
    assert outcome.returncode == 0, outcome.stderr
    return re.search(r"job (\w+)", outcome.stdout)[1]


def log_of(run: Path, job: str) -> str:
    return (run / "cluster" / "jobs" / f"{job}_0_log.out").read_text()


@pytest.fixture(scope="session")
def profile(tmp_path_factory) -> Callable[..., Path]:
    """Makes a profile of the local cluster with these lines more."""
    folder = tmp_path_factory.mktemp("profiles")

    def make(*lines: str, base: str = "local") -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.yaml"
        path.write_text("\n".join([(ROOT / "launchers" / "slurm" / f"{base}.yaml").read_text(), *lines]) + "\n")
        return path

    return make


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The demo's shards."""
    out = tmp_path_factory.mktemp("shards") / "demo"
    subprocess.run([sys.executable, "-m", "wavegan_dist", "shards", "write", "embedded", out, "--size", "32"], check=True)
    return out


@pytest.fixture(scope="session")
def training(tmp_path_factory, demo, store) -> Path:
    """The demo's config for 100 steps of it, a minute or less on two nodes of this machine."""
    settings = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    settings["data"]["index"] = str(demo / "index.json")
    settings["train"] |= {"total_kimg": 6.4, "snapshot_kimg": 6.4, "checkpoint_kimg": 1.6, "report_kimg": 0.128}
    path = tmp_path_factory.mktemp("config") / "training.yaml"
    path.write_text(yaml.safe_dump(settings | {"tracking": {"uri": store}}))
    return path


@pytest.fixture(scope="session")
def short() -> list[str]:
    """Settings for a run of five steps."""
    return ["train.total_kimg=0.32", "train.snapshot_kimg=0.32", "train.checkpoint_kimg=0.32"]


@pytest.fixture(scope="session")
def straight(tmp_path_factory, submit, training, profile):
    """A run over two nodes that nobody disturbs, and its evaluations. Submitted from a checkout that is broken at once."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "wavegan_dist", checkout / "wavegan_dist", ignore=shutil.ignore_patterns("__pycache__"))
    config = shutil.copy(training, checkout / "training.yaml")
    run = tmp_path_factory.mktemp("runs") / "straight"
    evaluation = profile("sbatch: {nodelist: node1}", base="local1")
    options = ["--evaluate-profile", evaluation, "--metrics", "spectrum", "--count", 300, "--best", "spectrum_db"]
    later = profile("sbatch: {begin: now+1hour}")
    command = ["submit", "train", "--config", config, "--profile", later, "--partition", "high", "--run-dir", run, *options]
    job = job_of(submit(*command, cwd=checkout, env={"PYTHONPATH": str(checkout)}))
    (checkout / "wavegan_dist" / "__init__.py").write_text("raise SystemExit('the checkout was edited')\n")
    Path(config).write_text("nonsense")
    before = received()
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    until("end of the training", lambda: ended(job), 180)
    return SimpleNamespace(run=run, job=job, crossed=received() - before)


def received() -> int:
    """Bytes that node2 got over its network so far."""
    return int(Path("/sys/class/net/wgslurm-v2/statistics/tx_bytes").read_text())


@pytest.fixture(scope="session")
def evaluated(straight):
    """The same once its evaluations have ended."""
    name = f"evaluate-{straight.run.name}"
    until("end of the evaluations", lambda: not slurm("squeue", "--noheader", "--name", name), 180)
    return straight
