"""Where a number that is not finite came from: the step is run again, without moving a weight, and watched."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_dir
from wavegan_dist.train.trainer import PhaseResult, Trainer


class NonFiniteError(WaveganError):
    """A loss or gradient that is not finite; all ranks raise it before any weight has moved."""


@dataclass(frozen=True)
class Suspect:
    """What a rank saw first; `order` and then `position` say how near to the cause it is, lower is nearer."""

    order: int
    position: int
    rank: int
    network: str
    what: str


@dataclass
class Range:
    """A module's output, or the gradient that came back to it."""

    name: str
    low: float
    high: float
    rms: float
    finite: bool


def diagnose(trainer: Trainer, folder: Path, keys: Callable[[int], list[str]]) -> NonFiniteError:
    """The error to raise after a step whose `nonfinite` is 1, once `folder` tells all about it: a collective call.

    Args:
        trainer: stopped after that step; its weights are those of before.
        folder: where rank 0 writes report.json.
        keys: this rank's images of the global batch that begins at an image of the run.
    """
    move = next(move for move in trainer.phase_results if move.nonfinite.item())
    accelerator = trainer.accelerator
    seen = _watched(trainer, move)
    suspect = _suspect(seen, move, accelerator.process_index)
    told = {
        "rank": accelerator.process_index,
        "suspect": asdict(suspect),
        "losses": {name: loss.item() for name, loss in move.losses.items()},
        "keys": keys(_batch_before(trainer, move)),
        "outputs": [asdict(each) for each in seen.outputs],
        "gradients": [asdict(each) for each in seen.gradients],
        "weights": [asdict(each) for each in seen.weights],
        "weight_gradients": [asdict(each) for each in seen.weight_gradients],
    }
    ranks = gather_object([told])
    if accelerator.is_main_process:
        with atomic_dir(folder) as temporary:
            report = {"nimg": move.first, "phase": move.phase.name, "ranks": ranks}
            (temporary / "report.json").write_text(json.dumps(report, indent=1))
    first = min((Suspect(**rank["suspect"]) for rank in ranks), key=lambda each: (each.order, each.position, each.rank))
    losses = ", ".join(f"{name} {value:.4g}" for name, value in ranks[first.rank]["losses"].items())
    return NonFiniteError(
        f"not finite at image {move.first} in the {move.phase.name.upper()} phase: {first.network}, {first.what} on rank "
        f"{first.rank} (losses there: {losses}); the optimizer did not step, the last checkpoint is whole, see {folder}; "
        "go on with a lower learning rate, optim.clip_norm or train.on_nonfinite=rollback"
    )


def _batch_before(trainer: Trainer, move: PhaseResult) -> int:
    """Where the real batch of this phase begins; for the generators' phase, that of the discriminators' before it."""
    shown = [each.first for each in trainer.phase_results if each.phase is trainer.d_phase]
    return max(first for first in shown if first <= move.first)


@dataclass
class _Seen:
    weights: list[Range]
    outputs: list[Range]
    gradients: list[Range]
    weight_gradients: list[Range]


def _watched(trainer: Trainer, move: PhaseResult) -> _Seen:
    """Run the phase again on the same inputs, on this rank alone, and note the range of everything in its order."""
    outputs: list[Range] = []
    gradients: list[Range] = []

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def noted(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs.append(_range(name, output))
            if output.requires_grad:
                output.register_hook(lambda gradient: gradients.append(_range(name, gradient)))

        return noted

    with contextlib.ExitStack() as hooks:
        for name, module in _leaves(trainer):
            hooks.callback(module.register_forward_hook(note(name)).remove)
        for engine in trainer.engines:
            engine.module.requires_grad_(engine is move.phase.engine)
        gradients_of = _own_gradients(trainer, move)
    return _Seen(
        [_range(f"{engine.name}.{name}", value) for engine in trainer.engines for name, value in engine.full_parameters()],
        outputs,
        gradients,
        [_range(f"{move.phase.engine.name}.{name}", gradient) for name, gradient in gradients_of.items()],
    )


def _own_gradients(trainer: Trainer, move: PhaseResult) -> dict[str, Tensor]:
    """Not by backward() and not through the engines: those would share the gradients with the other ranks."""
    named = dict(move.phase.engine.module.named_parameters())
    nets = [engine.module for engine in trainer.engines]
    sums: list[Tensor] = []
    for micro_batch in move.micro_batches:
        loss = trainer.total(move.phase.losses(*nets, *micro_batch))
        found = torch.autograd.grad(loss, list(named.values()))
        sums = [total + each for total, each in zip(sums, found, strict=True)] if sums else list(found)
    return dict(zip(named, sums, strict=True))


def _suspect(seen: _Seen, move: PhaseResult, rank: int) -> Suspect:
    """The first thing that is not finite, in the order of cause and effect."""
    ways = (
        (seen.weights, "weight {}"),
        (seen.outputs, "output of {}"),
        (seen.gradients, "gradient that reaches {}"),
        (seen.weight_gradients, "gradient of {}"),
    )
    for order, (ranges, what) in enumerate(ways):
        for position, each in enumerate(ranges):
            if not each.finite:
                return Suspect(order, position, rank, _network(each.name), what.format(each.name))
    side = "discriminator" if move.phase.name == "d" else "generator"
    return Suspect(len(ways), 0, rank, side, "but not again when the step was repeated: suspect the hardware")


def _network(name: str) -> str:
    """`generator.base` of `generator.base.3.weight`."""
    return ".".join(name.split(".")[:2])


def _leaves(trainer: Trainer) -> Iterator[tuple[str, nn.Module]]:
    for engine in trainer.engines:
        for name, module in engine.module.named_modules():
            whole = not list(module.children()) or isinstance(module, nn.Conv2d)  # a spectrally normed one has children
            if whole and "parametrizations" not in name:
                yield f"{engine.name}.{name}", module


def _range(name: str, value: Tensor) -> Range:
    value = value.detach().float()
    low, high = torch.aminmax(value)
    return Range(name, low.item(), high.item(), value.square().mean().sqrt().item(), bool(value.isfinite().all()))
