"""Compiled phases that differentiate twice, with generated code: right gradients, and the diagnosis of a NaN."""

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters
from torch._functorch import config as functorch_config

from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.train.diagnosis import diagnose
from wavegan_dist.train.phase import compile_phase
from wavegan_dist.train.trainer import Trainer

pytestmark = pytest.mark.slow

# One discriminator network: each kernel takes a second to compile.
MODEL: dict[str, object] = {"attention": "none", "norm": "none", "spectral_norm": False}
LOSS = {"weights": {"low": 0, "high": 0}, "r1": 1, "r2": 0.5}


def values(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Train some steps and return the losses, penalties and norms of the gradients of each."""
    source, seen = random_batches(), []
    for _ in range(steps):
        trainer.step(source)
        seen.append({name: value.item() for result in trainer.phase_results for name, value in result.values.items()})
    return seen


@pytest.fixture(scope="module")
def compiled() -> Iterator[tuple[Trainer, list[dict[str, float]]]]:
    """Return a trainer whose discriminator phase, with exact penalties, is compiled, and the values of its first four steps.

    The phase may donate buffers to its backward.
    """
    assert functorch_config.donated_buffer
    torch._dynamo.reset()
    counters.clear()
    trainer = make_trainer(MODEL, {}, loss=LOSS)
    compile_phase(trainer.discriminator.phase, "default")
    first = values(trainer, 4)
    assert counters["stats"]["unique_graphs"] == 1
    yield trainer, first
    torch._dynamo.reset()


def test_compiled_exact_penalties_have_the_gradients_of_eager_ones(compiled):
    eager = values(make_trainer(MODEL, {}, loss=LOSS), 4)
    assert all(step["penalty/r1_image"] > 0 and step["penalty/r2_image"] > 0 for step in eager)
    for one, other in zip(compiled[1], eager, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("network", ["discriminator.image", "generator.high"])
def test_a_number_that_is_not_finite_in_a_compiled_phase_is_diagnosed(compiled, network, tmp_path):
    trainer, _ = compiled
    trainer.step(random_batches())
    assert trainer.nonfinite.item() == 0
    side, name = network.split(".")
    weights = getattr(getattr(trainer, side).module, name).parameters()
    weight = next(one for one in weights if one.dim() == 4)
    good = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0, 0, 0] = torch.nan
    trainer.step(random_batches())
    assert trainer.nonfinite.item() == 1
    error = str(diagnose(trainer, tmp_path / "report", lambda first: [f"key {first}"]))
    assert f"in the D phase: {network}, weight {network}." in error
    with torch.no_grad():
        weight.copy_(good)
    trainer.step(random_batches())
    assert trainer.nonfinite.item() == 0
