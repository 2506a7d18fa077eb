"""Which part of each parameter a process holds under ZeRO, and whole tensors from the parts, one at a time.

DeepSpeed keeps float32 weights and Adam's moments as flat tensors, in which each process has a stretch of (nearly) every
parameter. Anything laid out like them, as the EMA under stage 3, is read and written by the same map.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Fragment:
    """A stretch of a parameter and where it lies; all counted in numbers."""

    flat: int  # which flat tensor
    at: int  # in that
    begin: int  # in the flattened parameter
    count: int


class Partition:
    """This process's share of a module's parameters.

    Args:
        module: whose parameters DeepSpeed has taken over.
        zero: DeepSpeed's optimizer, of stage 1, 2 or 3 (0.19).
        device: where whole tensors are put together.
    """

    def __init__(self, module: nn.Module, zero: Any, device: torch.device) -> None:
        self.device = device
        sharded = hasattr(zero, "fp32_partitioned_groups_flat")
        self.flats: list[Tensor] = zero.fp32_partitioned_groups_flat if sharded else zero.single_partition_of_fp32_groups
        self.shapes = {name: getattr(value, "ds_shape", value.shape) for name, value in module.named_parameters()}
        fragment = _sharded_fragment if sharded else _fragment
        self.fragments = {name: fragment(zero, value) for name, value in module.named_parameters()}

    def local_shard(self, name: str, flats: Sequence[Tensor]) -> Tensor:
        """This process's stretch of a parameter in tensors laid out as `flats`: a view, empty where it has none."""
        place = self.fragments[name]
        return flats[place.flat].narrow(0, place.at, place.count)

    def full_tensor(self, name: str, flats: Sequence[Tensor], to: int | None = None) -> Tensor:
        """A parameter's tensor put together on rank `to`, or on all: a collective call."""
        place, shape = self.fragments[name], self.shapes[name]
        out = torch.zeros(shape.numel(), device=self.device)
        out.narrow(0, place.begin, place.count).copy_(self.local_shard(name, flats))
        if to is None:
            dist.all_reduce(out)
        else:
            dist.reduce(out, to)
        return out.view(shape)

    @torch.no_grad()
    def write_local_shard(self, name: str, flats: Sequence[Tensor], value: Tensor) -> None:
        """Take this process's stretch from a whole tensor."""
        place = self.fragments[name]
        self.local_shard(name, flats).copy_(value.flatten().narrow(0, place.begin, place.count))

    def owners(self) -> Iterator[tuple[str, int]]:
        """Each parameter with the rank that writes it, in turn."""
        world = dist.get_world_size()
        yield from ((name, number % world) for number, name in enumerate(self.shapes))


def _fragment(_zero: Any, parameter: Any) -> Fragment:
    """Stages 1 and 2."""
    link = parameter._hp_mapping
    if link is None:
        return Fragment(0, 0, 0, 0)
    whole, flat = link.lp_fragment_address, link.hp_fragment_address
    return Fragment(link.param_group_index, flat.start, whole.start, flat.numel)


def _sharded_fragment(zero: Any, parameter: Any) -> Fragment:
    """Stage 3: equal stretches in the order of the ranks, the last filled up."""
    group, at, count = zero.grad_position[zero.get_param_id(parameter)]
    begin = min(dist.get_rank() * count, parameter.ds_numel)
    return Fragment(group, at, begin, min(count, parameter.ds_numel - begin))
