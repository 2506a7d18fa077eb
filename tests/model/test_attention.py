"""Attention against NumPy."""

import numpy as np
import torch

from wavegan_dist.model.attention import DotAttention, MaxAttention


def convolve_1x1(x: np.ndarray, layer: torch.nn.Conv2d) -> np.ndarray:
    assert layer.bias is not None
    weight, bias = layer.weight.detach().numpy()[:, :, 0, 0], layer.bias.detach().numpy()
    return np.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    raised = np.exp(x - x.max(axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)


def inputs() -> tuple[torch.Tensor, np.ndarray]:
    x = torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(1))
    return x, x.numpy()


def test_max_attention_equals_numpy():
    torch.manual_seed(0)
    layer, (x, x_numpy) = MaxAttention(16), inputs()
    score = np.maximum(convolve_1x1(x_numpy, layer.f), convolve_1x1(x_numpy, layer.g))
    attention = softmax(score.reshape(2, 4, 24), axis=2).reshape(score.shape) * 24
    expected = convolve_1x1(x_numpy, layer.h) + convolve_1x1(attention, layer.expand)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_max_attention_map_has_mean_1_at_every_size():
    torch.manual_seed(0)
    layer = MaxAttention(16)
    torch.nn.init.zeros_(layer.h.weight)
    assert layer.h.bias is not None
    torch.nn.init.zeros_(layer.h.bias)
    expected = layer.expand(torch.ones(1, 4, 1, 1)).flatten()
    for side in (4, 8, 16):
        out = layer(torch.randn(2, 16, side, side))
        torch.testing.assert_close(out.mean((2, 3)), expected.expand(2, -1), rtol=1e-4, atol=1e-5)


def test_max_attention_is_narrow_but_has_4_channels_at_least():
    assert MaxAttention(128).f.out_channels == 16
    assert MaxAttention(8).f.out_channels == 4


def test_dot_attention_equals_numpy_and_starts_as_the_identity():
    torch.manual_seed(0)
    layer, (x, x_numpy) = DotAttention(16), inputs()
    torch.testing.assert_close(layer(x), x)
    with torch.no_grad():
        layer.gamma.fill_(0.7)
    query, key, value = (convolve_1x1(x_numpy, net).reshape(2, -1, 24) for net in (layer.f, layer.g, layer.h))
    weights = softmax(np.einsum("bcq,bck->bqk", query, key), axis=2)
    attended = np.einsum("bqk,bck->bcq", weights, value).reshape(2, 8, 4, 6)
    expected = x_numpy + 0.7 * convolve_1x1(attended, layer.out)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
