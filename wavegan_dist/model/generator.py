"""The wavelet generator: three networks whose outputs are blended by one learned scalar, lam."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.errors import UsageError
from wavegan_dist.model.backbones.dcgan import DCGANGenerator
from wavegan_dist.model.backbones.residual import ResidualGenerator
from wavegan_dist.model.pretrained import PretrainedGenerator
from wavegan_dist.model.shapes import (
    IMAGE_CHANNELS,
    band_sizes,
    check_arguments,
    check_labels,
    check_levels,
    check_resolution,
)
from wavegan_dist.wavelet import fuse, waverec

SIGMOID_LOGIT_INIT = -4.0  # sigmoid(-4) = 0.018: a sigmoid cannot output the patent's initial value of exactly 0

# (networks, the input of each, labels) -> the outputs of each network, the largest first
NetworkRunner = Callable[[Sequence[nn.Module], Sequence[Tensor], Tensor | None], Sequence[list[Tensor]]]


class WaveletGenerator(PretrainedGenerator):
    """Generates images as `(1 - lam) * base(z) + lam * idwt(low(z[:, :k]), high(z[:, k:]))` (patent CN 111275640 B).

    With several `levels`, `low` generates the low band of the last level, `high` the high bands of every level, and `waverec`
    takes the place of `idwt`.

    The base class `PretrainedGenerator` has the methods for a trained generator: `sample`, `from_pretrained`,
    `save_pretrained`, `push_to_hub`.

    Attributes:
        base, low, high: the three networks; `low` and `high` are None with `base_only`. Each returns a list of outputs, the
            largest first.
        lam: the learned blending scalar, as stored (see `effective_lam`); absent with `base_only`.
        training_runner: function that runs the three networks in training mode, called as `training_runner(networks, inputs,
            labels)`. None (the default): each network is called directly. Only `model.lockstep` sets it, to a function that
            makes collective calls. Unused with `base_only`.

    Args:
        resolution: height and width of the image in pixels, one of `config.RESOLUTIONS`.
        z_dim: size n of the latent.
        z_low: k, the number of latent components that feed `low`; the remaining n - k feed `high`. None: n // 2.
        width: number of channels of each network's largest feature map. Each halving of the feature map's size doubles the
            number of channels, up to `8 * width`.
        levels: number of levels of the wavelet transform; `resolution / 2**levels` is at least 8.
        num_classes: number of classes; 0: the generator takes no labels.
        backbone: architecture of the three networks: `dcgan` or `residual`.
        resample: how `residual` networks double the size of feature maps: `bilinear` or `haar`. None: `bilinear`. Unused in
            `dcgan` networks.
        attention: attention layer of `base`: the patent's `max`, SAGAN's `dot` or `none`.
        attention_at: sizes in pixels of the feature maps of `base` that are followed by an attention layer. A `dcgan` network
            ignores sizes that it does not have.
        norm: normalization of `dcgan` networks: `batch` for batch norm after every transposed convolution but the last, or
            `none`. None: `batch`. Unused in `residual` networks, which have no normalization.
        lam: how lam is parametrized: `free` (unbounded), `clamp` (the trainer clamps it to [0, 1] after each optimizer step)
            or `sigmoid` (the stored parameter is a logit).
        base_only: ablation without `low`, `high` and lam: `image = base(z)`.

    Raises:
        UsageError: an argument is of the wrong type or not one of its choices, `z_low` is outside 1..z_dim-1, `resolution` is
            not supported, or there are too many levels for it; or `backbone` is `residual`, `attention` is not `none`, and
            `base` has no feature map of a size in `attention_at`.
    """

    def __init__(
        self,
        resolution: int = 32,
        z_dim: int = 128,
        z_low: int | None = None,
        width: int = 64,
        levels: int = 1,
        num_classes: int = 0,
        backbone: Literal["dcgan", "residual"] = "dcgan",
        resample: Literal["bilinear", "haar"] | None = None,
        attention: Literal["max", "dot", "none"] = "max",
        attention_at: Sequence[int] = (16,),
        norm: Literal["batch", "none"] | None = None,
        lam: Literal["free", "clamp", "sigmoid"] = "free",
        base_only: bool = False,
    ) -> None:
        super().__init__()
        check_arguments(resolution=resolution, z_dim=z_dim, z_low=z_low, width=width, num_classes=num_classes)
        check_arguments(backbone=backbone, resample=resample, attention=attention, norm=norm, lam=lam, base_only=base_only)
        check_resolution(resolution)
        check_levels(levels, resolution)
        k = z_dim // 2 if z_low is None else z_low
        if not 1 <= k < z_dim:
            raise UsageError(f"z_low = {k} leaves one part of the latent empty; it must be in 1..{z_dim - 1}")
        self.resolution, self.width, self.num_classes = resolution, width, num_classes
        self.z_dim, self.z_low, self.lam_form = z_dim, k, lam
        self.training_runner: NetworkRunner | None = None

        def network(z_dim: int, sizes: Sequence[int], channels: int, **options: Any) -> nn.Module:
            if backbone == "residual":
                return ResidualGenerator(
                    z_dim, sizes, channels, width, num_classes=num_classes, resample=resample or "bilinear", **options
                )
            # The bands of level j of an image in [-1, 1] lie in [-2**j, 2**j].
            bounds = {size: float(resolution // size) for size in sizes}
            return DCGANGenerator(z_dim, bounds, channels, width, norm or "batch", num_classes, **options)

        self.base = network(z_dim, [resolution], IMAGE_CHANNELS, attention=attention, attention_at=attention_at)
        self.low: nn.Module | None = None
        self.high: nn.Module | None = None
        if not base_only:
            sizes = band_sizes(resolution, levels)
            self.low = network(k, sizes[-1:], IMAGE_CHANNELS)
            self.high = network(z_dim - k, sizes, 3 * IMAGE_CHANNELS)
            self.lam = nn.Parameter(torch.tensor(SIGMOID_LOGIT_INIT if lam == "sigmoid" else 0.0))

    @override
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images. A collective call in training mode if `model.lockstep` has converted the generator.

        Args:
            z: latents, float [B, z_dim], standard normal.
            labels: classes, int64 [B] in 0..num_classes-1; None if `num_classes` is 0.

        Returns:
            Images, float [B, 3, resolution, resolution]. Pixels are in about [-1, 1] and not clamped: the inverse transform of
            bounded bands may exceed this range, and the outputs of `residual` networks have no bound.

        Raises:
            UsageError: `z` has another shape, or labels are missing, not expected, or not int64 [B].
        """
        base, low, highs = self.components(z, labels)
        return base if low is None else self.blend(base, low, highs)

    def components(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Run the three networks without blending their outputs.

        A collective call in training mode if `training_runner` is set.

        Args:
            z: latents, float [B, z_dim], standard normal.
            labels: classes, int64 [B] in 0..num_classes-1; None if `num_classes` is 0.

        Returns:
            The base image [B, 3, R, R], the low band of the last level [B, 3, R / 2**levels, R / 2**levels], and the high bands
            of every level as `wavelet.wavedec` returns them, the coarsest first: [B, 9, R / 2**levels, R / 2**levels], ...,
            [B, 9, R/2, R/2]. With `base_only` the low band is None and there are no high bands.

        Raises:
            UsageError: `z` has another shape, or labels are missing, not expected, or not int64 [B].
        """
        if z.dim() != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"the generator expects latents [B, {self.z_dim}], got {list(z.shape)}")
        check_labels(labels, self.num_classes, z.shape[0])
        if self.low is None or self.high is None:
            return self.base(z, labels)[0], None, []
        networks, inputs = (self.base, self.low, self.high), (z, z[:, : self.z_low], z[:, self.z_low :])
        if self.training and self.training_runner is not None:
            outputs = self.training_runner(networks, inputs, labels)
        else:
            outputs = [network(x, labels) for network, x in zip(networks, inputs, strict=True)]
        (base,), (low,), highs = outputs
        return base, low, highs[::-1]

    def blend(self, base: Tensor, low: Tensor, highs: Sequence[Tensor]) -> Tensor:
        """Return the images `(1 - lam) * base + lam * waverec(low, highs)`, float [B, 3, R, R] in the dtype of `base`.

        The arguments are what `components` returns. A generator with `base_only` has nothing to blend: empty `highs` raise
        ValueError. On devices with compiled kernels, the inverse transform of level 1, the finest, and the blend take one pass
        over memory.
        """
        *coarser, high = highs
        return fuse(base, waverec(low, coarser) if coarser else low, high, self.effective_lam())

    def effective_lam(self) -> Tensor:
        """Return the lam that `forward` blends with: a scalar tensor, after the sigmoid if any.

        With `base_only`, returns 0 on the CPU; else the scalar is on the generator's device and differentiable.
        """
        if self.low is None:
            return torch.zeros(())
        return self.lam.sigmoid() if self.lam_form == "sigmoid" else self.lam

    def clamped_parameters(self) -> list[str]:
        """Return the names of the parameters that the trainer must clamp to [0, 1] after each optimizer step: ["lam"] or []."""
        return ["lam"] if self.lam_form == "clamp" and self.low is not None else []
