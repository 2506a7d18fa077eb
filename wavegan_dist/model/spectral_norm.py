"""Spectral normalization whose power iteration always runs in float32."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from typing_extensions import override


class Float32SpectralNorm(_SpectralNorm):
    """PyTorch's spectral norm with autocast disabled: on GPUs, autocast runs matrix-vector products in 16 bits."""

    @override
    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


def spectral_norm(conv: nn.Conv2d) -> nn.Conv2d:
    """Divide the weight of `conv` by its largest singular value (Miyato et al. 2018) at each forward; returns `conv`.

    Parameters and buffers are named as `torch.nn.utils.parametrizations.spectral_norm` names them.
    """
    parametrize.register_parametrization(conv, "weight", Float32SpectralNorm(conv.weight))
    return conv
