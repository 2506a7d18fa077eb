"""Randomness that is counted, not stored: every draw is a pure function of (seed, stream, position).

A stream is a name ("latent/d", "flip", ...); a position is usually the number of images seen (`nimg`). Nothing has to be
saved to continue a run, and the draws do not depend on how many processes share them. Philox is counter-based
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so each position costs a few microseconds.
"""

import zlib

import numpy as np
import torch
from torch import Tensor


def rng_at(seed: int, stream: str, position: int) -> np.random.Generator:
    """The NumPy generator of one position of one stream."""
    key = np.array([seed, zlib.crc32(stream.encode())], dtype=np.uint64)
    counter = np.array([0, 0, 0, position], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def normal(seed: int, stream: str, positions: range, dim: int) -> Tensor:
    """Standard normal vectors, one for each position: float32 [len(positions), dim] on the CPU."""
    rows = np.empty((len(positions), dim), dtype=np.float32)
    for row, position in zip(rows, positions, strict=True):
        rng_at(seed, stream, position).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(rows)


def coin_flips(seed: int, stream: str, positions: range) -> Tensor:
    """Fair coin flips, one for each position: bool [len(positions)] on the CPU."""
    flips = [rng_at(seed, stream, position).random() < 0.5 for position in positions]
    return torch.tensor(flips, dtype=torch.bool)
