"""Injects a NaN into one network at a time, on rank 1 of 2, and diagnoses it.

`inject.py OUT CONFIG FOLDER NETWORK KINDS KEY=VALUE...`, where NETWORK is the name of a network, or `all`.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch

from wavegan_dist import config
from wavegan_dist.data import ImageBatch
from wavegan_dist.processes import leave
from wavegan_dist.train import launch
from wavegan_dist.train.diagnosis import diagnose
from wavegan_dist.train.loop import load_index
from wavegan_dist.train.trainer import Trainer

NETWORKS = [
    f"{side}.{name}"
    for side, names in (("generator", "base low high"), ("discriminator", "image low high"))
    for name in names.split()
]


def poison(trainer: Trainer, network: str, kind: str) -> None:
    """Put a NaN into the weight, every output or every weight gradient of the network's second convolution."""
    side, name = network.split(".")
    root = trainer.generator.module if side == "generator" else trainer.discriminator.module
    convolutions = [m for m in getattr(root, name).modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    layer: Any = convolutions[1]
    weight = layer.parametrizations.weight.original if side == "discriminator" else layer.weight
    if kind == "weight":
        weight.data[0, 0, 0, 0] = torch.nan
    elif kind == "output":
        layer.register_forward_hook(lambda _module, _inputs, output: output.index_fill(0, torch.tensor([0]), torch.nan))
    else:
        weight.requires_grad_().register_hook(lambda gradient: gradient * torch.nan)


def flat_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return all weights of each module as one vector, by the module's first letter: a collective call."""
    return {
        engine.name[0]: torch.cat([value.detach().nan_to_num().flatten() for _, value in engine.full_parameters()])
        for engine in trainer.engines
    }


def main(out: str, config_file: str, folder: str, chosen: str, kinds: str, *overrides: str) -> None:
    experiment = config.load(Path(config_file), overrides)
    accelerator = launch.init_accelerator(experiment.train)
    index, rank = load_index(experiment), accelerator.process_index
    draws = torch.Generator().manual_seed(rank)
    images = (torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=draws) for _ in itertools.count())
    batches = map(ImageBatch, images)
    records = []
    for network, kind in itertools.product(NETWORKS if chosen == "all" else [chosen], kinds.split(",")):
        trainer = Trainer(experiment, index, accelerator)
        trainer.step(batches)
        trainer.step(batches)
        assert trainer.nonfinite.item() == 0
        if rank == 1:
            poison(trainer, network, kind)
        before = flat_weights(trainer)
        trainer.step(batches)
        moved = {phase: not torch.equal(before[phase], weights) for phase, weights in flat_weights(trainer).items()}
        nonfinite = trainer.nonfinite.item()
        error = diagnose(trainer, Path(folder) / f"{network}-{kind}", lambda first: [f"key {first}"])
        records.append({"network": network, "kind": kind, "nonfinite": nonfinite, "moved": moved, "error": str(error)})
    Path(f"{out}.{rank}").write_text(json.dumps(records))


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave()
