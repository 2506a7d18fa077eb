"""Image and feature-map sizes that the generators and the discriminators share, and checks of arguments."""

from typing import Annotated, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from wavegan_dist.config import RESOLUTIONS, ModelConfig, deepest_level
from wavegan_dist.errors import UsageError

IMAGE_CHANNELS = 3  # RGB


def check_arguments(**arguments: Any) -> None:
    """Check that each argument is valid as the setting `model.NAME` of its name, without conversion, by itself.

    Raises:
        UsageError: an argument is not valid.
    """
    for name, value in arguments.items():
        field = ModelConfig.model_fields[name]
        annotation: Any = Annotated[field.annotation, name, *field.metadata]
        try:
            TypeAdapter(annotation).validate_python(value, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UsageError(f"{name} = {value!r}: {reason[0].lower()}{reason[1:]}") from error


def check_resolution(resolution: int) -> None:
    """Check that the networks can be built for images of `resolution` x `resolution` pixels.

    Raises:
        UsageError: `resolution` is not one of `config.RESOLUTIONS`.
    """
    if resolution not in RESOLUTIONS:
        raise UsageError(f"resolution {resolution} is not a power of two from {RESOLUTIONS[0]} to {RESOLUTIONS[-1]}")


def check_levels(levels: int, resolution: int) -> None:
    """Check that images of `resolution` pixels can be decomposed into this number of levels.

    Raises:
        UsageError: `levels` is less than 1, or the bands of the last level are smaller than 8 x 8 pixels.
    """
    most = deepest_level(resolution)
    if not 1 <= levels <= most:
        raise UsageError(f"levels = {levels}: images of {resolution} px have 1 to {most} levels with bands of at least 8 px")


def check_labels(labels: Tensor | None, num_classes: int, batch: int) -> None:
    """Check that labels are given if and only if `num_classes` is above 0, one for each of `batch` samples.

    The values of the labels are not checked.

    Raises:
        UsageError: labels are missing, not expected, or not int64 [batch].
    """
    if not num_classes:
        if labels is not None:
            raise UsageError("an unconditional model takes no labels; pass None, or build the model with num_classes")
    elif labels is None:
        raise UsageError(f"a model with {num_classes} classes needs a label for each of {batch} samples, got None")
    elif labels.shape != (batch,) or labels.dtype != torch.int64:
        raise UsageError(f"labels must be int64 [{batch}], got {labels.dtype} {list(labels.shape)}")


def band_sizes(resolution: int, levels: int) -> list[int]:
    """Heights (= widths) of the Haar bands of an image of `resolution` pixels, level by level: [R/2, R/4, ...]."""
    return [resolution >> level for level in range(1, levels + 1)]


def feature_map_sizes(resolution: int) -> list[int]:
    """Heights (= widths) in pixels of a network's feature maps, in ascending order: [4, 8, ..., resolution / 2].

    Args:
        resolution: height and width in pixels of the network's largest image or band, a power of two, at least 8.
    """
    return [2**n for n in range(2, resolution.bit_length() - 1)]


def feature_map_channels(size: int, resolution: int, width: int) -> int:
    """Number of channels of the feature map of `size` x `size` pixels in a network for images of `resolution` pixels.

    The largest feature map (resolution / 2) has `width` channels. Each halving of the size doubles the number of channels, up
    to 8 * `width`.
    """
    return width * min(resolution // (2 * size), 8)
