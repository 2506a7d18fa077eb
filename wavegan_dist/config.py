"""The experiment: one typed, validated object, read from one YAML file and `key=value` overrides."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wavegan_dist.errors import UsageError

RESOLUTIONS = (32, 64, 128, 256)
MLFLOW_SCHEMES = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "databricks")


class Section(BaseModel):
    """A group of settings: unknown keys are errors, infinities are not numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Where the images come from."""

    index: str = Field(description="index.json of the shards, or its folder: a path, a URL, or pipe:COMMAND with {file}")
    cache: Path | None = Field(None, description="folder on each node for shards from elsewhere")
    cache_gib: PositiveFloat = Field(100.0, description="as much may lie in the cache")
    max_bad_fraction: float = Field(1e-4, ge=0, le=1, description="a run stops when more of the images cannot be read")
    workers: int = Field(1, ge=0, description="loader processes per rank; 0 decodes in the training process")
    horizontal_flip: bool = Field(True, description="mirror each image with probability 1/2")


class ModelConfig(Section):
    """The shape of the three generators and three discriminators; the constructors of both take these names."""

    resolution: int = Field(32, description="image side in pixels, a power of two from 32 to 256")
    z_dim: int = Field(128, ge=2, description="latent size n")
    z_low: int | None = Field(
        None, validate_default=True, description="how much of the latent feeds the low generator, k; default n/2"
    )
    width: PositiveInt = Field(64, description="channels of the largest feature map; doubles with each halving, up to 8x")
    attention: Literal["max", "dot", "none"] = Field("max", description="attention of the base generator")
    attention_at: list[int] = Field([16], description="sides of the feature maps that get attention")
    norm: Literal["batch", "none"] = Field("batch", description="normalisation in the generators")
    lam: Literal["free", "clamp", "sigmoid"] = Field("free", description="how the mixing scalar is bounded")
    band_scale: Literal["none", "data"] = Field("none", description="divide bands by their std over real data before D")
    base_only: bool = Field(False, description="ablation: no low and high generators, image = base")

    @field_validator("resolution")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value not in RESOLUTIONS:
            nearest = min(RESOLUTIONS, key=lambda side: abs(side - value))
            raise ValueError(f"{value} is not a power of two from 32 to 256; the nearest is {nearest}")
        return value

    @field_validator("z_low")
    @classmethod
    def _both_halves(cls, value: int | None, info: ValidationInfo) -> int | None:
        z_dim = info.data.get("z_dim")
        if z_dim is None:  # z_dim itself is wrong, which is said already
            return value
        if value is None:
            return int(z_dim // 2)
        if not 1 <= value < z_dim:
            nearest = min(max(value, 1), z_dim - 1)
            raise ValueError(f"{value} leaves a half of the latent empty; the nearest of 1..{z_dim - 1} is {nearest}")
        return value

    @field_validator("attention_at")
    @classmethod
    def _feature_maps(cls, sides: list[int], info: ValidationInfo) -> list[int]:
        resolution = info.data.get("resolution", 0)
        there = [2**n for n in range(2, resolution.bit_length() - 1)]
        if resolution and (unknown := set(sides) - set(there)):
            raise ValueError(f"no feature map of a {resolution} px generator is {min(unknown)} px; choose from {there}")
        return sides


class LossWeights(Section):
    """Weight of each discriminator's hinge loss; 0 removes that network."""

    image: NonNegativeFloat = 1.0
    low: NonNegativeFloat = 1.0
    high: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.image or self.low or self.high):
            raise ValueError("all three weights are 0: no discriminator is left; set at least one of image, low, high above 0")
        return self


class LossConfig(Section):
    """The objective."""

    weights: LossWeights = Field(default_factory=LossWeights)


class OptimConfig(Section):
    """Adam for both modules."""

    lr_g: PositiveFloat = 2e-4
    lr_d: PositiveFloat = 2e-4
    beta1: float = Field(0.0, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    clip_norm: PositiveFloat | None = Field(None, description="largest gradient norm of a phase; null: do not clip")


class TrainConfig(Section):
    """The loop. Lengths are in kimg: thousands of real images shown to the discriminators."""

    batch_size: PositiveInt = Field(64, description="global: over all processes")
    d_steps: PositiveInt = Field(1, description="discriminator steps to one generator step")
    total_kimg: PositiveFloat = 1000.0
    snapshot_kimg: PositiveFloat = Field(50.0, description="EMA weights and a sample grid every so often")
    checkpoint_kimg: PositiveFloat = Field(50.0, description="everything needed to continue every so often")
    keep_checkpoints: PositiveInt = Field(3, description="the newest so many stay on disk")
    keep_checkpoint_kimg: PositiveFloat | None = Field(None, description="one every so often stays for good; null: none")
    report_kimg: PositiveFloat = Field(1.0, description="a status line and a point in MLflow every so often")
    strategy: Literal["ddp", "zero1", "zero2", "zero3"] = Field(
        "ddp",
        description="what each process holds of the state: all of it, or DeepSpeed's share of moments, gradients, weights",
    )
    deepspeed: Path | None = Field(None, description="JSON with what a zero strategy leaves open: bucket sizes, offload")
    accumulation: PositiveInt = Field(1, description="micro-batches to an optimizer step; batch statistics are of each")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="what the networks compute in; weights are fp32")
    tf32: bool = Field(False, description="multiply in TF32 where the computation is in fp32")
    world_size: PositiveInt | None = Field(None, description="processes that must take part; null: as the launcher says")
    on_nonfinite: Literal["stop", "rollback"] = Field(
        "stop", description="rollback: go back to the last checkpoint and on from it with other latents"
    )
    max_rollbacks: PositiveInt = Field(3, description="a run that needs more of them stops")
    on_disk_error: Literal["stop", "continue"] = Field("stop", description="when the run folder cannot be written")

    @field_validator("deepspeed")
    @classmethod
    def _for_zero(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("strategy") == "ddp":
            raise ValueError("settings for DeepSpeed, but train.strategy is ddp; choose zero1, zero2 or zero3, or leave it out")
        return value


class EmaConfig(Section):
    """The exponential moving average of the generator."""

    half_life_kimg: PositiveFloat = 10.0
    rampup: float = Field(0.05, ge=0, description="the half-life is at most this share of the images seen; 0: no ramp")


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = Field(None, description="null: MLFLOW_TRACKING_URI, else mlflow.db beside the run folder")
    experiment: str = "wavegan"

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(MLFLOW_SCHEMES):
            raise ValueError(f"{value} is no MLflow store; give sqlite:///FILE or http://HOST:PORT")
        return value


class Experiment(Section):
    """Everything that defines a run."""

    seed: int = Field(0, ge=0, lt=2**63)
    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    ema: EmaConfig = Field(default_factory=EmaConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    def to_yaml(self) -> str:
        """The resolved experiment as YAML that `load` reads back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def flat(self) -> dict[str, Any]:
        """Dotted key -> value, as MLflow's parameters and as overrides name them."""
        return dict(_flatten(self.model_dump(mode="json")))


# A run may go on with other values of these: they change neither the model nor what it learns from (but for the batch
# statistics, which are those of a micro-batch).
MAY_CHANGE_ON_RESUME = (
    "data.cache",
    "data.cache_gib",
    "data.max_bad_fraction",
    "data.workers",
    "train.total_kimg",
    "train.snapshot_kimg",
    "train.checkpoint_kimg",
    "train.keep_checkpoints",
    "train.keep_checkpoint_kimg",
    "train.report_kimg",
    "train.strategy",
    "train.deepspeed",
    "train.accumulation",
    "train.world_size",
    "train.on_nonfinite",
    "train.max_rollbacks",
    "train.on_disk_error",
    "tracking.uri",
    "tracking.experiment",
)


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file, then apply `key=value` overrides (values are YAML).

    Raises:
        UsageError: no such file, not YAML, an unknown key, a wrong type or an impossible value; the message names the
            key and, for a misspelt one, the nearest that exists.
    """
    tree = read_mapping(path, "config", "settings; see configs/demo.yaml for the form")
    for override in overrides:
        _apply(tree, override)
    return parse(tree, str(path))


def read_mapping(path: Path, what: str, of: str) -> dict[str, Any]:
    """A YAML file's mapping, not validated.

    Args:
        path: the file.
        what: it is called in an error.
        of: what it should be a mapping of, and where to see one.

    Raises:
        UsageError: no such file, not YAML, not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{path} is not a mapping of {of}")
    return tree


def parse(tree: dict[str, Any], source: str) -> Experiment:
    """Validate a nested mapping; `source` is what an error calls it. Raises UsageError as `load` does."""
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{source}: " + "; ".join(_explain(dict(detail)) for detail in error.errors())) from error


def differences(old: Experiment, new: Experiment) -> list[str]:
    """Settings in which two experiments differ, as 'key: old -> new', those that may change on resume left out."""
    before, after = old.flat(), new.flat()
    keys = [key for key in {**before, **after} if key not in MAY_CHANGE_ON_RESUME]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override '{override}' is not of the form key=value, for example train.batch_size=64")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"override '{override}': the value is not valid YAML") from error
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise UsageError(f"override '{override}': '{section}' is a value, not a section{_nearest(key, _keys(Experiment))}")
    tree[last] = value


def _explain(detail: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest(key, _keys(Experiment))}"
    if detail["type"] == "missing":
        return f"'{key}' is not set; give it in the file or as {key}=VALUE"
    if detail["type"] == "literal_error":
        choices = _choices(key)
        return f"{key} = {detail['input']!r} is not one of {', '.join(choices)}{_nearest(str(detail['input']), choices)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key} = {detail['input']!r}: {message[0].lower()}{message[1:]}"


def _nearest(word: str, choices: Sequence[str]) -> str:
    leaf = {choice.rpartition(".")[2]: choice for choice in choices}
    close = difflib.get_close_matches(word, choices, 1, 0.6)
    close = close or [leaf[name] for name in difflib.get_close_matches(word.rpartition(".")[2], list(leaf), 1, 0.6)]
    return f"; did you mean '{close[0]}'?" if close else ""


def _keys(section: type[BaseModel]) -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [name, *(f"{name}.{key}" for key in _keys(field.annotation))]
        else:
            keys.append(name)
    return keys


def _choices(key: str) -> list[str]:
    annotation: Any = Experiment
    for part in key.split("."):
        annotation = annotation.model_fields[part].annotation
    return [str(choice) for choice in get_args(annotation)]


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
