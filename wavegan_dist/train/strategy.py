"""Chooses the engine class for `train.strategy`."""

from wavegan_dist.config import TrainConfig
from wavegan_dist.train.engine import DdpEngine, Engine


def engine_class(train: TrainConfig) -> type[Engine]:
    """Return `DdpEngine` for `train.strategy=ddp`, else `ZeroEngine`, whose module is imported only then."""
    if train.strategy == "ddp":
        return DdpEngine
    from wavegan_dist.train.zero import ZeroEngine

    return ZeroEngine
