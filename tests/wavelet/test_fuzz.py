"""Ten thousand sets of arguments, most of them wrong: an exception or the right answer, never a crash."""

import random
import subprocess
import sys

import pytest
import torch

from tests.helpers import environment
from wavegan_dist.wavelet import dwt, fuse, idwt, reference

SETS = 10_000
DTYPES = [torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.uint8, torch.complex64]
SIDES = [0, 1, 2, 2, 3, 4, 4, 6, 8, 18, 34]


def test_wrong_arguments_raise_and_right_ones_are_right():
    ran = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, env=environment(), timeout=300)
    assert ran.returncode == 0, ran.stderr
    right, refused = map(int, ran.stdout.split())
    assert right + refused == SETS
    assert min(right, refused) > SETS // 10


def test_no_threads_are_refused_by_pytorch_itself():
    with pytest.raises(RuntimeError, match="positive"):
        torch.set_num_threads(0)


def run(seed: int) -> bool:
    """Call one operation on drawn arguments, through the function or the bare operator; whether it took them."""
    draw = random.Random(seed)
    name = draw.choice(["dwt", "idwt", "fuse", "fuse_backward"])
    batch, channels = draw.choice([0, 1, 2, 3]), draw.choice([0, 1, 2, 3, 8])
    height, width = draw.choice(SIDES), draw.choice(SIDES)
    dtype = draw.choice(DTYPES)
    image, low = (batch, channels, 2 * height, 2 * width), (batch, channels, height, width)
    high = (batch, 3 * channels, height, width)
    shapes = {"dwt": [image], "idwt": [low, high], "fuse": [image, low, high], "fuse_backward": [image, image, low, high]}[name]
    arguments = [tensor(draw, spoiled(draw, shape), dtype) for shape in shapes]
    if name.startswith("fuse"):
        arguments.append(tensor(draw, draw.choice([(), (), (), (1,), (2, 2)]), draw.choice([torch.float32, dtype])))
    bare = hasattr(torch.ops.wavegan_cpu, name) and (name == "fuse_backward" or draw.random() < 0.5)
    function = getattr(torch.ops.wavegan_cpu, name) if bare else {"dwt": dwt, "idwt": idwt, "fuse": fuse}.get(name, dwt)
    try:
        results = function(*arguments)
    except (ValueError, RuntimeError, NotImplementedError, TypeError):
        return False
    check(name if bare or name != "fuse_backward" else "dwt", arguments, results)
    return True


def spoiled(draw: random.Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    if draw.random() < 0.8:
        return shape
    sizes = list(shape)
    if draw.random() < 0.3:
        return tuple(sizes[: draw.randrange(4)])
    sizes[draw.randrange(4)] = draw.choice(SIDES)
    return tuple(sizes)


def tensor(draw: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Whole numbers in any layout, now and then of another dtype, device or layout altogether, or overlapping itself."""
    if draw.random() < 0.03:
        dtype = draw.choice(DTYPES)
    x = torch.randint(0, 8, shape).to(dtype)
    kind = draw.randrange(40)
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


def check(name: str, arguments: list[torch.Tensor], results: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
    if name == "fuse_backward" or any(each.is_meta for each in arguments):
        return
    exact = getattr(reference, name)(*[each.detach().double() for each in arguments])
    pairs = [(results, exact)] if isinstance(results, torch.Tensor) else zip(results, exact, strict=True)
    for actual, wanted in pairs:
        torch.testing.assert_close(actual.detach().double(), wanted, rtol=2**-7, atol=2**-4)


if __name__ == "__main__":
    dwt(torch.zeros(1, 1, 2, 2))  # loads the kernels
    took = sum(run(seed) for seed in range(SETS))
    print(took, SETS - took)
