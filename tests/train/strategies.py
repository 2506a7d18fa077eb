"""Legs of training in one launch, each with its settings: `strategies.py OUT CONFIG NAME:key=value,... NAME<FROM:...`.

A leg goes on from the checkpoint OUT/FROM, or starts, runs to `train.total_kimg` and leaves the checkpoint OUT/NAME and
samples. A leg with the name of a mutation makes that mistake.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from wavegan_dist import config
from wavegan_dist.processes import leave
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer, load_checkpoint
from wavegan_dist.train.loop import load_index
from wavegan_dist.train.trainer import Trainer


def batches(trainer: Trainer) -> Iterator[torch.Tensor]:
    """This rank's share of global batches that do not depend on the number of processes."""
    accelerator, size = trainer.accelerator, trainer.experiment.train.batch_size
    while True:
        draws = torch.Generator().manual_seed(trainer.nimg)
        batch = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=draws)
        yield batch.chunk(accelerator.num_processes)[accelerator.process_index]


def stale_gradient(trainer: Trainer) -> None:
    """The discriminators are not frozen in the generators' phase: what that leaves goes into their next step."""
    trainer.discriminator.module.requires_grad_ = lambda _flag: None


def wrong_order(trainer: Trainer) -> None:
    """The generators move before the discriminators."""
    move, waiting = trainer._run_phase, []

    def swapped(phase, *inputs):
        if phase is trainer.d_phase:
            waiting.append(inputs)
        else:
            move(phase, *inputs)
            move(trainer.d_phase, *waiting.pop())

    trainer._run_phase = swapped


MUTATIONS = {"stale": stale_gradient, "order": wrong_order}


def run(leg: str, out: Path, config_file: Path) -> None:
    names, _, overrides = leg.partition(":")
    name, _, source = names.partition("<")
    experiment = config.load(config_file, overrides.split(","))
    accelerator = launch.init_accelerator(experiment.train)
    trainer = Trainer(experiment, load_index(experiment), accelerator)
    if source:
        load_checkpoint(out / source, trainer)
    MUTATIONS.get(name, lambda _: None)(trainer)
    images = batches(trainer)
    while trainer.nimg < experiment.train.total_kimg * 1000:
        trainer.step(images)
    assert trainer.nonfinite.item() == 0
    checkpointer = Checkpointer(trainer, dict)
    checkpointer.save(out / name)
    checkpointer.wait()
    save_samples(trainer, out / f"{name}.samples")


def save_samples(trainer: Trainer, path: Path) -> None:
    """What the average makes of fixed latents, lam, and the average as a snapshot has it."""
    lam = torch.tensor(trainer.lam())
    with trainer.ema.sampling() as generator:
        images = generator(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    average = {f"average.{name}": value.contiguous() for name, value in trainer.ema.iter_full_tensors()}
    if trainer.accelerator.is_main_process:
        save_file({"lam": lam, "images": images.contiguous(), **average}, path)


def main(out: Path, config_file: Path, legs: list[str]) -> None:
    for leg in legs:
        run(leg, out, config_file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    leave()
