"""DeepSpeed's ZeRO, stages 1 to 3 (Rajbhandari et al. 2020): processes share out moments, gradients and weights.

One DeepSpeed engine a module, made here and not by Accelerate. DeepSpeed itself leaves weights and moments alone where the
norm of the gradient is not finite.
"""

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from wavegan_dist.config import Experiment
from wavegan_dist.model import Ema, WaveletGenerator
from wavegan_dist.train.ema_state import EmaState
from wavegan_dist.train.engine import MOMENTS, Engine, Read, adam, bounded
from wavegan_dist.train.partition import Partition
from wavegan_dist.train.zero_settings import settings, stage


class ZeroEngine(Engine):
    """One DeepSpeed engine."""

    def __init__(self, module: nn.Module, name: str, lr: float, experiment: Experiment, accelerator: Accelerator) -> None:
        super().__init__(module, name, lr, experiment, accelerator)
        self.sharded = stage(experiment.train) == 3
        module.to(device=accelerator.device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        optimizer = adam(module, lr, experiment.optim)
        with _scalars_as_vectors(module, self.sharded):
            told = settings(experiment, accelerator.num_processes)
            self.engine, *_ = deepspeed(accelerator.device).initialize(
                model=module, optimizer=optimizer, config=told, dist_init_required=False
            )
        self.partition = Partition(module, self.engine.optimizer, accelerator.device)
        self.adam: torch.optim.Adam = self.engine.optimizer.optimizer
        for flat in self.partition.flats:
            self.adam.state[flat] = {
                key: torch.zeros((), device=flat.device) if key == "step" else torch.zeros_like(flat, requires_grad=False)
                for key in MOMENTS
            }
        self.adam.register_step_post_hook(lambda *_: self._bound())

    def forward(self, x: Tensor) -> Any:
        """The engine's forward."""
        return self.engine(x)

    def forward_frozen(self, x: Tensor) -> Any:
        """The module's: the engine's would wait for gradients that never come (stage 3: wrong ones, silently)."""
        return self.engine.module(x)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Stage 1 exchanges gradients with the last only; 2 and 3 hold no whole ones and share them out each time."""
        self.engine.set_gradient_accumulation_boundary(last)
        if self.scale.adapts:
            self.engine.optimizer.override_loss_scale(self.scale.value.item())
        yield

    def backward(self, loss: Tensor) -> None:
        """DeepSpeed multiplies by the loss scale."""
        self.engine.backward(loss, scale_wrt_gas=False)

    def step(self) -> Tensor:
        """DeepSpeed unscales, clips, and skips what is not finite; the host waits for that."""
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm(), dtype=torch.float32, device=self.accelerator.device)

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Put together from all ranks."""
        yield from ((name, self.partition.full_tensor(name, self.partition.flats)) for name in self.partition.shapes)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Ranks take turns, parameter by parameter; buffers are on all."""
        yield from ((f"{self.name}.{key}", value) for key, value in self.module.named_buffers())
        flats = {f"{self.name}.{{}}": self.partition.flats}
        flats |= {f"{self.optimizer_name}.{{}}.{key}": self._moment(key) for key in MOMENTS[1:]}
        for parameter, owner in self.partition.owners():
            for name, flat in flats.items():
                value = self.partition.full_tensor(parameter, flat, to=owner)
                if owner == dist.get_rank():
                    yield name.format(parameter), value
            if owner == dist.get_rank():
                yield f"{self.optimizer_name}.{parameter}.step", self._moment("step")[0]

    def load(self, read: Read) -> None:
        """Parameter by parameter, each rank for itself."""
        read({f"{self.name}.{key}": value for key, value in self.module.named_buffers()})
        if self.sharded:
            self.engine.optimizer.parameter_offload.partition_all_parameters()
        for name, parameter in self.module.named_parameters():
            self._load(name, parameter, read)

    @contextmanager
    def gathered_params(self) -> Iterator[None]:
        """Gathered under stage 3."""
        own = list(self.module.parameters(recurse=False))
        with deepspeed(self.accelerator.device).zero.GatheredParameters(own, enabled=self.sharded):
            yield

    def make_ema(self, ema: Ema[WaveletGenerator]) -> EmaState:
        """Stage 3 has no whole generator: each rank averages what it holds."""
        return ShardedEma(ema, self) if self.sharded else super().make_ema(ema)

    def _load(self, name: str, parameter: Any, read: Read) -> None:
        shape, device = self.partition.shapes[name], self.accelerator.device
        wanted = {"": torch.empty(shape, device=device)}
        wanted |= {f".{key}": torch.empty(() if key == "step" else shape, device=device) for key in MOMENTS}
        read({f"{self.name}.{name}": wanted[""]})
        read({f"{self.optimizer_name}.{name}{key}": value for key, value in wanted.items() if key})
        self.partition.write_local_shard(name, self.partition.flats, wanted[""])
        for key in MOMENTS[1:]:
            self.partition.write_local_shard(name, self._moment(key), wanted[f".{key}"])
        for step in self._moment("step"):
            step.copy_(wanted[".step"])
        # What the network computes with is another copy, but for stage 3 without offload.
        with torch.no_grad():
            if self.sharded:
                mine = self.partition.local_shard(name, self.partition.flats)
                parameter.ds_tensor.narrow(0, 0, len(mine)).copy_(mine)
            else:
                parameter.copy_(wanted[""])

    def _moment(self, key: str) -> list[Tensor]:
        return [self.adam.state[flat][key] for flat in self.partition.flats]

    @torch.no_grad()
    def _bound(self) -> None:
        for name in bounded(self.module):
            self.partition.local_shard(name, self.partition.flats).clamp_(0, 1)


class ShardedEma(EmaState):
    """The mean of this rank's part of the weights; buffers are whole.

    Args:
        ema: how long its memory is; its module is not kept.
        engine: the generator's, of stage 3.
    """

    def __init__(self, ema: Ema[WaveletGenerator], engine: ZeroEngine) -> None:
        super().__init__(ema)
        self.decay: Callable[[int, int], float] = Ema(nn.Identity(), ema.half_life, ema.rampup).decay
        self.engine, self.partition = engine, engine.partition
        self.flats = [flat.detach().clone() for flat in self.partition.flats]
        self.buffers = {name: value.clone() for name, value in engine.module.named_buffers()}

    @torch.no_grad()
    def update(self, nimg: int, batch_size: int) -> None:
        """Nothing is exchanged."""
        weight = 1 - self.decay(nimg, batch_size)
        torch._foreach_lerp_(self.flats, [flat.detach() for flat in self.partition.flats], weight)
        for name, value in self.engine.module.named_buffers():
            if value.is_floating_point():
                self.buffers[name].lerp_(value, weight)
            else:
                self.buffers[name].copy_(value)

    @contextmanager
    def sampling(self) -> Iterator[WaveletGenerator]:
        """The training generator itself with the mean in its place for a while; ZeRO gathers it layer by layer."""
        module = self.engine.module
        assert isinstance(module, WaveletGenerator)
        with torch.no_grad(), self._in_place(), self.engine.gathered_params():
            module.eval()
            try:
                yield module
            finally:
                module.train()

    def iter_full_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Put together on rank 0."""
        yield from self.buffers.items()
        yield from ((name, self.partition.full_tensor(name, self.flats, to=0)) for name in self.partition.shapes)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """As the engine's."""
        yield from ((f"ema.{key}", value) for key, value in self.buffers.items())
        for name, owner in self.partition.owners():
            value = self.partition.full_tensor(name, self.flats, to=owner)
            if owner == dist.get_rank():
                yield f"ema.{name}", value

    def load(self, read: Read) -> None:
        """Parameter by parameter."""
        read({f"ema.{key}": value for key, value in self.buffers.items()})
        for name, shape in self.partition.shapes.items():
            value = torch.empty(shape, device=self.partition.device)
            read({f"ema.{name}": value})
            self.partition.write_local_shard(name, self.flats, value)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        zero, module = self.engine.engine.optimizer, self.engine.module
        pairs = [*zip(zero.fp16_partitioned_groups_flat, self.flats, strict=True)]
        pairs += [(value, self.buffers[name]) for name, value in module.named_buffers()]
        kept = [live.detach().clone() for live, _ in pairs]
        zero.parameter_offload.partition_all_parameters()
        for live, mean in pairs:
            live.copy_(mean)
        try:
            yield
        finally:
            zero.parameter_offload.partition_all_parameters()
            for (live, _), value in zip(pairs, kept, strict=True):
                live.copy_(value)


@functools.cache
def deepspeed(device: torch.device) -> Any:
    """The library, imported when it is asked for: that takes seconds. It joins the process group that is there."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)  # what it warns of, such as a skipped step, is said by the run itself
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo does: no two minutes of compiling
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
    return deepspeed


@contextmanager
def _scalars_as_vectors(module: nn.Module, sharded: bool) -> Iterator[None]:
    """DeepSpeed 0.19 cannot take in a parameter of no dimensions, such as lam; all ranks have built equal ones."""
    scalars: list[Any] = [parameter for parameter in module.parameters() if parameter.dim() == 0]
    for scalar in scalars:
        scalar.ds_optim_param = True  # leaves it out of a broadcast that views it as bytes
        if sharded:
            scalar.data = scalar.data.view(1)
    yield
    for scalar in scalars if sharded else []:
        scalar.ds_shape = torch.Size(())
