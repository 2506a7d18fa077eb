"""`wavegan sample`: images of a snapshot as a grid, a folder, WebDataset shards or an animation."""

from wavegan_dist.sample.write import sample

__all__ = ["sample"]
