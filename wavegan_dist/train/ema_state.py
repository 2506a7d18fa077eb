"""The generator's EMA during training: updated at each step, sampled from, saved. `sharded_ema.py` is for ZeRO-3."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from typing_extensions import override

from wavegan_dist.model import Ema, WaveletGenerator
from wavegan_dist.model.ema import TensorLists
from wavegan_dist.train.shares import own_share


class EmaState(ABC):
    """Exponential moving average of the weights and buffers of the generator being trained.

    `layout` is the state dict of the full EMA generator on the meta device: names, shapes and dtypes.

    Args:
        ema: the EMA's initial value, half-life and ramp-up.
        name: the prefix of the EMA's tensors in a checkpoint.
    """

    def __init__(self, ema: Ema[WaveletGenerator], name: str) -> None:
        self.name = name
        self.layout: Mapping[str, Tensor] = {name: value.to("meta") for name, value in ema.module.state_dict().items()}

    @abstractmethod
    def update(self, nimg: int, batch_size: int) -> None:
        """Update the EMA with the current weights.

        Call this on all ranks; it does not communicate.

        Args:
            nimg: images seen so far, including those since the last update.
            batch_size: images of all ranks since the last update, which may be several batches.
        """

    @abstractmethod
    def sampling(self) -> AbstractContextManager[WaveletGenerator]:
        """Context that yields a generator with the EMA's weights, on the device, in eval mode and under `torch.no_grad`.

        Entering the context is a collective call, and so is each forward of the generator. The generator is valid only in the
        context, in which no step may run.
        """

    @abstractmethod
    def iter_full_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, full tensor) of the EMA's state dict, one at a time.

        A collective call: every rank must exhaust the iterator. Only rank 0 gets valid tensors.
        """

    @abstractmethod
    def checkpoint_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name in the checkpoint, full tensor on the device) of each tensor that this rank writes, one at a time.

        A collective call: every rank must exhaust the iterator. The tensors are those of the EMA's state dict.
        """

    @abstractmethod
    def load(self, read: Callable[[dict[str, Tensor]], None]) -> None:
        """Restore the EMA from a checkpoint. Call it on every rank: each reads for itself.

        Args:
            read: fills the given full tensors in place, by their names in the checkpoint; its errors are not caught.
        """


class ReplicatedEma(EmaState):
    """The full EMA on every rank.

    Args:
        ema: the EMA, whose module this object updates and samples from.
        name: the prefix of the EMA's tensors in a checkpoint.
        module: the generator being trained, which from now on keeps its tensors.
    """

    def __init__(self, ema: Ema[WaveletGenerator], name: str, module: WaveletGenerator) -> None:
        super().__init__(ema, name)
        self.ema, self._values = ema, TensorLists.of(module)

    @override
    def update(self, nimg: int, batch_size: int) -> None:
        self.ema.update(self._values, nimg, batch_size)

    @override
    @contextmanager
    def sampling(self) -> Iterator[WaveletGenerator]:
        with torch.no_grad():
            yield self.ema.module

    @override
    def iter_full_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.ema.module.state_dict().items()

    @override
    def checkpoint_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from own_share(self._replicated())

    @override
    def load(self, read: Callable[[dict[str, Tensor]], None]) -> None:
        read(dict(self._replicated()))

    def _replicated(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((f"{self.name}.{key}", value) for key, value in self.iter_full_tensors())
