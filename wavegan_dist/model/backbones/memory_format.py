"""Fixes the memory format of custom operators' results: `torch.compile` relies on it, but convolution backends choose it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def formatted(result: Tensor, like: Tensor) -> Tensor:
    """Return `result` in the memory format of `like`: channels last if `like` is, else contiguous; both are 4D."""
    return result.contiguous(memory_format=_memory_format(like))


def empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an uninitialized tensor of a 4D shape with the dtype, device and memory format (as `formatted`) of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=_memory_format(like))


def _memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
