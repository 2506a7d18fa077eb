"""A trainer so small that a step takes milliseconds, and random batches for it."""

import itertools
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from bench_common import fake_index

from wavegan_dist.config import parse
from wavegan_dist.data import ImageBatch
from wavegan_dist.train.trainer import Trainer


def make_trainer(model: dict[str, object], train: dict[str, object], cpu: bool = True, **sections: object) -> Trainer:
    """Return a trainer with a batch size of 8 and these settings, on the CPU or on the first GPU."""
    tree = {"data": {"index": "none"}, "model": {"z_dim": 8, "width": 4, **model}, "train": {"batch_size": 8, **train}}
    tree |= sections
    return Trainer(parse(tree, "test"), fake_index(32), Accelerator(cpu=cpu))


def random_batches(batch_size: int = 8, classes: int = 0) -> Iterator[ImageBatch]:
    """Return an endless iterator over the same random batches of images of 32 px; with `classes`, they have labels."""
    generator = torch.Generator().manual_seed(0)
    for _ in itertools.count():
        images = torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8, generator=generator)
        yield ImageBatch(images, torch.randint(0, classes, (batch_size,), generator=generator) if classes else None)
