"""The wavelet generator: three DCGAN generators whose outputs are blended by one learned scalar, lam."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.errors import UsageError
from wavegan_dist.model.attention import DotAttention, MaxAttention
from wavegan_dist.model.shapes import IMAGE_CHANNELS, check_resolution, feature_map_channels, feature_map_sizes
from wavegan_dist.wavelet import fuse

SIGMOID_LOGIT_INIT = -4.0  # sigmoid(-4) = 0.018: a sigmoid cannot output the patent's initial value of exactly 0
INIT_STD = 0.02
# The Haar bands of an image in [-1, 1] lie in [-2, 2].
IMAGE_BOUND, BAND_BOUND = 1.0, 2.0

NetworkRunner = Callable[[Sequence[nn.Module], Sequence[Tensor]], Sequence[Tensor]]


class WaveletGenerator(nn.Module):
    """Generates images as `(1 - lam) * base(z) + lam * idwt(low(z[:, :k]), high(z[:, k:]))` (patent CN 111275640 B).

    Attributes:
        base, low, high: the three networks; `low` and `high` are None with `base_only`.
        lam: the learned blending scalar, as stored (see `effective_lam`); absent with `base_only`.
        training_runner: in training mode, called as `training_runner(networks, inputs)` to run the three networks. None (the
            default): each network is called directly. See `model.lockstep`, its only use.

    Args:
        resolution: height and width of the image in pixels, one of `config.RESOLUTIONS`.
        z_dim: size n of the latent.
        z_low: k, the number of latent components that feed `low`; the remaining n - k feed `high`. Default: n / 2.
        width: number of channels of each network's largest feature map; each halving of the size doubles it, up to 8 times.
        attention: attention layer of `base`: the patent's `max`, SAGAN's `dot` or `none`.
        attention_at: sizes in pixels of the feature maps of `base` that are followed by an attention layer.
        norm: `batch` for batch norm after every transposed convolution but the last, or `none`.
        lam: how lam is parametrized: `free` (unbounded), `clamp` (the trainer clamps it to [0, 1] after each optimizer step)
            or `sigmoid` (the stored parameter is a logit).
        base_only: ablation without `low`, `high` and lam: `image = base(z)`.

    Raises:
        UsageError: `z_low` is outside 1..z_dim-1, or `resolution` is not supported.
    """

    def __init__(
        self,
        resolution: int = 32,
        z_dim: int = 128,
        z_low: int | None = None,
        width: int = 64,
        attention: Literal["max", "dot", "none"] = "max",
        attention_at: Sequence[int] = (16,),
        norm: Literal["batch", "none"] = "batch",
        lam: Literal["free", "clamp", "sigmoid"] = "free",
        base_only: bool = False,
    ) -> None:
        super().__init__()
        check_resolution(resolution)
        k = z_dim // 2 if z_low is None else z_low
        if not 1 <= k < z_dim:
            raise UsageError(f"z_low = {k} leaves one part of the latent empty; it must be in 1..{z_dim - 1}")
        self.z_dim, self.z_low, self.lam_form = z_dim, k, lam
        self.training_runner: NetworkRunner | None = None
        self.base = DCGANGenerator(z_dim, resolution, IMAGE_CHANNELS, width, norm, attention, attention_at, bound=IMAGE_BOUND)
        self.low: nn.Module | None = None
        self.high: nn.Module | None = None
        if not base_only:
            self.low = DCGANGenerator(k, resolution // 2, IMAGE_CHANNELS, width, norm, bound=BAND_BOUND)
            self.high = DCGANGenerator(z_dim - k, resolution // 2, 3 * IMAGE_CHANNELS, width, norm, bound=BAND_BOUND)
            self.lam = nn.Parameter(torch.tensor(SIGMOID_LOGIT_INIT if lam == "sigmoid" else 0.0))

    @override
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images.

        Args:
            z: latents, float [B, z_dim], standard normal.
            labels: classes, int64 [B].

        Returns:
            Images [B, 3, resolution, resolution], nominally in [-1, 1]: a blend with lam outside [0, 1] may exceed this range.
        """
        base, low, high = self.components(z, labels)
        return base if low is None or high is None else fuse(base, low, high, self.effective_lam())

    def components(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the three networks without blending their outputs.

        Args:
            z: latents, float [B, z_dim].
            labels: classes, int64 [B].

        Returns:
            The base image [B, 3, R, R], the low band [B, 3, R/2, R/2] and the high bands LH, HL, HH joined by channel
            [B, 9, R/2, R/2]; both bands are None with `base_only`.

        Raises:
            UsageError: `z` has another shape.
        """
        if z.dim() != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"the generator expects latents [B, {self.z_dim}], got {list(z.shape)}")
        if self.low is None or self.high is None:
            return self.base(z), None, None
        z_low, z_high = z[:, : self.z_low], z[:, self.z_low :]
        if self.training and self.training_runner is not None:
            base, low, high = self.training_runner((self.base, self.low, self.high), (z, z_low, z_high))
            return base, low, high
        return self.base(z), self.low(z_low), self.high(z_high)

    def effective_lam(self) -> Tensor:
        """Return the lam that `forward` blends with: a scalar tensor, after the sigmoid if any; 0 with `base_only`."""
        if self.low is None:
            return torch.zeros(())
        return self.lam.sigmoid() if self.lam_form == "sigmoid" else self.lam

    def clamped_parameters(self) -> list[str]:
        """Return the names of the parameters that the trainer must clamp to [0, 1] after each optimizer step."""
        return ["lam"] if self.lam_form == "clamp" and self.low is not None else []


class DCGANGenerator(nn.Sequential):
    """A DCGAN generator (Radford et al. 2016) from a latent [B, z_dim] to `bound * tanh(...)` of shape [B, C, R, R].

    A transposed convolution projects the latent to 4x4; each following one doubles the size. Weights are initialized from
    N(0, 0.02) as in DCGAN. Under batch norm the scale of the weights does not change the output, but it sets how far one Adam
    step turns them: with He initialization, whose weights are larger, the discriminators won at once (docs/LOG.md).

    Args:
        z_dim: size of the latent.
        resolution: height and width R of the output in pixels.
        out_channels: number of channels C of the output.
        width: number of channels of the largest feature map (`feature_map_channels`).
        norm: `batch` or `none`.
        attention: attention layer: `max`, `dot` or `none`.
        attention_at: sizes of the feature maps that are followed by an attention layer.
        bound: largest absolute value of the output.
    """

    def __init__(
        self,
        z_dim: int,
        resolution: int,
        out_channels: int,
        width: int,
        norm: Literal["batch", "none"],
        attention: Literal["max", "dot", "none"] = "none",
        attention_at: Sequence[int] = (),
        *,
        bound: float,
    ) -> None:
        layers: list[nn.Module] = [nn.Unflatten(1, (z_dim, 1, 1))]
        channels = z_dim
        for size in feature_map_sizes(resolution):
            in_channels, channels = channels, feature_map_channels(size, resolution, width)
            layers.append(_conv_transpose(in_channels, channels, project=size == 4, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU(inplace=True))
            if attention != "none" and size in attention_at:
                layers.append(MaxAttention(channels) if attention == "max" else DotAttention(channels))
        layers += [_conv_transpose(channels, out_channels, project=False, bias=True), ScaledTanh(bound)]
        super().__init__(*layers)


class ScaledTanh(nn.Module):
    """Applies `bound * tanh(x)` element by element."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.bound * x.tanh()


def _conv_transpose(in_channels: int, out_channels: int, *, project: bool, bias: bool) -> nn.ConvTranspose2d:
    """A 4x4 transposed convolution: from 1x1 to 4x4 (`project`), or doubling the size."""
    stride, padding = (1, 0) if project else (2, 1)
    layer = nn.ConvTranspose2d(in_channels, out_channels, 4, stride, padding, bias=bias)
    nn.init.normal_(layer.weight, std=INIT_STD)
    return layer
