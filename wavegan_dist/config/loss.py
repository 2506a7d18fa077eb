"""The settings of the training objective and of what the discriminators see: `loss` and `augment`."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, ValidationInfo, field_validator, model_validator

from wavegan_dist.config.section import Count, Kimg, Section

# Default of loss.penalty_noise by train.precision. Larger noise estimates the gradient less well; in bf16, the differences that
# smaller noise makes are less than rounding errors (docs/LOG.md).
PENALTY_NOISE = {"fp32": 0.01, "fp16": 0.01, "bf16": 0.03}


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
        "hinge",
        description="hinge: hinge losses; relativistic: softplus of the difference between the logits of a real and a "
        "generated image",
    )
    weights: LossWeights = Field(default_factory=LossWeights, description="weights of the discriminators' losses")
    r1: NonNegativeFloat = Field(0.0, description="gamma of the gradient penalty on real images; 0: no penalty")
    r2: NonNegativeFloat = Field(0.0, description="gamma of the gradient penalty on generated images; 0: no penalty")
    penalty: Literal["exact", "approximate"] = Field(
        "exact",
        description="exact: differentiates twice; approximate: difference of logits under noise, works under every strategy",
    )
    penalty_interval: Count = Field(
        1, description="one in this many discriminator phases has penalties; gamma is multiplied by this number"
    )
    penalty_noise: PositiveFloat | None = Field(
        None, description="standard deviation of the noise of approximate penalties; null: 0.01, or 0.03 in bf16"
    )
    gamma_final: NonNegativeFloat | None = Field(
        None, description="factor of r1 and r2 that is reached at gamma_decay_kimg, along a cosine; null: gamma is constant"
    )
    gamma_decay_kimg: Kimg | None = Field(
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
        """Refuse a value other than the default if r1 and r2 are 0: without penalties, the setting has no effect."""
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
    ramp_kimg: float = Field(
        0.0,
        ge=0,
        le=1e9,
        description="p rises linearly from 0 to augment.probability over this many kimg; 0: p is constant. With "
        "augment.target, p rises or falls at this speed",
    )
    target: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="p rises while r_t, the mean sign of the discriminator's logits of training images, is above this value "
        "and falls while it is below, from 0 to at most augment.probability (ADA; 0.6 is usual); null: p is not adapted",
    )
    mirror: bool = Field(True, description="mirror left to right: half of the images for which this transformation is chosen")
    translation: float = Field(
        0.125, ge=0, le=0.5, description="largest translation as a fraction of the image side; whole pixels, reflected borders"
    )
    colour: float = Field(
        1.0,
        ge=0,
        le=1,
        description="strength of random color changes; at 1, brightness changes by -0.5 to 0.5 (of pixels in -1 to 1), "
        "saturation by a factor of 0 to 2, contrast by a factor of 0.5 to 1.5",
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
