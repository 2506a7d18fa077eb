"""Comparison of runs: one page, plots and a CSV file."""

from wavegan_dist.compare.compare import compare

__all__ = ["compare"]
