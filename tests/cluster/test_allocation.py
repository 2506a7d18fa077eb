"""The rendezvous is on the first node that Slurm allocated, whatever nodes and login node are called."""

import pytest

from tests.cluster.helpers import SLURM_CONF
from wavegan_dist.cluster.command import train_command
from wavegan_dist.cluster.job import TrainJob
from wavegan_dist.cluster.profile import Profile
from wavegan_dist.cluster.slurm import Allocation


@pytest.mark.parametrize(
    ("node_list", "hosts"),
    [
        ("node-a1,gpu[03,7]", ("node-a1", "gpu03", "gpu7")),
        ("gpu[7,03],login2", ("gpu7", "gpu03", "login2")),
        ("rack[1-2]n[01-02]", ("rack1n01", "rack1n02", "rack2n01", "rack2n02")),
        ("dgx-b200-003", ("dgx-b200-003",)),
    ],
)
def test_the_first_node_has_the_rendezvous_not_the_login_node(cluster, monkeypatch, tmp_path, node_list, hosts):
    submitted = {
        "SLURM_SUBMIT_HOST": "login1",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
        "MASTER_ADDR": "login1",
        "HOSTNAME": "login1",
    }
    for name, value in submitted.items() | {
        ("SLURM_CONF", SLURM_CONF),
        ("SLURM_JOB_ID", "7"),
        ("SLURM_JOB_NODELIST", node_list),
    }:
        monkeypatch.setenv(name, value)
    allocation = Allocation.from_environment()
    assert allocation.hosts == hosts
    profile = Profile(time=5, nodes=len(hosts), processes_per_node=2)
    command = train_command(TrainJob(run_dir=tmp_path, profile=profile, arguments=["--config", "x"]), allocation)
    assert f"--main_process_ip {hosts[0]} " in command[-1]
    assert "login1" not in " ".join(command)
