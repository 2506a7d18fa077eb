"""From `train.strategy` to the class of engine; DeepSpeed is imported only where it is asked for."""

from wavegan_dist.config import TrainConfig
from wavegan_dist.train.engine import DdpEngine, Engine


def engine_class(train: TrainConfig) -> type[Engine]:
    """What each module trains in."""
    if train.strategy == "ddp":
        return DdpEngine
    from wavegan_dist.train.zero import ZeroEngine

    return ZeroEngine
