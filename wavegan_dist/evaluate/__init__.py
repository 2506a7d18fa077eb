"""How good are a snapshot's images: distances to real ones, each with the protocol that it depends on."""

from wavegan_dist.evaluate.evaluate import DEFAULT_COUNT, evaluate_snapshot
from wavegan_dist.evaluate.generate import generated_images, sample
from wavegan_dist.evaluate.registry import DEFAULT_METRICS, EXTRACTORS, METRICS, ExtractorWeights
from wavegan_dist.evaluate.result import format_table, save_result
from wavegan_dist.evaluate.spectrum import plot_spectrum

__all__ = [
    "DEFAULT_COUNT",
    "DEFAULT_METRICS",
    "EXTRACTORS",
    "METRICS",
    "ExtractorWeights",
    "evaluate_snapshot",
    "format_table",
    "generated_images",
    "plot_spectrum",
    "sample",
    "save_result",
]
