"""What training changes, and one step of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist import counted
from wavegan_dist.config import Experiment
from wavegan_dist.data import Index, flip
from wavegan_dist.images import from_uint8
from wavegan_dist.model import Ema, WaveletGenerator, hinge_d, hinge_g
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.model.losses import saturation
from wavegan_dist.model.norm import convert_sync_batchnorm
from wavegan_dist.train.engine import Engine
from wavegan_dist.train.metric_accumulator import MetricAccumulator
from wavegan_dist.train.strategy import engine_class

Losses = dict[str, Tensor]
Generator = Callable[[Tensor], Tensor]
Discriminator = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Phase:
    """One half of a step: whose weights move, and the loss of each discriminator network that moves them."""

    name: str
    engine: Engine
    losses: Callable[..., Losses]  # of the generator, the discriminator and a micro-batch


@dataclass(frozen=True)
class PhaseResult:
    """A phase that was run: on what, with which losses, and whether anything was not finite by then (float32 0 or 1)."""

    phase: Phase
    first: int  # image of the run at which the global batch begins
    micro_batches: list[tuple[Tensor, ...]]
    losses: Losses
    nonfinite: Tensor


class Trainer:
    """Two modules, each in an engine, the generator's average and `nimg`, the count of real images shown.

    Args:
        experiment: the settings.
        index: the data's index, for the standard deviations of its bands.
        accelerator: the processes; the modules live on its device, shared out among them as `train.strategy` says.
    """

    def __init__(self, experiment: Experiment, index: Index, accelerator: Accelerator) -> None:
        self.experiment, self.accelerator = experiment, accelerator
        self.nimg = 0
        self.rollbacks = 0
        with torch.random.fork_rng():
            torch.manual_seed(experiment.seed)
            generator, discriminator = build_generator(experiment), build_discriminator(experiment, index.band_std.model_dump())
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            generator = convert_sync_batchnorm(generator)
        engine, optim = engine_class(experiment.train), experiment.optim
        generator.to(accelerator.device).to(memory_format=torch.channels_last)
        ema = Ema(generator, experiment.ema.half_life_kimg * 1000, experiment.ema.rampup)
        self.generator = engine(generator, "generator", optim.lr_g, experiment, accelerator)
        self.discriminator = engine(discriminator, "discriminator", optim.lr_d, experiment, accelerator)
        self.ema = self.generator.make_ema(ema)
        self.d_phase = Phase("d", self.discriminator, self._d_losses)
        self.g_phase = Phase("g", self.generator, self._g_losses)
        self.phase_results: list[PhaseResult] = []
        self.metrics = MetricAccumulator(accelerator)

    def step(self, batches: Iterator[Tensor]) -> None:
        """Show `d_steps` local batches (uint8 [b, 3, R, R]) to the discriminators, then move the generators once.

        From the first loss or gradient on that is not finite, no weight moves any more; `moves` tells.
        """
        batch_size = self.experiment.train.batch_size
        self.phase_results = []
        for _ in range(self.experiment.train.d_steps):
            positions = self._positions()
            self._run_phase(self.d_phase, self._real(next(batches), positions), self._latents("latent/d", positions))
            self.nimg += batch_size
        self._run_phase(self.g_phase, self._latents("latent/g", positions))
        self.ema.update(self.nimg, batch_size * self.experiment.train.d_steps)
        self.metrics.step()

    @property
    def nonfinite(self) -> Tensor:
        """float32 0 or 1 on the device: whether the last step met a loss or a gradient that is not finite."""
        return self.phase_results[-1].nonfinite

    @property
    def real(self) -> Tensor:
        """This rank's last real batch: float32 [b, 3, R, R] in [-1, 1]."""
        move = next(move for move in reversed(self.phase_results) if move.phase is self.d_phase)
        return torch.cat([real for real, _ in move.micro_batches])

    def lam(self) -> float:
        """The generator's effective lam: a collective call."""
        assert isinstance(self.generator.module, WaveletGenerator)
        with self.generator.gathered_params():
            return self.generator.module.mix().item()

    @property
    def engines(self) -> tuple[Engine, Engine]:
        """The generator's and the discriminator's."""
        return self.generator, self.discriminator

    def _positions(self) -> range:
        """The image numbers of this process's share of the global batch that begins at `nimg`."""
        local = self.experiment.train.batch_size // self.accelerator.num_processes
        first = self.nimg + self.accelerator.process_index * local
        return range(first, first + local)

    def _latents(self, stream: str, positions: range) -> Tensor:
        stream += f"/{self.rollbacks}" if self.rollbacks else ""
        z = counted.normal(self.experiment.seed, stream, positions, self.experiment.model.z_dim)
        return z.to(self.accelerator.device, non_blocking=True)

    def _real(self, images_uint8: Tensor, positions: range) -> Tensor:
        images = images_uint8.to(self.accelerator.device, memory_format=torch.channels_last, non_blocking=True)
        if self.experiment.data.horizontal_flip:
            images = flip(images, counted.coin_flips(self.experiment.seed, "flip", positions).to(images.device))
        return from_uint8(images)

    def _d_losses(self, generator: Generator, discriminator: Discriminator, real: Tensor, z: Tensor) -> Losses:
        with torch.no_grad():
            fake = generator(z)
        logits = {name: both.chunk(2) for name, both in discriminator(torch.cat((real, fake))).items()}
        for name, (of_real, of_fake) in logits.items():
            self.metrics.add(f"watch/saturation_{name}", saturation(of_real, of_fake) / self.experiment.train.accumulation)
        return {name: hinge_d(*both) for name, both in logits.items()}

    def _g_losses(self, generator: Generator, discriminator: Discriminator, z: Tensor) -> Losses:
        return {name: hinge_g(fake) for name, fake in discriminator(generator(z)).items()}

    def _run_phase(self, phase: Phase, *inputs: Tensor) -> None:
        """One scalar and one backward for each micro-batch, then one step; the other module's parameters are frozen."""
        for engine in self.engines:
            engine.module.requires_grad_(engine is phase.engine)
        nets = [engine.forward if engine is phase.engine else engine.forward_frozen for engine in self.engines]
        count = self.experiment.train.accumulation
        micro_batches = list(zip(*(each.chunk(count) for each in inputs), strict=True))
        losses: Losses = {}
        for number, micro_batch in enumerate(micro_batches, start=1):
            with phase.engine.micro_batch(last=number == count):
                found = phase.losses(*nets, *micro_batch)
                phase.engine.backward(self.total(found) / count * self._go())
            losses = {name: losses.get(name, 0) + value.detach() / count for name, value in found.items()}
        norm = phase.engine.step()
        self.phase_results.append(
            PhaseResult(phase, self.nimg, micro_batches, losses, self._nonfinite_by_now(phase.engine, losses, norm))
        )
        for name, value in losses.items():
            self.metrics.add(f"loss/{phase.name}_{name}", value)
        self.metrics.add(f"grad_norm/{phase.name}", norm.nan_to_num(0, 0, 0))  # a step that fp16 skips counts as 0

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum of the networks' losses: the one scalar of a phase."""
        weights = self.experiment.loss.weights
        return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()

    def _go(self) -> Tensor | float:
        """1, or NaN once anything was not finite: a factor that keeps all that follows from moving, on the device."""
        return torch.where(self.nonfinite > 0, torch.nan, 1.0) if self.phase_results else 1.0

    def _nonfinite_by_now(self, engine: Engine, losses: Losses, norm: Tensor) -> Tensor:
        """Gradients are equal on all ranks, and one that is not finite anywhere is so everywhere: all decide alike."""
        fault = engine.scale.settle(1 - norm.isfinite().float())
        fault = fault.maximum(1 - self.total(losses).isfinite().float())
        return fault if not self.phase_results else fault.maximum(self.nonfinite)
