"""Trains several models one after another: `strategies.py OUT CONFIG NAME:key=value,... NAME<SOURCE:key=value,...`.

Each argument is a training with its own settings. It starts at image 0 or resumes from the checkpoint OUT/SOURCE, trains to
`train.total_kimg` and writes the checkpoint OUT/NAME and OUT/NAME.samples. A training named like one of `MUTATIONS` contains
that mistake.

With `train.compile`, the phases run as the graphs that PyTorch traces, but code is not generated: that takes minutes.
"""

import sys
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import torch
from safetensors.torch import save_file

from wavegan_dist import config
from wavegan_dist.data import ImageBatch
from wavegan_dist.processes import leave
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer, load_checkpoint
from wavegan_dist.train.loop import load_index
from wavegan_dist.train.trainer import Trainer

# DDP trains in channels-last memory and ZeRO does not. Convolutions of both then round differently on some processors.
torch.channels_last = torch.contiguous_format
torch.nn.Module.compile = partialmethod(torch.nn.Module.compile, backend="aot_eager")  # type: ignore[assignment]


def batches(trainer: Trainer) -> Iterator[ImageBatch]:
    """Yield this rank's part of global batches that do not depend on the number of processes."""
    accelerator, size = trainer.accelerator, trainer.experiment.train.batch_size
    classes = trainer.experiment.model.num_classes
    while True:
        draws = torch.Generator().manual_seed(trainer.nimg)
        batch = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=draws)
        labels = torch.randint(0, classes, (size,), generator=draws) if classes else None
        tensors = (None if part is None else part.chunk(accelerator.num_processes) for part in (batch, labels))
        yield ImageBatch(*(None if part is None else part[accelerator.process_index] for part in tensors))


def stale_gradient(trainer: Trainer) -> None:
    """Do not freeze the discriminators in the G phase: their gradients of that phase are added to their next step."""
    trainer.discriminator.requires_grad = lambda value: None


def wrong_order(trainer: Trainer) -> None:
    """Run the G phase before the D phase."""
    run_phase, d_inputs = trainer._run_phase, []

    def swapped(engine, *inputs):
        if engine is trainer.discriminator:
            d_inputs.append(inputs)
        else:
            run_phase(engine, *inputs)
            run_phase(trainer.discriminator, *d_inputs.pop())

    trainer._run_phase = swapped


MUTATIONS = {"stale": stale_gradient, "order": wrong_order}


def run(training: str, out: Path, config_file: Path) -> None:
    names, _, overrides = training.partition(":")
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
    """Write the EMA's samples of fixed latents, its tensors as a snapshot contains them, lam and the gradient's shares."""
    lam, shares = torch.tensor(trainer.lam()), torch.tensor(list(trainer.gradient_shares().values()))
    with trainer.ema.sampling() as generator:
        labels = torch.arange(4) % generator.num_classes if generator.num_classes else None
        images = generator(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), labels)
    ema = {f"average.{name}": value.contiguous() for name, value in trainer.ema.iter_full_tensors()}
    if trainer.accelerator.is_main_process:
        save_file({"lam": lam, "shares": shares, "images": images.contiguous(), **ema}, path)


def main(out: Path, config_file: Path, trainings: list[str]) -> None:
    for training in trainings:
        run(training, out, config_file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    leave()
