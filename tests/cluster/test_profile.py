"""Profiles without a cluster."""

import os
from pathlib import Path

import pytest

from wavegan_dist.cluster.command import train_command
from wavegan_dist.cluster.job import TrainJob
from wavegan_dist.cluster.profile import load_profile, minutes
from wavegan_dist.cluster.run_exit import CrashLog
from wavegan_dist.cluster.slurm import Allocation
from wavegan_dist.cluster.train_job import script_profile
from wavegan_dist.errors import UsageError
from wavegan_dist.run_folder import RunExit


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1:30", 2), ("1:30:00", 90), ("1:30:01", 91), ("1-12", 2160), ("1-12:30", 2190), ("2-0:0:1", 2881), (5, 5)],
)
def test_times_are_those_of_slurm(text, expected):
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "-5", "1-", "1.5"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="is not a time"):
        minutes(text)


def test_a_time_that_yaml_would_take_for_a_number_stays_a_time(tmp_path):
    (tmp_path / "p.yaml").write_text("time: 12:00:00\nexclusive: true\ngpus_per_node: 4\nnodes: 2\n")
    profile = load_profile(str(tmp_path / "p.yaml"), nodes=3, time=None)
    assert (profile.time, profile.exclusive, profile.world_size) == (720, True, 12)


@pytest.mark.parametrize(
    ("limit", "cores", "expected"), [("12:00:00", "16", (720, 16)), ("45:00", None, (45, 64)), ("UNLIMITED", "6", (525600, 6))]
)
def test_cores_and_time_limit_of_a_script_are_those_of_its_job(tmp_path, monkeypatch, limit, cores, expected):
    for name, answer in (("scontrol", "n1\nn2"), ("squeue", limit)):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": cores}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    profile = script_profile("gpu8")  # 24 hours, 64 cores
    assert (profile.time, profile.cpus_per_task) == expected
    assert profile.is_near_limit(profile.time * 60 - profile.warn_seconds)
    job = TrainJob(run_dir=Path("/run"), profile=profile, arguments=[])
    assert f"--cpus-per-task={expected[1]}" in train_command(job, Allocation.from_environment())


def test_the_port_of_a_job_is_below_those_of_outgoing_connections():
    ports = [Allocation(str(job), ("n1",), 0).port for job in (0, 11_999, 12_000, 10**9)]
    assert ports == [20_000, 31_999, 20_000, 20_000 + 10**9 % 12_000]


def test_a_warning_leaves_time_to_work(tmp_path):
    (tmp_path / "p.yaml").write_text("time: 5\nwarn_seconds: 151\n")
    with pytest.raises(UsageError, match="more than half of the time limit, 5 min"):
        load_profile(str(tmp_path / "p.yaml"))


def test_every_profile_of_the_checkout_is_whole():
    for name in ("local", "local1", "gpu1", "gpu8"):
        assert load_profile(name).time > 0
    with pytest.raises(UsageError, match=r"no profile is called 'x'; there are gpu1, gpu8, local, local1"):
        load_profile("x")


def test_a_job_may_crash_only_further_on_than_ever_before(tmp_path):
    crashes = CrashLog(tmp_path, "7")
    steps = [100, 200, 150, 200, 201]
    assert [crashes.add(RunExit("failed", nimg, "nan", 0)) for nimg in steps] == [True, True, False, False, True]
    assert CrashLog(tmp_path, "8").add(RunExit("failed", 100, "nan", 0))
