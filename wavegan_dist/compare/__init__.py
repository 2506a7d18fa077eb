"""Runs beside each other: one page, pictures and a table."""

from wavegan_dist.compare.compare import compare

__all__ = ["compare"]
