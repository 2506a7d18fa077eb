"""A real Slurm cluster on this machine for all tests of the session, and the runs that several tests examine."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.cluster.helpers import (
    LOCAL,
    SLURM_CONF,
    documented,
    ended,
    first_match,
    job_of,
    missing,
    received,
    slurm,
    traces,
    until,
    without,
)
from tests.helpers import ROOT, Command, environment


@pytest.fixture(scope="session")
def cluster() -> Iterator[SimpleNamespace]:
    """Starts a cluster of two nodes with partitions `low` and `high`; the value says whether it was up before."""
    if reason := missing():
        without(reason)
    before = traces()
    was_up = "is up already" in subprocess.run([LOCAL / "up.sh"], check=True, capture_output=True, text=True).stdout
    yield SimpleNamespace(was_up=was_up)
    if not was_up:
        subprocess.run([LOCAL / "down.sh"], check=True)
        until("removal of everything that the cluster left", lambda: traces() <= before, 10)


@pytest.fixture(scope="session")
def submit(cluster: SimpleNamespace) -> Command:
    """Runs `wavegan ARGUMENTS` as a user of the cluster does."""

    def run(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wavegan_dist", *map(str, arguments)]
        variables = environment(**{"SLURM_CONF": SLURM_CONF, "PYTHONPATH": str(ROOT)} | settings.pop("env", {}))
        return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=180, **settings)

    return run


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a profile of the local cluster with additional lines."""
    folder = tmp_path_factory.mktemp("profiles")

    def make(*lines: str, base: str = "local") -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.yaml"
        path.write_text("\n".join([(ROOT / "launchers" / "slurm" / f"{base}.yaml").read_text(), *lines]) + "\n")
        return path

    return make


@pytest.fixture(scope="session")
def demo(house: Path, walked: SimpleNamespace) -> Path:
    """Folder of the demo's shards."""
    return house / "data" / "demo"


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory, demo: Path, store: str) -> Path:
    """The demo's config, shortened to 100 steps: at most a minute on two nodes of this machine."""
    settings = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    settings["data"]["index"] = str(demo / "index.json")
    settings["train"] |= {"total_kimg": 6.4, "snapshot_kimg": 6.4, "checkpoint_kimg": 1.6, "report_kimg": 0.128}
    path = tmp_path_factory.mktemp("config") / "training.yaml"
    path.write_text(yaml.safe_dump(settings | {"tracking": {"uri": store}}))
    return path


@pytest.fixture(scope="session")
def straight(
    tmp_path_factory: pytest.TempPathFactory, submit: Command, training: Path, profile: Callable[..., Path]
) -> SimpleNamespace:
    """An uninterrupted run over two whole nodes, in containers; its checkout is broken right after the submission."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "wavegan_dist", folder / "wavegan_dist", ignore=shutil.ignore_patterns("__pycache__"))
    config = Path(shutil.copy(training, folder / "training.yaml"))
    run = tmp_path_factory.mktemp("runs") / "straight"
    container = folder / "container"
    container.write_text(f'#!/bin/sh\necho "$(hostname) $*" >>{folder}/contained\nexec unshare --mount --ipc "$@"\n')
    container.chmod(0o755)
    later = profile("sbatch: {begin: now+1hour}", f"container: [{container}]", "exclusive: true")
    command = ["submit", "train", "--config", config, "--profile", later, "--partition", "high", "--run-dir", run]
    job = job_of(submit(*command, cwd=folder, env={"PYTHONPATH": str(folder)}))
    (folder / "wavegan_dist" / "__init__.py").write_text("raise SystemExit('the checkout was edited')\n")
    config.write_text("nonsense")
    later.write_text("nonsense")
    before = received()
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    until("end of the training", lambda: ended(job), 400)
    return SimpleNamespace(run=run, job=job, crossed=received() - before, contained=(folder / "contained").read_text())


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, cluster: SimpleNamespace) -> Path:
    """A folder in which the commands of docs/cluster.md work, with smaller configs and profiles than the checkout's."""
    folder = tmp_path_factory.mktemp("house")
    for name in ("Makefile", "slurm/local"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    for script in (ROOT / "slurm").glob("*.sbatch"):
        text = re.sub(r"(?m)^(#SBATCH --(cpus-per-task|gpus-per-node))=.*", r"\1=1", script.read_text())
        (folder / "slurm" / script.name).write_text(text.replace(":-gpu1}", ":-two}"))
    profiles = Path(shutil.copytree(ROOT / "launchers" / "slurm", folder / "launchers" / "slurm"))
    (profiles / "gpu1.yaml").write_text((profiles / "local1.yaml").read_text())
    two = (profiles / "local1.yaml").read_text().replace("cpus_per_task: 1", "cpus_per_task: 64")  # a script's number counts
    (profiles / "two.yaml").write_text(two + "processes_per_node: 2\n")
    (profiles / "gpu8.yaml").write_text((profiles / "local.yaml").read_text())
    settings = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    settings["train"] |= {"total_kimg": 0.32, "snapshot_kimg": 0.32, "checkpoint_kimg": 0.32, "report_kimg": 0.128}
    for name in ("demo", "photos64"):
        (folder / "configs").mkdir(exist_ok=True)
        (folder / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="session")
def typed(house: Path) -> Callable[..., str]:
    """Runs commands in a shell in the folder `house` and returns their stdout."""

    def run(*commands: str) -> str:
        binaries = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = environment(PATH=binaries, PYTHON=sys.executable, PYTHONPATH=str(ROOT), SLURM_CONF=SLURM_CONF)
        shell = ["bash", "-euxo", "pipefail", "-c", "\n".join(commands)]
        outcome = subprocess.run(shell, cwd=house, env=variables, capture_output=True, text=True, timeout=240)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    return run


@pytest.fixture(scope="session")
def walked(house: Path, typed: Callable[..., str]) -> SimpleNamespace:
    """The run of the commands in docs/cluster.md's first section, without installation, MLflow's page and shutdown."""
    install, *commands, look, down = documented("From nothing to a two-node run and its curve")
    assert (install, look[:9], down) == ("slurm/local/install.sh", "mlflow ui", "make slurm-down")
    run, after = house / "runs" / "demo", commands.index("squeue")
    job = first_match(r"job (\d+): ", typed(*commands[:after]))
    until("end of the training", lambda: ended(job), 400)  # the training job submits all evaluations before `wavegan watch` can
    output = typed(*commands[after:])
    return SimpleNamespace(run=run, job=job, output=output, store=f"sqlite:///{house}/runs/mlflow.db")
