"""What is counted is what the real step does."""

import pytest
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from wavegan_dist.config import parse
from wavegan_dist.data import Index
from wavegan_dist.model import hinge_d
from wavegan_dist.model.build import build_discriminator
from wavegan_dist.model.shapes import IMAGE_CHANNELS
from wavegan_dist.plan.count import Counts, Model, count
from wavegan_dist.train.trainer import Trainer

BASE = ["low", "high"]


def tree(**model):
    return {
        "data": {"index": "none"},
        "model": {"resolution": 32, "width": 8, "z_dim": 16, **model},
        "train": {"batch_size": 6},
    }


def convolutions(counts: Counts) -> list[float]:
    return [operator.flops for operator in counts.d.forward if operator.name == "aten::convolution"]


def test_convolutions_of_a_base_alone_equal_hand_computed_ones():
    """2 flops a tap: a transposed convolution spreads each input over 16 outputs, a convolution gathers 16 inputs."""
    alone = tree(base_only=True, attention="none")
    experiment = parse({**alone, "loss": {"weights": dict.fromkeys(BASE, 0)}}, "tests")
    _, counts = count(experiment, 2)
    width, z_dim, taps = 8, 16, 2 * 16
    generator = [
        taps * z_dim * 4 * width,  # 1x1 -> 4x4, of 4 * width channels
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
    image_gradient = 4 * discriminator[0]  # of the images themselves nothing is asked: no gradient of the first one's input
    assert backward == 2 * 4 * sum(discriminator) - image_gradient


# PyTorch's counter does not know the CPU's fused attention: 2 flops for each of 256 x 256 pairs of places and 4 + 4 channels,
# in both forwards and twice as many in the one backward.
UNCOUNTED = {"max": 0, "dot": 6 * 2 * 256 * 256 * (4 + 4) * 4}


@pytest.mark.parametrize("attention", ["max", "dot"])
def test_flops_equal_those_of_a_real_training_step(index: Index, attention):
    experiment = parse(tree(attention=attention), "tests")
    trainer = Trainer(experiment, index, Accelerator(cpu=True))
    images = torch.zeros(6, IMAGE_CHANNELS, 32, 32, dtype=torch.uint8)
    with FlopCounterMode(display=False) as real:
        trainer.step(iter([images]))
    assert Model(experiment).at(6).flops == pytest.approx(real.get_total_flops() + UNCOUNTED[attention])


def test_counts_of_any_batch_are_those_of_that_batch():
    experiment = parse(tree(), "tests")
    _, direct = count(experiment, 7)
    line = Model(experiment).at(7)
    for phase, expected in ((line.d, direct.d), (line.g, direct.g)):
        assert phase.forward == expected.forward
        assert phase.backward == expected.backward
        assert phase.saved_bytes == expected.saved_bytes


def test_saved_bytes_are_what_autograd_keeps_on_real_tensors():
    """The activations of a discriminator's phase, counted on a real one."""
    experiment = parse(tree(), "tests")
    _, counts = count(experiment, 16)
    discriminator = build_discriminator(experiment, {})
    weights = {parameter.untyped_storage().data_ptr() for parameter in discriminator.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = discriminator(torch.zeros(32, IMAGE_CHANNELS, 32, 32))
        torch.stack([hinge_d(*each.chunk(2)) for each in logits.values()]).sum()
    assert counts.d.saved_bytes == pytest.approx(sum(kept.values()), rel=0.02)


def test_bf16_counts_the_same_products_in_bf16_and_moves_fewer_bytes():
    full, half = (parse({**tree(), "train": {"precision": name}}, "tests") for name in ("fp32", "bf16"))
    (_, whole), (_, cast) = count(full, 64), count(half, 64)
    assert cast.flops == whole.flops
    assert {operator.precision for operator in cast.d.forward if operator.flops} == {"bf16"}
    assert cast.d.saved_bytes < whole.d.saved_bytes
