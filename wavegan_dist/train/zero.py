"""DeepSpeed's ZeRO, stages 1 to 3 (Rajbhandari et al. 2020): moments, gradients and weights are sharded over the ranks.

Each module gets a DeepSpeed engine, created here and not by Accelerate. Weights, gradients and moments are float32. DeepSpeed
skips a step whose gradient norm is not finite.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.config import Experiment
from wavegan_dist.model import Ema, WaveletGenerator
from wavegan_dist.train.ema_state import EmaState
from wavegan_dist.train.engine import ADAM_STATE, Engine, ReadTensors, clamped_parameters, make_adam
from wavegan_dist.train.load_deepspeed import load_deepspeed
from wavegan_dist.train.partition import Partition
from wavegan_dist.train.phase import MicroBatch, Phase
from wavegan_dist.train.sharded_ema import ShardedEma
from wavegan_dist.train.shares import own_share
from wavegan_dist.train.zero_settings import deepspeed_config, zero_stage

MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's state that has the shape of the parameter


class ZeroEngine(Engine):
    """A module in a DeepSpeed engine of ZeRO stage 1, 2 or 3, in an existing process group of several ranks."""

    def __init__(
        self, module: nn.Module, phase: Phase, name: str, lr: float, experiment: Experiment, accelerator: Accelerator
    ) -> None:
        super().__init__(module, phase, name, lr, experiment, accelerator)
        self.is_stage3 = zero_stage(experiment.train) == 3
        module.to(device=accelerator.device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        optimizer = make_adam(module, lr, experiment.optim)
        self.deepspeed = load_deepspeed(accelerator.device)
        with _scalars_supported(module, self.is_stage3):
            self.engine, *_ = self.deepspeed.initialize(
                model=phase,
                optimizer=optimizer,
                config=deepspeed_config(experiment, accelerator.num_processes),
                dist_init_required=False,
            )
        self.partition = Partition(module, self.engine.optimizer, accelerator.device)
        self.adam: torch.optim.Adam = self.engine.optimizer.optimizer
        for flat in self.partition.flats:  # created before the first step, so that a checkpoint can be loaded into it
            self.adam.state[flat] = {
                "step": torch.zeros((), device=flat.device),
                **{key: torch.zeros_like(flat, requires_grad=False) for key in MOMENTS},
            }
        self.adam.register_step_post_hook(lambda *_: self._clamp_parameters())

    @override
    def forward(self, micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
        loss, values = self.engine(*micro_batch)
        return loss, values

    @override
    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Context around the forward and backward of one micro-batch; `last`: whether the optimizer step follows.

        Stage 1 reduces gradients with the last micro-batch; stages 2 and 3 hold only shards and reduce with each.
        """
        self.engine.set_gradient_accumulation_boundary(last)
        if self.loss_scale.dynamic:
            self.engine.optimizer.override_loss_scale(self.loss_scale.value.item())
        yield

    @override
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss to those of earlier micro-batches; DeepSpeed applies the loss scale.

        A collective call where gradients are reduced (see `micro_batch`).
        """
        self.engine.backward(loss, scale_wrt_gas=False)

    @override
    def step(self) -> Tensor:
        """Unscale and clip the gradients, update the weights, reset the gradients, all by DeepSpeed: a collective call.

        Returns the gradient norm before clipping, a float32 scalar on the device. The host waits for the norm: DeepSpeed skips
        the update if it is not finite.
        """
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm(), dtype=torch.float32, device=self.accelerator.device)

    @override
    def set_lr(self, lr: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = lr

    @override
    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((name, self.partition.full_tensor(name, self.partition.flats)) for name in self.partition.shapes)

    @override
    def second_moments(self) -> Iterator[tuple[str, Tensor]]:
        flats = self._adam_state("exp_avg_sq")
        yield from ((name, self.partition.local_shard(name, flats)) for name in self.partition.shapes)

    @override
    def checkpoint_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name in the checkpoint, full tensor on the device) of each tensor that this rank writes: a collective call.

        These are this rank's share of the buffers, which every rank holds, and the weights and Adam's state of the parameters
        assigned to this rank, each assembled from the shards on that rank only. Every rank must exhaust the iterator.
        """
        yield from own_share((f"{self.name}.{key}", value) for key, value in self.module.named_buffers())
        for parameter, rank in self.partition.assigned_ranks():
            is_writer = rank == dist.get_rank()
            weight = self.partition.full_tensor(parameter, self.partition.flats, rank)
            if is_writer:
                yield f"{self.name}.{parameter}", weight
            for key in MOMENTS:
                moment = self.partition.full_tensor(parameter, self._adam_state(key), rank)
                if is_writer:
                    yield f"{self.optimizer_name}.{parameter}.{key}", moment
            if is_writer:
                yield f"{self.optimizer_name}.{parameter}.step", self._adam_state("step")[0]

    @override
    def load(self, read: ReadTensors) -> None:
        """Restore weights, buffers and Adam's state by `read`, which fills the given tensors in place. Call it on every rank.

        Every rank reads the full tensors one parameter at a time and keeps its shard.
        """
        read({f"{self.name}.{key}": value for key, value in self.module.named_buffers()})
        if self.is_stage3:
            self.partition.release_gathered_params()
        for name, parameter in self.module.named_parameters():
            self._load_weight(name, parameter, read)
            self._load_adam_state(name, read)

    @override
    @contextmanager
    def gathered_params(self) -> Iterator[None]:
        parameters = list(self.module.parameters(recurse=False))
        with self.deepspeed.zero.GatheredParameters(parameters, enabled=self.is_stage3):
            yield

    @override
    def make_ema(self, ema: Ema[WaveletGenerator], name: str) -> EmaState:
        """Return a sharded EMA under stage 3, where no rank holds the full generator, else a replicated one.

        The sharded EMA starts from the weights of the engine; of `ema` it uses the half-life, the ramp-up and the names and
        shapes of the tensors.
        """
        assert isinstance(self.module, WaveletGenerator)
        if self.is_stage3:
            return ShardedEma(ema, name, self.module, self.partition, self.gathered_params)
        return super().make_ema(ema, name)

    def _load_weight(self, name: str, parameter: nn.Parameter, read: ReadTensors) -> None:
        weight = torch.empty(self.partition.shapes[name], device=self.accelerator.device)
        read({f"{self.name}.{name}": weight})
        self.partition.write_local_shard(name, self.partition.flats, weight)
        self.partition.sync_compute_weights(name, parameter, weight)

    def _load_adam_state(self, name: str, read: ReadTensors) -> None:
        shape, device = self.partition.shapes[name], self.accelerator.device
        state = {key: torch.empty(() if key == "step" else shape, device=device) for key in ADAM_STATE}
        read({f"{self.optimizer_name}.{name}.{key}": value for key, value in state.items()})
        for key in MOMENTS:
            self.partition.write_local_shard(name, self._adam_state(key), state[key])
        for step in self._adam_state("step"):
            step.copy_(state["step"])

    def _adam_state(self, key: str) -> list[Tensor]:
        """Return Adam's state of one kind ("step", "exp_avg", "exp_avg_sq"), a tensor for each flat partition."""
        return [self.adam.state[flat][key] for flat in self.partition.flats]

    @torch.no_grad()
    def _clamp_parameters(self) -> None:
        for name in clamped_parameters(self.module):
            self.partition.local_shard(name, self.partition.flats).clamp_(0, 1)


@contextmanager
def _scalars_supported(module: nn.Module, is_stage3: bool) -> Iterator[None]:
    """Let DeepSpeed 0.19 initialize a module that has parameters of zero dimensions, such as lam."""
    scalars: list[Any] = [parameter for parameter in module.parameters() if parameter.dim() == 0]
    for scalar in scalars:
        # Excludes the scalar from a broadcast that cannot view it as bytes; all ranks have built equal scalars anyway.
        scalar.ds_optim_param = True
        if is_stage3:
            scalar.data = scalar.data.view(1)
    yield
    for scalar in scalars if is_stage3 else []:
        scalar.ds_shape = torch.Size(())
