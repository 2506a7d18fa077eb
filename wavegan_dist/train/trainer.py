"""What training changes, and one step of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from wavegan_dist import counted
from wavegan_dist.config import Experiment
from wavegan_dist.data import Index, flip
from wavegan_dist.images import from_uint8
from wavegan_dist.model import Ema, WaveletGenerator, hinge_d, hinge_g
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.model.loss import saturation
from wavegan_dist.model.norm import synchronised
from wavegan_dist.train.sums import Sums

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One half of a step: whose weights move, and the loss of each discriminator network that moves them."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Callable[..., Losses]


@dataclass(frozen=True)
class Move:
    """A phase that was run: on what, with which losses, and whether anything was not finite by then (float32 0 or 1)."""

    phase: Phase
    first: int  # image of the run at which the global batch begins
    inputs: tuple[Tensor, ...]
    losses: Losses
    nonfinite: Tensor


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
        self.rollbacks = 0
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
        self.d_phase = Phase("d", self.discriminator, optimizer_d.optimizer, self._d_losses)
        self.g_phase = Phase("g", self.generator, optimizer_g.optimizer, self._g_losses)
        self.moves: list[Move] = []
        self.sums = Sums(accelerator)

    def step(self, batches: Iterator[Tensor]) -> None:
        """Show `d_steps` local batches (uint8 [b, 3, R, R]) to the discriminators, then move the generators once.

        From the first loss or gradient on that is not finite, no weight moves any more; `moves` tells.
        """
        batch_size = self.experiment.train.batch_size
        self.moves = []
        for _ in range(self.experiment.train.d_steps):
            positions = self._positions()
            self._move(self.d_phase, self._real(next(batches), positions), self._latents("latent/d", positions))
            self.nimg += batch_size
        self._move(self.g_phase, self._latents("latent/g", positions))
        self.raw_generator.project_()
        self.ema.update(self.raw_generator, self.nimg, batch_size * self.experiment.train.d_steps)
        self.sums.step()

    @property
    def nonfinite(self) -> Tensor:
        """float32 0 or 1 on the device: whether the last step met a loss or a gradient that is not finite."""
        return self.moves[-1].nonfinite

    @property
    def real(self) -> Tensor:
        """This rank's last real batch: float32 [b, 3, R, R] in [-1, 1]."""
        return next(move.inputs[0] for move in reversed(self.moves) if move.phase is self.d_phase)

    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, unwrapped, by name."""
        return {"generator": self.raw_generator, "discriminator": self.raw_discriminator, "ema": self.ema.module}

    def optimizers(self) -> dict[str, tuple[torch.optim.Optimizer, nn.Module]]:
        """The optimizers by name, each with the module whose parameters it moves."""
        return {
            "optimizer_g": (self.g_phase.optimizer, self.raw_generator),
            "optimizer_d": (self.d_phase.optimizer, self.raw_discriminator),
        }

    def _adam(self, module: nn.Module, lr: float) -> torch.optim.Adam:
        betas = (self.experiment.optim.beta1, self.experiment.optim.beta2)
        return torch.optim.Adam(module.parameters(), lr=lr, betas=betas, fused=True)

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
            images = flip(images, counted.coins(self.experiment.seed, "flip", positions).to(images.device))
        return from_uint8(images)

    def _d_losses(self, real: Tensor, z: Tensor) -> Losses:
        with torch.no_grad():
            fake = self.generator(z)
        logits = {name: both.chunk(2) for name, both in self.discriminator(torch.cat((real, fake))).items()}
        for name, (of_real, of_fake) in logits.items():
            self.sums.add(f"watch/saturation_{name}", saturation(of_real, of_fake))
        return {name: hinge_d(*both) for name, both in logits.items()}

    def _g_losses(self, z: Tensor) -> Losses:
        logits = self.discriminator(self.generator(z))
        return {name: hinge_g(fake) for name, fake in logits.items()}

    def _move(self, phase: Phase, *inputs: Tensor) -> None:
        """One scalar loss, one backward, one optimizer step; the other module's parameters are frozen."""
        for each in (self.d_phase, self.g_phase):
            each.module.requires_grad_(each is phase)
        losses = phase.losses(*inputs)
        self.accelerator.backward(self.total(losses))
        norm = self._clipped_norm(phase.module)
        move = Move(phase, self.nimg, inputs, losses, self._nonfinite_by_now(norm))
        self.moves.append(move)
        # Fused Adam looks at this flag on the device and leaves weights and moments alone: the host need not wait for it.
        phase.optimizer.found_inf = move.nonfinite  # type: ignore[attr-defined]
        phase.optimizer.step()
        phase.optimizer.zero_grad(set_to_none=True)
        for name, value in losses.items():
            self.sums.add(f"loss/{phase.name}_{name}", value)
        self.sums.add(f"grad_norm/{phase.name}", norm)

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum of the networks' losses: the one scalar of a phase."""
        weights = self.experiment.loss.weights
        return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()

    def _clipped_norm(self, module: nn.Module) -> Tensor:
        parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if (limit := self.experiment.optim.clip_norm) is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def _nonfinite_by_now(self, norm: Tensor) -> Tensor:
        """Gradients are equal on all ranks, and one that is not finite anywhere is so everywhere: all decide alike."""
        nonfinite = 1 - norm.isfinite().float()
        return nonfinite if not self.moves else nonfinite.maximum(self.moves[-1].nonfinite)
