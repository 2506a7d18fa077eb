"""Attention for feature maps [B, C, H, W]: the patent's "max attention" and SAGAN's dot-product attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaxAttention(nn.Module):
    """`h(x) + expand(softmax(maximum(f(x), g(x))))` (patent CN 111275640 B), linear in H*W.

    The softmax runs over the H*W positions of each channel and its result is multiplied by H*W, so that its mean is 1 at
    every resolution. f and g have C/8 channels, at least 4; a 1x1 convolution brings the map back to C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(channels // 8, 4)
        self.f = nn.Conv2d(channels, narrow, 1)
        self.g = nn.Conv2d(channels, narrow, 1)
        self.h = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(narrow, channels, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        score = torch.maximum(self.f(x_bchw), self.g(x_bchw))
        attention = score.flatten(2).softmax(dim=-1).view_as(score) * (score.shape[-2] * score.shape[-1])
        out: Tensor = self.h(x_bchw) + self.expand(attention)
        return out


class DotAttention(nn.Module):
    """`x + gamma * out(softmax(f(x)^T g(x)) h(x))`, gamma learned from 0 (SAGAN, Zhang et al. 2019), quadratic in H*W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(channels // 8, 4)
        self.f = nn.Conv2d(channels, narrow, 1)
        self.g = nn.Conv2d(channels, narrow, 1)
        self.h = nn.Conv2d(channels, max(channels // 2, 4), 1)
        self.out = nn.Conv2d(max(channels // 2, 4), channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        query, key, value = (net(x_bchw).flatten(2).transpose(1, 2) for net in (self.f, self.g, self.h))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # [B, HW, C/2]; SAGAN does not scale
        attended = attended.transpose(1, 2).reshape(x_bchw.shape[0], -1, *x_bchw.shape[-2:])
        out: Tensor = x_bchw + self.gamma.to(x_bchw.dtype) * self.out(attended)
        return out
