"""The operations that `haar.py` times: ours, their derivatives, and other implementations."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_wavelets import DWTForward, DWTInverse
from torch import Tensor
from torch._dynamo import config as dynamo
from torch._functorch import config as functorch

from wavegan_dist import wavelet
from wavegan_dist.wavelet import reference

Order = Literal["forward", "backward", "double backward"]
Function = Callable[..., Any]  # of tensors, to a tensor or a sequence of tensors

ORDERS: tuple[Order, ...] = ("forward", "backward", "double backward")
OURS: dict[str, Function] = {"dwt": wavelet.dwt, "idwt": wavelet.idwt, "fuse": wavelet.fuse}
# What an operation must read and write, relative to a copy of one image batch. The bands of an image are as large as the image.
# The double backward of fuse reads five image batches (grad, base, bands, and cotangents of base and bands) and writes three.
FLOORS: dict[tuple[str, Order], float] = {
    **{(name, order): 1.0 for name in ("dwt", "idwt") for order in ORDERS},
    ("fuse", "forward"): 1.5,
    ("fuse", "backward"): 2.5,
    ("fuse", "double backward"): 4.0,
}


def prepare_ours(name: str, order: Order, x: Tensor) -> Callable[[], object]:
    """Return the call that runs the forward, backward or double backward of dwt, idwt or fuse for an image batch x."""
    return prepare(OURS[name], order, arguments(name, x))


def prepare_levels(name: str, levels: int, x: Tensor) -> Callable[[], object]:
    """Return the call that runs wavedec of the image batch x, or waverec of its bands."""
    if name == "wavedec":
        return functools.partial(wavelet.wavedec, x, levels)
    return functools.partial(wavelet.waverec, *wavelet.wavedec(x, levels))


def arguments(name: str, x: Tensor) -> list[Tensor]:
    """Return the arguments of dwt, idwt or fuse for the image batch x [B, C, H, W]."""
    low, high = wavelet.dwt(x)
    lam = torch.tensor(0.3, device=x.device)
    return {"dwt": [x], "idwt": [low, high], "fuse": [torch.randn_like(x), low, high, lam]}[name]


def prepare(function: Function, order: Order, inputs: Sequence[Tensor]) -> Callable[[], object]:
    """Return the call that runs the forward, the backward or the double backward of a function alone, at `inputs`."""
    if order == "forward":
        return functools.partial(function, *inputs)
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = _as_list(function(*leaves))
    grads = [torch.randn_like(y).requires_grad_(order == "double backward") for y in outputs]
    if order == "backward":
        return functools.partial(torch.autograd.grad, outputs, leaves, grads, retain_graph=True)
    first = torch.autograd.grad(outputs, leaves, grads, create_graph=True)
    cotangents = [torch.randn_like(x) for x in first]
    return functools.partial(torch.autograd.grad, first, [*grads, *leaves], cotangents, retain_graph=True, allow_unused=True)


def forward_and_backward(name: str, x: Tensor) -> Callable[[], object]:
    """Return the call that runs forward and backward of dwt, idwt or fuse for the image batch x."""
    leaves = [tensor.detach().requires_grad_() for tensor in arguments(name, x)]
    grads = [torch.randn_like(y) for y in _as_list(OURS[name](*leaves))]
    return lambda: torch.autograd.grad(_as_list(OURS[name](*leaves)), leaves, grads)


@dataclass(frozen=True)
class Peer:
    """Another implementation of some operations.

    Args:
        name: for the table.
        functions: by the name of ours.
        dtypes: those that it supports.
        compile_seconds: time that its first calls may take.
        splits_bands: whether its high bands are [B, C, 3, h, w] rather than [B, 3C, h, w].
    """

    name: str
    functions: Mapping[str, Function]
    dtypes: Sequence[str]
    compile_seconds: float
    splits_bands: bool

    def prepare(self, name: str, order: Order, x: Tensor) -> Callable[[], object]:
        """Return the call that runs an operation for the image batch x."""
        inputs = arguments(name, x)
        if name == "idwt" and self.splits_bands:
            inputs[1] = inputs[1].unflatten(1, (3, -1)).transpose(1, 2).contiguous()
        return prepare(self.functions[name], order, inputs)


def peers(device: torch.device, tiny: bool) -> list[Peer]:
    """Return pytorch_wavelets, which has no 16-bit filters, and the reference compiled by inductor; if `tiny`, only traced."""
    functorch.donated_buffer = False  # otherwise a compiled backward runs only once
    dynamo.recompile_limit = 64  # otherwise the ninth combination of function, shape and dtype would run uncompiled
    forward, inverse = (net(wave="haar", mode="zero").to(device) for net in (DWTForward, DWTInverse))
    library: dict[str, Function] = {
        "dwt": lambda x: (lambda low, high: (low, high[0]))(*forward(x)),
        "idwt": lambda low, high: inverse((low, [high])),
    }
    backend = "aot_eager" if tiny else "inductor"
    compiled: dict[str, Function] = {
        name: torch.compile(getattr(reference, name), dynamic=False, backend=backend) for name in OURS
    }
    return [
        Peer("pytorch_wavelets", library, ["fp32"], 0, splits_bands=True),
        Peer("compiled slicing", compiled, ["fp32", "bf16"], 15, splits_bands=False),
    ]


def _as_list(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)
