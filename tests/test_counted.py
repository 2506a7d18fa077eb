"""Counted draws equal those of a new Philox generator for each position, in any order and in any batch."""

import zlib

import numpy as np
import pytest
import torch

from wavegan_dist import counted


def new_generator(seed: int, stream: str, position: int) -> np.random.Generator:
    key = np.array([seed, zlib.crc32(stream.encode())], dtype=np.uint64)
    counter = np.array([0, 0, 0, position], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@pytest.mark.parametrize("dim", [1, 7, 128])  # an odd number of 32-bit draws leaves half of a 64-bit one over
@pytest.mark.parametrize(("seed", "first"), [(0, 0), (3, 1000), (2**64 - 1, 2**64 - 5)])
def test_draws_are_those_of_a_new_generator_for_each_position(seed: int, first: int, dim: int) -> None:
    positions = range(first, first + 5)
    generators = [new_generator(seed, "latent/d", position) for position in positions]
    expected = np.stack([generator.standard_normal(dim, dtype=np.float32) for generator in generators])
    assert np.array_equal(counted.normal(seed, "latent/d", positions, dim).numpy(), expected)
    generators = [new_generator(seed, "augment", position) for position in positions]
    expected = np.stack([generator.random(dim, dtype=np.float32) for generator in generators])
    assert np.array_equal(counted.uniform(seed, "augment", positions, dim).numpy(), expected)


def test_flips_and_categories_are_those_of_a_new_generator_for_each_position() -> None:
    positions = range(50)
    flips = [new_generator(1, "flip", position).random() < 0.5 for position in positions]
    assert torch.equal(counted.coin_flips(1, "flip", positions), torch.tensor(flips))
    tickets = [int(new_generator(1, "class", position).integers(4)) for position in positions]
    assert counted.categories(1, "class", positions, [1, 0, 3]).tolist() == [0 if ticket < 1 else 2 for ticket in tickets]
