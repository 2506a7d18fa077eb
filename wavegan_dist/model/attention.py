"""Attention for feature maps [B, C, H, W]: the patent's "max attention" and SAGAN's dot-product attention."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override


class MaxAttention(nn.Module):
    """Computes `h(x) + expand(H*W * softmax(maximum(f(x), g(x))))` (patent CN 111275640 B); the cost is linear in H*W.

    The input x and the output are [B, C, H, W]. The softmax runs over the H*W positions of each channel. With the factor H*W,
    the mean over the positions is 1 at every resolution. All four layers are 1x1 convolutions: f and g from C to max(C/8, 4)
    channels, h from C to C, and `expand` from the channels of f and g back to C.

    Args:
        channels: number of channels C of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden_channels = max(channels // 8, 4)
        self.f = nn.Conv2d(channels, hidden_channels, 1)
        self.g = nn.Conv2d(channels, hidden_channels, 1)
        self.h = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(hidden_channels, channels, 1)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        score = torch.maximum(self.f(x_bchw), self.g(x_bchw))
        attention = score.flatten(2).softmax(dim=-1).view_as(score) * (score.shape[-2] * score.shape[-1])
        out: Tensor = self.h(x_bchw) + self.expand(attention)
        return out


class DotAttention(nn.Module):
    """Computes `x + gamma * out(softmax(f(x)^T g(x)) h(x))` (SAGAN, Zhang et al. 2019); the cost is quadratic in H*W.

    The input x and the output are [B, C, H, W]. The softmax runs over the H*W positions of g(x). All four layers are 1x1
    convolutions: f and g from C to max(C/8, 4) channels, h from C to max(C/2, 4), and `out` from the channels of h back to
    C. The scalar gamma is learned and initialized to 0.

    Args:
        channels: number of channels C of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden_channels = max(channels // 8, 4)
        self.f = nn.Conv2d(channels, hidden_channels, 1)
        self.g = nn.Conv2d(channels, hidden_channels, 1)
        self.h = nn.Conv2d(channels, max(channels // 2, 4), 1)
        self.out = nn.Conv2d(max(channels // 2, 4), channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        # [B, HW, C]: with four dimensions, PyTorch would choose fused kernels, whose backward on GPUs adds in arbitrary order.
        query, key, value = (net(x_bchw).flatten(2).transpose(1, 2) for net in (self.f, self.g, self.h))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # [B, HW, C/2]; SAGAN does not scale
        attended = attended.transpose(1, 2).unflatten(2, x_bchw.shape[-2:])
        out: Tensor = x_bchw + self.gamma.to(x_bchw.dtype) * self.out(attended)
        return out


def make_attention(kind: Literal["max", "dot"], channels: int) -> nn.Module:
    """Return a `MaxAttention` ("max") or `DotAttention` ("dot") for feature maps with `channels` channels."""
    return MaxAttention(channels) if kind == "max" else DotAttention(channels)
