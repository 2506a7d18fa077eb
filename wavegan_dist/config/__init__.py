"""The experiment: typed settings, read from YAML and overrides (loading), with one-line error messages (explain)."""

from wavegan_dist.config.decode import yaml_text
from wavegan_dist.config.explain import FileKind
from wavegan_dist.config.loading import differences, load, parse
from wavegan_dist.config.loss import AugmentConfig, LossConfig, LossWeights
from wavegan_dist.config.model import RESOLUTIONS, SMALLEST_BAND, ModelConfig, deepest_level
from wavegan_dist.config.passwords import check_passwords
from wavegan_dist.config.schema import DataConfig, Experiment, TrackingConfig, may_change_on_resume
from wavegan_dist.config.section import LARGEST_COUNT, Section
from wavegan_dist.config.sets import WeightedSet, integer_weights, set_names
from wavegan_dist.config.store import check_store, is_database
from wavegan_dist.config.training import EmaConfig, OptimConfig, TrainConfig, check_batch_division

__all__ = [
    "LARGEST_COUNT",
    "RESOLUTIONS",
    "SMALLEST_BAND",
    "AugmentConfig",
    "DataConfig",
    "EmaConfig",
    "Experiment",
    "FileKind",
    "LossConfig",
    "LossWeights",
    "ModelConfig",
    "OptimConfig",
    "Section",
    "TrackingConfig",
    "TrainConfig",
    "WeightedSet",
    "check_batch_division",
    "check_passwords",
    "check_store",
    "deepest_level",
    "differences",
    "integer_weights",
    "is_database",
    "load",
    "may_change_on_resume",
    "parse",
    "set_names",
    "yaml_text",
]
