"""Gradient penalties in training: equal under every strategy that allows them, lazy, exact on resume, and refused elsewhere."""

from pathlib import Path

import pytest
from torch import Tensor

from tests.helpers import run_ranks
from tests.train.trained import SCRIPT, distance, tensors

PENALIZED = "seed=2,optim.clip_norm=1.0,model.norm=none,model.attention=none,model.spectral_norm=false,loss.objective=relativistic,loss.r1=1,loss.r2=0.5"
LAZY = f"{PENALIZED},loss.penalty_interval=3,loss.gamma_final=0.1,loss.gamma_decay_kimg=0.2"
KINDS = {"exact": LAZY, "approximate": f"{LAZY},loss.penalty=approximate"}
TEN, FIVE = "train.total_kimg=0.32", "train.total_kimg=0.16"
ZERO = [("exact", name) for name in ("zero1", "zero2")] + [("approximate", name) for name in ("zero1", "zero2", "zero3")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config) -> Path:
    """Train ten steps with lazy penalties of each kind: in one process, in two under each strategy, and interrupted."""
    out = tmp_path_factory.mktemp("penalties")
    shard_all = out / "shard_all.json"
    shard_all.write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 0}}')
    legs = [f"{kind}_ddp:{settings},{TEN}" for kind, settings in KINDS.items()]
    for kind, strategy in ZERO:
        file = f",train.deepspeed={shard_all}" if strategy == "zero3" else ""
        legs.append(f"{kind}_{strategy}:{KINDS[kind]},{TEN},train.strategy={strategy}{file}")
    run_ranks(2, SCRIPT, out, config, *legs)
    legs = []
    for kind, settings in KINDS.items():
        legs += [
            f"{kind}_alone:{settings},{TEN}",
            f"{kind}_half:{settings},{FIVE}",
            f"{kind}_rest<{kind}_half:{settings},{TEN}",
        ]
        legs += [f"{kind}_compiled:{settings},{TEN},train.compile=default"]
    run_ranks(1, SCRIPT, out, config, *legs)
    return out


def learned(checkpoint: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint without the biases of the discriminators.

    The losses depend only on differences of logits, so the gradients of biases in the last layers can be rounding noise, from
    which Adam makes full steps.
    """
    everything = tensors(checkpoint).items()
    return {name: value for name, value in everything if not (name.startswith("discriminator.") and name.endswith("bias"))}


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(trained, kind):
    assert distance(learned(trained / f"{kind}_alone"), learned(trained / f"{kind}_ddp")) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_steps_with_and_without_penalties_equal_eager_ones(trained, kind):
    assert distance(learned(trained / f"{kind}_alone"), learned(trained / f"{kind}_compiled")) < 1e-5


@pytest.mark.parametrize(("kind", "strategy"), ZERO)
def test_every_strategy_equals_ddp(trained, kind, strategy):
    assert distance(learned(trained / f"{kind}_ddp"), learned(trained / f"{kind}_{strategy}")) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_equals_a_straight_one_bit_for_bit(trained, kind):
    assert distance(tensors(trained / f"{kind}_alone"), tensors(trained / f"{kind}_rest")) == 0


def test_the_two_kinds_train_differently(trained):
    assert distance(learned(trained / "exact_ddp"), learned(trained / "approximate_ddp")) > 1e-4
