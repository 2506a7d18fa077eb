"""The counted operators are those of a real training step."""

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from wavegan_dist.config import parse
from wavegan_dist.data import ImageBatch, Index
from wavegan_dist.model import hinge_d
from wavegan_dist.model.build import build_discriminator
from wavegan_dist.model.shapes import IMAGE_CHANNELS
from wavegan_dist.plan.count import StepCounter, StepCounts, count_step
from wavegan_dist.train.trainer import Trainer

BRANCHES = ["low", "high"]


def tree(**model: object) -> dict[str, Any]:
    return {
        "data": {"index": "none"},
        "model": {"resolution": 32, "width": 8, "z_dim": 16, **model},
        "train": {"batch_size": 6},
    }


def convolutions(counts: StepCounts) -> list[float]:
    return [operator.flops for operator in counts.d.forward if operator.name in ("aten::convolution", "aten::mm")]


def test_convolutions_of_a_base_alone_equal_hand_computed_ones():
    """2 FLOPs for each of 16 kernel elements: at every input of a transposed convolution, at every output of a convolution."""
    alone = tree(base_only=True, attention="none")
    experiment = parse({**alone, "loss": {"weights": dict.fromkeys(BRANCHES, 0)}}, "tests")
    _, counts = count_step(experiment, 2)
    width, z_dim, taps = 8, 16, 2 * 16
    generator = [
        taps * z_dim * 4 * width,  # 1x1 -> 4x4, of 4 * width channels, as a matrix product
        taps * 4 * width * 2 * width * 4**2,
        taps * 2 * width * width * 8**2,
        taps * width * IMAGE_CHANNELS * 16**2,
    ]
    discriminator = [
        taps * IMAGE_CHANNELS * width * 16**2,
        taps * width * 2 * width * 8**2,
        taps * 2 * width * 4 * width * 4**2,
        taps * 4 * width,
    ]
    assert convolutions(counts) == [2 * flops for flops in generator] + [4 * flops for flops in discriminator]
    backward = sum(operator.flops for operator in counts.d.backward)
    image_gradient = 4 * discriminator[0]  # the images need no gradient, so the first layer computes none for its input
    assert backward == 2 * 4 * sum(discriminator) - image_gradient


@pytest.mark.parametrize("attention", ["max", "dot"])
def test_flops_equal_those_of_a_real_training_step(index: Index, attention):
    experiment = parse(tree(attention=attention), "tests")
    trainer = Trainer(experiment, index, Accelerator(cpu=True))
    images = torch.zeros(6, IMAGE_CHANNELS, 32, 32, dtype=torch.uint8)
    with FlopCounterMode(display=False) as real:
        trainer.step(iter([ImageBatch(images)]))
    assert StepCounter(experiment).counts(6).flops == pytest.approx(real.get_total_flops())


def test_fused_attention_has_two_products_forward_and_five_backward():
    """2 FLOPs for each pair of positions and channel; the backward also computes the forward's first product again."""
    forward, backward = (_flops_of_attention(requires_grad) for requires_grad in (False, True))
    product = 6 * 2 * 256 * 256 * 4
    assert (forward, backward - forward) == (2 * product, 5 * product)


def _flops_of_attention(requires_grad: bool) -> int:
    q, k, v = torch.randn(3, 6, 1, 256, 4).requires_grad_(requires_grad)
    with FlopCounterMode(display=False) as counter:
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        if requires_grad:
            y.sum().backward()
    return counter.get_total_flops()


def test_counts_of_any_batch_are_those_of_that_batch():
    experiment = parse(tree(), "tests")
    _, direct = count_step(experiment, 7)
    interpolated = StepCounter(experiment).counts(7)
    for phase, expected in ((interpolated.d, direct.d), (interpolated.g, direct.g)):
        assert phase.forward == expected.forward
        assert phase.backward == expected.backward
        assert phase.saved_bytes == expected.saved_bytes


def test_saved_bytes_are_what_autograd_keeps_on_real_tensors():
    """Compare the activations of a discriminator phase counted on fake tensors with those of a real phase."""
    experiment = parse(tree(), "tests")
    _, counts = count_step(experiment, 16)
    discriminator = build_discriminator(experiment, [])
    weights = {parameter.untyped_storage().data_ptr() for parameter in discriminator.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = discriminator(torch.zeros(32, IMAGE_CHANNELS, 32, 32))
        torch.stack([hinge_d(*both.chunk(2)) for both in logits.values()]).sum()
    assert counts.d.saved_bytes == pytest.approx(sum(saved.values()), rel=0.02)


def test_bf16_counts_the_same_products_in_bf16_and_moves_fewer_bytes():
    fp32, bf16 = (parse({**tree(), "train": {"precision": name}}, "tests") for name in ("fp32", "bf16"))
    (_, fp32_counts), (_, bf16_counts) = count_step(fp32, 64), count_step(bf16, 64)
    assert bf16_counts.flops == fp32_counts.flops
    assert {operator.precision for operator in bf16_counts.d.forward if operator.flops} == {"bf16"}
    assert bf16_counts.d.saved_bytes < fp32_counts.d.saved_bytes
