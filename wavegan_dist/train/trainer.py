"""The training state and one step of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from wavegan_dist import counted
from wavegan_dist.config import Experiment
from wavegan_dist.data import Index, flip
from wavegan_dist.images import from_uint8
from wavegan_dist.model import Ema, WaveletGenerator
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.model.lockstep import convert_to_lockstep
from wavegan_dist.model.losses import Discriminator, Generator, Losses, discriminator_losses, generator_losses, saturation
from wavegan_dist.train.engine import Engine
from wavegan_dist.train.metric_accumulator import MetricAccumulator
from wavegan_dist.train.strategy import engine_class


@dataclass(frozen=True)
class Phase:
    """One half of a step, in which one module trains and the other is frozen.

    Args:
        name: "d" or "g".
        engine: the engine of the module that trains.
        compute_losses: maps (generator, discriminator, *micro_batch) to the loss from each discriminator network.
    """

    name: str
    engine: Engine
    compute_losses: Callable[..., Losses]


@dataclass(frozen=True)
class PhaseResult:
    """A phase that has run, with all that is needed to run it again.

    Args:
        phase: the phase.
        first_nimg: image number at which the phase's global batch begins.
        micro_batches: this rank's inputs to `phase.compute_losses`, a tuple for each micro-batch.
        losses: loss from each discriminator network, the mean over micro-batches.
        nonfinite: float32 scalar, 1 if a loss or gradient of this or an earlier phase of the step was not finite, else 0.
    """

    phase: Phase
    first_nimg: int
    micro_batches: list[tuple[Tensor, ...]]
    losses: Losses
    nonfinite: Tensor


class Trainer:
    """Generator and discriminator, each in an engine, the generator's EMA, and `nimg`, the number of real images shown.

    Args:
        experiment: the settings.
        index: the data set's index, for the standard deviation of each wavelet band.
        accelerator: the process group. Modules are on its device, replicated or sharded according to `train.strategy`.
    """

    def __init__(self, experiment: Experiment, index: Index, accelerator: Accelerator) -> None:
        self.experiment, self.accelerator = experiment, accelerator
        self.nimg = 0
        self.rollbacks = 0
        with torch.random.fork_rng():
            torch.manual_seed(experiment.seed)
            generator, discriminator = build_generator(experiment), build_discriminator(experiment, index.band_std.model_dump())
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            generator = nn.SyncBatchNorm.convert_sync_batchnorm(generator)
        elif accelerator.num_processes > 1:
            convert_to_lockstep(generator)
        engine, optim = engine_class(experiment.train), experiment.optim
        generator.to(accelerator.device).to(memory_format=torch.channels_last)
        ema = Ema(generator, experiment.ema.half_life_kimg * 1000, experiment.ema.rampup)
        self.generator = engine(generator, "generator", optim.lr_g, experiment, accelerator)
        self.discriminator = engine(discriminator, "discriminator", optim.lr_d, experiment, accelerator)
        self.ema = self.generator.make_ema(ema)
        self.d_phase = Phase("d", self.discriminator, self._d_losses)
        self.g_phase = Phase("g", self.generator, generator_losses)
        self.phase_results: list[PhaseResult] = []
        self.metrics = MetricAccumulator(accelerator)

    def step(self, batches: Iterator[Tensor]) -> None:
        """Run `train.d_steps` discriminator phases and one generator phase, then update the EMA: a collective call.

        Once a loss or gradient is not finite, no weight changes in the rest of the step, and `nonfinite` is 1.

        Args:
            batches: this rank's batches of real images, uint8 [b, 3, R, R]; one is taken for each discriminator phase.
        """
        batch_size = self.experiment.train.batch_size
        self.phase_results = []
        for _ in range(self.experiment.train.d_steps):
            positions = self._local_positions()
            self._run_phase(self.d_phase, self._prepare_real(next(batches), positions), self._latents("latent/d", positions))
            self.nimg += batch_size
        self._run_phase(self.g_phase, self._latents("latent/g", positions))
        self.ema.update(self.nimg, batch_size * self.experiment.train.d_steps)
        self.metrics.step()

    @property
    def nonfinite(self) -> Tensor:
        """float32 scalar on the device: 1 if a loss or gradient of the last step was not finite, else 0."""
        return self.phase_results[-1].nonfinite

    @property
    def last_real(self) -> Tensor:
        """This rank's last batch of real images: float32 [b, 3, R, R] in [-1, 1]."""
        result = next(result for result in reversed(self.phase_results) if result.phase is self.d_phase)
        return torch.cat([real for real, _ in result.micro_batches])

    def lam(self) -> float:
        """Return the generator's effective lam: a collective call."""
        assert isinstance(self.generator.module, WaveletGenerator)
        with self.generator.gathered_params():
            return self.generator.module.effective_lam().item()

    @property
    def engines(self) -> tuple[Engine, Engine]:
        """The generator's engine and the discriminator's engine."""
        return self.generator, self.discriminator

    def _local_positions(self) -> range:
        """Image numbers of this rank's part of the global batch that begins at `nimg`."""
        local_batch_size = self.experiment.train.batch_size // self.accelerator.num_processes
        first = self.nimg + self.accelerator.process_index * local_batch_size
        return range(first, first + local_batch_size)

    def _latents(self, stream: str, positions: range) -> Tensor:
        stream += f"/{self.rollbacks}" if self.rollbacks else ""
        z = counted.normal(self.experiment.seed, stream, positions, self.experiment.model.z_dim)
        return z.to(self.accelerator.device, non_blocking=True)

    def _prepare_real(self, images_uint8: Tensor, positions: range) -> Tensor:
        images = images_uint8.to(self.accelerator.device, memory_format=torch.channels_last, non_blocking=True)
        if self.experiment.data.horizontal_flip:
            images = flip(images, counted.coin_flips(self.experiment.seed, "flip", positions).to(images.device))
        return from_uint8(images)

    def _d_losses(self, generator: Generator, discriminator: Discriminator, real: Tensor, z: Tensor) -> Losses:
        losses, logits = discriminator_losses(generator, discriminator, real, z)
        for name, pair in logits.items():
            self.metrics.add(f"watch/saturation_{name}", saturation(*pair) / self.experiment.train.accumulation)
        return losses

    def _run_phase(self, phase: Phase, *inputs: Tensor) -> None:
        """Accumulate gradients over micro-batches, then step the optimizer; the other module is frozen."""
        for engine in self.engines:
            engine.module.requires_grad_(engine is phase.engine)
        generator, discriminator = (
            engine.forward if engine is phase.engine else engine.forward_frozen for engine in self.engines
        )
        count = self.experiment.train.accumulation
        micro_batches = list(zip(*(tensor.chunk(count) for tensor in inputs), strict=True))
        mean_losses: Losses = {}
        for number, micro_batch in enumerate(micro_batches, start=1):
            with phase.engine.micro_batch(last=number == count):
                losses = phase.compute_losses(generator, discriminator, *micro_batch)
                phase.engine.backward(self.total_loss(losses) / count * self._one_or_nan())
            mean_losses = {name: mean_losses.get(name, 0) + loss.detach() / count for name, loss in losses.items()}
        grad_norm = phase.engine.step()
        nonfinite = self._any_nonfinite(phase.engine, mean_losses, grad_norm)
        self.phase_results.append(PhaseResult(phase, self.nimg, micro_batches, mean_losses, nonfinite))
        for name, loss in mean_losses.items():
            self.metrics.add(f"loss/{phase.name}_{name}", loss)
        self.metrics.add(f"grad_norm/{phase.name}", grad_norm.nan_to_num(0, 0, 0))  # 0 for a step that was skipped in float16

    def total_loss(self, losses: Losses) -> Tensor:
        """Return the sum of the losses weighted by `loss.weights`: the one scalar that a phase differentiates."""
        weights = self.experiment.loss.weights
        return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()

    def _one_or_nan(self) -> Tensor | float:
        """Return the factor of the loss: NaN after a non-finite phase, so that the optimizer skips the phases after it, else 1.

        The factor is on the device, because a condition on the host would wait for the device in every phase.
        """
        return torch.where(self.nonfinite > 0, torch.nan, 1.0) if self.phase_results else 1.0

    def _any_nonfinite(self, engine: Engine, losses: Losses, grad_norm: Tensor) -> Tensor:
        """Return `PhaseResult.nonfinite`; updates the loss scale.

        All ranks get the same result: gradients are all-reduced, so a non-finite loss on one rank makes the norm non-finite
        on all.
        """
        nonfinite = engine.loss_scale.update(1 - grad_norm.isfinite().float())
        nonfinite = nonfinite.maximum(1 - self.total_loss(losses).isfinite().float())
        return nonfinite.maximum(self.nonfinite) if self.phase_results else nonfinite
