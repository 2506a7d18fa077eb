"""Spectral normalization whose power iteration always runs in float32."""

from contextlib import nullcontext
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
        device = weight.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            return super().forward(weight)


def spectral_norm(layer: Layer) -> Layer:
    """Make `layer` divide its weight by an estimate of the weight's largest singular value (Miyato et al. 2018).

    Changes `layer` in place, by a parametrization of `layer.weight`, and returns it. Each forward in training mode improves the
    estimate by one step of power iteration, which autocast does not affect. Parameters and buffers are named as
    `torch.nn.utils.parametrizations.spectral_norm` names them.
    """
    parametrize.register_parametrization(layer, "weight", Float32SpectralNorm(layer.weight))
    return layer
