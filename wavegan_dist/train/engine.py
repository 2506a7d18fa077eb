"""How one module trains in several processes: forward, backward, step, and its state by name. One class for each strategy.

Trainer and checkpoints see only `Engine`. `DdpEngine` holds everything in every process; `zero.ZeroEngine` shares it out.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from wavegan_dist.config import Experiment, OptimConfig
from wavegan_dist.model import Ema, WaveletGenerator
from wavegan_dist.train.ema_state import EmaState, ReplicatedEma
from wavegan_dist.train.precision import LossScale, apply_autocast

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
Read = Callable[[dict[str, Tensor]], None]  # fills tensors in place from a checkpoint, by name


class Engine(ABC):
    """A module and its optimizer.

    Args:
        module: as built, equal in all processes.
        name: what a checkpoint calls it: its tensors are `name.*`, its moments `optimizer_X.*` with X its first letter.
        lr: Adam's learning rate.
        experiment: the settings.
        accelerator: the processes.
    """

    def __init__(self, module: nn.Module, name: str, lr: float, experiment: Experiment, accelerator: Accelerator) -> None:
        self.module, self.name, self.accelerator = module, name, accelerator
        self.optimizer_name = f"optimizer_{name[0]}"
        self.clip_norm = experiment.optim.clip_norm
        self.scale = LossScale(experiment.train.precision, accelerator.device)
        apply_autocast(module, experiment.train.precision, accelerator.device)

    @abstractmethod
    def forward(self, x: Tensor) -> Any:
        """The module's output in its own phase, whose backward moves it."""

    @abstractmethod
    def forward_frozen(self, x: Tensor) -> Any:
        """The module's output in the other module's phase."""

    @abstractmethod
    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch; gradients add up and are exchanged with the last, where they can."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar."""

    @abstractmethod
    def step(self) -> Tensor:
        """Clip, move the weights, forget the gradients.

        Returns:
            The gradient's norm before clipping, equal on all ranks: float32 scalar on the device. Where it is not finite,
            neither weights nor moments have moved.
        """

    @abstractmethod
    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Each parameter in full, by its name in the module, one at a time: a collective call."""

    @abstractmethod
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What this rank is to write of a checkpoint: whole tensors by name, one at a time. A collective call."""

    @abstractmethod
    def load(self, read: Read) -> None:
        """Go on with the weights, buffers and moments that `read` fills in."""

    def gathered_params(self) -> AbstractContextManager[None]:
        """While it lasts, the module's own parameters (not those of its children) can be read: a collective call."""
        return nullcontext()

    def make_ema(self, ema: Ema[WaveletGenerator]) -> EmaState:
        """Keep the mean of the module in `ema`, which was made before this engine, or in a form of the engine's own."""
        assert isinstance(self.module, WaveletGenerator)
        return ReplicatedEma(ema, self.module)


class DdpEngine(Engine):
    """DistributedDataParallel, or the bare module in one process: every process holds all of the state."""

    def __init__(self, module: nn.Module, name: str, lr: float, experiment: Experiment, accelerator: Accelerator) -> None:
        super().__init__(module, name, lr, experiment, accelerator)
        module.to(device=accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.wrapped, prepared = accelerator.prepare(module, adam(module, lr, experiment.optim))
        self.optimizer: torch.optim.Adam = prepared.optimizer
        self.optimizer.register_step_post_hook(lambda *_: self._bound())

    def forward(self, x: Tensor) -> Any:
        """DDP's own forward."""
        return self.wrapped(x)

    def forward_frozen(self, x: Tensor) -> Any:
        """The wrapper again: DDP without it would exchange other gradients than it computed."""
        return self.wrapped(x)

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Only the last exchanges gradients."""
        context: AbstractContextManager[None] = nullcontext() if last else self.accelerator.no_sync(self.wrapped)
        return context

    def backward(self, loss: Tensor) -> None:
        """With the loss scale's factor."""
        (loss * self.scale.value if self.scale.adapts else loss).backward()

    def step(self) -> Tensor:
        """Fused Adam looks at `found_inf` on the device and leaves all alone: the host need not wait for it."""
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.scale.adapts:
            torch._foreach_div_(gradients, self.scale.value)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        self.optimizer.found_inf = 1 - norm.isfinite().float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """All are here."""
        yield from self.module.named_parameters()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All, on every rank: torch.distributed.checkpoint shares out the writing."""
        yield from ((f"{self.name}.{key}", value) for key, value in self.module.state_dict().items())
        for parameter, value in self.module.named_parameters():
            for key in MOMENTS:
                yield f"{self.optimizer_name}.{parameter}.{key}", self.optimizer.state[value][key]

    def load(self, read: Read) -> None:
        """Weights and buffers in place; moments laid out as their parameters, which fused Adam relies on."""
        moments = {name: _fresh_moments(value) for name, value in self.module.named_parameters()}
        read({f"{self.name}.{key}": value.detach() for key, value in self.module.state_dict().items()})
        read({f"{self.optimizer_name}.{name}.{key}": each[key] for name, each in moments.items() for key in MOMENTS})
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(enumerate(moments.values())), "param_groups": groups})

    @torch.no_grad()
    def _bound(self) -> None:
        for name in bounded(self.module):
            self.module.get_parameter(name).clamp_(0, 1)


def adam(module: nn.Module, lr: float, optim: OptimConfig) -> torch.optim.Adam:
    """Fused Adam over all of a module's parameters."""
    return torch.optim.Adam(module.parameters(), lr=lr, betas=(optim.beta1, optim.beta2), fused=True)


def bounded(module: nn.Module) -> list[str]:
    """Names of the parameters that must stay in [0, 1]."""
    return module.bounded() if isinstance(module, WaveletGenerator) else []


def _fresh_moments(value: Tensor) -> dict[str, Tensor]:
    return {
        key: torch.zeros((), device=value.device) if key == "step" else torch.zeros_like(value, requires_grad=False)
        for key in MOMENTS
    }
