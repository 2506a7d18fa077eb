"""The discriminators' scores, if the run still has a checkpoint: snapshots hold the generator alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavegan_dist.devices import full_float32
from wavegan_dist.errors import WaveganError
from wavegan_dist.model.build import build_discriminator
from wavegan_dist.model.discriminator import BANDS, WaveletDiscriminator
from wavegan_dist.model.snapshot import Snapshot
from wavegan_dist.run_folder import RunFolder, nimg_of
from wavegan_dist.train.checkpoint import find_damage, load_module

BATCH = 16


@dataclass(frozen=True)
class Discriminators:
    """The discriminator networks of a run, if a checkpoint holds them.

    Attributes:
        module: the discriminators in eval mode, without gradients; None if there is no usable checkpoint.
        source: a sentence for the page: which checkpoint they are from, or why there are none.
    """

    module: WaveletDiscriminator | None
    source: str

    def scores(self, images: Tensor | None, labels: Tensor | None) -> dict[str, list[float]]:
        """Return the logits of images by name of the network, B numbers each; empty without discriminators or images.

        Args:
            images: float32 [B, 3, R, R] on the CPU for pixels in [-1, 1], B > 0; None: no images.
            labels: classes, int64 [B]; None for a model without classes.
        """
        if self.module is None or images is None:
            return {}
        with torch.no_grad(), full_float32():
            batches = [
                self.module(images[first : first + BATCH], None if labels is None else labels[first : first + BATCH])
                for first in range(0, len(images), BATCH)
            ]
        return {name: torch.cat([batch[name] for batch in batches]).tolist() for name in batches[0]}


def load_discriminators(snapshot: Snapshot) -> Discriminators:
    """Read the discriminators from that checkpoint of the snapshot's run whose image number is nearest to the snapshot's.

    Does not raise if there is no checkpoint or it is damaged: `source` then says so.
    """
    run = RunFolder.of_snapshot(snapshot.path)
    checkpoints = run.checkpoints() if run else []
    if run is None or not checkpoints:
        where = "the snapshot is not in a run folder" if run is None else f"{run.path} holds no checkpoint"
        return Discriminators(None, f"There are no scores: {where}, and only checkpoints hold the discriminators.")
    path = min(checkpoints, key=lambda checkpoint: abs(nimg_of(checkpoint) - snapshot.nimg))
    band_std = [dict.fromkeys(BANDS, 1.0)] * snapshot.config.model.levels  # placeholders: the checkpoint holds the true values
    module = build_discriminator(snapshot.config, band_std)
    try:
        if damage := find_damage(path):
            raise WaveganError(f"{path} is damaged: {damage}")
        load_module(path, "discriminator", module)
    except WaveganError as error:
        return Discriminators(None, f"There are no scores: {error}.")
    kimg = f"{nimg_of(path) / 1000:g} kimg"
    return Discriminators(module.eval().requires_grad_(False), f"The discriminators are those of {path}, at {kimg}.")
