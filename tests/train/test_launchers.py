"""The launchers' files, each read by the library that it is for."""

import json
import os
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from wavegan_dist.config import parse
from wavegan_dist.train.zero_settings import check, settings

LAUNCHERS = Path(__file__).parents[2] / "launchers"


@pytest.mark.parametrize("file", sorted((LAUNCHERS / "accelerate").glob("*.yaml")), ids=lambda file: file.stem)
def test_accelerate_reads_its_profiles_and_none_brings_a_strategy_or_precision(file):
    profile = load_config_from_file(str(file))
    assert profile.distributed_type == "MULTI_GPU"
    assert profile.num_processes % profile.num_machines == 0
    assert not profile.deepspeed_config
    assert not profile.fsdp_config
    assert profile.mixed_precision == "no"


@pytest.mark.parametrize("file", sorted((LAUNCHERS / "deepspeed").glob("*.json")), ids=lambda file: file.stem)
def test_deepspeed_reads_our_settings_with_each_file(file):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig

    told = json.loads(file.read_text())["zero_optimization"]
    train = {"strategy": f"zero{told['stage']}", "deepspeed": str(file), "batch_size": 64, "accumulation": 2}
    experiment = parse({"data": {"index": "x"}, "train": train, "optim": {"clip_norm": 2.0}}, "test")
    check(experiment.train, processes=8)
    config = DeepSpeedConfig(settings(experiment, processes=1))
    assert (config.train_batch_size, config.gradient_accumulation_steps, config.gradient_clipping) == (64, 2, 2.0)
    assert config.zero_optimization_stage == told["stage"]
    assert not config.float16_config.enabled
    assert not config.bfloat16_config.enabled
    for key, value in told.items():
        held = getattr(config.zero_config, key.removeprefix("stage3_"), None)
        if isinstance(value, bool | int):
            assert held == value, key
    assert bool(config.zero_config.offload_optimizer) == ("offload_optimizer" in told)
