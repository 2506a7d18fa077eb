"""How one module trains on several ranks: forward, backward, optimizer step and checkpoint. One class for each strategy.

The trainer and checkpoints use only the interface `Engine`. `DdpEngine` replicates all state on every rank;
`zero.ZeroEngine` shards it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.config import Experiment, OptimConfig
from wavegan_dist.model import Ema, WaveletGenerator
from wavegan_dist.train.ema_state import EmaState, ReplicatedEma
from wavegan_dist.train.phase import MicroBatch, Phase, compile_phase
from wavegan_dist.train.precision import LossScale
from wavegan_dist.train.shares import own_share

ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")  # keys of torch.optim.Adam's state of one parameter
ReadTensors = Callable[[dict[str, Tensor]], None]  # name in the checkpoint -> tensor to fill in place


class Engine(ABC):
    """A module that trains, with its optimizer and its loss scale. Constructing an engine is a collective call.

    Args:
        module: the module as built, with equal weights on all ranks.
        phase: computes the loss that trains the module; `phase.trained` is the module.
        name: "generator" or "discriminator": the prefix of the module's tensors in a checkpoint. Optimizer state is stored
            under `optimizer_g` or `optimizer_d`.
        lr: Adam's learning rate.
        experiment: the settings.
        accelerator: gives the device, the rank and the collectives.
    """

    def __init__(
        self, module: nn.Module, phase: Phase, name: str, lr: float, experiment: Experiment, accelerator: Accelerator
    ) -> None:
        self.module, self.phase, self.name, self.accelerator = module, phase, name, accelerator
        self.parameters = list(module.parameters())  # listing them at every step would take milliseconds
        self.optimizer_name = f"optimizer_{name[0]}"
        self.clip_norm = experiment.optim.clip_norm
        self.loss_scale = LossScale(experiment.train.precision, accelerator.device)

    def requires_grad(self, value: bool) -> None:
        """Set whether gradients with respect to the module's parameters are computed, by `requires_grad_` of each of them."""
        for parameter in self.parameters:
            parameter.requires_grad_(value)

    @abstractmethod
    def forward(self, micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Call the phase, through DDP or DeepSpeed if there are several processes: `backward` then synchronizes gradients.

        A collective call, because batch statistics are synchronized.

        Returns:
            The loss, a float32 scalar, and the detached values, float32 [n], as `Phase` describes them.
        """

    @abstractmethod
    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Context around the forward and backward of one micro-batch, for gradient accumulation.

        Args:
            last: whether this is the last micro-batch before the optimizer step. Where the strategy allows, gradients are
                communicated only then.
        """

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss, multiplied by the loss scale, to those of earlier micro-batches.

        Call this inside the context `micro_batch`. A collective call where gradients are communicated.
        """

    @abstractmethod
    def step(self) -> Tensor:
        """Unscale and clip the gradients, update the weights, reset the gradients: a collective call after all micro-batches.

        Returns:
            Gradient norm before clipping, equal on all ranks: float32 scalar on the device. If the norm is not finite, the
            step changed neither weights nor moments.
        """

    @abstractmethod
    def set_lr(self, lr: float) -> None:
        """Set Adam's learning rate for the steps from now on."""

    @abstractmethod
    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name in the module, full tensor on the device) of each parameter, one at a time.

        A collective call: every rank must exhaust the iterator, and gets all tensors.
        """

    @abstractmethod
    def second_moments(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name in the module, second moment in Adam's state) of each parameter. Not a collective call.

        Under DDP this is the full tensor, under ZeRO this rank's shard of it, one-dimensional and possibly empty. Call this
        only after at least one `step` or a `load`: before, DDP's Adam has no state and raises KeyError.
        """

    @abstractmethod
    def checkpoint_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name in the checkpoint, full tensor on the device) of each tensor that this rank writes, one at a time.

        These are weights, buffers and Adam's state. A collective call: every rank must exhaust the iterator, after at least one
        `step` or a `load`, before which Adam has no state.
        """

    @abstractmethod
    def load(self, read: ReadTensors) -> None:
        """Restore weights, buffers and Adam's state from a checkpoint. Call it on every rank: each reads for itself.

        Args:
            read: fills the given full tensors in place, by their names in the checkpoint; its errors are not caught.
        """

    def gathered_params(self) -> AbstractContextManager[None]:
        """Context in which the parameters of the module itself, not of its submodules, are complete on every rank.

        A collective call. ZeRO stage 3 partitions parameters; other strategies need not gather.
        """
        return nullcontext()

    def make_ema(self, ema: Ema[WaveletGenerator], name: str) -> EmaState:
        """Return the EMA of this engine's module, which must be the generator: replicated, or sharded if weights are sharded.

        Args:
            ema: an EMA of the module, created before this engine, while the module was complete.
            name: the prefix of the EMA's tensors in a checkpoint.
        """
        assert isinstance(self.module, WaveletGenerator)
        return ReplicatedEma(ema, name, self.module)


class DdpEngine(Engine):
    """DistributedDataParallel, or the module itself if there is one process. Every rank holds all of the state."""

    def __init__(
        self, module: nn.Module, phase: Phase, name: str, lr: float, experiment: Experiment, accelerator: Accelerator
    ) -> None:
        super().__init__(module, phase, name, lr, experiment, accelerator)
        module.to(device=accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        compile_phase(phase, experiment.train.compile)
        self.ddp, prepared = accelerator.prepare(phase, make_adam(module, lr, experiment.optim))
        self.optimizer: torch.optim.Adam = prepared.optimizer
        self.optimizer.register_step_post_hook(lambda *_: self._clamp_parameters())

    @override
    def forward(self, micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
        loss, values = self.ddp(*micro_batch)
        return loss, values

    @override
    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = nullcontext() if last else self.accelerator.no_sync(self.ddp)
        return context

    @override
    def backward(self, loss: Tensor) -> None:
        (loss * self.loss_scale.value if self.loss_scale.dynamic else loss).backward()

    @override
    def step(self) -> Tensor:
        """Unscale and clip the gradients, update the weights by Adam, reset the gradients; after all micro-batches.

        Returns the gradient norm before clipping, a float32 scalar on the device. Does not communicate: DDP has averaged the
        gradients. Fused Adam reads `found_inf` on the device and skips its update if it is 1, so the host does not wait.
        """
        parameters = [parameter for parameter in self.parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.loss_scale.dynamic:
            torch._foreach_div_(gradients, self.loss_scale.value)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        self.optimizer.found_inf = 1 - norm.isfinite().float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @override
    def set_lr(self, lr: float) -> None:
        self.optimizer.param_groups[0]["lr"] = lr

    @override
    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.module.named_parameters()

    @override
    def second_moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.module.named_parameters():
            yield name, self.optimizer.state[parameter]["exp_avg_sq"]

    @override
    def checkpoint_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name in the checkpoint, tensor on the device) of this rank's share of all weights, buffers and Adam's states.

        Every rank holds all of them.
        """
        yield from own_share(self._replicated())

    @override
    def load(self, read: ReadTensors) -> None:
        """Restore weights, buffers and Adam's state by `read`, which fills the given tensors in place. Call it on every rank.

        Moments get the memory format of their parameters, as fused Adam needs.
        """
        states = {name: _zero_adam_state(parameter) for name, parameter in self.module.named_parameters()}
        read({f"{self.name}.{key}": value.detach() for key, value in self.module.state_dict().items()})
        read({f"{self.optimizer_name}.{name}.{key}": state[key] for name, state in states.items() for key in ADAM_STATE})
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(enumerate(states.values())), "param_groups": groups})

    def _replicated(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((f"{self.name}.{key}", value) for key, value in self.module.state_dict().items())
        for name, parameter in self.module.named_parameters():
            for key in ADAM_STATE:
                yield f"{self.optimizer_name}.{name}.{key}", self.optimizer.state[parameter][key]

    @torch.no_grad()
    def _clamp_parameters(self) -> None:
        for name in clamped_parameters(self.module):
            self.module.get_parameter(name).clamp_(0, 1)


def make_adam(module: nn.Module, lr: float, optim: OptimConfig) -> torch.optim.Adam:
    """Return fused Adam over all parameters of a module, with learning rate `lr` and the betas of `optim`."""
    return torch.optim.Adam(module.parameters(), lr=lr, betas=(optim.beta1, optim.beta2), fused=True)


def clamped_parameters(module: nn.Module) -> list[str]:
    """Return the names of the parameters to clamp to [0, 1] after each optimizer step; an empty list for a discriminator."""
    return module.clamped_parameters() if isinstance(module, WaveletGenerator) else []


def _zero_adam_state(parameter: Tensor) -> dict[str, Tensor]:
    return {
        key: torch.zeros((), device=parameter.device) if key == "step" else torch.zeros_like(parameter, requires_grad=False)
        for key in ADAM_STATE
    }
