"""`torch.compile`, the R1 penalty, `torch.func` and forward-mode AD, with each implementation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from wavegan_dist.wavelet import dwt, fuse, idwt, reference

pytestmark = pytest.mark.usefixtures("kernel")


def image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def through_all(x: Tensor, lam: Tensor) -> Tensor:
    low, high = dwt(x)
    return fuse(idwt(low * low, high), low.sin(), high.cos(), lam).square().sum()


def through_all_of_the_reference(x: Tensor, lam: Tensor) -> Tensor:
    low, high = reference.dwt(x)
    return reference.fuse(reference.idwt(low * low, high), low.sin(), high.cos(), lam).square().sum()


def r1(value: Callable[[Tensor, Tensor], Tensor], x: Tensor, lam: Tensor) -> Tensor:
    """The R1 penalty: the squared norm of the gradient at x (Mescheder et al. 2018)."""
    (gradient,) = torch.autograd.grad(value(x, lam), x, create_graph=True)
    return gradient.square().sum()


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    return list(torch.autograd.grad(function(*leaves), leaves))


def compile_options(kernel: str) -> dict[str, Any]:
    """Options of `torch.compile`. The reference consists of PyTorch's own operators: only traced, which saves half a minute."""
    return {"fullgraph": True, "backend": "inductor" if kernel == "fastest" else "aot_eager"}


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_equals_eager(kernel: str, layout: torch.memory_format) -> None:
    x, lam = image(2, 3, 8, 6).contiguous(memory_format=layout), torch.tensor(0.3)
    compiled = torch.compile(through_all, **compile_options(kernel))
    torch.testing.assert_close(compiled(x, lam), through_all(x, lam))
    torch.testing.assert_close(gradients(compiled, x, lam), gradients(through_all, x, lam))


def test_invalid_shapes_raise_at_compile_time() -> None:
    cases: list[tuple[Callable[[Tensor], object], str]] = [
        (dwt, "must be even, got 5x4"),
        (lambda x: idwt(x, x), "needs high"),
    ]
    for call, message in cases:
        with pytest.raises(Exception, match=message):
            torch.compile(call, fullgraph=True, backend="aot_eager")(image(1, 3, 5, 4))


def test_one_dynamic_compilation_serves_all_shapes() -> None:
    compiled = torch.compile(through_all, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 3, 8, 6), (3, 3, 16, 10), (5, 3, 4, 40)):
        torch.testing.assert_close(compiled(image(*shape), torch.tensor(0.3)), through_all(image(*shape), torch.tensor(0.3)))


def test_the_r1_penalty_equals_the_references_eager_and_compiled(kernel: str) -> None:
    x, lam = image(2, 3, 8, 6), torch.tensor(0.3)
    expected = gradients(lambda *inputs: r1(through_all_of_the_reference, *inputs), x, lam)
    torch.testing.assert_close(gradients(lambda *inputs: r1(through_all, *inputs), x, lam), expected, rtol=1e-5, atol=1e-4)
    compiled = torch.compile(lambda *inputs: r1(through_all, *inputs), **compile_options(kernel))
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        torch.testing.assert_close(gradients(compiled, x, lam), expected, rtol=1e-5, atol=1e-4)


def test_function_transforms_are_right() -> None:
    x, t = image(2, 3, 8, 6), image(3, 2, 3, 8, 6)[0]
    outputs, tangents = torch.func.jvp(dwt, (x,), (t,))[:2]
    (low, _), (low_tangent, _) = outputs, tangents
    torch.testing.assert_close(low, dwt(x)[0])
    torch.testing.assert_close(low_tangent, dwt(t)[0])
    lam = torch.tensor(0.3)
    torch.testing.assert_close(torch.func.grad(through_all)(x, lam), gradients(through_all, x, lam)[0])
    batches = image(4, 2, 3, 8, 6)
    torch.testing.assert_close(torch.func.vmap(dwt)(batches)[1], torch.stack([dwt(x)[1] for x in batches]))


def test_forward_mode_is_right_or_raises(kernel: str) -> None:
    x, t = image(1, 3, 4, 4), image(2, 3, 4, 4)[:1]
    low, high = (band.clone() for band in dwt(x))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual
        for call in (
            lambda: dwt(dual(x, t))[0],
            lambda: idwt(low, dual(high, dwt(t)[1])),
            lambda: fuse(x, low, high, dual(torch.tensor(0.5), torch.tensor(1.0))),
        ):
            if kernel == "reference":
                assert torch.autograd.forward_ad.unpack_dual(call()).tangent is not None
            else:
                with pytest.raises(NotImplementedError, match="forward-mode"):
                    call()
