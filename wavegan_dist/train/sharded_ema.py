"""The generator's EMA under ZeRO-3: each rank averages its own shard of the weights."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.model import Ema, WaveletGenerator
from wavegan_dist.train.ema_state import EmaState
from wavegan_dist.train.partition import Partition
from wavegan_dist.train.shares import own_share


class ShardedEma(EmaState):
    """EMA of this rank's flat partitions; buffers are replicated.

    Args:
        ema: supplies the half-life, the ramp-up and the layout of the state dict; no reference to its module is held.
        name: the prefix of the EMA's tensors in a checkpoint.
        module: the generator being trained, whose parameters ZeRO-3 has sharded.
        partition: the map between the generator's parameters and the flat partitions.
        gathered_params: returns a context in which the generator's direct parameters are gathered.
    """

    def __init__(
        self,
        ema: Ema[WaveletGenerator],
        name: str,
        module: WaveletGenerator,
        partition: Partition,
        gathered_params: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__(ema, name)
        self.decay: Callable[[int, int], float] = Ema(nn.Identity(), ema.half_life, ema.rampup).decay
        self.module, self.partition, self.gathered_params = module, partition, gathered_params
        self.flats = [flat.detach().clone() for flat in partition.flats]
        self.buffers = {name: value.clone() for name, value in module.named_buffers()}

    @override
    @torch.no_grad()
    def update(self, nimg: int, batch_size: int) -> None:
        weight = 1 - self.decay(nimg, batch_size)
        torch._foreach_lerp_(self.flats, [flat.detach() for flat in self.partition.flats], weight)
        for name, value in self.module.named_buffers():
            if value.is_floating_point():
                self.buffers[name].lerp_(value, weight)
            else:
                self.buffers[name].copy_(value)

    @override
    @contextmanager
    def sampling(self) -> Iterator[WaveletGenerator]:
        """Yield the training generator itself, in eval mode, with the EMA's weights swapped in.

        Leaving the context restores the weights and sets train mode. Entering is a collective call, and so is each forward,
        in which ZeRO gathers the weights layer by layer.
        """
        with torch.no_grad(), self._swapped_in(), self.gathered_params():
            self.module.eval()
            try:
                yield self.module
            finally:
                self.module.train()

    @override
    def iter_full_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.buffers.items()
        yield from ((name, self.partition.full_tensor(name, self.flats, rank=0)) for name in self.partition.shapes)

    @override
    def checkpoint_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from own_share((f"{self.name}.{key}", value) for key, value in self.buffers.items())
        for name, rank in self.partition.assigned_ranks():
            full = self.partition.full_tensor(name, self.flats, rank)
            if rank == dist.get_rank():
                yield f"{self.name}.{name}", full

    @override
    def load(self, read: Callable[[dict[str, Tensor]], None]) -> None:
        read({f"{self.name}.{key}": value for key, value in self.buffers.items()})
        for name, shape in self.partition.shapes.items():
            full = torch.empty(shape, device=self.partition.device)
            read({f"{self.name}.{name}": full})
            self.partition.write_local_shard(name, self.flats, full)

    @contextmanager
    def _swapped_in(self) -> Iterator[None]:
        """Replace the weights and buffers being trained by those of the EMA while the block runs."""
        training = [*self.partition.compute_flats, *(value for _, value in self.module.named_buffers())]
        average = [*self.flats, *(self.buffers[name] for name, _ in self.module.named_buffers())]
        backup = [tensor.detach().clone() for tensor in training]
        self.partition.release_gathered_params()
        _copy(average, training)
        try:
            yield
        finally:
            self.partition.release_gathered_params()
            _copy(backup, training)


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
