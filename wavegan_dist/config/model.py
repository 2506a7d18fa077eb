"""The settings of the networks: `model`."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from wavegan_dist.config.section import LARGEST_COUNT, LARGEST_WIDTH, Section

RESOLUTIONS = (32, 64, 128, 256, 512, 1024)
SMALLEST_BAND = 8  # height and width in pixels of the smallest Haar band that the networks can have


def deepest_level(resolution: int) -> int:
    """Return the most levels of the wavelet transform that leave a low band of 8 x 8 pixels (SMALLEST_BAND): 2 for 32 px.

    Args:
        resolution: height and width of the images in pixels, at least 8.
    """
    return (resolution // SMALLEST_BAND).bit_length() - 1


class ModelConfig(Section):
    """Architecture of the generators and discriminators. The parameters of their constructors have the same names.

    Exception: `WaveletDiscriminator` takes `band_std`, the standard deviations, in place of `band_scale`.
    """

    backbone: Literal["dcgan", "residual"] = Field(
        "dcgan", description="architecture of all networks; residual: blocks without normalization, after R3GAN"
    )
    resample: Literal["bilinear", "haar"] | None = Field(
        None,
        validate_default=True,
        description="how residual networks resample feature maps; haar: by the wavelet transform, which loses nothing; "
        "null: bilinear. Must be null for dcgan networks",
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
        description="channels of the largest feature map; each halving of the side doubles their number, up to 8 * width",
    )
    levels: PositiveInt = Field(1, description="levels of the wavelet transform; resolution / 2**levels must be at least 8")
    num_classes: int = Field(
        0,
        ge=0,
        le=LARGEST_COUNT,
        description="number of classes of a conditional model, from the images' labels; 0: unconditional",
    )
    attention: Literal["max", "dot", "none"] = Field("max", description="attention in the base generator")
    attention_at: list[int] = Field(
        [16], description="sizes in pixels of the base generator's feature maps that are followed by an attention layer"
    )
    norm: Literal["batch", "none"] | None = Field(
        None,
        validate_default=True,
        description="normalization in dcgan generators; null: batch. Residual generators have none",
    )
    lam: Literal["free", "clamp", "sigmoid"] = Field(
        "free",
        description="parametrization of the blending scalar lam; free: no bounds; clamp: clamped to [0, 1] after each step; "
        "sigmoid: the sigmoid of a learned logit",
    )
    band_scale: Literal["none", "data"] = Field(
        "none", description="data: divide each band by its standard deviation over the dataset before it enters a discriminator"
    )
    spectral_norm: bool | None = Field(
        None,
        validate_default=True,
        description="spectral norm in dcgan discriminators; excludes gradient penalties; null: true. Residual ones have none",
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
