"""Ten thousand random calls, most of them invalid: each must raise an exception or return the right result, never crash."""

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers import environment
from wavegan_dist.wavelet import choose, dwt, fuse, idwt, reference

CALLS = 10_000
DTYPES = [torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.uint8, torch.complex64]
SIDES = [0, 1, 2, 2, 3, 4, 4, 6, 8, 18, 34]


def test_invalid_arguments_raise_and_valid_ones_give_the_right_result(compiled: None) -> None:
    process = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, env=environment(), timeout=300)
    assert process.returncode == 0, process.stderr
    accepted, rejected = map(int, process.stdout.split())
    assert accepted + rejected == CALLS
    assert min(accepted, rejected) > CALLS // 10


def test_pytorch_itself_rejects_zero_threads() -> None:
    with pytest.raises(RuntimeError, match="positive"):
        torch.set_num_threads(0)


def run(seed: int) -> bool:
    """Call one function, or the operator below it, on random arguments; return whether it accepted them."""
    rng = random.Random(seed)
    name = rng.choice(["dwt", "idwt", "fuse", "fuse_backward"])
    batch, channels = rng.choice([0, 1, 2, 3]), rng.choice([0, 1, 2, 3, 8])
    height, width = rng.choice(SIDES), rng.choice(SIDES)
    dtype = rng.choice(DTYPES)
    image, low = (batch, channels, 2 * height, 2 * width), (batch, channels, height, width)
    high = (batch, 3 * channels, height, width)
    shapes = {"dwt": [image], "idwt": [low, high], "fuse": [image, low, high], "fuse_backward": [image, image, low, high]}[name]
    arguments = [random_tensor(rng, maybe_invalid(rng, shape), dtype) for shape in shapes]
    if name.startswith("fuse"):
        lam_shapes: list[tuple[int, ...]] = [(), (), (), (1,), (2, 2)]
        arguments.append(random_tensor(rng, rng.choice(lam_shapes), rng.choice([torch.float32, dtype])))
    use_operator = hasattr(torch.ops.wavegan_cpu, name) and (name == "fuse_backward" or rng.random() < 0.5)
    functions: dict[str, Callable[..., Any]] = {"dwt": dwt, "idwt": idwt, "fuse": fuse}
    function = getattr(torch.ops.wavegan_cpu, name) if use_operator else functions.get(name, dwt)
    try:
        results = function(*arguments)
    except (ValueError, RuntimeError, NotImplementedError, TypeError):
        return False
    check(name if use_operator or name != "fuse_backward" else "dwt", arguments, results)
    return True


def maybe_invalid(rng: random.Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape itself, or in one case of five a shape with a missing or a wrong dimension."""
    if rng.random() < 0.8:
        return shape
    sizes = list(shape)
    if rng.random() < 0.3:
        return tuple(sizes[: rng.randrange(4)])
    sizes[rng.randrange(4)] = rng.choice(SIDES)
    return tuple(sizes)


def random_tensor(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Integer values in some layout; sometimes of another dtype, on the meta device, sparse, or overlapping in memory."""
    if rng.random() < 0.03:
        dtype = rng.choice(DTYPES)
    x = torch.randint(0, 8, shape).to(dtype)
    kind = rng.randrange(40)
    if kind == 0:
        return x.to("meta")
    if kind == 1:
        return x.to_sparse() if x.dim() and not x.is_complex() else x
    if kind == 2 and x.dim() == 4:
        return x[:1, :, :1].expand(shape) if x.numel() else x
    if kind == 3 and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if kind == 4 and x.dim() == 4:
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if kind == 5 and x.dim() == 4 and x.numel():
        return x.flatten().as_strided(shape, (0, 1, 1, 1)) if sum(shape) < x.numel() else x
    if kind == 6 and x.is_floating_point():
        return torch._neg_view(x)
    if kind == 7 and x.is_floating_point():
        return x.requires_grad_()
    return x


def check(name: str, arguments: list[Tensor], results: Tensor | tuple[Tensor, ...]) -> None:
    """Compare results with the reference in float64."""
    if name == "fuse_backward" or any(argument.is_meta for argument in arguments):
        return
    exact = getattr(reference, name)(*[argument.detach().double() for argument in arguments])
    pairs = [(results, exact)] if isinstance(results, Tensor) else zip(results, exact, strict=True)
    for actual, expected in pairs:
        torch.testing.assert_close(actual.detach().double(), expected, rtol=2**-7, atol=2**-4)


if __name__ == "__main__":
    assert choose("cpu")[0] == "C++", choose("cpu")[1]  # loads the kernels, or says why it cannot
    accepted = sum(run(seed) for seed in range(CALLS))
    print(accepted, CALLS - accepted)
