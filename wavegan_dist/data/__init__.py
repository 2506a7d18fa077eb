"""Datasets of WebDataset shards: write, index, verify and stream them."""

from wavegan_dist.data.augment import flip
from wavegan_dist.data.decode_batch import ImageBatch, unreadable_rows
from wavegan_dist.data.error_log import DataError, DataErrorLog
from wavegan_dist.data.index import Index
from wavegan_dist.data.indexing import index_remote_shards, index_shards
from wavegan_dist.data.keys import batch_keys
from wavegan_dist.data.labels import classes_for_training, count_classes, warn_of_unused_classes
from wavegan_dist.data.left_out import left_out_by_reason, summary
from wavegan_dist.data.loader import epoch_keys, images_at, read_images, real_images, training_batches
from wavegan_dist.data.mixture import SHOWN, Mixture, TrainingData, load_training_data
from wavegan_dist.data.read import check_present
from wavegan_dist.data.remote import is_remote
from wavegan_dist.data.verify import info, info_table, save_sheet, verify_shards
from wavegan_dist.data.write import write_shards

__all__ = [
    "SHOWN",
    "DataError",
    "DataErrorLog",
    "ImageBatch",
    "Index",
    "Mixture",
    "TrainingData",
    "batch_keys",
    "check_present",
    "classes_for_training",
    "count_classes",
    "epoch_keys",
    "flip",
    "images_at",
    "index_remote_shards",
    "index_shards",
    "info",
    "info_table",
    "is_remote",
    "left_out_by_reason",
    "load_training_data",
    "read_images",
    "real_images",
    "save_sheet",
    "summary",
    "training_batches",
    "unreadable_rows",
    "verify_shards",
    "warn_of_unused_classes",
    "write_shards",
]
