"""A feature: what is computed from each image, and which statistics are accumulated over images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from torch import Tensor

from wavegan_dist.evaluate.statistics import StatisticsT


@dataclass(frozen=True)
class Feature(Generic[StatisticsT]):
    """A function of images, and the statistics that accumulate its values over a set of images.

    Args:
        name: identifies the feature: metrics whose features have the same name share the statistics.
        extract: function from images, uint8 [B, 3, S, S] with B >= 1 on any device, to the features that `statistics.update`
            takes.
        protocol: everything that the features depend on, except the images.
        statistics: `FeatureRows` or `Moments`.
        label: the class whose images are used; None: all images.
    """

    name: str
    extract: Callable[[Tensor], Tensor]
    protocol: dict[str, Any]
    statistics: type[StatisticsT]
    label: int | None = None
