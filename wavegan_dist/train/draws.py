"""The random numbers of a training step: drawn on the CPU one step ahead, copied to the device without waiting for it."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist import counted
from wavegan_dist.config import Experiment


@dataclass(frozen=True)
class StepDraws:
    """The random numbers of one step for the images of this rank; b is the number of these images.

    Attributes:
        latents_d: latents of each discriminator phase, float32 [d_steps, b, z_dim].
        flips: which real images of each discriminator phase are flipped, bool [d_steps, b].
        latents_g: latents of the generator phase, float32 [b, z_dim].
    """

    latents_d: Tensor
    flips: Tensor
    latents_g: Tensor


class DrawAhead:
    """Draws the numbers of the next step while the device computes the current one.

    All numbers are functions of the seed, the image number and the number of rollbacks (`counted`), so drawing ahead does not
    change them.

    Args:
        experiment: the settings.
        accelerator: the process group.
    """

    def __init__(self, experiment: Experiment, accelerator: Accelerator) -> None:
        self.experiment, self.accelerator = experiment, accelerator
        self._position: tuple[int, int] | None = None
        self._draws: StepDraws | None = None

    def prepare(self, nimg: int, rollbacks: int) -> None:
        """Draw the numbers of the step that begins at image number `nimg` of the run, after `rollbacks` rollbacks."""
        self._position, self._draws = (nimg, rollbacks), self._draw(nimg, rollbacks)

    def take(self, nimg: int, rollbacks: int) -> StepDraws:
        """Return the numbers of a step on the device; draws them unless `prepare` was called with the same arguments."""
        if self._draws is None or self._position != (nimg, rollbacks):
            self.prepare(nimg, rollbacks)
        draws, self._draws = self._draws, None
        assert draws is not None
        device = self.accelerator.device
        tensors = (draws.latents_d, draws.flips, draws.latents_g)
        return StepDraws(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    def _draw(self, nimg: int, rollbacks: int) -> StepDraws:
        settings = self.experiment
        local_batch = settings.train.batch_size // self.accelerator.num_processes
        suffix = f"/{rollbacks}" if rollbacks else ""
        latents_d, flips = [], []
        for phase in range(settings.train.d_steps):
            first = nimg + phase * settings.train.batch_size + self.accelerator.process_index * local_batch
            positions = range(first, first + local_batch)
            latents_d.append(counted.normal(settings.seed, f"latent/d{suffix}", positions, settings.model.z_dim))
            flips.append(counted.coin_flips(settings.seed, "flip", positions))
        latents_g = counted.normal(settings.seed, f"latent/g{suffix}", positions, settings.model.z_dim)
        return StepDraws(self._pinned(torch.stack(latents_d)), self._pinned(torch.stack(flips)), self._pinned(latents_g))

    def _pinned(self, tensor: Tensor) -> Tensor:
        """Copy to pinned memory, from which a copy to a GPU is asynchronous; on CPUs, return the tensor itself."""
        return tensor.pin_memory() if self.accelerator.device.type == "cuda" else tensor
