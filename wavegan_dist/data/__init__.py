"""Shards of images: written, described by an index, verified and streamed."""

from wavegan_dist.data.augment import flip
from wavegan_dist.data.index import Index
from wavegan_dist.data.loader import real_images, training_batches
from wavegan_dist.data.verify import info, info_table, verify_shards
from wavegan_dist.data.write import write_shards

__all__ = ["Index", "flip", "info", "info_table", "real_images", "training_batches", "verify_shards", "write_shards"]
