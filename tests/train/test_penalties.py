"""Gradient penalties in training: equal under every strategy that allows them, lazy, exact on resume, and refused elsewhere."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from tests.helpers import environment, points, run_ranks
from tests.train.tiny import make_trainer, random_batches
from tests.train.trained import SCRIPT, distance, tensors
from wavegan_dist import counted
from wavegan_dist.config import parse
from wavegan_dist.train.metric_accumulator import MetricAccumulator
from wavegan_dist.train.penalty_schedule import PenaltySchedule
from wavegan_dist.train.phase import MicroBatch

PENALIZED = (
    "optim.clip_norm=1.0,model.norm=none,model.attention=none,model.spectral_norm=false,"
    "loss.objective=relativistic,loss.r1=1,loss.r2=0.5"
)
LAZY = f"{PENALIZED},loss.penalty_interval=3,loss.gamma_final=0.1,loss.gamma_decay_kimg=0.2"
KINDS = {"exact": LAZY, "approximate": f"{LAZY},loss.penalty=approximate"}
TEN, FIVE = "train.total_kimg=0.32", "train.total_kimg=0.16"
SEEDS = (2, 3)
ZERO = [("exact", name) for name in ("zero1", "zero2")] + [("approximate", name) for name in ("zero1", "zero2", "zero3")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config) -> Path:
    """Train ten steps with lazy penalties of each kind: in one process, in two under each strategy, and interrupted."""
    out = tmp_path_factory.mktemp("penalties")
    shard_all = out / "shard_all.json"
    shard_all.write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 0}}')
    legs = [f"{kind}_ddp_{seed}:{settings},{TEN},seed={seed}" for kind, settings in KINDS.items() for seed in SEEDS]
    for kind, strategy in ZERO:
        file = f",train.deepspeed={shard_all}" if strategy == "zero3" else ""
        legs.append(f"{kind}_{strategy}:{KINDS[kind]},{TEN},seed=2,train.strategy={strategy}{file}")
    run_ranks(2, SCRIPT, out, config, *legs)
    legs = []
    for kind, settings in KINDS.items():
        legs += [f"{kind}_half:{settings},{FIVE},seed=2", f"{kind}_rest<{kind}_half:{settings},{TEN},seed=2"]
        for seed in SEEDS:
            legs += [f"{kind}_alone_{seed}:{settings},{TEN},seed={seed}"]
            legs += [f"{kind}_compiled_{seed}:{settings},{TEN},seed={seed},train.compile=default"]
    run_ranks(1, SCRIPT, out, config, *legs)
    return out


def learned(checkpoint: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint without the biases of the discriminators.

    The losses depend only on differences of logits, so the gradients of biases in the last layers can be rounding noise, from
    which Adam makes full steps.
    """
    everything = tensors(checkpoint).items()
    return {name: value for name, value in everything if not (name.startswith("discriminator.") and name.endswith("bias"))}


def smallest_distance(trained: Path, one: str, other: str) -> float:
    """Return the smaller distance of the two seeds.

    The slope of a leaky ReLU jumps at 0. If an activation is as close to 0 as float32 rounds, its slope depends on the order of
    sums, and the weights differ by some 1e-4. This is rare, and not the same for both seeds; an error would be.
    """
    return min(distance(learned(trained / f"{one}_{seed}"), learned(trained / f"{other}_{seed}")) for seed in SEEDS)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(trained, kind):
    assert smallest_distance(trained, f"{kind}_alone", f"{kind}_ddp") < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_steps_with_and_without_penalties_equal_eager_ones(trained, kind):
    assert smallest_distance(trained, f"{kind}_alone", f"{kind}_compiled") < 1e-5


@pytest.mark.parametrize(("kind", "strategy"), ZERO)
def test_every_strategy_equals_ddp(trained, kind, strategy):
    assert distance(learned(trained / f"{kind}_ddp_2"), learned(trained / f"{kind}_{strategy}")) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_equals_a_straight_one_bit_for_bit(trained, kind):
    assert distance(tensors(trained / f"{kind}_alone_2"), tensors(trained / f"{kind}_rest")) == 0


def test_the_two_kinds_train_differently(trained):
    assert smallest_distance(trained, "exact_ddp", "approximate_ddp") > 1e-4


def schedule(rank: int = 0, processes: int = 1, **loss: object) -> PenaltySchedule:
    """Return the schedule of one of several processes, with a global batch of 8."""
    tree = {"data": {"index": "none"}, "model": {"spectral_norm": False}, "train": {"batch_size": 8}, "loss": {"r1": 2, **loss}}
    accelerator: Any = SimpleNamespace(device=torch.device("cpu"), process_index=rank, num_processes=processes)
    return PenaltySchedule(parse(tree, "test"), accelerator)


def batch(size: int) -> MicroBatch:
    return MicroBatch(torch.zeros(size, 3, 4, 4), torch.zeros(size, 8))


def test_lazy_penalties_are_multiplied_by_their_interval_and_gamma_falls_along_a_cosine():
    lazy = schedule(penalty_interval=4, gamma_final=0.1, gamma_decay_kimg=0.128)
    due = {nimg: lazy.extend(batch(8), nimg, 0).penalty_factor for nimg in range(0, 200, 8)}
    assert [nimg for nimg, factor in due.items() if factor is not None] == list(range(0, 200, 32))
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * min(nimg / 128, 1))) / 2 for nimg in range(0, 200, 32)]
    assert [factor.item() / 4 for factor in due.values() if factor is not None] == pytest.approx(expected)


def test_noise_is_counted_and_does_not_depend_on_the_number_of_processes():
    alone = schedule(penalty="approximate").extend(batch(8), 64, 0).noise
    shared = [schedule(rank, 2, penalty="approximate").extend(batch(4), 64, 0).noise for rank in (0, 1)]
    assert alone is not None
    assert torch.equal(alone, torch.cat([part for part in shared if part is not None]))
    for nimg, rollbacks in ((72, 0), (64, 1)):
        other = schedule(penalty="approximate").extend(batch(8), nimg, rollbacks).noise
        assert other is not None
        assert not torch.isclose(alone, other).any(dim=(1, 2, 3)).all()
    assert alone.std().item() == pytest.approx(1, abs=0.1)
    for image, position in zip(alone, range(64, 72), strict=True):
        seed = int(counted.rng_at(0, "penalty", position).integers(2**63))
        assert torch.equal(image, torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)))


def test_a_penalty_counts_with_its_last_value_until_the_next_one_also_after_a_resume():
    steps = [{"loss": 1.0, "penalty": 4.0}, {"loss": 2.0}, {"loss": 3.0}, {"loss": 4.0, "penalty": 8.0}]
    straight, first, rest = (MetricAccumulator(Accelerator(cpu=True)) for _ in range(3))
    for accumulator, part in ((straight, steps), (first, steps[:2])):
        for step in part:
            accumulator.add_step({name: torch.tensor(value) for name, value in step.items()})
    rest.restore(first.state())
    for step in steps[2:]:
        rest.add_step({name: torch.tensor(value) for name, value in step.items()})
    assert straight.drain() == rest.drain() == {"loss": 2.5, "penalty": 5.0}


def test_a_value_that_comes_later_counts_for_the_steps_before_it() -> None:
    accumulator = MetricAccumulator(Accelerator(cpu=True))
    for step in ({"loss": 1.0, "z": 1.0}, {"loss": 2.0, "z": 3.0}, {"loss": 3.0, "penalty": 4.0, "z": 8.0}):
        accumulator.add_step({name: torch.tensor(value) for name, value in step.items()})
    assert accumulator.drain() == {"loss": 2.0, "penalty": 4.0, "z": 4.0}


def test_a_step_with_several_discriminator_phases_reports_their_mean() -> None:
    torch.manual_seed(0)
    trainer = make_trainer({"resolution": 32}, {"d_steps": 3}, loss={"objective": "relativistic"})
    trainer.step(random_batches())
    phases = [result.values for result in trainer.phase_results if result.engine is trainer.discriminator]
    expected = {name: sum(values[name].item() for values in phases) / 3 for name in phases[0]}
    reported = trainer.metrics.drain()
    assert {name: reported[name] for name in expected} == pytest.approx(expected)
    assert 0 <= reported["watch/pair_accuracy_low"] <= 1


def test_a_run_reports_penalties_and_a_non_finite_one_is_diagnosed(tmp_path, config):
    run, settings = tmp_path / "run", "model.spectral_norm=false loss.r1=1 loss.penalty_interval=7 train.report_kimg=0.032"
    arguments = [Path(__file__).parent / "poisoned.py", 224, 9, "train", "--config", config, "--run-dir", run]
    outcome = subprocess.run(
        [sys.executable, *map(str, arguments), *settings.split()],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
    assert outcome.returncode == 1
    assert "not finite at image 224 in the D phase: generator.high" in outcome.stderr
    assert "  R1 +0.0" in outcome.stderr
    assert "R2" not in outcome.stderr
    reported = [point["penalty/r1_image"] for point in points(run)]
    assert reported == 7 * [reported[0]]
