"""Find the source of a non-finite number: repeat the phase without an optimizer step and record the range of every tensor."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_dir
from wavegan_dist.log import log
from wavegan_dist.train.trainer import PhaseResult, Trainer


class NonFiniteError(WaveganError):
    """A loss or a gradient is not finite. All ranks raise this error; no weight has changed since that value was computed."""


@dataclass(frozen=True)
class Culprit:
    """The first non-finite tensor that one rank found.

    Args:
        order: 0 for a weight, 1 for an output, 2 for the gradient of an output, 3 for the gradient of a weight, 4 if every
            tensor was finite; lower is closer to the cause.
        position: position among the tensors of that kind, in the order of computation.
        rank: the rank that found the tensor.
        network: name of the network, such as `generator.base`.
        what: description of the tensor, such as "output of generator.base.3".
    """

    order: int
    position: int
    rank: int
    network: str
    what: str


@dataclass
class TensorStats:
    """Range of a weight, an output or a gradient.

    Args:
        name: name of the parameter or layer, such as `generator.base.3.weight`.
        low, high, rms: minimum, maximum and root mean square; NaN if an element is NaN.
        finite: whether all elements are finite.
    """

    name: str
    low: float
    high: float
    rms: float
    finite: bool

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "TensorStats":
        """Measure a tensor of any floating dtype and shape, not empty, on any device; the host waits for the device."""
        values = tensor.detach().float()
        low, high = torch.aminmax(values)
        return cls(name, low.item(), high.item(), values.square().mean().sqrt().item(), bool(values.isfinite().all()))


@dataclass
class PhaseStats:
    """Statistics of the tensors of one phase on one rank, in the order of computation.

    Args:
        weights: weights of both modules.
        outputs: output of each layer.
        gradients: gradient with respect to each layer's output.
        weight_gradients: gradient with respect to each weight of the module that trains.
    """

    weights: list[TensorStats] = field(default_factory=list)
    outputs: list[TensorStats] = field(default_factory=list)
    gradients: list[TensorStats] = field(default_factory=list)
    weight_gradients: list[TensorStats] = field(default_factory=list)


def diagnose(trainer: Trainer, folder: Path, keys: Callable[[int], list[str]]) -> NonFiniteError:
    """Write `folder`/report.json about a non-finite step and return the error, without advice, to raise: a collective call.

    Repeats the first phase of the step that was not finite on some rank. If the report cannot be written, a warning is logged.

    Args:
        trainer: a trainer whose last step was not finite on some rank; its weights are still those of the phase to repeat.
        folder: folder that rank 0 creates, or replaces.
        keys: returns a description of each of this rank's images in the global batch that begins at the given image number.
    """
    accelerator, result = trainer.accelerator, _first_nonfinite(trainer)
    stats = _rerun(trainer, result)
    rank_report = {
        "rank": accelerator.process_index,
        "suspect": asdict(_find_culprit(stats, result, accelerator.process_index)),
        "losses": _losses(result),
        "keys": keys(_first_nimg_of_real_batch(trainer, result)),
        **asdict(stats),
    }
    ranks = gather_object([rank_report])
    if accelerator.is_main_process:
        report = {"nimg": result.first_nimg, "phase": result.engine.phase.name, "ranks": ranks}
        _write_report(folder, report)
    culprits = [Culprit(**rank["suspect"]) for rank in ranks]
    culprit = min(culprits, key=lambda culprit: (culprit.order, culprit.position, culprit.rank))
    losses = ", ".join(f"{name} {value:.4g}" for name, value in ranks[culprit.rank]["losses"].items())
    return NonFiniteError(
        f"not finite at image {result.first_nimg} in the {result.engine.phase.name.upper()} phase: {culprit.network}, "
        f"{culprit.what} on rank {culprit.rank} (losses there: {losses}); the optimizer did not step, see {folder}"
    )


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write `folder`/report.json; logs a warning instead of raising an OSError, which would hide the error of the step."""
    try:
        with atomic_dir(folder) as temporary:
            (temporary / "report.json").write_text(json.dumps(report, indent=1))
    except OSError as error:
        log.warning("cannot write the report %s (%s)", folder, error.strerror)


def _first_nonfinite(trainer: Trainer) -> PhaseResult:
    """Return the first phase of the step in which a value was not finite on any rank. Collective.

    In fp16, a loss that is not finite on one rank only is an overflow of the gradient, not an error, on the others.
    """
    flags = torch.stack([result.nonfinite for result in trainer.phase_results])
    return trainer.phase_results[int(trainer.accelerator.reduce(flags, reduction="sum").nonzero()[0])]


def _losses(result: PhaseResult) -> dict[str, float]:
    """Return the loss from each discriminator network by the network's name."""
    phase = result.engine.phase
    return {network: result.values[f"loss/{phase.name}_{network}"].item() for network in phase.networks}


def _first_nimg_of_real_batch(trainer: Trainer, result: PhaseResult) -> int:
    """Return the image number, counted over the whole run and all ranks, at which a phase's global real batch begins.

    The generator phase has no real batch; for it, the batch of the discriminator phase before it is meant.
    """
    d_phases = [d_result.first_nimg for d_result in trainer.phase_results if d_result.engine is trainer.discriminator]
    return max(nimg for nimg in d_phases if nimg <= result.first_nimg)


def _rerun(trainer: Trainer, result: PhaseResult) -> PhaseStats:
    """Repeat the forward and backward of a phase on this rank's inputs. A collective call, but only to read the weights."""
    stats = PhaseStats()

    def record_output(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            stats.outputs.append(TensorStats.of(name, output))
            if output.requires_grad:
                output.register_hook(lambda gradient: stats.gradients.append(TensorStats.of(name, gradient)))

        return hook

    with ExitStack() as hooks:
        for name, module in _layers(trainer):
            hooks.callback(module.register_forward_hook(record_output(name)).remove)
        for engine in trainer.engines:
            engine.requires_grad(engine is result.engine)
        weight_gradients = _local_gradients(trainer, result)
    for engine in trainer.engines:
        stats.weights += [TensorStats.of(f"{engine.name}.{name}", weight) for name, weight in engine.full_parameters()]
    for name, gradient in weight_gradients.items():
        stats.weight_gradients.append(TensorStats.of(f"{result.engine.name}.{name}", gradient))
    return stats


def _local_gradients(trainer: Trainer, result: PhaseResult) -> dict[str, Tensor]:
    """Gradients of this rank alone, by parameter name.

    Uses `autograd.grad` on the phase outside DDP and DeepSpeed: `backward` would run hooks that all-reduce the gradients. Calls
    `Phase.forward`, which is not compiled, so that the hooks on layers fire.
    """
    parameters = dict(result.engine.module.named_parameters())
    sums: list[Tensor] = []
    for micro_batch in result.micro_batches:
        loss, _ = result.engine.phase.forward(*micro_batch)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        sums = [total + gradient for total, gradient in zip(sums, gradients, strict=True)] if sums else list(gradients)
    return dict(zip(parameters, sums, strict=True))


def _find_culprit(stats: PhaseStats, result: PhaseResult, rank: int) -> Culprit:
    tensors_and_texts = (
        (stats.weights, "weight {}"),
        (stats.outputs, "output of {}"),
        (stats.gradients, "gradient that reaches {}"),
        (stats.weight_gradients, "gradient of {}"),
    )
    for order, (tensors, text) in enumerate(tensors_and_texts):
        for position, tensor in enumerate(tensors):
            if not tensor.finite:
                network = ".".join(tensor.name.split(".")[:2])  # generator.base of generator.base.3.weight
                return Culprit(order, position, rank, network, text.format(tensor.name))
    module = result.engine.name
    return Culprit(len(tensors_and_texts), 0, rank, module, "but not again when the step was repeated: suspect the hardware")


def _layers(trainer: Trainer) -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, module) of each layer of both modules."""
    for engine in trainer.engines:
        for name, module in engine.module.named_modules():
            # A convolution with spectral norm has children, which are not layers.
            is_layer = not list(module.children()) or isinstance(module, nn.Conv2d)
            if is_layer and "parametrizations" not in name:
                yield f"{engine.name}.{name}", module
