"""The experiment: typed settings (schema), read from YAML and overrides (loading), with one-line error messages (explain)."""

from wavegan_dist.config.explain import FileKind, yaml_text
from wavegan_dist.config.loading import differences, load, parse
from wavegan_dist.config.passwords import check_passwords
from wavegan_dist.config.schema import (
    RESOLUTIONS,
    SMALLEST_BAND,
    DataConfig,
    EmaConfig,
    Experiment,
    LossConfig,
    LossWeights,
    ModelConfig,
    OptimConfig,
    Section,
    TrackingConfig,
    TrainConfig,
    deepest_level,
    may_change_on_resume,
)
from wavegan_dist.config.store import check_store

__all__ = [
    "RESOLUTIONS",
    "SMALLEST_BAND",
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
    "check_passwords",
    "check_store",
    "deepest_level",
    "differences",
    "load",
    "may_change_on_resume",
    "parse",
    "yaml_text",
]
