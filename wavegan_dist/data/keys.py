"""The names of the images of a batch: for messages and diagnoses."""

from wavegan_dist.data.index import Index
from wavegan_dist.data.order import Order
from wavegan_dist.data.read import Reader


def batch_keys(index: Index, seed: int, first: int, batch_size: int, share: slice) -> list[str]:
    """`SHARD: KEY` of each image of a rank's share of the global batch that begins at image `first` of the run."""
    reader = Reader(index)
    rows = Order(index.starts, seed).batch(first, batch_size)[share]
    findings = (reader.finding(place, "") for place in reader.places(rows))
    return [f"{finding.shard}: {finding.image}" for finding in findings]
