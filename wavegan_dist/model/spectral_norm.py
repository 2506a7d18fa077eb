"""Spectral normalization whose power iteration always runs in float32."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from typing_extensions import override

Layer = TypeVar("Layer", nn.Conv2d, nn.Embedding)


class Float32SpectralNorm(_SpectralNorm):
    """PyTorch's spectral norm with autocast disabled: on GPUs, autocast runs matrix-vector products in 16 bits."""

    @override
    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


def spectral_norm(layer: Layer) -> Layer:
    """Divide the weight of `layer` by its largest singular value (Miyato et al. 2018) at each forward; returns `layer`.

    Parameters and buffers are named as `torch.nn.utils.parametrizations.spectral_norm` names them.
    """
    parametrize.register_parametrization(layer, "weight", Float32SpectralNorm(layer.weight))
    return layer
