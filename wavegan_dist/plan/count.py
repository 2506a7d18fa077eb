"""Count the operators of a training step: runs the real phases on fake tensors, which have shapes but no data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, register_flop_formula, sdpa_backward_flop, sdpa_flop
from typing_extensions import override

from wavegan_dist.config import Experiment
from wavegan_dist.model.augment import PARAMETERS
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.model.discriminator import BANDS
from wavegan_dist.model.shapes import IMAGE_CHANNELS
from wavegan_dist.train.phase import DiscriminatorPhase, GeneratorPhase, MicroBatch, Phase

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# Operators that start no kernel, in addition to views: allocations, and PyTorch's queries about a tensor.
NO_KERNEL = {"aten::empty", "aten::_unsafe_view", "aten::empty_like", "prim::device", "aten::sym_size", "aten::is_same_size"}
# Batch sizes at which a step is counted. Every count is an affine function of the batch size, so two points define it.
SMALL_BATCH, LARGE_BATCH = 2, 4

# PyTorch's FLOP counter does not know the CPU's fused attention (2.14), whose arguments are those of the GPU's.
FUSED_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}
for _operator, _formula in FUSED_ATTENTION.items():
    if _operator not in flop_registry:
        register_flop_formula(_operator, get_raw=True)(_formula)


@dataclass(frozen=True)
class Operator:
    """One call of a PyTorch operator."""

    name: str
    flops: float  # a multiply-add counts as 2; 0 if PyTorch's FLOP counter does not know the operator
    bytes: float  # every input read once, every output written once
    precision: str  # of the first floating-point tensor: fp32, bf16 or fp16


@dataclass
class PhaseCounts:
    """Operators of one training phase on one micro-batch, and the bytes of activations that autograd saves for its backward."""

    forward: list[Operator] = field(default_factory=list)
    backward: list[Operator] = field(default_factory=list)
    saved_bytes: float = 0.0

    @property
    def operators(self) -> list[Operator]:
        """All operators, those of the forward first."""
        return self.forward + self.backward

    @property
    def flops(self) -> float:
        """FLOPs of the phase, forward and backward."""
        return sum(operator.flops for operator in self.operators)


@dataclass(frozen=True)
class StepCounts:
    """Counts of one discriminator phase and one generator phase, each on one micro-batch of a device."""

    d: PhaseCounts  # without gradient penalties
    g: PhaseCounts
    d_penalized: PhaseCounts | None = None  # with gradient penalties; None if there are none
    penalized_share: float = 0.0  # share of the discriminator phases that have penalties

    @property
    def d_variants(self) -> list[tuple[float, PhaseCounts]]:
        """The discriminator phase without and, if there is one, with penalties: (share of the discriminator phases, counts)."""
        plain = [(1 - self.penalized_share, self.d)]
        return plain if self.d_penalized is None else [*plain, (self.penalized_share, self.d_penalized)]

    @property
    def phases(self) -> list[PhaseCounts]:
        """The discriminator phase without and, if there is one, with penalties, then the generator phase."""
        return [*(phase for _, phase in self.d_variants), self.g]

    @property
    def flops(self) -> float:
        """FLOPs of one discriminator phase (the mean of those with and without penalties) and one generator phase."""
        return sum(share * phase.flops for share, phase in self.d_variants) + self.g.flops


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of the two modules, in elements (not bytes)."""

    generator: int  # parameters
    discriminator: int  # parameters
    ema: int  # floating-point elements of all EMAs, each of the generator's parameters and running statistics
    norm_channels: tuple[tuple[int, ...], ...]  # channels of each batch norm, for each network of the generator

    @property
    def parameters(self) -> int:
        """Parameters of both modules."""
        return self.generator + self.discriminator


class StepCounter:
    """Counts a training step of an experiment at any micro-batch size, on the line through two sizes that it counts once.

    Constructing a counter takes seconds: it runs the phases on fake tensors (`count_step`).

    Attributes:
        sizes: sizes of the generator and the discriminator.

    Args:
        experiment: the settings.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.sizes, self._small = count_step(experiment, SMALL_BATCH)
        _, self._large = count_step(experiment, LARGE_BATCH)

    def counts(self, batch: int) -> StepCounts:
        """Return the counts for a micro-batch of `batch` real images, at least 1; FLOPs and bytes may be fractions."""
        phases = zip(self._small.phases, self._large.phases, strict=True)
        d, *penalized, g = (_interpolate_phase(batch, small, large) for small, large in phases)
        return StepCounts(d, g, penalized[0] if penalized else None, self._small.penalized_share)


def count_step(experiment: Experiment, batch: int) -> tuple[ModelSizes, StepCounts]:
    """Count both phases of a training step by running them on fake CPU tensors, which takes seconds and no memory for data.

    Args:
        experiment: the settings.
        batch: number of real images of the micro-batch.

    Returns:
        The sizes of the modules, and the counts of the phases.
    """
    loss, precision = experiment.loss, experiment.train.precision
    image_shape = (batch, IMAGE_CHANNELS, experiment.model.resolution, experiment.model.resolution)
    with FakeTensorMode():
        generator = build_generator(experiment)
        discriminator = build_discriminator(experiment, [dict.fromkeys(BANDS, 1.0)] * experiment.model.levels)
        d_phase = DiscriminatorPhase(discriminator, generator, loss, precision)
        g_phase = GeneratorPhase(generator, discriminator, loss, precision)
        labels = torch.zeros(batch, dtype=torch.int64) if experiment.model.num_classes else None
        augment = torch.zeros(batch, len(PARAMETERS)) if experiment.augment.probability else None
        plain = MicroBatch(torch.zeros(image_shape), torch.zeros(batch, experiment.model.z_dim), labels, augment)
        d, g = _count_phase(d_phase, plain), _count_phase(g_phase, plain)
        sizes = _model_sizes(generator, discriminator, len(experiment.ema.half_lives_kimg))
        if not loss.has_penalties:
            return sizes, StepCounts(d, g)
        exact = loss.penalty == "exact"
        noise = None if exact else torch.zeros(image_shape)
        penalized = plain._replace(noise=noise, penalty_factor=torch.ones((), requires_grad=exact))
        d_penalized = _count_phase(d_phase, penalized)
        return sizes, StepCounts(d, g, d_penalized, 1 / loss.penalty_interval)


def _count_phase(phase: Phase, micro_batch: MicroBatch) -> PhaseCounts:
    phase.trained.requires_grad_(True)
    phase.frozen.requires_grad_(False)
    weights = {_storage_id(value) for value in (*phase.trained.parameters(), *phase.frozen.parameters())}
    counts = PhaseCounts()
    with _saved_tensor_bytes(exclude=weights) as saved, _OperatorRecorder(counts.forward):
        loss, _ = phase(*micro_batch)
    with _OperatorRecorder(counts.backward):
        loss.backward()
    counts.saved_bytes = float(sum(saved.values()))
    return counts


class _OperatorRecorder(TorchDispatchMode):
    """While active, appends every operator that starts a kernel to `operators`, in the order of execution."""

    def __init__(self, operators: list[Operator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = operators

    @override
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        packet = function._overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
        if tensors and not function.is_view and packet._qualified_op_name not in NO_KERNEL:
            flops = flop_registry[packet](*args, **kwargs, out_val=output) if packet in flop_registry else 0
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            precision = next((PRECISIONS[tensor.dtype] for tensor in tensors if tensor.dtype in PRECISIONS), "fp32")
            self.operators.append(Operator(packet._qualified_op_name, flops, size, precision))
        return output


@contextmanager
def _saved_tensor_bytes(exclude: set[int]) -> Iterator[dict[int, int]]:
    """Yield a dict that collects the bytes of each storage that autograd saves in the block, by storage id.

    Storages in `exclude` are left out.
    """
    saved: dict[int, int] = {}
    alive = []  # keeps every storage alive: the id of a freed storage would be reused

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        if (storage := _storage_id(tensor)) not in exclude:
            saved[storage] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def _storage_id(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _model_sizes(generator: nn.Module, discriminator: nn.Module, emas: int) -> ModelSizes:
    g, d = (sum(parameter.numel() for parameter in module.parameters()) for module in (generator, discriminator))
    ema = emas * sum(value.numel() for value in generator.state_dict().values() if value.is_floating_point())
    norm_channels = tuple(
        tuple(layer.num_features for layer in network.children() if isinstance(layer, nn.BatchNorm2d))
        for network in generator.children()
    )
    return ModelSizes(g, d, ema, norm_channels)


def _interpolate_phase(batch: int, small: PhaseCounts, large: PhaseCounts) -> PhaseCounts:
    return PhaseCounts(
        _interpolate_operators(batch, small.forward, large.forward),
        _interpolate_operators(batch, small.backward, large.backward),
        _interpolate(batch, small.saved_bytes, large.saved_bytes),
    )


def _interpolate_operators(batch: int, small: list[Operator], large: list[Operator]) -> list[Operator]:
    return [
        Operator(a.name, _interpolate(batch, a.flops, b.flops), _interpolate(batch, a.bytes, b.bytes), a.precision)
        for a, b in zip(small, large, strict=True)
    ]


def _interpolate(batch: int, small: float, large: float) -> float:
    """Value at `batch` of the line through (`SMALL_BATCH`, small) and (`LARGE_BATCH`, large)."""
    return small + (large - small) * (batch - SMALL_BATCH) / (LARGE_BATCH - SMALL_BATCH)
