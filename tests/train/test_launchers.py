"""The files in launchers/, each read by the library that it is written for."""

import json
import os
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed import run

from wavegan_dist.config import parse
from wavegan_dist.train.zero_settings import check_strategy, deepspeed_config

LAUNCHERS = Path(__file__).parents[2] / "launchers"


@pytest.mark.parametrize("file", sorted((LAUNCHERS / "accelerate").glob("*.yaml")), ids=lambda file: file.stem)
def test_accelerate_reads_its_profiles_and_none_brings_a_strategy_or_precision(file):
    profile = load_config_from_file(str(file))
    assert profile.distributed_type == "MULTI_GPU"
    assert profile.num_processes % profile.num_machines == 0
    assert not profile.deepspeed_config
    assert not profile.fsdp_config
    assert profile.mixed_precision == "no"


@pytest.mark.parametrize(("profile", "nodes", "on_each"), [("cpu2", 1, 2), ("gpu8", 1, 8), ("nodes", 4, 8)])
def test_accelerate_builds_a_launch_of_all_processes_from_its_profiles(monkeypatch, profile, nodes, on_each):
    built = []
    monkeypatch.setattr(run, "run", lambda arguments: built.append(run.config_from_args(arguments)))
    file = str(LAUNCHERS / "accelerate" / f"{profile}.yaml")
    train = ["-m", "wavegan_dist", "train", "--config", "configs/demo.yaml"]
    launch_command(launch_command_parser().parse_args(["--config_file", file, *train]))
    ((launch, _, command),) = built
    assert (launch.min_nodes, launch.max_nodes, launch.nproc_per_node) == (nodes, nodes, on_each)
    assert command[-len(train) :] == train


@pytest.mark.parametrize("file", sorted((LAUNCHERS / "deepspeed").glob("*.json")), ids=lambda file: file.stem)
def test_deepspeed_reads_our_settings_with_each_file(file):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig

    zero = json.loads(file.read_text())["zero_optimization"]
    train = {"strategy": f"zero{zero['stage']}", "deepspeed": str(file), "batch_size": 64, "accumulation": 2}
    experiment = parse({"data": {"index": "x"}, "train": train, "optim": {"clip_norm": 2.0}}, "test")
    check_strategy(experiment.train, world_size=8)
    config = DeepSpeedConfig(deepspeed_config(experiment, world_size=1))
    assert (config.train_batch_size, config.gradient_accumulation_steps, config.gradient_clipping) == (64, 2, 2.0)
    assert config.zero_optimization_stage == zero["stage"]
    assert not config.float16_config.enabled
    assert not config.bfloat16_config.enabled
    for key, value in zero.items():
        parsed = getattr(config.zero_config, key.removeprefix("stage3_"), None)
        if isinstance(value, bool | int):
            assert parsed == value, key
    assert bool(config.zero_config.offload_optimizer) == ("offload_optimizer" in zero)
