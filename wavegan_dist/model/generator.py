"""The three generators and the learned scalar that joins them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wavegan_dist.errors import UsageError
from wavegan_dist.model.attention import DotAttention, MaxAttention
from wavegan_dist.model.norm import BatchNorm, run_in_lockstep
from wavegan_dist.wavelet import fuse

COLOURS = 3
SIGMOID_START = -4.0  # sigmoid(-4) = 0.018: a sigmoid cannot begin at the patent's 0

INIT_STD = 0.02


class WaveletGenerator(nn.Module):
    """`image = (1 - lam) * base(z) + lam * idwt(low(z[:, :k]), high(z[:, k:]))` (patent CN 111275640 B).

    Args:
        resolution: side of the image in pixels, a power of two from 32 to 256.
        z_dim: size n of the latent.
        z_low: k, how much of the latent the low generator gets; the high one gets the rest. Default n/2.
        width: channels of each network's largest feature map; doubled with each halving, up to 8 times.
        attention: in the base generator: the patent's `max`, SAGAN's `dot` or `none`.
        attention_at: sides of the feature maps that get it.
        norm: `batch` or `none`.
        lam: the mixing scalar as it is (`free`), kept in [0, 1] by the trainer (`clamp`) or through a `sigmoid`.
        base_only: no low and high generators and no lam: the ablation `image = base(z)`.

    Raises:
        UsageError: k outside 1..n-1 or a resolution that is not supported.
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
            raise UsageError(f"z_low = {k} leaves a half of the latent empty; it must be in 1..{z_dim - 1}")
        self.z_dim, self.z_low, self.lam_form = z_dim, k, lam
        places = () if attention == "none" else attention_at
        self.base = Deconvolution(z_dim, resolution, COLOURS, width, norm, attention, places, bound=1.0)
        self.low: nn.Module | None = None
        self.high: nn.Module | None = None
        if not base_only:
            # The Haar bands of an image in [-1, 1] lie in [-2, 2].
            self.low = Deconvolution(k, resolution // 2, COLOURS, width, norm, bound=2.0)
            self.high = Deconvolution(z_dim - k, resolution // 2, 3 * COLOURS, width, norm, bound=2.0)
            self.lam = nn.Parameter(torch.tensor(SIGMOID_START if lam == "sigmoid" else 0.0))

    def forward(self, z: Tensor) -> Tensor:
        """Latents [B, z_dim] -> images [B, 3, resolution, resolution], nominally in [-1, 1]."""
        base, low, high = self.parts(z)
        return base if low is None or high is None else fuse(base, low, high, self.mix())

    def parts(self, z: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Base image [B, 3, R, R], low band [B, 3, R/2, R/2] and high bands [B, 9, R/2, R/2] before the mix."""
        if z.dim() != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"the generator wants latents [B, {self.z_dim}], got {list(z.shape)}")
        if self.low is None or self.high is None:
            return self.base(z), None, None
        nets, inputs = (self.base, self.low, self.high), (z, z[:, : self.z_low], z[:, self.z_low :])
        base, low, high = run_in_lockstep(nets, inputs)
        return base, low, high

    def mix(self) -> Tensor:
        """The effective lam, a scalar tensor (0 where there is only the base)."""
        if self.low is None:
            return torch.zeros(())
        return self.lam.sigmoid() if self.lam_form == "sigmoid" else self.lam

    def bounded(self) -> list[str]:
        """Names of the parameters that the trainer brings back into [0, 1] after each optimizer step: a clamped lam."""
        return ["lam"] if self.lam_form == "clamp" and self.low is not None else []


class Deconvolution(nn.Sequential):
    """A DCGAN generator (Radford et al. 2016): a 4x4 projection of z, then transposed convolutions that double the side.

    The output passes `bound * tanh`. Weights start as DCGAN's, N(0, 0.02): behind batch norm their scale does not matter
    to the output but sets how far a step of Adam turns them (docs/LOG.md: with He's larger ones D won at once).
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
        for side in feature_sides(resolution):
            previous, channels = channels, width_at(side, resolution, width)
            layers.append(_upsample(previous, channels, first=side == 4, bias=norm == "none"))
            if norm == "batch":
                layers.append(BatchNorm(channels))
            layers.append(nn.ReLU(inplace=True))
            if side in attention_at:
                layers.append(MaxAttention(channels) if attention == "max" else DotAttention(channels))
        layers += [_upsample(channels, out_channels, first=False, bias=True), ScaledTanh(bound)]
        super().__init__(*layers)


class ScaledTanh(nn.Module):
    """`bound * tanh(x)`."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        return self.bound * x.tanh()


def check_resolution(resolution: int) -> None:
    """Raise UsageError unless `resolution` is a power of two from 32 to 256."""
    if resolution not in (32, 64, 128, 256):
        raise UsageError(f"resolution {resolution} is not a power of two from 32 to 256")


def feature_sides(resolution: int) -> list[int]:
    """Sides of the feature maps between z and an image: 4, 8, ..., resolution / 2."""
    return [2**n for n in range(2, resolution.bit_length() - 1)]


def width_at(side: int, resolution: int, width: int) -> int:
    """Channels of the feature map of that side in a network for that resolution."""
    return width * min(resolution // (2 * side), 8)


def _upsample(inputs: int, outputs: int, *, first: bool, bias: bool) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(inputs, outputs, 4, 1 if first else 2, 0 if first else 1, bias=bias)
    nn.init.normal_(layer.weight, std=INIT_STD)
    return layer
