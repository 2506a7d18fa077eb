"""Generator, discriminator, losses and EMA: plain PyTorch modules and functions, independent of the trainer."""

from wavegan_dist.model.discriminator import WaveletDiscriminator
from wavegan_dist.model.ema import Ema
from wavegan_dist.model.generator import WaveletGenerator
from wavegan_dist.model.losses import hinge_d, hinge_g
from wavegan_dist.model.snapshot import Snapshot, load_snapshot

__all__ = ["Ema", "Snapshot", "WaveletDiscriminator", "WaveletGenerator", "hinge_d", "hinge_g", "load_snapshot"]
