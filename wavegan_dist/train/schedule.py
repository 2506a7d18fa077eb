"""Learning rates over a run: a pure function of the number of images shown, so a resumed run needs no state for them."""

import math

from wavegan_dist.config import OptimConfig


def lr_factor(optim: OptimConfig, nimg: int) -> float:
    """Return the factor in [0, 1] of both learning rates, warm-up times decay, in the step that ends after `nimg` images."""
    kimg = nimg / 1000
    factor = min(kimg / optim.lr_warmup_kimg, 1.0) if optim.lr_warmup_kimg else 1.0
    if optim.lr_decay_kimg is None:
        return factor
    progress = min(kimg / optim.lr_decay_kimg, 1.0)
    return factor * (optim.lr_final + (1 - optim.lr_final) * (1 + math.cos(math.pi * progress)) / 2)
