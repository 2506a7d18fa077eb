"""The plain sbatch files, and the scripts of the local cluster."""

import json
import os
import re
import shutil
import subprocess

import psutil
import pytest

from tests.cluster.helpers import LOCAL, NEEDED, documented, ended, first_match, slurm, states, until, without
from tests.helpers import ROOT
from wavegan_dist.cluster.profile import load_profile

ALONE, WIDE, ARRAY = documented("Without submitit")


def submitted(output: str) -> str:
    return first_match(r"Submitted batch job (\d+)", output)


@pytest.fixture(scope="module")
def trained(house, demo, typed):
    """The runs of the documented sbatch commands with the demo's shards: two processes on one node, one on each of two."""
    jobs = {house / "runs" / "photos64": submitted(typed(ALONE)), house / "runs" / "wide": submitted(typed(WIDE))}
    until("end of both", lambda: all(map(ended, jobs.values())), 400)
    for job in jobs.values():
        assert states(job) == ["COMPLETED"], (house / f"wavegan-{job}.log").read_text()
    return list(jobs)


def test_one_node_and_many_nodes_train(trained):
    for run in trained:
        assert json.loads((run / "exit.json").read_text())["state"] == "finished"
        assert json.loads((run / "environment.json").read_text())["world_size"] == 2


def test_the_array_evaluates_every_snapshot(house, trained, typed):
    job = submitted(typed(ARRAY))
    until("end of the array", lambda: not slurm("squeue", "--noheader", "--jobs", job).strip(), 120)
    run = house / "runs" / "wide"
    assert {file.stem for file in run.glob("evaluations/*.json")} == {path.name for path in run.glob("snapshots/*")}
    assert "none for task 9" in (house / f"wavegan-evaluate-{job}_9.log").read_text()


def test_the_documented_commands_for_a_large_cluster_are_ones(trained, typed):
    for command in documented("On your own cluster"):
        new = " --run-dir runs/new" if "submit train" in command else ""  # runs/photos64 holds a run of another batch size
        output = typed(f"{command.removesuffix(' --dry-run')}{new} --dry-run")
        assert output.startswith("#!/bin/bash")


@pytest.mark.parametrize("name", ["train", "train-nodes"])
def test_a_script_requests_what_its_profile_starts(name):
    text = (ROOT / "slurm" / f"{name}.sbatch").read_text()
    requested = dict(re.findall(r"(?m)^#SBATCH --([a-z-]+)(?:=(\S+))?$", text))
    profile = load_profile(first_match(r"PROFILE:-(\w+)", text))
    assert requested["gpus-per-node"] == str(profile.gpus_per_node) == str(profile.processes)
    assert requested["cpus-per-task"] == str(profile.cpus_per_task)
    assert requested["ntasks-per-node"] == "1"
    assert requested["signal"] == f"B:USR2@{profile.warn_seconds}"
    assert ("exclusive" in requested) == profile.exclusive
    assert {"requeue", "open-mode"} <= requested.keys()


@pytest.mark.parametrize(
    ("run", "task", "message"),
    [
        ("runs/misspelled", "0", "runs/misspelled/snapshots does not exist; set RUN to the run folder"),
        ("runs/x", None, "SLURM_ARRAY_TASK_ID: submit with --array=0-9"),
        (None, "0", "RUN: set RUN to the run folder"),
    ],
)
def test_an_evaluation_without_a_run_or_an_array_fails(tmp_path, run, task, message):
    (tmp_path / "runs" / "x" / "snapshots").mkdir(parents=True)
    variables = {"PATH": os.environ["PATH"], "RUN": run, "SLURM_ARRAY_TASK_ID": task}
    outcome = subprocess.run(
        ["bash", ROOT / "slurm" / "evaluate.sbatch"], cwd=tmp_path, capture_output=True, text=True,
        env={name: value for name, value in variables.items() if value},
    )  # fmt: skip
    assert outcome.returncode != 0
    assert message in outcome.stderr


def test_the_scripts_pass_shellcheck():
    if shutil.which("shellcheck") is None:
        without("shellcheck is missing: slurm/local/install.sh installs it")
    files = [*(ROOT / "slurm").glob("*.sbatch"), *LOCAL.glob("*.sh")]
    assert len(files) >= 8
    assert subprocess.run(["shellcheck", *files], cwd=ROOT / "slurm").returncode == 0


def test_a_missing_program_is_named_and_nothing_is_started(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "seq", "rm", "cat", "id"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    variables = {"PATH": str(tools), "SLURM_LOCAL": str(tmp_path / "cluster")}
    outcome = subprocess.run([LOCAL / "up.sh"], capture_output=True, text=True, env=variables)
    needs = (
        "munged is missing; slurm/local/install.sh installs it" if os.geteuid() == 0 else "starting Slurm's daemons needs root"
    )
    assert (outcome.returncode, outcome.stderr) == (1, f"slurm/local: {needs}\n")
    assert not (tmp_path / "cluster").exists()


def daemons() -> set[int]:
    """Returns the process ids of the daemons that the cluster needs."""
    return {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] in NEEDED}


def test_the_cluster_is_up_and_up_again_is_nothing_to_do(cluster):
    before = daemons()
    again = subprocess.run([LOCAL / "up.sh"], capture_output=True, text=True, check=True)
    assert daemons() == before
    assert "is up already" in again.stdout
    assert before
    assert slurm("sinfo", "-h", "-o", "%P %D %G").splitlines() == ["low* 2 gpu:2", "high 2 gpu:2"]
