"""DCGAN networks (Radford et al. 2016): batch norm in the generators, spectral norm in the discriminators."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.model.attention import make_attention
from wavegan_dist.model.shapes import feature_map_channels, feature_map_sizes
from wavegan_dist.model.spectral_norm import spectral_norm as normalize_spectrum

INIT_STD = 0.02


class DCGANGenerator(nn.Sequential):
    """A DCGAN generator from latents [B, z_dim] to one or several outputs `bound * tanh(...)` of shape [B, C, s, s].

    A transposed convolution projects the latent to 4x4; each following one doubles the size. An output of `s` pixels is
    computed from the feature map of `s / 2` pixels. Weights of transposed convolutions are initialized from a normal
    distribution with standard deviation 0.02, as in DCGAN. Under batch norm the scale of the weights does not change the
    output, but it sets how far one Adam step turns them: with He initialization, whose weights are larger, the discriminators
    won at once (docs/LOG.md).

    Args:
        z_dim: size of the latent.
        bounds: height (= width) s of each output in pixels -> largest absolute value of the output. The sizes are consecutive
            powers of two, at least 8.
        out_channels: number of channels C of each output.
        width: number of channels of the largest feature map (`feature_map_channels`).
        norm: `batch` or `none`.
        num_classes: number of classes. Each class has a gain and a bias for each channel of every feature map: conditional
            batch norm (Dumoulin et al. 2017) if `norm` is `batch`. 0: the network takes no labels.
        attention: attention layer: `max`, `dot` or `none`.
        attention_at: sizes of the feature maps that are followed by an attention layer; others are ignored.
    """

    def __init__(
        self,
        z_dim: int,
        bounds: dict[int, float],
        out_channels: int,
        width: int,
        norm: Literal["batch", "none"] = "batch",
        num_classes: int = 0,
        attention: Literal["max", "dot", "none"] = "none",
        attention_at: Sequence[int] = (),
    ) -> None:
        resolution = max(bounds)
        layers: list[nn.Module] = [nn.Unflatten(1, (z_dim, 1, 1))]
        channels = z_dim
        for size in feature_map_sizes(resolution):
            in_channels, channels = channels, feature_map_channels(size, resolution, width)
            layers.append(_conv_transpose(in_channels, channels, project=size == 4, bias=norm == "none" and not num_classes))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(channels, affine=not num_classes))
            if num_classes:
                layers.append(ClassAffine(num_classes, channels))
            layers.append(nn.ReLU(inplace=True))
            if attention != "none" and size in attention_at:
                layers.append(make_attention(attention, channels))
            if 2 * size in bounds:
                layers.append(OutputHead(channels, out_channels, bounds[2 * size]))
        super().__init__(*layers)

    @override
    def forward(self, z: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """Return the outputs, float [B, C, s, s], the largest first.

        Args:
            z: latents, float [B, z_dim].
            labels: classes, int64 [B], for a network with `num_classes`; other networks do not use them.
        """
        outputs: list[Tensor] = []
        activation = z
        for layer in self:
            activation = apply_layer(layer, activation, labels, outputs)
        return outputs[::-1]


class ClassAffine(nn.Module):
    """Multiplies each channel of [B, C, H, W] by a gain of the sample's class and adds a bias of the class; initially 1 and 0.

    The classes are the second argument of `forward`, int64 [B].

    Args:
        num_classes: number of classes.
        channels: number of channels C.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.gain, self.bias = nn.Embedding(num_classes, channels), nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    @override
    def forward(self, x_bchw: Tensor, labels: Tensor) -> Tensor:
        gain, bias = (table(labels)[:, :, None, None].to(x_bchw.dtype) for table in (self.gain, self.bias))
        return torch.addcmul(bias, x_bchw, gain)


class OutputHead(nn.ConvTranspose2d):
    """A 4x4 transposed convolution, then `bound * tanh(x)`: [B, in_channels, H, W] -> [B, out_channels, 2H, 2W]."""

    def __init__(self, in_channels: int, out_channels: int, bound: float) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1)
        nn.init.normal_(self.weight, std=INIT_STD)
        self.bound = bound

    @override
    def forward(self, x_bchw: Tensor, output_size: list[int] | None = None) -> Tensor:
        return self.bound * super().forward(x_bchw, output_size).tanh()


class Projection(nn.ConvTranspose2d):
    """A transposed convolution of a 1x1 map, computed as a matrix product: [B, in_channels, 1, 1] -> [B, out_channels, 4, 4].

    With the convolution, `torch.compile` failed on a GPU, probably because cuDNN returns the weight's gradient in another
    memory format than PyTorch's shape inference says (PyTorch 2.11).
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 4, bias=bias)

    @override
    def forward(self, x_bchw: Tensor, output_size: list[int] | None = None) -> Tensor:
        matrix = self.weight.permute(0, 2, 3, 1).flatten(1)  # a view of channels-last weights
        out: Tensor = (x_bchw.flatten(1) @ matrix).unflatten(1, (*self.kernel_size, -1)).permute(0, 3, 1, 2)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


def apply_layer(layer: nn.Module, activation: Tensor, labels: Tensor | None, outputs: list[Tensor]) -> Tensor:
    """Apply one layer of a `DCGANGenerator`.

    Args:
        layer: the layer.
        activation: the input of the layer; a ReLU changes it in place.
        labels: classes, int64 [B], for a `ClassAffine`; other layers do not use them.
        outputs: the output of an `OutputHead` is appended to this list; the layer that follows gets the input of the
            `OutputHead`.

    Returns:
        The input of the next layer.
    """
    if isinstance(layer, OutputHead):
        outputs.append(layer(activation))
        return activation
    result: Tensor = layer(activation, labels) if isinstance(layer, ClassAffine) else layer(activation)
    return result


class DCGANDiscriminator(nn.Sequential):
    """A DCGAN discriminator, from [B, C, R, R] to one logit per image, [B].

    Strided convolutions halve the size down to 4x4; a last 4x4 convolution gives the logit.

    Args:
        resolution: height and width R of the first input in pixels.
        in_channels: number of channels C of each input.
        width: number of channels of the largest feature map (`feature_map_channels`).
        levels: number of inputs. Input i > 0, of R / 2**i >= 8 pixels, is concatenated with the feature map of its size.
        num_classes: number of classes, for a projection head. 0: the network takes no labels.
        spectral_norm: divide each layer's weight by an estimate of its largest singular value (Miyato et al. 2018).
        logit_gain: factor of the logits. With spectral norm, random convolutions shrink their input so much that logits hardly
            leave 0.
    """

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        width: int,
        levels: int = 1,
        num_classes: int = 0,
        spectral_norm: bool = True,
        logit_gain: float = 1.0,
    ) -> None:
        normalized: Callable[[Any], Any] = normalize_spectrum if spectral_norm else nn.Identity()
        layers: list[nn.Module] = []
        channels = 0
        for depth, size in enumerate(reversed(feature_map_sizes(resolution))):
            joined_channels = channels + (in_channels if depth < levels else 0)
            channels = feature_map_channels(size, resolution, width)
            layers += [normalized(nn.Conv2d(joined_channels, channels, 4, 2, 1)), nn.LeakyReLU(0.1, inplace=True)]
        logit_layer = normalized(nn.Conv2d(channels, 1, 4))
        if num_classes:
            layers.append(ProjectionHead(logit_layer, normalized(nn.Embedding(num_classes, channels))))
        else:
            layers += [logit_layer, nn.Flatten(0)]
        super().__init__(*layers)
        self.logit_gain = logit_gain

    @override
    def forward(self, inputs: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the logits [B].

        Args:
            inputs: float [B, C, R, R], then [B, C, R/2, R/2], ..., one for each level. The sizes are not checked.
            labels: classes, int64 [B], for a network with `num_classes`; other networks do not use them.
        """
        activation, *deeper = inputs
        for number, layer in enumerate(self):
            if number and deeper and isinstance(layer, nn.Conv2d):
                activation = torch.cat((activation, deeper.pop(0)), dim=1)
            activation = layer(activation, labels) if isinstance(layer, ProjectionHead) else layer(activation)
        return self.logit_gain * activation


class ProjectionHead(nn.Module):
    """Logit of a conditional discriminator: a linear term and a projection (Miyato and Koyama 2018).

    The logit of a feature map x is `conv(x) + <embedding(label), sum(x over the 4x4 positions) / 4>`. The norm of this scaled
    sum is at most the norm of x, so with spectral norm both terms have the same Lipschitz bound.

    Args:
        linear: the convolution, from C channels to one.
        embedding: `nn.Embedding(num_classes, C)`.
    """

    def __init__(self, linear: nn.Conv2d, embedding: nn.Embedding) -> None:
        super().__init__()
        self.linear, self.embedding = linear, embedding

    @override
    def forward(self, x_bchw: Tensor, labels: Tensor) -> Tensor:
        """Compute the logits [B] from feature maps [B, C, 4, 4] and classes int64 [B]."""
        projection = (self.embedding(labels) * (x_bchw.sum(dim=(2, 3)) / 4)).sum(dim=1)
        logits: Tensor = self.linear(x_bchw).flatten() + projection
        return logits


def _conv_transpose(in_channels: int, out_channels: int, *, project: bool, bias: bool) -> nn.ConvTranspose2d:
    """A 4x4 transposed convolution: from 1x1 to 4x4 (`project`), or doubling the size."""
    if project:
        layer: nn.ConvTranspose2d = Projection(in_channels, out_channels, bias)
    else:
        layer = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)
    nn.init.normal_(layer.weight, std=INIT_STD)
    return layer
