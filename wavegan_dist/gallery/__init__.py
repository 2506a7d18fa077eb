"""Pictures of runs on one page: samples over training, interpolations, the nearest training images of samples."""

from wavegan_dist.gallery.gallery import gallery

__all__ = ["gallery"]
