"""Faults that users of DeepSpeed have reported: gradients that are lost, too small, or of the last micro-batch only."""

from pathlib import Path

import pytest

from tests.helpers import ROOT, run_ranks
from tests.train.trained import SCRIPT, distance, gradients, norms, tensors

pytestmark = pytest.mark.slow

PENALTIES = "model.norm=none,model.attention=none,model.spectral_norm=false,loss.r1=1,loss.r2=0.5"
BF16 = "seed=2,train.precision=bf16,optim.clip_norm=1.0,train.total_kimg=0.064"
CLIPPED = "seed=2,optim.clip_norm=0.05,train.total_kimg=0.064"
STRATEGIES = ("zero1", "zero2", "zero3")
OFFLOAD = '{"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}'
OVERLAP = ROOT / "launchers" / "deepspeed" / "zero2.json"


@pytest.fixture(scope="module")
def twice(tmp_path_factory, config) -> Path:
    """Train two steps in bf16 in which the discriminator is called twice, with and without penalties."""
    out = tmp_path_factory.mktemp("twice")
    legs = []
    for kind, settings in {"plain": BF16, "penalties": f"{BF16},{PENALTIES}"}.items():
        legs += [f"twice_{kind}_ddp:{settings}", f"lost_{kind}:{settings}"]
        legs += [f"twice_{kind}_{name}:{settings},train.strategy={name}" for name in ("zero1", "zero2")]
        legs += [f"twice_{kind}_overlap:{settings},train.strategy=zero2,train.deepspeed={OVERLAP}"]
    run_ranks(2, SCRIPT, out, config, *legs, f"twice_plain_zero3:{BF16},train.strategy=zero3")
    return out


CALLS = [(kind, name) for kind in ("plain", "penalties") for name in ("zero1", "zero2", "overlap")] + [("plain", "zero3")]


@pytest.mark.parametrize(("kind", "strategy"), CALLS)
def test_a_discriminator_called_twice_in_one_backward_has_the_gradients_of_ddp_in_bf16(twice, kind, strategy):
    ddp, zero = twice / f"twice_{kind}_ddp", twice / f"twice_{kind}_{strategy}"
    assert norms(zero) == pytest.approx(norms(ddp), rel=1e-2)
    assert distance(gradients(ddp), gradients(zero)) < 1e-2
    assert distance(tensors(ddp), tensors(zero)) < 1e-2


@pytest.mark.parametrize("kind", ["plain", "penalties"])
def test_the_loss_of_one_of_the_two_calls_would_be_noticed(twice, kind):
    ddp, lost = twice / f"twice_{kind}_ddp", twice / f"lost_{kind}"
    assert norms(lost) != pytest.approx(norms(ddp), rel=0.1)
    assert distance(gradients(ddp), gradients(lost)) > 0.1


@pytest.fixture(scope="module")
def clipped(tmp_path_factory, config) -> Path:
    """Train two steps with clipped gradients, with one and four micro-batches, with and without offload to the CPU."""
    out = tmp_path_factory.mktemp("clipped")
    (out / "offload.json").write_text(OFFLOAD)
    legs = [f"small:{CLIPPED}", f"last:{CLIPPED},train.accumulation=4"]
    for count in (1, 4):
        settings = f"{CLIPPED},train.accumulation={count}"
        legs += [f"ddp_{count}:{settings}"]
        for name in STRATEGIES:
            legs += [f"{name}_{count}:{settings},train.strategy={name}"]
            legs += [f"{name}offload_{count}:{settings},train.strategy={name},train.deepspeed={out}/offload.json"]
    run_ranks(2, SCRIPT, out, config, *legs)
    return out


@pytest.mark.parametrize("offload", ["", "offload"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_clipped_gradients_their_norms_and_the_weights_equal_those_of_ddp(clipped, strategy, accumulation, offload):
    ddp, zero = clipped / f"ddp_{accumulation}", clipped / f"{strategy}{offload}_{accumulation}"
    assert min(norms(ddp)) > 0.05  # the gradients are clipped
    assert norms(zero) == pytest.approx(norms(ddp), rel=1e-4)
    assert distance(gradients(ddp), gradients(zero)) < 1e-4
    assert distance(tensors(ddp), tensors(zero)) < 1e-4


def test_gradients_that_are_too_small_or_of_the_last_micro_batch_only_would_be_noticed(clipped):
    assert norms(clipped / "small") == pytest.approx([norm / 2 for norm in norms(clipped / "ddp_1")], rel=0.05)
    assert distance(gradients(clipped / "ddp_4"), gradients(clipped / "last")) > 0.1
