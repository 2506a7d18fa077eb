"""When the discriminator's gradient penalties are computed, with which factor and which noise."""

import math

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist import counted
from wavegan_dist.config import Experiment
from wavegan_dist.train.phase import MicroBatch


class PenaltySchedule:
    """Adds the penalties' inputs to the batches of those discriminator phases that are due.

    Lazy penalties (Karras et al. 2020): one phase in `loss.penalty_interval` has penalties, multiplied by the interval. All
    results are functions of the image number, so a resumed run continues exactly.

    Args:
        experiment: the settings.
        accelerator: gives the device, the rank and the collectives.
    """

    def __init__(self, experiment: Experiment, accelerator: Accelerator) -> None:
        self.loss, self.seed = experiment.loss, experiment.seed
        self.batch_size, self.accelerator = experiment.train.batch_size, accelerator
        self._generator = torch.Generator(accelerator.device)

    def is_due(self, nimg: int) -> bool:
        """Return whether the discriminator phase that begins after `nimg` training images of all ranks has penalties."""
        return self.loss.has_penalties and nimg // self.batch_size % self.loss.penalty_interval == 0

    def gamma_factor(self, nimg: int) -> float:
        """Return the factor of gamma after `nimg` training images: half a cosine from 1 to `loss.gamma_final`.

        The cosine ends at `loss.gamma_decay_kimg`; the factor stays constant afterwards. Without these settings it is 1.
        """
        if self.loss.gamma_final is None or self.loss.gamma_decay_kimg is None:
            return 1.0
        progress = min(nimg / (self.loss.gamma_decay_kimg * 1000), 1.0)
        return self.loss.gamma_final + (1 - self.loss.gamma_final) * (1 + math.cos(math.pi * progress)) / 2

    def extend(self, batch: MicroBatch, nimg: int, rollbacks: int) -> MicroBatch:
        """Return this rank's batch with the inputs of the penalties, or `batch` itself if none are due.

        Args:
            batch: this rank's part of the global batch.
            nimg: image number at which the global batch begins.
            rollbacks: number of rollbacks so far; each changes the noise.
        """
        if not self.is_due(nimg):
            return batch
        factor = torch.full((), self.loss.penalty_interval * self.gamma_factor(nimg), device=self.accelerator.device)
        if self.loss.penalty == "exact":
            return batch._replace(penalty_factor=factor.requires_grad_())
        return batch._replace(penalty_factor=factor, noise=self._noise(batch.real, nimg, rollbacks))

    def _noise(self, like: Tensor, nimg: int, rollbacks: int) -> Tensor:
        """Draw the noise of the penalties: standard normal, with the shape, dtype and device of `like`, channels-last.

        Each image has its own seed, so the noise does not depend on the number of processes.

        Args:
            like: all real images of this rank's part of the global batch [b, 3, R, R], not of a micro-batch.
            nimg: image number at which the global batch begins.
            rollbacks: number of rollbacks so far; each changes the noise.
        """
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        stream = f"penalty/{rollbacks}" if rollbacks else "penalty"
        first = nimg + self.accelerator.process_index * len(like)
        for image, rng in zip(noise, counted.rngs(self.seed, stream, range(first, first + len(like))), strict=True):
            seed = int(rng.integers(2**63))
            torch.randn(image.shape, generator=self._generator.manual_seed(seed), out=image)
        return noise.to(memory_format=torch.channels_last)
