"""Counter-based random draws: every draw is a pure function of (seed, stream, position), so no RNG state is stored.

A stream is a name ("latent/d", "flip", ...). A position is usually an image number (`nimg`). A resumed run draws the same
numbers as an uninterrupted one, and the draws do not depend on how many processes share them. Based on Philox (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), which can start at any position.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def rng_at(seed: int, stream: str, position: int) -> np.random.Generator:
    """Return the NumPy random generator of one position of a stream.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        stream: name of the stream; different names give independent draws.
        position: 0 <= position < 2**64.
    """
    return next(rngs(seed, stream, [position]))


def rngs(seed: int, stream: str, positions: Iterable[int]) -> Iterator[np.random.Generator]:
    """Yield the NumPy random generator of each position, in the order of `positions`.

    Each item is the same object, set to the next position: draw from it before taking the next item. Creating a generator for
    each position would take several times as long.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        stream: name of the stream; different names give independent draws.
        positions: the positions, each 0 <= position < 2**64, in any order.
    """
    bits = np.random.Philox(key=np.array([seed, zlib.crc32(stream.encode())], dtype=np.uint64))
    generator, state = np.random.Generator(bits), bits.state
    counter = state["state"]["counter"]
    counter[:] = 0
    for position in positions:
        counter[3] = position
        bits.state = state
        yield generator


def normal(seed: int, stream: str, positions: range, dim: int) -> Tensor:
    """Draw one standard normal vector for each position: float32 [len(positions), dim] on the CPU.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        stream: name of the stream.
        positions: the positions, each 0 <= position < 2**64.
        dim: length of a vector.
    """
    vectors = np.empty((len(positions), dim), dtype=np.float32)
    for vector, rng in zip(vectors, rngs(seed, stream, positions), strict=True):
        rng.standard_normal(dtype=np.float32, out=vector)
    return torch.from_numpy(vectors)


def uniform(seed: int, stream: str, positions: range, dim: int) -> Tensor:
    """Draw a vector of uniform numbers in [0, 1) for each position: float32 [len(positions), dim] on the CPU."""
    vectors = np.empty((len(positions), dim), dtype=np.float32)
    for vector, rng in zip(vectors, rngs(seed, stream, positions), strict=True):
        rng.random(dtype=np.float32, out=vector)
    return torch.from_numpy(vectors)


def coin_flips(seed: int, stream: str, positions: range) -> Tensor:
    """Draw one fair coin flip for each position: bool [len(positions)] on the CPU."""
    return torch.tensor([rng.random() < 0.5 for rng in rngs(seed, stream, positions)], dtype=torch.bool)


def categories(seed: int, stream: str, positions: range, counts: Sequence[int]) -> Tensor:
    """Draw one category for each position, c with probability counts[c] / sum(counts): int64 [len(positions)] on the CPU.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        stream: name of the stream.
        positions: the positions, each 0 <= position < 2**64.
        counts: integers >= 0, not all 0.
    """
    ends = np.cumsum(np.asarray(counts, dtype=np.int64))
    tickets = [int(rng.integers(ends[-1])) for rng in rngs(seed, stream, positions)]
    return torch.from_numpy(np.searchsorted(ends, tickets, side="right").astype(np.int64))
