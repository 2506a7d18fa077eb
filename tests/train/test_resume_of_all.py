"""Interrupted runs equal straight ones under every strategy, with all features that have state or draw random numbers.

Augmentation with ADA, two EMAs and a schedule, first with the patent's model, then with labels, two levels, residual networks,
the relativistic objective and exact lazy penalties.
"""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers import run_ranks
from tests.train.trained import SCRIPT, distance, tensors

pytestmark = pytest.mark.slow

FEATURES = {
    "augment": {"probability": 0.8, "ramp_kimg": 0.5, "target": 0.1},
    "ema": {"half_life_kimg": [0.1, 0.03], "rampup": 0},
    "optim": {"clip_norm": 1.0, "lr_warmup_kimg": 0.1, "lr_decay": "cosine", "lr_decay_kimg": 0.6, "lr_final": 0.1},
}
REST = {
    "model": {
        **{"resolution": 32, "z_dim": 8, "width": 4, "levels": 2, "num_classes": 3},
        **{"backbone": "residual", "resample": "haar", "attention_at": [8]},
    },
    "loss": {"objective": "relativistic", "r1": 0.2, "r2": 0.1, "penalty_interval": 3},
}
STRAIGHT, HALF = "train.total_kimg=0.64", "train.total_kimg=0.384"  # half: between two adjustments of ADA, at 256 and 512


@pytest.fixture(scope="module")
def features(tmp_path_factory, config) -> Path:
    """Return the config of the tiny model with all of these features."""
    path = tmp_path_factory.mktemp("features") / "features.yaml"
    # As in test_strategies.py: with this seed, no gradient that is only rounding noise becomes a full-sized step.
    path.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **FEATURES, "seed": 1}))
    return path


@pytest.fixture(scope="module")
def one(tmp_path_factory, features) -> Path:
    """Train twenty steps in one process, straight and in two halves, and once without a schedule."""
    out = tmp_path_factory.mktemp("one")
    constant = "optim.lr_warmup_kimg=0,optim.lr_decay=constant,optim.lr_decay_kimg=null,optim.lr_final=0"
    legs = [f"straight:{STRAIGHT}", f"half:{HALF}", f"rest<half:{STRAIGHT}", f"constant:{STRAIGHT},{constant}"]
    run_ranks(1, SCRIPT, out, features, *legs)
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory, features) -> Path:
    """Train twenty steps in two processes: straight and in halves, under DDP, ZeRO-2 and ZeRO-3 and changing between them."""
    out = tmp_path_factory.mktemp("two")
    shard_all = out / "shard_all.json"
    shard_all.write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 0}}')
    zero2, zero3 = "train.strategy=zero2", f"train.strategy=zero3,train.deepspeed={shard_all}"
    legs = [f"straight:{STRAIGHT}", f"half:{HALF}", f"rest<half:{STRAIGHT}"]
    legs += ["first:train.total_kimg=0.192", f"second<first:{HALF},{zero2}", f"third<second:{STRAIGHT}"]
    legs += [f"{name}:{STRAIGHT},{strategy}" for name, strategy in (("zero2", zero2), ("zero3", zero3))]
    legs += [
        f"half3:{HALF},{zero3}",
        f"rest3<half3:{STRAIGHT},{zero3}",
        f"half2:{HALF},{zero2}",
        f"rest2<half2:{STRAIGHT},{zero2}",
    ]
    run_ranks(2, SCRIPT, out, features, *legs)
    return out


@pytest.fixture(scope="module")
def everything(tmp_path_factory, features) -> dict[int, Path]:
    """Train twenty steps with every feature in one and in two processes, straight and in parts; returns the folders."""
    folder = tmp_path_factory.mktemp("everything")
    config = folder / "everything.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(features.read_text()), **REST}))
    legs = [f"straight:{STRAIGHT}", f"half:{HALF}", f"rest<half:{STRAIGHT}"]
    run_ranks(1, SCRIPT, folder / "1", config, *legs)
    legs += ["first:train.total_kimg=0.192", f"second<first:{HALF},train.strategy=zero2", f"third<second:{STRAIGHT}"]
    run_ranks(2, SCRIPT, folder / "2", config, *legs)
    return {processes: folder / str(processes) for processes in (1, 2)}


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_run_with_every_feature_equals_a_straight_one_bit_for_bit(everything, processes):
    out = everything[processes]
    assert distance(tensors(out / "straight"), tensors(out / "rest")) == 0
    assert distance(load_file(out / "straight.samples"), load_file(out / "rest.samples")) == 0
    assert augmentation(out / "straight") == augmentation(out / "rest")


def test_a_run_with_every_feature_that_changes_strategy_equals_ddps(everything):
    straight, third = (without_biases(tensors(everything[2] / name)) for name in ("straight", "third"))
    assert distance(straight, third) < 1e-5


def test_one_process_and_two_train_alike_with_every_feature(everything):
    one, two = (without_biases(tensors(everything[processes] / "straight")) for processes in (1, 2))
    assert distance(one, two) < 1e-3


def without_biases(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out biases of discriminators: the relativistic loss does not depend on some, whose gradients are rounding noise."""
    return {name: value for name, value in found.items() if not (name.startswith("discriminator") and name.endswith("bias"))}


def augmentation(checkpoint: Path) -> dict[str, float]:
    state: dict[str, float] = json.loads((checkpoint / "state.json").read_text())["augment"]
    return state


def test_an_interrupted_run_in_one_process_equals_a_straight_one_bit_for_bit(one):
    assert distance(tensors(one / "straight"), tensors(one / "rest")) == 0
    assert augmentation(one / "straight") == augmentation(one / "rest")
    assert augmentation(one / "straight")["p"] > 0
    assert {"ema.lam", "ema-0000.03.lam"} <= tensors(one / "straight").keys()


@pytest.mark.parametrize(("straight", "rest"), [("straight", "rest"), ("zero2", "rest2"), ("zero3", "rest3")])
def test_an_interrupted_run_in_two_processes_equals_a_straight_one_bit_for_bit(two, straight, rest):
    assert distance(tensors(two / straight), tensors(two / rest)) == 0
    assert distance(load_file(two / f"{straight}.samples"), load_file(two / f"{rest}.samples")) == 0
    assert augmentation(two / straight) == augmentation(two / rest)


@pytest.mark.parametrize("other", ["zero2", "zero3", "third"])
def test_sharded_runs_and_runs_that_change_strategy_equal_ddps(two, other):
    assert distance(tensors(two / "straight"), tensors(two / other)) < 1e-5
    assert augmentation(two / "straight") == augmentation(two / other)


def test_one_process_and_two_train_alike(one, two):
    assert distance(tensors(one / "straight"), tensors(two / "straight")) < 1e-3
    assert augmentation(one / "straight") == augmentation(two / "straight")


def test_a_schedule_that_was_not_followed_would_be_noticed(one):
    assert distance(tensors(one / "straight"), tensors(one / "constant")) > 1e-2
