"""The patent's own configuration, configs/patent.yaml: later features do not change its training."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from bench_common import fake_index

from tests.train.tiny import random_batches
from wavegan_dist import config
from wavegan_dist.train.trainer import Trainer

CONFIG = Path(__file__).parents[2] / "configs/patent.yaml"
# Written by revision f325aff, before there were other backbones, objectives or levels, with width 16 and batch size 16: the
# losses and lam of 20 steps, then the mean and the root mean square of every weight. The difference between two processors was
# less than 1e-6.
EXPECTED = json.loads((Path(__file__).parent / "patent.json").read_text())


@pytest.fixture(scope="module")
def trained() -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """Losses and lam of 20 steps, and the mean and root mean square of every weight after them."""
    trainer = Trainer(config.load(CONFIG, ["model.width=16", "train.batch_size=16"]), fake_index(32), Accelerator(cpu=True))
    batches, steps = random_batches(16), []
    for _ in range(20):
        trainer.step(batches)
        values = {name: value.item() for result in trainer.phase_results for name, value in result.values.items()}
        steps.append({name: value for name, value in values.items() if name.startswith("loss/")} | {"lam": trainer.lam()})
    weights = {f"{engine.name}.{name}": weight for engine in trainer.engines for name, weight in engine.full_parameters()}
    rms = torch.linalg.vector_norm
    return steps, {name: [w.mean().item(), (rms(w) / w.numel() ** 0.5).item()] for name, w in weights.items()}


def test_the_first_20_steps_have_the_losses_of_before(trained):
    steps, _ = trained
    for number, (values, expected) in enumerate(zip(steps, EXPECTED["steps"], strict=True)):
        assert values == pytest.approx(expected, abs=1e-4), f"step {number}"


def test_the_weights_after_20_steps_are_those_of_before(trained):
    _, weights = trained
    assert weights.keys() == EXPECTED["weights"].keys()
    for name, moments in weights.items():
        assert moments == pytest.approx(EXPECTED["weights"][name], abs=1e-5), name
