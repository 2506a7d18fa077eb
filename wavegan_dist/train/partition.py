"""Where DeepSpeed's ZeRO stores each parameter: the only module that reads the private attributes of ZeRO's optimizers (0.19).

ZeRO stores the float32 weights and Adam's moments of a rank in a few flat tensors, the *flat partitions*. A parameter's
*fragment* is the range of a flat partition that holds this rank's shard of the parameter. Every list of tensors with the
layout of the flat partitions (weights, exp_avg, exp_avg_sq, the sharded EMA) can be read and written through fragments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Fragment:
    """This rank's shard of one parameter; offsets and sizes are in elements.

    A flat partition is a one-dimensional tensor in which ZeRO stores this rank's shards of many parameters.

    Args:
        flat_index: which flat partition holds the shard.
        flat_offset: where the shard begins in that flat partition.
        param_offset: where the shard begins in the flattened parameter.
        numel: size of the shard; 0 if this rank holds none of the parameter.
    """

    flat_index: int
    flat_offset: int
    param_offset: int
    numel: int


class Partition:
    """The map between a module's parameters and this rank's flat partitions.

    `flats` are the flat partitions of the float32 weights that Adam updates, `shapes` the full shape of each parameter by name.

    Args:
        module: a module that `deepspeed.initialize` has taken over.
        optimizer: DeepSpeed's ZeRO optimizer of stage 1, 2 or 3.
        device: where `full_tensor` assembles tensors.
    """

    def __init__(self, module: nn.Module, optimizer: Any, device: torch.device) -> None:
        self.device, self._optimizer = device, optimizer
        self.is_stage3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
        self.flats: list[Tensor] = (
            optimizer.fp32_partitioned_groups_flat if self.is_stage3 else optimizer.single_partition_of_fp32_groups
        )
        self.shapes = {name: getattr(value, "ds_shape", value.shape) for name, value in module.named_parameters()}
        find_fragment = _stage3_fragment if self.is_stage3 else _stage12_fragment
        self.fragments = {name: find_fragment(optimizer, value) for name, value in module.named_parameters()}

    def local_shard(self, name: str, flats: Sequence[Tensor]) -> Tensor:
        """Return this rank's shard of a parameter, a view [numel] into one of `flats`; empty if this rank holds none of it.

        Args:
            name: name of the parameter.
            flats: tensors with the layout of the flat partitions.
        """
        fragment = self.fragments[name]
        return flats[fragment.flat_index].narrow(0, fragment.flat_offset, fragment.numel)

    def full_tensor(self, name: str, flats: Sequence[Tensor], rank: int | None = None) -> Tensor:
        """Return the full tensor of a parameter, float32 on the device, from the shards of all ranks: a collective call.

        Args:
            name: name of the parameter.
            flats: tensors with the layout of the flat partitions.
            rank: the rank that receives the tensor; on other ranks its content is undefined. None: all ranks.
        """
        fragment, shape = self.fragments[name], self.shapes[name]
        full = torch.zeros(shape.numel(), device=self.device)
        full.narrow(0, fragment.param_offset, fragment.numel).copy_(self.local_shard(name, flats))
        if rank is None:
            dist.all_reduce(full)
        else:
            dist.reduce(full, rank)
        return full.view(shape)

    @torch.no_grad()
    def write_local_shard(self, name: str, flats: Sequence[Tensor], full: Tensor) -> None:
        """Copy this rank's shard out of `full`, the full tensor of a parameter, into `flats`. Not collective."""
        fragment = self.fragments[name]
        shard = full.flatten().narrow(0, fragment.param_offset, fragment.numel)
        self.local_shard(name, flats).copy_(shard)

    @torch.no_grad()
    def sync_compute_weights(self, name: str, parameter: Any, full: Tensor) -> None:
        """Copy a weight that `write_local_shard` has just written to `self.flats` to the tensor that forward reads.

        The two share memory only under stage 3 without offload, where the copy does nothing.

        Args:
            name: name of the parameter.
            parameter: the module's parameter.
            full: the weight's full tensor; stage 3 copies this rank's shard of `self.flats` instead.
        """
        if self.is_stage3:
            shard = self.local_shard(name, self.flats)
            parameter.ds_tensor.narrow(0, 0, len(shard)).copy_(shard)
        else:
            parameter.copy_(full)

    @property
    def compute_flats(self) -> list[Tensor]:
        """This rank's flat partitions of the weights that forward gathers, not copies. Only stage 3 has them."""
        flats: list[Tensor] = self._optimizer.fp16_partitioned_groups_flat
        return flats

    def release_gathered_params(self) -> None:
        """Free all gathered parameters, so that the next forward gathers them again from the flat partitions. Only stage 3."""
        self._optimizer.parameter_offload.partition_all_parameters()

    def assigned_ranks(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each parameter and the rank that writes it to checkpoints: ranks in turn, equal on all ranks."""
        world_size = dist.get_world_size()
        yield from ((name, number % world_size) for number, name in enumerate(self.shapes))


def _stage12_fragment(_optimizer: Any, parameter: Any) -> Fragment:
    mapping = parameter._hp_mapping
    if mapping is None:
        return Fragment(0, 0, 0, 0)
    param_address, flat_address = mapping.lp_fragment_address, mapping.hp_fragment_address
    return Fragment(mapping.param_group_index, flat_address.start, param_address.start, flat_address.numel)


def _stage3_fragment(optimizer: Any, parameter: Any) -> Fragment:
    """Return this rank's shard of a parameter under stage 3, without padding.

    Stage 3 divides the flattened parameter into one shard per rank, in the order of the ranks. All shards have the size
    ceil(numel / ranks); what lies behind the end of the parameter is padding, so the last ranks may hold none of it.
    """
    flat_index, flat_offset, shard_size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    param_offset = min(dist.get_rank() * shard_size, parameter.ds_numel)
    return Fragment(flat_index, flat_offset, param_offset, min(shard_size, parameter.ds_numel - param_offset))
