"""Trains several models one after another: `strategies.py OUT CONFIG NAME:key=value,... NAME<SOURCE:key=value,...`.

Each argument is a training with its own settings. It starts at image 0 or resumes from the checkpoint OUT/SOURCE, trains to
`train.total_kimg` and writes the checkpoint OUT/NAME, OUT/NAME.samples and OUT/NAME.norms, the norms of the gradients in each
step. If the first word of NAME (up to `_`) is one of `CHANGES`, the training is changed in this way.

With `train.compile`, the phases run as the graphs that PyTorch traces, but code is not generated: that takes minutes.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

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


def two_calls(trainer: Trainer, lost: bool = False) -> None:
    """Call the discriminator twice in each discriminator phase, on real and on generated images, instead of once on both.

    With `lost`, the gradient of the second call is missing.
    """
    phase: Any = trainer.discriminator.phase
    call = phase._logits

    def logits(inputs, labels):
        assert labels is None
        halves = [call({name: [tensor.chunk(2)[half] for tensor in inputs[name]] for name in inputs}, None) for half in (0, 1)]
        second = {name: value.detach() if lost else value for name, value in halves[1].items()}
        return {name: torch.cat((value, second[name])) for name, value in halves[0].items()}

    phase._logits = logits


def one_call_lost(trainer: Trainer) -> None:
    """Call the discriminator twice, and lose the gradient of the second call."""
    two_calls(trainer, lost=True)


def small_gradient(trainer: Trainer) -> None:
    """Halve all gradients, which Adam does not notice."""
    for engine in trainer.engines:

        def backward(loss, full=engine.backward):
            full(loss / 2)

        engine.backward = backward


def only_last(trainer: Trainer) -> None:
    """Lose the gradients of all micro-batches but the last."""
    for engine in trainer.engines:

        @contextmanager
        def micro_batch(last, engine=engine, context=engine.micro_batch):
            if last:
                engine.optimizer.zero_grad(set_to_none=False)
            with context(last):
                yield

        engine.micro_batch = micro_batch


CHANGES = {
    "stale": stale_gradient,
    "order": wrong_order,
    "twice": two_calls,
    "lost": one_call_lost,
    "small": small_gradient,
    "last": only_last,
}


def run(training: str, out: Path, config_file: Path) -> None:
    names, _, overrides = training.partition(":")
    name, _, source = names.partition("<")
    experiment = config.load(config_file, overrides.split(","))
    accelerator = launch.init_accelerator(experiment.train)
    trainer = Trainer(experiment, load_index(experiment), accelerator)
    if source:
        load_checkpoint(out / source, trainer)
    CHANGES.get(name.partition("_")[0], lambda _: None)(trainer)
    images, norms = batches(trainer), []
    while trainer.nimg < experiment.train.total_kimg * 1000:
        trainer.step(images)
        norms.append({key: value.item() for each in trainer.phase_results for key, value in each.values.items()})
    assert trainer.nonfinite.item() == 0
    checkpointer = Checkpointer(trainer, dict)
    checkpointer.save(out / name)
    checkpointer.wait()
    save_samples(trainer, out / f"{name}.samples")
    if accelerator.is_main_process:
        (out / f"{name}.norms").write_text(json.dumps(norms))


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
