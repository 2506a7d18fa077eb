"""Divides the tensors that all ranks hold among them, so that a checkpoint contains each tensor once."""

import heapq
from collections.abc import Iterable, Iterator, Mapping

import torch.distributed as dist
from torch import Tensor


def own_share(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield those of the tensors, by name, that this rank writes; all of them if there is no process group.

    torch.distributed.checkpoint would divide them, too, but only after every rank has sent a list of all tensors to rank 0.

    Args:
        tensors: the same on all ranks.
    """
    named = dict(tensors)
    if not dist.is_initialized():
        yield from named.items()
        return
    writers = assign({name: tensor.nbytes for name, tensor in named.items()}, dist.get_world_size())
    yield from ((name, tensor) for name, tensor in named.items() if writers[name] == dist.get_rank())


def assign(sizes: Mapping[str, int], world_size: int) -> dict[str, int]:
    """Return the rank that writes each tensor: the largest tensor first, to the rank that has the fewest bytes so far.

    Args:
        sizes: bytes by name.
        world_size: number of ranks.
    """
    ranks = [(0, rank) for rank in range(world_size)]  # a heap of (bytes, rank)
    writers = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        total, writers[name] = heapq.heappop(ranks)
        heapq.heappush(ranks, (total + sizes[name], writers[name]))
    return writers
