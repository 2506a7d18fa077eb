"""The settings of an experiment. `python -m wavegan_dist.config.reference` generates docs/configuration.md from this file."""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from wavegan_dist.config.store import check_store
from wavegan_dist.redact import redacted

RESOLUTIONS = (32, 64, 128, 256, 512, 1024)
# Half-lives of EMAs are part of the names of their snapshots, with six decimals: closer ones would share a name.
HALF_LIFE_STEP, LONGEST_HALF_LIFE = 1e-6, 1e9  # kimg
# Largest sizes of a model and a batch: far beyond any that fits a memory, and small enough that no byte count overflows int64.
LARGEST_WIDTH, LARGEST_COUNT = 2**16, 2**20
SMALLEST_BAND = 8  # height and width in pixels of the smallest Haar band that the networks can have
# Default of loss.penalty_noise by train.precision. Larger noise estimates the gradient less well; in bf16, the differences that
# smaller noise makes are less than rounding errors (docs/LOG.md).
PENALTY_NOISE = {"fp32": 0.01, "fp16": 0.01, "bf16": 0.03}

# Marks a setting that may change when a run is resumed: the setting affects neither the model nor its training images.
# (train.accumulation is marked although it changes batch statistics, which are those of a micro-batch.)
MAY_CHANGE: dict[str, Any] = {"may_change_on_resume": True}


def deepest_level(resolution: int) -> int:
    """Return how many levels of the wavelet transform leave a low band of at least SMALLEST_BAND pixels: 2 at 32 px."""
    return (resolution // SMALLEST_BAND).bit_length() - 1


class Section(BaseModel):
    """A group of settings. Unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Training images."""

    index: str = Field(
        description="index.json of the shards, or the folder that contains it: a path, a URL, or pipe:COMMAND with {file}"
    )
    cache: Path | None = Field(
        None, description="folder on each node that caches shards of a remote dataset", json_schema_extra=MAY_CHANGE
    )
    cache_gib: PositiveFloat = Field(100.0, description="largest size of the cache in GiB", json_schema_extra=MAY_CHANGE)
    max_bad_fraction: float = Field(
        1e-4,
        ge=0,
        le=1,
        description="the run stops if more than this share of the images cannot be read",
        json_schema_extra=MAY_CHANGE,
    )
    workers: int = Field(
        1, ge=0, description="loader processes per rank; 0: decode in the training process", json_schema_extra=MAY_CHANGE
    )
    horizontal_flip: bool = Field(True, description="flip each image horizontally with probability 1/2")


class ModelConfig(Section):
    """Architecture of the generators and discriminators. The constructors of the networks have parameters of the same names."""

    backbone: Literal["dcgan", "residual"] = Field(
        "dcgan", description="architecture of all networks; residual: blocks without normalization, after R3GAN"
    )
    resample: Literal["bilinear", "haar"] | None = Field(
        None,
        validate_default=True,
        description="how residual networks resample feature maps; haar: by the wavelet transform, which loses nothing; "
        "null: bilinear (dcgan networks have no choice)",
    )
    resolution: int = Field(32, description="image side in pixels, a power of two from 32 to 1024")
    z_dim: int = Field(128, ge=2, le=LARGEST_COUNT, description="size n of the latent vector")
    z_low: int | None = Field(
        None,
        validate_default=True,
        description="size k of the part of the latent vector that is the input of the low generator, 1 to n - 1; null: n/2",
    )
    width: PositiveInt = Field(
        64,
        le=LARGEST_WIDTH,
        description="channels of the largest feature map; they double with each halving of its side, up to 8 times",
    )
    levels: PositiveInt = Field(1, description="levels of the wavelet transform; resolution / 2**levels must be at least 8")
    num_classes: int = Field(
        0, ge=0, le=LARGEST_COUNT, description="classes of a conditional model, from the images' labels; 0: unconditional"
    )
    attention: Literal["max", "dot", "none"] = Field("max", description="attention in the base generator")
    attention_at: list[int] = Field([16], description="sides of the feature maps that get attention, in pixels")
    norm: Literal["batch", "none"] | None = Field(
        None,
        validate_default=True,
        description="normalization in dcgan generators; null: batch, or none in residual generators",
    )
    lam: Literal["free", "clamp", "sigmoid"] = Field("free", description="how the mixing scalar lam is kept within bounds")
    band_scale: Literal["none", "data"] = Field(
        "none", description="data: divide each band by its standard deviation over the dataset before it enters a discriminator"
    )
    spectral_norm: bool | None = Field(
        None,
        validate_default=True,
        description="spectral norm in dcgan discriminators; excludes gradient penalties; null: true, or false for residual",
    )
    logit_gain: PositiveFloat = Field(
        1.0, description="factor of the logits of discriminators with spectral norm, whose logits otherwise hardly leave 0"
    )
    base_only: bool = Field(False, description="ablation: train only the base generator, without the low and high generators")

    @field_validator("resample")
    @classmethod
    def _check_resample(cls, value: str | None, info: ValidationInfo) -> str | None:
        is_residual = info.data.get("backbone") == "residual"
        if value is not None and not is_residual:
            raise ValueError(f"{value} is a choice of model.backbone = residual; set that, or this key to null")
        return "bilinear" if value is None and is_residual else value

    @field_validator("norm")
    @classmethod
    def _check_norm(cls, value: str | None, info: ValidationInfo) -> str:
        is_residual = info.data.get("backbone") == "residual"
        if value == "batch" and is_residual:
            raise ValueError("residual networks have no batch norm; set this key to none, or model.backbone to dcgan")
        return value or ("none" if is_residual else "batch")

    @field_validator("spectral_norm")
    @classmethod
    def _check_spectral_norm(cls, value: bool | None, info: ValidationInfo) -> bool:
        is_residual = info.data.get("backbone") == "residual"
        if value and is_residual:
            raise ValueError("residual networks have no spectral norm; set this key to false, or model.backbone to dcgan")
        return not is_residual if value is None else value

    @field_validator("logit_gain")
    @classmethod
    def _check_logit_gain(cls, value: float, info: ValidationInfo) -> float:
        if value != 1 and info.data.get("spectral_norm") is False:
            raise ValueError("without model.spectral_norm, the discriminators scale their logits themselves; set this key to 1")
        return value

    @field_validator("levels")
    @classmethod
    def _check_levels(cls, value: int, info: ValidationInfo) -> int:
        resolution = info.data.get("resolution")
        if resolution and value > (most := deepest_level(resolution)):
            raise ValueError(
                f"{value} levels leave bands of less than {SMALLEST_BAND} px of {resolution} px; the most are {most}"
            )
        return value

    @field_validator("resolution")
    @classmethod
    def _check_resolution(cls, value: int) -> int:
        if value not in RESOLUTIONS:
            nearest = min(RESOLUTIONS, key=lambda side: abs(side - value))
            raise ValueError(
                f"{value} is not a power of two from {RESOLUTIONS[0]} to {RESOLUTIONS[-1]}; the nearest is {nearest}"
            )
        return value

    @field_validator("num_classes")
    @classmethod
    def _check_num_classes(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one class says nothing about an image; set 0 for a model without classes, or 2 or more")
        return value

    @field_validator("z_low")
    @classmethod
    def _check_z_low(cls, value: int | None, info: ValidationInfo) -> int | None:
        z_dim = info.data.get("z_dim")
        if z_dim is None:  # z_dim is invalid itself, which is reported already
            return value
        if value is None:
            return int(z_dim // 2)
        if not 1 <= value < z_dim:
            nearest = min(max(value, 1), z_dim - 1)
            raise ValueError(f"{value} leaves one part of the latent empty; the nearest of 1..{z_dim - 1} is {nearest}")
        return value

    @field_validator("attention_at")
    @classmethod
    def _check_attention_at(cls, sides: list[int], info: ValidationInfo) -> list[int]:
        resolution = info.data.get("resolution", 0)
        available = [2**n for n in range(2, resolution.bit_length() - 1)]
        if resolution and (unknown := set(sides) - set(available)):
            raise ValueError(f"no feature map of a {resolution} px generator is {min(unknown)} px; choose from {available}")
        if len(set(sides)) < len(sides):
            raise ValueError(f"{sides} names a side twice; give each once")
        return sides


class LossWeights(Section):
    """Weight of each discriminator's loss and gradient penalties. A discriminator with weight 0 is not built."""

    image: NonNegativeFloat = Field(1.0, description="discriminator of images")
    low: NonNegativeFloat = Field(1.0, description="discriminator of low bands")
    high: NonNegativeFloat = Field(1.0, description="discriminator of high bands")

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not (self.image or self.low or self.high):
            raise ValueError("all three weights are 0: no discriminator is left; set at least one of image, low, high above 0")
        return self


class LossConfig(Section):
    """Training objective. Gradient penalties need `model.spectral_norm=false`."""

    objective: Literal["hinge", "relativistic"] = Field(
        "hinge", description="relativistic: softplus of the difference between the logits of a real and a generated image"
    )
    weights: LossWeights = Field(default_factory=LossWeights, description="weights of the discriminators' losses")
    r1: NonNegativeFloat = Field(0.0, description="gamma of the gradient penalty on real images; 0: no penalty")
    r2: NonNegativeFloat = Field(0.0, description="gamma of the gradient penalty on generated images; 0: no penalty")
    penalty: Literal["exact", "approximate"] = Field(
        "exact",
        description="exact: differentiates twice; approximate: difference of logits under noise, works under every strategy",
    )
    penalty_interval: PositiveInt = Field(
        1, description="discriminator steps from one with penalties to the next; gamma is multiplied by this number"
    )
    penalty_noise: PositiveFloat | None = Field(
        None, description="standard deviation of the noise of approximate penalties; null: 0.01, or 0.03 in bf16"
    )
    gamma_final: NonNegativeFloat | None = Field(
        None, description="factor of r1 and r2 that is reached at gamma_decay_kimg, along a cosine; null: gamma is constant"
    )
    gamma_decay_kimg: PositiveFloat | None = Field(
        None,
        validate_default=True,
        description="length of the decay of gamma, in thousands of real images; null: gamma is constant",
    )

    @property
    def has_penalties(self) -> bool:
        """Whether r1 or r2 is above 0."""
        return self.r1 > 0 or self.r2 > 0

    @field_validator("penalty", "penalty_interval", "penalty_noise", "gamma_final")
    @classmethod
    def _check_penalized(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse settings of penalties that do not exist."""
        default = cls.model_fields[str(info.field_name)].default
        if value != default and info.data.get("r1") == info.data.get("r2") == 0:
            raise ValueError(
                "a setting of gradient penalties, but loss.r1 and loss.r2 are 0; set one of them or unset this key"
            )
        return value

    @field_validator("penalty_noise")
    @classmethod
    def _check_penalty_noise(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("penalty") == "exact":
            raise ValueError("only approximate penalties add noise; set loss.penalty=approximate or unset this key")
        return value

    @field_validator("gamma_decay_kimg")
    @classmethod
    def _check_gamma_decay(cls, value: float | None, info: ValidationInfo) -> float | None:
        if (value is None) != (info.data.get("gamma_final") is None):
            raise ValueError("gamma decays only if both loss.gamma_final and loss.gamma_decay_kimg are set; set or unset both")
        return value


class AugmentConfig(Section):
    """Augmentation of real and generated images before the discriminators see them; a pair shares its random numbers."""

    probability: float = Field(
        0.0, ge=0, le=1, description="probability p of each transformation, for each image; 0: no augmentation"
    )
    ramp_kimg: NonNegativeFloat = Field(
        0.0,
        description="p rises linearly from 0 to augment.probability over so many kimg; 0: p is constant. With augment.target, "
        "p rises or falls at this speed",
    )
    target: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="p rises while the share of overfitting is above this value and falls while it is below, from 0 to at most "
        "augment.probability (ADA; 0.6 is usual); null: p is not adapted",
    )
    mirror: bool = Field(True, description="mirror left to right, half of the images for which the transformation is chosen")
    translation: float = Field(
        0.125, ge=0, le=0.5, description="largest translation as a fraction of the image side; whole pixels, reflected borders"
    )
    colour: float = Field(
        1.0, ge=0, le=1, description="strength of random brightness, saturation and contrast; 1: +-0.5, 0 to 2, 0.5 to 1.5"
    )
    cutout: float = Field(0.5, ge=0, lt=1, description="side of a square that is cut out, as a fraction of the image side")

    @field_validator("target")
    @classmethod
    def _check_target(cls, value: float | None, info: ValidationInfo) -> float | None:
        limits = {"probability": "the largest p", "ramp_kimg": "the kimg in which p may rise to its largest value"}
        for key, meaning in limits.items():
            if value is not None and info.data.get(key) == 0:
                raise ValueError(f"{value} needs augment.{key} above 0, {meaning}")
        return value

    @field_validator("ramp_kimg")
    @classmethod
    def _check_ramp(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("probability") == 0:
            raise ValueError(f"{value:g} has no effect while augment.probability = 0; set that above 0, or this key to 0")
        return value

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if self.probability and not (self.mirror or self.translation or self.colour or self.cutout):
            raise ValueError("all transformations are off; set at least one of mirror, translation, colour, cutout")
        return self


class OptimConfig(Section):
    """Adam, for generators and discriminators."""

    lr_g: PositiveFloat = Field(2e-4, description="learning rate of the generators")
    lr_d: PositiveFloat = Field(2e-4, description="learning rate of the discriminators")
    lr_warmup_kimg: NonNegativeFloat = Field(
        0.0, description="both learning rates rise linearly from 0 over so many kimg; 0: no warm-up"
    )
    lr_decay: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: both learning rates fall along half a cosine, over optim.lr_decay_kimg"
    )
    lr_decay_kimg: PositiveFloat | None = Field(
        None,
        validate_default=True,
        description="kimg at which the cosine ends; the rates then stay. Not train.total_kimg, which may change on resume",
    )
    lr_final: float = Field(0.0, ge=0, le=1, description="factor of both learning rates at the end of the cosine")
    beta1: float = Field(0.0, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment")
    clip_norm: PositiveFloat | None = Field(
        None, description="largest gradient norm in a phase; larger gradients are clipped; null: no clipping"
    )

    @field_validator("lr_decay_kimg")
    @classmethod
    def _check_lr_decay_kimg(cls, value: float | None, info: ValidationInfo) -> float | None:
        decay = info.data.get("lr_decay")
        if decay == "cosine" and value is None:
            raise ValueError("optim.lr_decay = cosine needs its length; set this key, for example to train.total_kimg")
        if decay == "constant" and value is not None:
            raise ValueError(f"{value:g} has no effect on constant rates; set optim.lr_decay=cosine or this key to null")
        warmup = info.data.get("lr_warmup_kimg")
        if value is not None and warmup is not None and warmup > value:
            raise ValueError(f"the cosine ends at {value:g} kimg, before optim.lr_warmup_kimg = {warmup:g}; make it longer")
        return value

    @field_validator("lr_final")
    @classmethod
    def _check_lr_final(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("lr_decay") == "constant":
            raise ValueError(f"{value:g} has no effect on constant rates; set optim.lr_decay=cosine or this key to 0")
        return value


class TrainConfig(Section):
    """Training loop. Lengths are in kimg: thousands of real images shown to the discriminators."""

    batch_size: PositiveInt = Field(64, le=LARGEST_COUNT, description="images per optimizer step, over all processes")
    d_steps: PositiveInt = Field(1, description="discriminator steps per generator step")
    total_kimg: PositiveFloat = Field(1000.0, description="length of the run", json_schema_extra=MAY_CHANGE)
    snapshot_kimg: PositiveFloat = Field(
        50.0, description="interval between snapshots: EMA weights and a sample grid", json_schema_extra=MAY_CHANGE
    )
    checkpoint_kimg: PositiveFloat = Field(
        50.0, description="interval between checkpoints, from which a run resumes", json_schema_extra=MAY_CHANGE
    )
    keep_checkpoints: PositiveInt = Field(3, description="number of newest checkpoints to keep", json_schema_extra=MAY_CHANGE)
    keep_checkpoint_kimg: PositiveFloat | None = Field(
        None, description="interval between checkpoints that are never deleted; null: none", json_schema_extra=MAY_CHANGE
    )
    report_kimg: PositiveFloat = Field(
        1.0, description="interval between reports: status lines, and values in MLflow", json_schema_extra=MAY_CHANGE
    )
    strategy: Literal["ddp", "zero1", "zero2", "zero3"] = Field(
        "ddp",
        description="ddp: no sharding; zero1: DeepSpeed shards the optimizer state; zero2: also gradients; zero3: also weights",
        json_schema_extra=MAY_CHANGE,
    )
    deepspeed: Path | None = Field(
        None, description="JSON file with further DeepSpeed settings, for zero1, zero2 and zero3", json_schema_extra=MAY_CHANGE
    )
    accumulation: PositiveInt = Field(
        1,
        description="micro-batches per optimizer step (gradient accumulation); batch statistics are those of a micro-batch",
        json_schema_extra=MAY_CHANGE,
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="dtype in which networks compute; weights are always fp32"
    )
    compile: Literal["off", "default", "graphs"] = Field(
        "off",
        description="default: torch.compile; graphs: also CUDA graphs, for small models on GPUs; needs strategy ddp",
        json_schema_extra=MAY_CHANGE,
    )
    tf32: bool = Field(False, description="use TF32 for fp32 matrix products and convolutions on GPUs")
    world_size: PositiveInt | None = Field(
        None,
        description="number of processes that must take part; null: as many as the launcher starts",
        json_schema_extra=MAY_CHANGE,
    )
    on_nonfinite: Literal["stop", "rollback"] = Field(
        "stop",
        description="what to do if a loss or gradient is not finite; rollback: load the last checkpoint, use other latents",
        json_schema_extra=MAY_CHANGE,
    )
    max_rollbacks: PositiveInt = Field(
        3, description="the run stops instead of rolling back more often than this", json_schema_extra=MAY_CHANGE
    )
    on_disk_error: Literal["stop", "continue"] = Field(
        "stop", description="what to do if the run folder cannot be written", json_schema_extra=MAY_CHANGE
    )

    @field_validator("deepspeed")
    @classmethod
    def _check_deepspeed(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("strategy") == "ddp":
            raise ValueError("settings for DeepSpeed, but train.strategy is ddp; choose a zero strategy or unset this key")
        return value

    @field_validator("compile", mode="before")
    @classmethod
    def _read_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads the word off as false

    @field_validator("compile")
    @classmethod
    def _check_compile(cls, value: str, info: ValidationInfo) -> str:
        strategy = info.data.get("strategy", "ddp")
        if value != "off" and strategy != "ddp":
            raise ValueError(
                f"{value} does not work with train.strategy = {strategy}: DeepSpeed's hooks communicate between layers, "
                "outside of a graph; set this key to off or train.strategy to ddp"
            )
        return value


class EmaConfig(Section):
    """Exponential moving average of the generator's weights."""

    half_life_kimg: PositiveFloat | list[PositiveFloat] = Field(
        10.0,
        description="number of images, in thousands, after which the contribution of old weights to the average has halved; a "
        "list keeps several averages, each with its own snapshots: samples during training are of the first",
    )
    rampup: float = Field(
        0.05, ge=0, description="upper limit of the half-life as a fraction of the images seen so far; 0: no limit"
    )

    @field_validator("half_life_kimg", mode="before")
    @classmethod
    def _check_half_lives(cls, value: object) -> object:
        """Return a number or a list of at least two: a list of one is the same setting as its number when a run is resumed."""
        half_lives = [_positive(each) for each in (value if isinstance(value, list) else [value])]
        if not half_lives:
            raise ValueError("the list is empty; give at least one half-life")
        if not HALF_LIFE_STEP <= min(half_lives) <= max(half_lives) <= LONGEST_HALF_LIFE:
            raise ValueError(f"{value} is not within {HALF_LIFE_STEP:g} to {LONGEST_HALF_LIFE:g}")
        if len({round(each / HALF_LIFE_STEP) for each in half_lives}) < len(half_lives):
            raise ValueError(f"{value} names a half-life twice; give each once")
        return half_lives if len(half_lives) > 1 else half_lives[0]

    @property
    def half_lives_kimg(self) -> tuple[float, ...]:
        """All half-lives, in thousands of images; samples, evaluation and export use the first."""
        return tuple(self.half_life_kimg) if isinstance(self.half_life_kimg, list) else (self.half_life_kimg,)


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
        """Return YAML that `load` reads back to an equal experiment, without the password of `tracking.uri`."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def flat(self) -> dict[str, Any]:
        """Return the values by dotted key, the form of overrides and of MLflow's parameters.

        `tracking.uri` has no password.
        """
        return dict(_flatten(self.model_dump(mode="json")))


def settings(section: type[Section] = Experiment, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key and the field of every setting, in the order of the schema; sections are left out."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


@cache
def may_change_on_resume() -> frozenset[str]:
    """Return the dotted keys that may have another value when a run is resumed."""
    return frozenset(key for key, field in settings() if field.json_schema_extra == MAY_CHANGE)


def _positive(value: Any) -> float:
    """Return a value as a number above 0. The error is for a key with alternatives, of which pydantic would explain each."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{value!r} is not a number above 0")
    return number


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
