"""A trainer so small that a step takes milliseconds, and random batches for it."""

import itertools
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist.config import parse
from wavegan_dist.data import Index
from wavegan_dist.data.index import BandStd, Shard
from wavegan_dist.train.trainer import Trainer


def make_trainer(model: dict[str, object], train: dict[str, object]) -> Trainer:
    """Return a trainer on the CPU with a batch size of 8 and these settings."""
    tree = {"data": {"index": "none"}, "model": {"z_dim": 8, "width": 4, **model}, "train": {"batch_size": 8, **train}}
    shard = Shard(file="none.tar", images=1, bytes=1, sha256="0" * 64)
    band_std = BandStd(low=1, lh=1, hl=1, hh=1)
    index = Index(size=32, count=1, encoding="png", band_std=band_std, members_sha256="0" * 64, shards=[shard])
    return Trainer(parse(tree, "test"), index, Accelerator(cpu=True))


def random_batches() -> Iterator[Tensor]:
    """Return an endless iterator over the same random batches, uint8 [8, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator) for _ in itertools.count())
