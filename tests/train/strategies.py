"""Twenty steps under each of several settings in one launch: `strategies.py OUT CONFIG NAME:key=value,... NAME:...`.

A name that begins with a mutation's makes that mistake. Rank 0 writes OUT/NAME.safetensors: weights and average by name.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from wavegan_dist import config
from wavegan_dist.train import launch
from wavegan_dist.train.loop import load_index
from wavegan_dist.train.trainer import Trainer

STEPS = 20


def batches(trainer: Trainer, first: int = 0) -> Iterator[torch.Tensor]:
    """This rank's share of global batches that do not depend on the number of processes."""
    accelerator = trainer.accelerator
    for number in range(first, 1000):
        draws = torch.Generator().manual_seed(number)
        size = (trainer.experiment.train.batch_size, 3, 32, 32)
        batch = torch.randint(0, 256, size, dtype=torch.uint8, generator=draws)
        yield batch.chunk(accelerator.num_processes)[accelerator.process_index]


def tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights and average, whole: a collective call."""
    named = [(f"{engine.name}.{name}", value) for engine in trainer.engines for name, value in engine.weights()]
    named += [(f"average.{name}", value) for name, value in trainer.average.in_turn()]
    return {name: value.detach().clone().contiguous() for name, value in named}


def stale_gradient(trainer: Trainer) -> None:
    """The discriminators are not frozen in the generators' phase: what that leaves goes into their next step."""
    trainer.discriminator.module.requires_grad_ = lambda _flag: None


def wrong_order(trainer: Trainer) -> None:
    """The generators move before the discriminators."""
    move, waiting = trainer._move, []

    def swapped(phase, *inputs):
        if phase is trainer.d_phase:
            waiting.append(inputs)
        else:
            move(phase, *inputs)
            move(trainer.d_phase, *waiting.pop())

    trainer._move = swapped


MUTATIONS = {"stale": stale_gradient, "order": wrong_order}


def main(out: Path, config_file: Path, variants: list[str]) -> None:
    accelerator = None
    for variant in variants:
        name, _, overrides = variant.partition(":")
        experiment = config.load(config_file, overrides.split(",") if overrides else [])
        accelerator = launch.start(experiment.train)
        trainer = Trainer(experiment, load_index(experiment), accelerator)
        MUTATIONS.get(name, lambda _: None)(trainer)
        source = batches(trainer)
        for _ in range(STEPS):
            trainer.step(source)
        assert trainer.nonfinite.item() == 0
        saved = tensors(trainer)
        if accelerator.is_main_process:
            save_file(saved, out / f"{name}.safetensors")
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
