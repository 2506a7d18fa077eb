"""The published forms of starting a run: each trains with the processes asked for, or refuses to start."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser

from tests.helpers import ROOT, environment, free_port, refused, run_ranks
from wavegan_dist.config import TrainConfig
from wavegan_dist.errors import UsageError
from wavegan_dist.launcher import AccelerateLaunch, launch_arguments, read_launch, requested_world_size
from wavegan_dist.processes import check_world_size
from wavegan_dist.train.launch import refuse_launcher_settings

BIN = Path(sys.executable).parent
ACCELERATE = str(BIN / "accelerate")
WAVEGAN = ["-m", "wavegan_dist"]
MULTI_CPU = (
    "{compute_environment: LOCAL_MACHINE, distributed_type: MULTI_CPU, num_machines: 1, num_processes: 2, use_cpu: true}"
)
INDUCTOR = "{distributed_type: 'NO', num_processes: 1, use_cpu: true, dynamo_backend: INDUCTOR}"
BF16 = "{distributed_type: 'NO', num_processes: 1, use_cpu: true, mixed_precision: bf16}"
GROUP = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
MACHINES = ["--num_machines", "2", "--machine_rank", "0", "--main_process_ip", "127.0.0.1", "--main_process_port", "29577"]
ALONE = "accelerate launch asked for 2 processes but 1 take part"
PYTHON = [sys.executable]


def start(
    words: list[str], config: Path, folder: Path, profile: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `WORDS train` on CPUs, with `profile` as the default config file of accelerate in the user's cache."""
    if profile:
        (folder / "hf" / "accelerate").mkdir(parents=True)
        (folder / "hf" / "accelerate" / "default_config.yaml").write_text(profile)
    command = [*words, "train", "--config", config, "--run-dir", folder / "run"]
    launched = environment(HF_HOME=str(folder / "hf"), PYTHONPATH=str(ROOT), **variables)
    return subprocess.run(list(map(str, command)), env=launched, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "profile", "variables", "reason"),
    [
        ([str(BIN / "accelerate-launch"), "--cpu", "--num_processes", "2", *WAVEGAN], "", {}, ALONE),
        ([*PYTHON, "-m", "accelerate.commands.launch", "--cpu", "--num-processes=2", *WAVEGAN], "", {}, ALONE),
        ([ACCELERATE, "launch", *WAVEGAN], MULTI_CPU, {}, ALONE),
        ([ACCELERATE, "launch", *WAVEGAN], MULTI_CPU, {"LOCAL_RANK": "0"}, ALONE),
        ([ACCELERATE, "launch", "--no_python", "bash", "SCRIPT"], MULTI_CPU, {}, ALONE),
        ([ACCELERATE, "launch", "--config_file", "PROFILE", *WAVEGAN], "", {}, ALONE),
        ([ACCELERATE, "launch", *WAVEGAN], INDUCTOR, {}, "ACCELERATE_DYNAMO_BACKEND=INDUCTOR"),
        ([ACCELERATE, "launch", *WAVEGAN], BF16, {}, "train.precision = fp32"),
        ([*PYTHON, *WAVEGAN], "", {"WORLD_SIZE": "2"}, "unset WORLD_SIZE"),
        ([*PYTHON, *WAVEGAN], "", {"WORLD_SIZE": ""}, "WORLD_SIZE='' is not a number"),
        ([*PYTHON, *WAVEGAN], "", {"SLURM_STEP_NUM_TASKS": "2"}, "srun asked for 2 processes but 1 take part"),
        ([*PYTHON, *WAVEGAN], "", {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "MASTER_ADDR is not set"),
        ([ACCELERATE, "launch", "--cpu", *MACHINES, *WAVEGAN], "", {}, ALONE),
        ([*PYTHON, *WAVEGAN], "", {"LOCAL_RANK": "0"}, "LOCAL_RANK is set, but MASTER_ADDR is not"),
        ([*PYTHON, *WAVEGAN], "", {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, "unset LOCAL_RANK, RANK and WORLD_SIZE"),
        ([*PYTHON, *WAVEGAN], "", {**GROUP, "MASTER_PORT": ""}, "MASTER_PORT='' is not a number"),
        ([*PYTHON, *WAVEGAN], "", {"MASTER_PORT": "tcp://10.0.0.1:80"}, "MASTER_PORT='tcp://10.0.0.1:80' is not a number"),
        ([*PYTHON, *WAVEGAN], "", {**GROUP, "MASTER_PORT": "99999"}, "MASTER_PORT=99999 is not a port"),
        ([*PYTHON, *WAVEGAN], "", {**GROUP, "MASTER_PORT": "0"}, "MASTER_PORT=0 is not a port"),
        ([*PYTHON, *WAVEGAN], "", {"ACCELERATE_USE_CPU": "maybe"}, "ACCELERATE_USE_CPU='maybe' is neither true nor false"),
    ],
)
def test_a_launch_that_cannot_be_honored_is_refused_in_one_line(tmp_path, config, words, profile, variables, reason):
    script = tmp_path / "train.sh"
    script.write_text(f'{sys.executable} -m wavegan_dist "$@" || exit $?\n')  # no exec: the shell stays between
    (tmp_path / "two.yaml").write_text(MULTI_CPU)
    files = {"SCRIPT": str(script), "PROFILE": str(tmp_path / "two.yaml")}
    outcome = start([files.get(word, word) for word in words], config, tmp_path, profile, **variables)
    assert outcome.returncode != 0
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("wavegan: ")]
    assert reason in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "profile", "expected"),
    [
        ("train.py", "{distributed_type: MULTI_GPU, num_processes: 2, use_cpu: true}", AccelerateLaunch(2, True)),
        ("--multi_gpu train.py", "{distributed_type: MULTI_CPU, num_processes: 2, use_cpu: true}", AccelerateLaunch(2, False)),
        ("--num_processes=4 train.py --num_processes 9", MULTI_CPU, AccelerateLaunch(4, True)),
        ("train.py --num_processes 9", "{distributed_type: MULTI_GPU, num_processes: 2}", AccelerateLaunch(2, False)),
        ("train.py", "{distributed_type: MULTI_CPU, num_machines: 3, use_cpu: true}", AccelerateLaunch(3, True)),
        ("--num_machines 2 --num_processes 16 train.py", MULTI_CPU, AccelerateLaunch(16, True)),
    ],
)
def test_options_and_config_file_combine_as_in_accelerate(tmp_path, options, profile, expected):
    (tmp_path / "profile.yaml").write_text(profile)
    words = ["--config_file", "profile.yaml", *options.split()]
    assert read_launch(launch_command_parser().parse_args(words), tmp_path) == expected


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        ([str(BIN / "torchrun"), "--standalone", "--nproc_per_node", "2"], {}),
        (
            [ACCELERATE, "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "PORT"],
            {"ACCELERATE_USE_CPU": "true"},
        ),
    ],
)
def test_a_launch_of_two_processes_trains_with_two(tmp_path, config, words, variables):
    port = free_port()
    outcome = start([port if word == "PORT" else word for word in [*words, *WAVEGAN]], config, tmp_path, **variables)
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["world_size"] == 2


def test_tasks_of_srun_that_set_the_variables_of_torch_train_together(tmp_path, config):
    run_ranks(2, *WAVEGAN, "train", "--config", config, "--run-dir", tmp_path / "run", SLURM_STEP_NUM_TASKS="2")
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["world_size"] == 2


def test_a_launch_of_one_process_trains_alone_beside_a_profile_that_it_does_not_read(tmp_path, config):
    outcome = start([ACCELERATE, "launch", "--cpu", *WAVEGAN], config, tmp_path, MULTI_CPU)
    assert outcome.returncode == 0, outcome.stderr
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["world_size"] == 1
    assert environment["kernels"].split(": ")[0] in ("C++", "reference")


def test_a_run_without_kernels_warns_and_records_why(tmp_path, config):
    outcome = start([*PYTHON, *WAVEGAN], config, tmp_path, WAVEGAN_KERNELS="reference")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr.count("the wavelet transform runs in plain PyTorch, which is slower: WAVEGAN_KERNELS=reference") == 1
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["kernels"] == "reference: WAVEGAN_KERNELS=reference"


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "missing"), [("0", "rank 1 is missing of the 2"), ("1", "rank 0 is missing of the 2")])
def test_a_rank_that_waits_says_who_is_missing(tmp_path, config, rank, missing):
    left_over = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [*PYTHON, *WAVEGAN, "train", "--config", str(config), "--run-dir", str(tmp_path / "run")]
    with (tmp_path / "log").open("w") as log:
        waiting = subprocess.Popen(command, env=environment(**left_over), stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while missing not in (tmp_path / "log").read_text():
            assert waiting.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        assert "unset WORLD_SIZE" in (tmp_path / "log").read_text()
    finally:
        os.killpg(waiting.pid, signal.SIGKILL)
        waiting.wait()


def test_a_port_in_use_is_reported_in_one_line(tmp_path, config):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        group = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        refused(start([*PYTHON, *WAVEGAN], config, tmp_path, **group), f"rank 0 cannot serve 127.0.0.1:{port}", exit_code=1)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("python /venv/bin/accelerate launch --cpu train.py", "--cpu train.py"),
        ("python /venv/bin/accelerate-launch --cpu train.py", "--cpu train.py"),
        ("python -m accelerate.commands.launch train.py", "train.py"),
        ("python -m accelerate.commands.accelerate_cli launch train.py", "train.py"),
        ("python /site-packages/accelerate/commands/launch.py train.py", "train.py"),
        ("python /venv/bin/accelerate test", None),
        ("python tool.py launch --num_processes 2", None),
        ("torchrun --nproc_per_node 2 train.py", None),
    ],
)
def test_each_spelling_of_accelerate_launch_is_found_and_nothing_else(command, arguments):
    assert launch_arguments(command.split()) == (None if arguments is None else arguments.split())


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (1, "accelerate launch")),
        ({"WORLD_SIZE": "8", "RANK": "3", "SLURM_STEP_NUM_TASKS": "2"}, (8, "WORLD_SIZE")),  # a launcher in each task of srun
        ({"WORLD_SIZE": "1", "RANK": "0", "SLURM_STEP_NUM_TASKS": "2"}, (1, "WORLD_SIZE")),  # torchrun of one in each task
        ({"WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "2"}, (2, "srun")),
        ({"LOCAL_RANK": "-1", "OMPI_COMM_WORLD_SIZE": "4"}, (4, "mpirun")),
        ({"PMI_SIZE": "4"}, (4, "mpirun")),
    ],
)
def test_the_number_of_processes_asked_for_is_read_from_each_launcher(monkeypatch, variables, expected):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert requested_world_size() == expected
    with pytest.raises(UsageError, match=f"{expected[1]} asked for {expected[0]} processes but 16 take part"):
        check_world_size(16, *expected)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true"),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER"),
        ("ACCELERATE_MIXED_PRECISION", "fp8"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
    ],
)
def test_a_setting_of_training_that_the_launcher_hands_over_is_refused(monkeypatch, variable, value):
    refuse_launcher_settings(TrainConfig())
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=variable):
        refuse_launcher_settings(TrainConfig())


def test_a_launcher_that_agrees_with_the_experiment_is_accepted(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    refuse_launcher_settings(TrainConfig(precision="bf16"))


def test_the_docs_decide_on_every_field_of_the_config_file_of_accelerate():
    rows = [line for line in (ROOT / "docs" / "launching.md").read_text().splitlines() if line.startswith("| `")]
    decided = {name for row in rows for name in row.split("|")[1].replace("`", "").replace(",", " ").split()}
    assert {field.name for field in fields(ClusterConfig)} <= decided
