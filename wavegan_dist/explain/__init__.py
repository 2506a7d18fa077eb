"""What each network of a snapshot contributes to its images: numbers, pictures and one page."""

from wavegan_dist.explain.explain import explain

__all__ = ["explain"]
