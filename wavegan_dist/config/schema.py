"""The settings of an experiment: all groups of settings together. `make docs` generates docs/configuration.md from them."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, field_serializer, field_validator, model_validator
from pydantic.fields import FieldInfo

from wavegan_dist.config.loss import PENALTY_NOISE, AugmentConfig, LossConfig
from wavegan_dist.config.model import ModelConfig
from wavegan_dist.config.section import LARGEST_COUNT, MAY_CHANGE, Section
from wavegan_dist.config.sets import WeightedSet, parse_sets
from wavegan_dist.config.store import check_store
from wavegan_dist.config.training import EmaConfig, OptimConfig, TrainConfig
from wavegan_dist.errors import UsageError
from wavegan_dist.redact import redacted


class DataConfig(Section):
    """Training images."""

    index: str | list[WeightedSet] = Field(
        description="index.json of the shards, or the folder that contains it: a path, a URL, or pipe:COMMAND with {file}; "
        "a list mixes several datasets, of which each has a share of the images that is proportional to its weight"
    )
    cache: Path | None = Field(
        None, description="folder on each node that caches shards of a remote dataset", json_schema_extra=MAY_CHANGE
    )
    cache_gib: float = Field(100.0, gt=0, le=1e9, description="largest size of the cache in GiB", json_schema_extra=MAY_CHANGE)
    max_bad_fraction: float = Field(
        1e-4,
        ge=0,
        le=1,
        description="the run stops if more than this share of the images cannot be read",
        json_schema_extra=MAY_CHANGE,
    )
    workers: int = Field(
        1,
        ge=0,
        le=LARGEST_COUNT,
        description="loader processes per rank; 0: decode in the training process",
        json_schema_extra=MAY_CHANGE,
    )
    horizontal_flip: bool = Field(True, description="flip each image horizontally with probability 1/2")

    @field_validator("index", mode="before")
    @classmethod
    def _check_index(cls, value: object) -> object:
        return parse_sets(value)

    @property
    def cache_bytes(self) -> int:
        """`data.cache_gib` in bytes."""
        return int(self.cache_gib * 2**30)

    @property
    def sets(self) -> list[WeightedSet]:
        """The datasets that are mixed, in the order of the setting; a single dataset is a list of one, with weight 1."""
        return [WeightedSet(index=self.index, weight=1)] if isinstance(self.index, str) else self.index

    def index_for_evaluation(self) -> str:
        """Return `data.index`, the location of the index of the images that snapshots of the run are compared with.

        Raises:
            UsageError: the run has several datasets.
        """
        if not isinstance(self.index, str):
            raise UsageError(
                f"data.index mixes {len(self.index)} data sets, but an evaluation compares with one; evaluate each snapshot by "
                "itself with `wavegan evaluate --data INDEX`, with the index of one set"
            )
        return self.index


class TrackingConfig(Section):
    """Tracking with MLflow."""

    enabled: bool = Field(
        True,
        description="false: nothing is sent to MLflow, and the run folder holds no tracking files",
        json_schema_extra=MAY_CHANGE,
    )
    uri: str | None = Field(
        None,
        description="sqlite:///FILE or http://HOST:PORT; null: MLFLOW_TRACKING_URI, else mlflow.db beside the run folder. "
        "A password belongs in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        repr=False,
        json_schema_extra=MAY_CHANGE,
    )
    experiment: str = Field("wavegan", description="name of the experiment in MLflow", json_schema_extra=MAY_CHANGE)

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, value: str | None) -> str | None:
        return None if value is None else check_store(value)

    @field_serializer("uri")
    def _redact(self, value: str | None) -> str | None:
        return None if value is None else redacted(value)


class Experiment(Section):
    """All settings that define a run."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of the initial weights and of all random draws")
    data: DataConfig = Field(description="training images")
    model: ModelConfig = Field(default_factory=ModelConfig, description="generators and discriminators")
    loss: LossConfig = Field(default_factory=LossConfig, description="training objective")
    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="augmentation before the discriminators")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="optimizers")
    train: TrainConfig = Field(default_factory=TrainConfig, description="training loop")
    ema: EmaConfig = Field(default_factory=EmaConfig, description="moving average of the generator's weights")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="MLflow")

    @model_validator(mode="after")
    def _check_augment_target(self) -> Self:
        if self.augment.target is not None and not self.loss.weights.image:
            raise ValueError(
                "augment.target is measured by the discriminator of images, but loss.weights.image = 0; "
                "set augment.target=null, or loss.weights.image above 0"
            )
        return self

    @model_validator(mode="after")
    def _check_penalties(self) -> Self:
        if not self.loss.has_penalties:
            return self
        if self.model.spectral_norm:
            raise ValueError(
                "loss.r1 and loss.r2 penalize gradients that spectral norm already bounds; "
                "set model.spectral_norm=false, or both penalties to 0"
            )
        if self.loss.penalty == "approximate" and self.loss.penalty_noise is None:
            self.loss.penalty_noise = PENALTY_NOISE[self.train.precision]
        if self.loss.penalty == "exact":
            if self.train.strategy == "zero3":
                raise ValueError(
                    "loss.penalty = exact does not work with train.strategy = zero3, which releases a layer's weights before "
                    "they are differentiated a second time; set loss.penalty=approximate or another strategy"
                )
            if self.train.precision == "fp16":
                raise ValueError(
                    "loss.penalty = exact does not work with train.precision = fp16, in which the gradients of a single logit "
                    "underflow; set loss.penalty=approximate or train.precision=bf16"
                )
        return self

    def to_yaml(self) -> str:
        """Return YAML of all settings, which `load` reads back to an equal experiment, but for a password in `tracking.uri`."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def flat(self) -> dict[str, Any]:
        """Return the values of all settings, as JSON values, by dotted key ("train.batch_size"): the form of overrides.

        A password in `tracking.uri` is left out.
        """
        return dict(_flatten(self.model_dump(mode="json")))


def settings(section: type[Section] = Experiment, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key, after `prefix`, and the field of every setting in a section and the sections below it, in order."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


@cache
def may_change_on_resume() -> frozenset[str]:
    """Return the dotted keys that may have another value when a run is resumed."""
    return frozenset(key for key, field in settings() if field.json_schema_extra == MAY_CHANGE)


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
