"""What training changes, and one step of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from wavegan_dist import counted
from wavegan_dist.config import Experiment
from wavegan_dist.data import Index, flip
from wavegan_dist.errors import WaveganError
from wavegan_dist.images import from_uint8
from wavegan_dist.model import Ema, WaveletGenerator, hinge_d, hinge_g
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.model.norm import synchronised

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One half of a step: whose weights move, and the loss of each discriminator network that moves them."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Callable[..., Losses]


class Trainer:
    """Two modules, two optimizers, the EMA and `nimg`, the count of real images shown.

    Args:
        experiment: the settings.
        index: the data's index, for the standard deviations of its bands.
        accelerator: the processes; the modules live on its device, in DDP where there are several processes.
    """

    def __init__(self, experiment: Experiment, index: Index, accelerator: Accelerator) -> None:
        self.experiment, self.accelerator = experiment, accelerator
        self.nimg = 0
        with torch.random.fork_rng():
            torch.manual_seed(experiment.seed)
            generator, discriminator = build_generator(experiment), build_discriminator(experiment, index.band_std.model_dump())
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            generator = synchronised(generator)
        channels_last = {"device": accelerator.device, "memory_format": torch.channels_last}
        self.raw_generator: WaveletGenerator = generator.to(**channels_last)
        self.raw_discriminator = discriminator.to(**channels_last)
        self.ema = Ema(self.raw_generator, experiment.ema.half_life_kimg * 1000, experiment.ema.rampup)
        self.generator, optimizer_g = accelerator.prepare(self.raw_generator, self._adam(generator, experiment.optim.lr_g))
        self.discriminator, optimizer_d = accelerator.prepare(
            self.raw_discriminator, self._adam(discriminator, experiment.optim.lr_d)
        )
        self.d_phase = Phase("d", self.discriminator, optimizer_d, self._d_losses)
        self.g_phase = Phase("g", self.generator, optimizer_g, self._g_losses)
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def step(self, batches: Iterator[Tensor]) -> None:
        """Show `d_steps` local batches (uint8 [b, 3, R, R]) to the discriminators, then move the generators once."""
        batch_size = self.experiment.train.batch_size
        for _ in range(self.experiment.train.d_steps):
            positions = self._positions()
            self._move(self.d_phase, self._real(next(batches), positions), self._latents("latent/d", positions))
            self.nimg += batch_size
        self._move(self.g_phase, self._latents("latent/g", positions))
        self.raw_generator.project_()
        self.ema.update(self.raw_generator, self.nimg, batch_size * self.experiment.train.d_steps)
        self._steps += 1

    def drain(self) -> dict[str, float]:
        """Means since the last call, over all processes, of every loss and gradient norm: a collective call."""
        names = sorted(self._sums)
        means = torch.stack([self._sums[name] for name in names]) / self._steps
        means = self.accelerator.reduce(means, reduction="mean")
        self._sums, self._steps = {}, 0
        return dict(zip(names, means.tolist(), strict=True))

    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, unwrapped, by name."""
        return {"generator": self.raw_generator, "discriminator": self.raw_discriminator, "ema": self.ema.module}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimizers, by name."""
        return {"optimizer_g": self.g_phase.optimizer, "optimizer_d": self.d_phase.optimizer}

    def _adam(self, module: nn.Module, lr: float) -> torch.optim.Adam:
        betas = (self.experiment.optim.beta1, self.experiment.optim.beta2)
        return torch.optim.Adam(module.parameters(), lr=lr, betas=betas, fused=True)

    def _positions(self) -> range:
        """The image numbers of this process's share of the global batch that begins at `nimg`."""
        local = self.experiment.train.batch_size // self.accelerator.num_processes
        first = self.nimg + self.accelerator.process_index * local
        return range(first, first + local)

    def _latents(self, stream: str, positions: range) -> Tensor:
        z = counted.normal(self.experiment.seed, stream, positions, self.experiment.model.z_dim)
        return z.to(self.accelerator.device, non_blocking=True)

    def _real(self, images_uint8: Tensor, positions: range) -> Tensor:
        images = images_uint8.to(self.accelerator.device, memory_format=torch.channels_last, non_blocking=True)
        if self.experiment.data.horizontal_flip:
            images = flip(images, counted.coins(self.experiment.seed, "flip", positions).to(images.device))
        return from_uint8(images)

    def _d_losses(self, real: Tensor, z: Tensor) -> Losses:
        with torch.no_grad():
            fake = self.generator(z)
        logits = self.discriminator(torch.cat((real, fake)))
        return {name: hinge_d(*both.chunk(2)) for name, both in logits.items()}

    def _g_losses(self, z: Tensor) -> Losses:
        logits = self.discriminator(self.generator(z))
        return {name: hinge_g(fake) for name, fake in logits.items()}

    def _move(self, phase: Phase, *inputs: Tensor) -> None:
        """One scalar loss, one backward, one optimizer step; the other module's parameters are frozen."""
        for each in (self.d_phase, self.g_phase):
            each.module.requires_grad_(each is phase)
        losses = phase.losses(*inputs)
        weights = self.experiment.loss.weights
        self.accelerator.backward(torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum())
        norm = self._checked_norm(phase, losses)
        phase.optimizer.step()
        phase.optimizer.zero_grad(set_to_none=True)
        for name, loss in losses.items():
            self._count(f"loss/{phase.name}_{name}", loss)
        self._count(f"grad_norm/{phase.name}", norm)

    def _checked_norm(self, phase: Phase, losses: Losses) -> Tensor:
        """The gradient's norm, clipped if so set. Gradients are equal on all ranks, so all stop or none does."""
        parameters = [parameter for parameter in phase.module.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if not norm.isfinite():
            raise WaveganError(self._not_finite(phase, losses))
        if (limit := self.experiment.optim.clip_norm) is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def _not_finite(self, phase: Phase, losses: Losses) -> str:
        raw = self.raw_discriminator if phase is self.d_phase else self.raw_generator
        first = next(
            name for name, value in raw.named_parameters() if value.grad is not None and not value.grad.isfinite().all()
        )
        values = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
        return (
            f"gradient not finite at image {self.nimg} in the {phase.name.upper()} phase, first in parameter {first} "
            f"(losses: {values}); the last checkpoint is intact: go on from it with a lower learning rate or optim.clip_norm"
        )

    def _count(self, name: str, value: Tensor) -> None:
        value = value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value
