"""The generator's moving average as a run uses it: fed each step, sampled from, saved; whole here, shared out in zero.py."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from wavegan_dist.model import Ema, WaveletGenerator


class EmaState(ABC):
    """The mean of a training generator's weights and buffers.

    Args:
        ema: how long its memory is, and the mean at the start.
    """

    def __init__(self, ema: Ema[WaveletGenerator]) -> None:
        self.layout: Mapping[str, Tensor] = {name: value.to("meta") for name, value in ema.module.state_dict().items()}

    @abstractmethod
    def update(self, nimg: int, batch_size: int) -> None:
        """Take in the weights after the `batch_size` images that end at `nimg`."""

    @abstractmethod
    def sampling(self) -> AbstractContextManager[WaveletGenerator]:
        """The mean as a generator in eval mode, without gradients: a collective call, and so is every forward."""

    @abstractmethod
    def iter_full_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor whole on rank 0 (what other ranks get is undefined), one at a time: a collective call to the end."""

    @abstractmethod
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What this rank is to write of a checkpoint, as `Engine.tensors`."""

    @abstractmethod
    def load(self, read: Callable[[dict[str, Tensor]], None]) -> None:
        """Go on with what `read` fills in, as `Engine.load`."""


class ReplicatedEma(EmaState):
    """All of it in every process.

    Args:
        ema: the mean.
        module: the generator that trains.
    """

    def __init__(self, ema: Ema[WaveletGenerator], module: WaveletGenerator) -> None:
        super().__init__(ema)
        self.ema, self.live = ema, module

    def update(self, nimg: int, batch_size: int) -> None:
        """On every rank alike."""
        self.ema.update(self.live, nimg, batch_size)

    @contextmanager
    def sampling(self) -> Iterator[WaveletGenerator]:
        """Nothing is exchanged."""
        with torch.no_grad():
            yield self.ema.module

    def iter_full_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All are here."""
        yield from self.ema.module.state_dict().items()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All of them."""
        yield from ((f"ema.{key}", value) for key, value in self.iter_full_tensors())

    def load(self, read: Callable[[dict[str, Tensor]], None]) -> None:
        """In place."""
        read(dict(self.tensors()))
