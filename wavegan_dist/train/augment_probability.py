"""The probability of augmentation over a run: constant, rising, or adapted to overfitting (ADA)."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist.config import AugmentConfig
from wavegan_dist.model.augment import gate

INTERVAL = 256  # images between two adjustments of an adapted probability; as in ADA, 4 batches of 64


class AugmentProbability:
    """Returns the probability p at any image number; with `augment.target`, adapts it to overfitting.

    Overfitting is measured by r_t of ADA (Karras et al. 2020), in [-1, 1]: the mean of `Objective.overfitting` of the
    discriminator network `image`, over the images of all ranks since the last adjustment. It is computed from a sum of signs,
    an integer that does not depend on how many processes share the images. An adapted p is on the device: the host never
    waits for it.

    Args:
        settings: the section `augment`.
        accelerator: gives the device, the rank and the collectives.
    """

    def __init__(self, settings: AugmentConfig, accelerator: Accelerator) -> None:
        self.settings, self.accelerator = settings, accelerator
        self._adapted = self._zero()  # p, if it is adapted
        self._signs, self._images = self._zero(), 0  # sum over this rank, number over all ranks, since the last adjustment
        self._values: dict[str, Tensor] = {}

    def _zero(self) -> Tensor:
        return torch.zeros((), device=self.accelerator.device)

    def at(self, nimg: int) -> Tensor:
        """Return p of the step that begins after `nimg` training images: float32 scalar on the device.

        With `augment.target`, this is the current adapted p, whatever `nimg` is.
        """
        settings = self.settings
        if settings.target is not None:
            return self._adapted
        risen = min(nimg / (settings.ramp_kimg * 1000), 1) if settings.ramp_kimg else 1.0
        return torch.full((), settings.probability * risen, device=self.accelerator.device)

    def choose(self, drawn: Tensor | None, nimg: int) -> Tensor | None:
        """Apply `model.augment.gate` with the p of the step that begins at `nimg`.

        Args:
            drawn: from `model.augment.draw_parameters`, or None without augmentation.
            nimg: image number at which the step begins.

        Returns:
            float32 [..., b, len(PARAMETERS)], zero for transformations that are not applied; None if `drawn` is None.
        """
        return None if drawn is None else gate(drawn, self.at(nimg))

    def end_step(self, means: list[Tensor], local_batch: int, nimg_before: int, nimg: int) -> None:
        """Record p and r_t of a step for `values`; with `augment.target`, adapt p at multiples of `INTERVAL` images.

        Call this on every rank after each step: with `augment.target`, adapting p is a collective call.

        Args:
            means: r_t over this rank's images, one for each discriminator phase; empty if it is not measured.
            local_batch: images of this rank in each phase.
            nimg_before, nimg: image numbers at which the step begins and ends.
        """
        if self.settings.probability:
            self._values = {"augment/p": self.at(nimg_before)}
        if not means:
            return
        self._values["augment/overfitting"] = torch.stack(means).mean()
        if self.settings.target is None:
            return
        for mean in means:
            self._signs = self._signs + (mean * local_batch).round()  # exact, although the mean was rounded
        self._images += nimg - nimg_before
        if nimg // INTERVAL > nimg_before // INTERVAL:
            self._adapt(self.settings.target)

    def values(self) -> dict[str, Tensor]:
        """Return p and this rank's r_t of the last step by name, float32 scalars on the device; empty without augmentation.

        r_t is left out if it is not measured. Before the first step the dictionary is empty. Not a collective call.
        """
        return self._values

    def state(self) -> dict[str, Any]:
        """Return the adapted p and the sums since its last adjustment, as JSON values for a checkpoint: a collective call."""
        signs = self.accelerator.reduce(self._signs, reduction="sum")
        return {"p": self._adapted.item(), "signs": signs.item(), "images": self._images}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned. Call this on every rank; the number of ranks may have changed."""
        self._adapted = torch.full_like(self._adapted, state["p"])
        signs = state["signs"] if self.accelerator.is_main_process else 0.0
        self._signs, self._images = torch.full_like(self._signs, signs), state["images"]

    def _adapt(self, target: float) -> None:
        settings = self.settings
        share = self.accelerator.reduce(self._signs, reduction="sum") / self._images
        step = settings.probability * self._images / (settings.ramp_kimg * 1000)
        self._adapted = (self._adapted + (share - target).sign() * step).clamp(0, settings.probability)
        self._signs, self._images = self._zero(), 0
