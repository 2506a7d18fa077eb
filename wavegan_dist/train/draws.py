"""The random numbers of a training step: drawn on the CPU one step ahead, copied to the device without waiting for it."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist import counted
from wavegan_dist.config import Experiment
from wavegan_dist.model.augment import UNIFORMS, draw_parameters


@dataclass(frozen=True)
class StepDraws:
    """The random numbers of one step for the images of this rank; b is the number of this rank's images in one phase.

    Attributes:
        latents_d: latents of each discriminator phase, float32 [d_steps, b, z_dim].
        flips: which real images of each discriminator phase are flipped, bool [d_steps, b].
        latents_g: latents of the generator phase, float32 [b, z_dim].
        augment_d: what `model.augment.draw_parameters` returns for each discriminator phase, float32 [d_steps, b, columns];
            None without augmentation.
        augment_g: the same for the generator phase, [b, columns].
    """

    latents_d: Tensor
    flips: Tensor
    latents_g: Tensor
    augment_d: Tensor | None = None
    augment_g: Tensor | None = None


class DrawAhead:
    """Draws the numbers of the next step while the device computes the current one.

    All numbers are functions of the seed, the image number and the number of rollbacks (`counted`), so drawing ahead does not
    change them.

    Args:
        experiment: the settings.
        accelerator: gives the rank, the number of ranks and the device.
    """

    def __init__(self, experiment: Experiment, accelerator: Accelerator) -> None:
        self.experiment, self.accelerator = experiment, accelerator
        self._position: tuple[int, int] | None = None
        self._draws: StepDraws | None = None

    def prepare(self, nimg: int, rollbacks: int) -> None:
        """Draw the numbers of a step and keep them on the CPU for `take`.

        Args:
            nimg: image number at which the step begins.
            rollbacks: number of rollbacks so far; each changes all numbers but the flips.
        """
        self._position, self._draws = (nimg, rollbacks), self._draw(nimg, rollbacks)

    def take(self, nimg: int, rollbacks: int) -> StepDraws:
        """Return the numbers of a step on the device, without waiting for the copy.

        Draws the numbers unless the last `prepare` had the same arguments and its numbers have not been taken yet.

        Args:
            nimg: image number at which the step begins.
            rollbacks: number of rollbacks so far.
        """
        if self._draws is None or self._position != (nimg, rollbacks):
            self.prepare(nimg, rollbacks)
        draws, self._draws = self._draws, None
        assert draws is not None
        device = self.accelerator.device
        tensors = {name: tensor for name, tensor in vars(draws).items() if tensor is not None}
        return StepDraws(**{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})

    def _draw(self, nimg: int, rollbacks: int) -> StepDraws:
        settings = self.experiment
        local_batch = settings.train.batch_size // self.accelerator.num_processes
        suffix = f"/{rollbacks}" if rollbacks else ""
        latents_d, flips, augment_d = [], [], []
        for phase in range(settings.train.d_steps):
            first = nimg + phase * settings.train.batch_size + self.accelerator.process_index * local_batch
            positions = range(first, first + local_batch)
            latents_d.append(counted.normal(settings.seed, f"latent/d{suffix}", positions, settings.model.z_dim))
            flips.append(counted.coin_flips(settings.seed, "flip", positions))
            if settings.augment.probability:
                augment_d.append(self._augment(f"augment/d{suffix}", positions))
        latents_g = counted.normal(settings.seed, f"latent/g{suffix}", positions, settings.model.z_dim)
        tensors = {"latents_d": torch.stack(latents_d), "flips": torch.stack(flips), "latents_g": latents_g}
        if augment_d:
            tensors |= {"augment_d": torch.stack(augment_d), "augment_g": self._augment(f"augment/g{suffix}", positions)}
        return StepDraws(**{name: self._pinned(tensor) for name, tensor in tensors.items()})

    def _augment(self, stream: str, positions: range) -> Tensor:
        settings = self.experiment
        uniforms = counted.uniform(settings.seed, stream, positions, UNIFORMS)
        return draw_parameters(uniforms, settings.augment, settings.model.resolution)

    def _pinned(self, tensor: Tensor) -> Tensor:
        """Copy to pinned memory, from which a copy to a GPU is asynchronous; on CPUs, return the tensor itself."""
        return tensor.pin_memory() if self.accelerator.device.type == "cuda" else tensor
