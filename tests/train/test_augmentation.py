"""Augmentation in training: the same draws everywhere, no effect at probability 0, and ADA's probability."""

from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.config import AugmentConfig, parse
from wavegan_dist.model.augment import augment
from wavegan_dist.model.losses import OBJECTIVES
from wavegan_dist.train.augment_probability import INTERVAL, AugmentProbability
from wavegan_dist.train.checkpoint import Checkpointer, load_checkpoint
from wavegan_dist.train.draws import DrawAhead, StepDraws
from wavegan_dist.train.trainer import Trainer

ON = {"probability": 0.8}
ADA = {"probability": 0.8, "ramp_kimg": 1, "target": 0.5}


def losses(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Train some steps and return all values of each but those of augmentation itself."""
    batches, values = random_batches(), []
    for _ in range(steps):
        trainer.step(batches)
        values.append({name: value for name, value in trainer.metrics.drain().items() if not name.startswith("augment/")})
    return values


def draws(processes: int, rank: int, nimg: int, rollbacks: int = 0, d_steps: int = 2) -> StepDraws:
    """Return what one rank draws for the step at image `nimg`, 16 images in all."""
    group: Any = SimpleNamespace(num_processes=processes, process_index=rank, device=torch.device("cpu"))
    tree = {"data": {"index": "none"}, "train": {"batch_size": 16, "d_steps": d_steps}, "augment": ON}
    return DrawAhead(parse(tree, "test"), group).take(nimg, rollbacks)


def augments(part: StepDraws) -> Tensor:
    assert part.augment_d is not None
    assert part.augment_g is not None
    return torch.cat((part.augment_d, part.augment_g[None]))


def test_two_processes_draw_what_one_draws_at_any_image():
    alone = augments(draws(1, 0, 4800))
    assert alone.shape[:2] == (3, 16)
    assert torch.equal(alone, torch.cat([augments(draws(2, rank, 4800)) for rank in range(2)], dim=1))
    assert torch.equal(alone[1], augments(draws(1, 0, 4816, d_steps=1))[0])  # by image, not by step
    assert not torch.equal(alone[1], alone[2])  # the generator's phase has numbers of its own
    assert not torch.equal(alone, augments(draws(1, 0, 4800, rollbacks=1)))


def test_probability_0_changes_no_bit():
    off = losses(make_trainer({}, {}), 3)
    assert losses(make_trainer({}, {}, augment={"probability": 0, "translation": 0.5}), 3) == off
    held_at_0 = make_trainer({}, {}, augment={**ADA, "target": 0.999})  # p cannot rise above its start, 0
    assert losses(held_at_0, 3) == off
    assert losses(make_trainer({}, {}, augment=ON), 3) != off


@pytest.mark.parametrize(("objective", "accumulation"), [("hinge", 1), ("hinge", 2), ("relativistic", 1)])
def test_both_phases_see_augmented_pairs(objective, accumulation):
    """Before its bands are taken, every image is augmented: real and generated ones by pairs, with the draw of their phase."""
    seen: list[Tensor] = []
    trainer = make_trainer({}, {"accumulation": accumulation}, augment=ON, loss={"objective": objective})
    network: Any = trainer.discriminator.module
    inputs = network.inputs

    def recording(images: Tensor, **options: bool) -> Any:
        seen.append(images.detach())
        return inputs(images, **options)

    network.inputs = recording
    generated: list[Tensor] = []
    trainer.generator.module.register_forward_hook(lambda _module, _inputs, images: generated.append(images.detach()))
    trainer.step(random_batches())
    pairs = [micro for result in trainer.phase_results for micro in result.micro_batches]
    expected: list[Tensor] = []
    for fake, micro in zip(generated, pairs, strict=True):
        assert micro.augment is not None
        real, fake = augment(micro.real, micro.augment), augment(fake, micro.augment)
        is_generator_phase = len(expected) >= accumulation
        together = [torch.cat((real, fake))] if not is_generator_phase else [real, fake] if objective != "hinge" else [fake]
        expected += together
    assert len(seen) == len(expected)
    for one, other in zip(seen, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_relativistic_discriminator_is_measured_by_pairs():
    real, fake = torch.tensor([5.0, 5.0, 5.0, 5.0]), torch.tensor([4.0, 6.0, 7.0, 8.0])
    assert OBJECTIVES["hinge"].overfitting(real, fake) == 1
    assert OBJECTIVES["relativistic"].overfitting(real, fake) == -0.5


def test_the_probability_rises_linearly_and_then_stays(monkeypatch):
    accelerator = make_trainer({}, {}).accelerator
    constant, ramp = (AugmentProbability(AugmentConfig(**each), accelerator) for each in (ON, {**ON, "ramp_kimg": 2}))
    assert [constant.at(nimg).item() for nimg in (0, 10**6)] == pytest.approx([0.8, 0.8])
    assert [ramp.at(nimg).item() for nimg in (0, 500, 2000, 10**6)] == pytest.approx([0, 0.2, 0.8, 0.8])


def adapted(shares: list[float], **settings: float) -> list[float]:
    """Return p after each step of 64 images with these shares of overfitting."""
    probability = AugmentProbability(AugmentConfig(**{**ADA, **settings}), make_trainer({}, {}).accelerator)
    values = []
    for step, share in enumerate(shares):
        probability.end_step([torch.tensor(share)], 64, step * 64, (step + 1) * 64)
        values.append(probability.at(0).item())
    return values


def test_ada_moves_p_at_fixed_images_towards_the_target_and_within_its_bounds():
    move = 0.8 * INTERVAL / 1000
    assert adapted([1.0] * 4) == pytest.approx([0, 0, 0, move])
    assert adapted([1.0] * 8)[-1] == pytest.approx(2 * move)
    assert adapted([0.0] * 4)[-1] == 0
    assert adapted([1.0] * 8 + [0.25] * 4)[-1] == pytest.approx(move)
    assert adapted([1.0, 1.0, 0.0, 0.0] * 2)[-1] == 0  # a share equal to the target moves nothing
    assert adapted([1.0] * 20)[-1] == pytest.approx(0.8)


def overfit(trainer: Trainer) -> None:
    """Make the discriminator of images call every image real."""
    for name, parameter in trainer.discriminator.module.named_parameters():
        if name.startswith("image.") and parameter.shape == (1,):  # the bias of the logit
            parameter.data.fill_(100)


def test_ada_augments_an_overfit_discriminator_and_resumes_between_two_adjustments(tmp_path):
    trainer = make_trainer({}, {}, augment=ADA)
    overfit(trainer)
    batches = random_batches()
    for step in range(INTERVAL // 8 + 3):
        assert trainer.augmentation.at(0).item() == (0 if step < INTERVAL // 8 else pytest.approx(0.8 * INTERVAL / 1000))
        trainer.step(batches)
    metrics = trainer.metrics.drain()
    assert metrics["augment/overfitting"] == 1
    checkpointer = Checkpointer(trainer, dict)
    checkpointer.save(tmp_path / "middle")
    checkpointer.wait()
    state = trainer.augmentation.state()
    assert state == {"p": pytest.approx(0.8 * INTERVAL / 1000), "signs": 24, "images": 24}
    resumed = make_trainer({}, {}, augment=ADA)
    load_checkpoint(tmp_path / "middle", resumed)
    assert resumed.augmentation.state() == state
    assert losses(resumed, 2) == losses(trainer, 2)


def test_p_and_the_share_of_overfitting_are_reported_as_means_over_steps_and_phases():
    trainer = make_trainer({}, {"d_steps": 2}, augment={**ON, "ramp_kimg": 0.032})
    batches = random_batches()
    trainer.step(batches)
    trainer.step(batches)
    metrics = trainer.metrics.drain()
    assert metrics["augment/p"] == pytest.approx(0.2)  # 0 at image 0, 0.4 at image 16
    assert -1 <= metrics["augment/overfitting"] <= 1
    assert "augment/p" not in make_trainer({}, {}).augmentation.values()


@pytest.mark.slow
def test_a_probability_that_changes_compiles_nothing_again(monkeypatch):
    """A compilation after the first step raises an error (`Trainer`)."""
    compiled = partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    torch._dynamo.reset()
    ramp = {**ON, "ramp_kimg": 0.016}
    eager = losses(make_trainer({"attention": "none"}, {}, augment=ramp), 4)
    graphs = losses(make_trainer({"attention": "none"}, {"compile": "default"}, augment=ramp), 4)
    torch._dynamo.reset()
    for one, other in zip(eager, graphs, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_augmented_training_in_mixed_precision_stays_near_that_in_float32(precision):
    half, full = (losses(make_trainer({}, {"precision": each}, augment=ON), 1)[0] for each in (precision, "fp32"))
    for name in half:
        if name.startswith("loss/"):
            assert half[name] == pytest.approx(full[name], abs=0.02)
