"""The operators of a training step, counted on the real modules with tensors that hold no numbers (fake tensors)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from wavegan_dist.config import Experiment
from wavegan_dist.model import hinge_d, hinge_g
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.model.discriminator import BANDS
from wavegan_dist.model.shapes import IMAGE_CHANNELS

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# What starts no kernel besides views: allocation, and PyTorch's questions about a tensor.
FREE = {"aten::empty", "aten::_unsafe_view", "aten::empty_like", "prim::device", "aten::sym_size", "aten::is_same_size"}
SMALL, LARGE = 2, 4  # batches at which all is counted: it is affine in the batch


@dataclass(frozen=True)
class Operator:
    """One call. `flops` are 2 for a multiplication and addition, 0 where PyTorch counts none; each input is read once."""

    name: str
    flops: float
    bytes: float
    precision: str  # of its first floating tensor


@dataclass
class Pass:
    """One phase of a step, of either module: what runs in it, and what its backward keeps."""

    forward: list[Operator] = field(default_factory=list)
    backward: list[Operator] = field(default_factory=list)
    saved_bytes: float = 0.0


@dataclass(frozen=True)
class Counts:
    """A local batch's work in one step: `d` is one of the d_steps."""

    d: Pass
    g: Pass

    @property
    def flops(self) -> float:
        """Of one D phase and one G phase."""
        return sum(
            operator.flops for phase in (self.d, self.g) for part in (phase.forward, phase.backward) for operator in part
        )


@dataclass(frozen=True)
class Sizes:
    """What does not depend on the batch. Numbers, not bytes."""

    generator: int
    discriminator: int
    average: int  # floating numbers of the EMA: the generator's parameters and batch statistics
    norms: tuple[tuple[int, ...], ...]  # channels of the batch norms of each generator network, in order

    @property
    def parameters(self) -> int:
        """Of both modules."""
        return self.generator + self.discriminator


class Model:
    """The experiment's step at any local batch: counted twice, the rest is a straight line.

    Args:
        experiment: the settings.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.sizes, self._small = count(experiment, SMALL)
        _, self._large = count(experiment, LARGE)

    def at(self, batch: int) -> Counts:
        """The counts of a local batch."""
        d, g = (
            Pass(
                [_at(batch, *pair) for pair in zip(small.forward, large.forward, strict=True)],
                [_at(batch, *pair) for pair in zip(small.backward, large.backward, strict=True)],
                _line(batch, small.saved_bytes, large.saved_bytes),
            )
            for small, large in ((self._small.d, self._large.d), (self._small.g, self._large.g))
        )
        return Counts(d, g)


def count(experiment: Experiment, batch: int) -> tuple[Sizes, Counts]:
    """Run both phases of a step as `train.trainer` does, for a local batch, on fake tensors."""
    with FakeTensorMode():
        generator = build_generator(experiment)
        discriminator = build_discriminator(experiment, dict.fromkeys(BANDS, 1.0))
        with _autocast(experiment.train.precision):
            d = _phase(discriminator, generator, lambda: _d_losses(generator, discriminator, experiment, batch))
            g = _phase(generator, discriminator, lambda: _g_losses(generator, discriminator, experiment, batch))
        return _sizes(generator, discriminator), Counts(d, g)


def _d_losses(generator: nn.Module, discriminator: nn.Module, experiment: Experiment, batch: int) -> list[Tensor]:
    side = experiment.model.resolution
    with torch.no_grad():
        fake = generator(torch.randn(batch, experiment.model.z_dim))
    logits = discriminator(torch.cat((torch.zeros(batch, IMAGE_CHANNELS, side, side), fake)))
    return [hinge_d(*both.chunk(2)) for both in logits.values()]


def _g_losses(generator: nn.Module, discriminator: nn.Module, experiment: Experiment, batch: int) -> list[Tensor]:
    return [hinge_g(fake) for fake in discriminator(generator(torch.randn(batch, experiment.model.z_dim))).values()]


def _phase(moving: nn.Module, frozen: nn.Module, losses: Callable[[], list[Tensor]]) -> Pass:
    moving.requires_grad_(True)
    frozen.requires_grad_(False)
    weights = {_storage(value) for value in (*moving.parameters(), *frozen.parameters())}
    counted = Pass()
    with _saved(weights) as saved, _Recorder(counted.forward):
        loss = torch.stack(losses()).sum()
    with _Recorder(counted.backward):
        loss.backward()
    counted.saved_bytes = float(sum(saved.values()))
    return counted


class _Recorder(TorchDispatchMode):
    def __init__(self, operators: list[Operator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = operators

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        packet = function._overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        if tensors and not function.is_view and packet._qualified_op_name not in FREE:
            flops = flop_registry[packet](*args, **kwargs, out_val=out) if packet in flop_registry else 0
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            precision = next((PRECISIONS[tensor.dtype] for tensor in tensors if tensor.dtype in PRECISIONS), "fp32")
            self.operators.append(Operator(packet._qualified_op_name, flops, size, precision))
        return out


@contextmanager
def _saved(weights: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps meanwhile, the weights' own left out."""
    saved: dict[int, int] = {}
    kept = []  # a freed storage's identity would be given out again

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        if (storage := _storage(tensor)) not in weights:
            saved[storage] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _autocast(precision: str) -> Any:
    return torch.autocast("cpu", AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()


def _sizes(generator: nn.Module, discriminator: nn.Module) -> Sizes:
    g, d = (sum(parameter.numel() for parameter in module.parameters()) for module in (generator, discriminator))
    average = sum(value.numel() for value in generator.state_dict().values() if value.is_floating_point())
    norms = tuple(
        tuple(layer.num_features for layer in net.children() if isinstance(layer, nn.BatchNorm2d))
        for net in generator.children()
    )
    return Sizes(g, d, average, norms)


def _at(batch: int, small: Operator, large: Operator) -> Operator:
    flops, size = _line(batch, small.flops, large.flops), _line(batch, small.bytes, large.bytes)
    return Operator(small.name, flops, size, small.precision)


def _line(batch: int, small: float, large: float) -> float:
    return small + (large - small) * (batch - SMALL) / (LARGE - SMALL)
