"""Snapshots whose generators show what they were called with."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from wavegan_dist.classes import Classes
from wavegan_dist.model.snapshot import Snapshot

CLASSES = Classes([500, 300, 200], ["ant", "bee", "cat"])


class Gray(nn.Module):
    """Makes gray images, and calls `each` with the number of images made so far before it makes more."""

    def __init__(self, each: Callable[[int], None]) -> None:
        super().__init__()
        self.made, self.each = 0, each

    def forward(self, z: Tensor) -> Tensor:
        self.each(self.made)
        self.made += len(z)
        return torch.zeros(len(z), 3, 32, 32)


class Flat(nn.Module):
    """Makes images of one color: class c has gray level 100 * c."""

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return (100 * labels[:, None, None, None] / 127.5 - 1).expand(-1, 3, 32, 32)


class Color(nn.Module):
    """Makes images of one color, which shows the first three components of the latent."""

    def forward(self, z: Tensor) -> Tensor:
        return (z[:, :3, None, None] / 4).expand(-1, -1, 32, 32)


def colored(snapshot: Snapshot) -> Snapshot:
    """The snapshot with a `Color` generator."""
    return replace(snapshot, generator=Color())  # type: ignore[arg-type]


def gray(snapshot: Snapshot, each: Callable[[int], None]) -> Snapshot:
    """The snapshot with a `Gray` generator."""
    return replace(snapshot, generator=Gray(each))  # type: ignore[arg-type]


def conditional(snapshot: Snapshot) -> Snapshot:
    """The snapshot with three classes and a generator that shows the class of each image."""
    return replace(snapshot, generator=Flat(), classes=CLASSES)  # type: ignore[arg-type]
