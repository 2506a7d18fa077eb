"""Several datasets that training mixes, and what training reads of one or of several datasets alike."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wavegan_dist.config import DataConfig, integer_weights, set_names
from wavegan_dist.data.index import BandStd, Index, Members
from wavegan_dist.data.mixed_order import MixedOrder, images_before
from wavegan_dist.data.order import RowIndices
from wavegan_dist.data.shards import Shard
from wavegan_dist.data.storage import Storage
from wavegan_dist.errors import UsageError

SHOWN = "data/images/"  # prefix of the metrics that count the images of each set


@dataclass(frozen=True)
class Mixture:
    """Several datasets with the shares in which training mixes them; has all that training uses of an `Index`.

    The rows and the shards of a set continue those of the sets before it.

    Args:
        sets: the datasets. All their images must have the same size, which is not checked here.
        names: name of each set, for messages and metrics; no name occurs twice.
        quotas: share of each set, integers above 0; see `mixed_order`.
    """

    sets: Sequence[Index]
    names: Sequence[str]
    quotas: Sequence[int]

    @property
    def size(self) -> int:
        """Image side in pixels."""
        return self.sets[0].size

    @property
    def count(self) -> int:
        """Images in all sets."""
        return int(self._first_rows[-1])

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the digests and quotas of the sets. Equal digests stand for the same images in the same order."""
        content = [[one.digest, quota] for one, quota in zip(self.sets, self.quotas, strict=True)]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Row of each shard's first image, followed by `count`: int64 [shards + 1]."""
        parts = [one.starts[:-1] + first for one, first in zip(self.sets, self._first_rows, strict=False)]
        return np.concatenate([*parts, self._first_rows[-1:]])

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(one.count for one in self.sets)], dtype=np.int64)

    @cached_property
    def _first_shards(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(len(one.shards) for one in self.sets)], dtype=np.int64)

    def order(self, seed: int) -> MixedOrder:
        """Return the order in which training with `seed` sees the images, as rows of the mixture."""
        return MixedOrder([one.starts for one in self.sets], self.quotas, seed)

    def entries(self, rows: RowIndices) -> Members:
        """Return offset, size and label of the images at `rows` of the mixture, in this order: int64 [len(rows), 3].

        The columns are those of `Index.members`, whose errors it raises.
        """
        entries = np.empty((len(rows), 3), dtype=np.int64)
        set_of_row = np.searchsorted(self._first_rows, rows, side="right") - 1
        for number in np.unique(set_of_row).tolist():
            own = set_of_row == number
            entries[own] = self.sets[number].members[rows[own] - self._first_rows[number]]
        return entries

    def locate_shard(self, number: int) -> tuple[Storage, Shard, str]:
        """Return the storage of shard `number` of the mixture, this shard, and its name in messages: NAME_OF_SET/FILE."""
        owner = int(np.searchsorted(self._first_shards, number, side="right")) - 1
        one = self.sets[owner]
        storage, shard, name = one.locate_shard(number - int(self._first_shards[owner]))
        return storage, shard, f"{self.names[owner]}/{name}"

    def band_std_by_level(self) -> list[BandStd]:
        """Return the standard deviations of the bands of levels 1, 2, ..., as many as were measured for all sets.

        The variance is the mean of the sets' variances, weighted by their shares; differences between the sets' means are not
        known and do not count.
        """
        levels = zip(*(one.band_std_by_level() for one in self.sets), strict=False)
        return [
            BandStd(**{band: self._mean_std([getattr(std, band) for std in stds]) for band in BandStd.model_fields})
            for stds in levels
        ]

    def _mean_std(self, stds: Sequence[float]) -> float:
        squares = (quota * std**2 for quota, std in zip(self.quotas, stds, strict=True))
        return math.sqrt(sum(squares) / sum(self.quotas))

    def images_shown(self, nimg: int) -> dict[str, float]:
        """Return the number of images of each set among the first `nimg` of training, as metrics called data/images/NAME."""
        shown = images_before(self.quotas, nimg)[:, 0].tolist()
        return {f"{SHOWN}{name}": float(images) for name, images in zip(self.names, shown, strict=True)}

    def describe(self) -> dict[str, Any]:
        """Return a dict for each set, by its name: `digest`, `images` (their number) and `share` (a fraction of 1)."""
        total = sum(self.quotas)
        return {
            name: {"digest": one.digest, "images": one.count, "share": quota / total}
            for name, one, quota in zip(self.names, self.sets, self.quotas, strict=True)
        }


TrainingData: TypeAlias = Index | Mixture


def load_training_data(data: DataConfig) -> TrainingData:
    """Load the index of each dataset of `data.index`. Whether the sizes of their images agree is not checked.

    Returns:
        The index of the dataset; a mixture if there are several.

    Raises:
        UsageError: the errors of `Index.load`, or two sets hold the same images.
        WaveganError: a remote index cannot be read.
    """
    indexes = [one.index for one in data.sets]
    sets = [Index.load(index, data.cache, data.cache_bytes) for index in indexes]
    if len(sets) == 1:
        return sets[0]
    digests = [one.digest for one in sets]
    for number, digest in enumerate(digests):
        if (first := digests.index(digest)) < number:
            raise UsageError(
                f"data.index: {indexes[first]} and {indexes[number]} hold the same images; give one of them, with the sum of "
                "their weights"
            )
    return Mixture(sets, set_names(indexes), integer_weights([one.weight for one in data.sets]))
