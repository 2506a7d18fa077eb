"""Runs beside each other: one page, pictures and a table."""

from wavegan_dist.evaluate.comparison.compare import compare

__all__ = ["compare"]
