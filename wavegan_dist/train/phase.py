"""The two phases of a training step. Each phase is an `nn.Module` that computes the loss of a micro-batch.

DDP, DeepSpeed and `torch.compile` wrap a whole phase: the forward of both modules and the loss. The backward of this loss
synchronizes the gradients.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.config import LossConfig
from wavegan_dist.model.augment import augment
from wavegan_dist.model.discriminator import NETWORKS, Inputs, WaveletDiscriminator
from wavegan_dist.model.losses import OBJECTIVES
from wavegan_dist.model.penalties import HALVES, Logits, Squares, approximate_squares, exact_squares
from wavegan_dist.train.precision import autocast, compute_dtype

OVERFITTING = "augment/overfitting"  # name of the value of `Objective.overfitting`


class MicroBatch(NamedTuple):
    """The inputs of a phase: b real images, and the random numbers for as many generated images, one beside each real image.

    Attributes:
        real: real images, float32 [b, 3, R, R] in [-1, 1].
        z: latents, float32 [b, z_dim].
        labels: the class of each real image, and of the generated image beside it, int64 [b]; None for a model without classes.
        augment: the parameters of `model.augment.augment` for each real image, and for the generated image beside it, float32
            [b, parameters]; None without augmentation.
        noise: standard normal noise for approximate penalties, float32 [b, 3, R, R]; None for a phase without them.
        penalty_factor: factor of the gradient penalties, float32 scalar; None for a phase without penalties. If the penalties
            are exact, it must require gradients (`model.penalties.exact_squares` uses it as the anchor).
    """

    real: Tensor
    z: Tensor
    labels: Tensor | None = None
    augment: Tensor | None = None
    noise: Tensor | None = None
    penalty_factor: Tensor | None = None

    def split(self, count: int) -> list["MicroBatch"]:
        """Split along the batch into `count` micro-batches of equal size, views of these tensors; `count` must divide b.

        `penalty_factor` is not split: each micro-batch has the same scalar.
        """
        columns = [
            [tensor] * count if tensor is None or tensor.dim() == 0 else tensor.chunk(count)  # a scalar is not split
            for tensor in self
        ]
        return [MicroBatch(*tensors) for tensors in zip(*columns, strict=True)]


class Phase(nn.Module, ABC):
    """Computes the loss of the module that trains, while the other module is frozen.

    `forward` takes the fields of a `MicroBatch`. It returns two tensors: the loss, a float32 scalar to differentiate, and
    detached values, float32 [n], whose names `value_names` returns. The loss is the weighted sum of the networks' losses and,
    if `penalty_factor` is given, of the gradient penalties. The networks compute under autocast.

    Attributes:
        name: "d" or "g".
        networks: names of the discriminator networks; each has one loss.
        gammas: gamma of each gradient penalty (`r1`, `r2`) that is not 0.

    Args:
        trained: the module that trains. It is the only submodule, so that DDP and DeepSpeed handle its parameters only.
        frozen: the other module.
        loss: the training objective.
        precision: `train.precision`.
    """

    name: ClassVar[str]

    def __init__(self, trained: nn.Module, frozen: nn.Module, loss: LossConfig, precision: str) -> None:
        super().__init__()
        self.trained = trained
        self._frozen = (frozen,)  # an attribute that is a module would become a submodule
        self.objective = OBJECTIVES[loss.objective]
        self.gammas = {name: gamma for name in HALVES if (gamma := getattr(loss, name)) > 0}
        self.noise_size = loss.penalty_noise
        self.dtype = compute_dtype(precision)
        self.weights = {name: weight for name in NETWORKS if (weight := getattr(loss.weights, name)) > 0}
        self.networks = tuple(self.weights)

    @property
    def frozen(self) -> nn.Module:
        """The module that does not train."""
        return self._frozen[0]

    @abstractmethod
    def value_names(self, penalized: bool) -> tuple[str, ...]:
        """Return the names of the values that `forward` returns, in their order: the losses first, in the order of `networks`.

        Args:
            penalized: whether the micro-batch has a `penalty_factor`.
        """

    def _images(self, images: Tensor, parameters: Tensor | None) -> Tensor:
        """Augment images, unless `parameters` is None, and round them to the dtype in which the networks compute.

        Real images are rounded, too: otherwise they would have finer wavelet bands than generated ones.
        """
        return (images if parameters is None else augment(images, parameters)).to(self.dtype)

    def _weighted_sum(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[name] * losses[name] for name in self.networks]).sum()

    def _autocast(self, tensor: Tensor) -> AbstractContextManager[None]:
        return autocast(self.dtype, tensor.device.type)


class DiscriminatorPhase(Phase):
    """Trains the discriminator. One call of each network computes the logits of real and of generated images.

    Args:
        trained: the discriminator.
        frozen: the generator.
        loss: the training objective.
        precision: `train.precision`.
        measures_overfitting: whether the values include `OVERFITTING`, which is measured on the logits of the network `image`.
    """

    name = "d"
    trained: WaveletDiscriminator

    def __init__(
        self, trained: nn.Module, frozen: nn.Module, loss: LossConfig, precision: str, measures_overfitting: bool = False
    ) -> None:
        super().__init__(trained, frozen, loss, precision)
        self.measures_overfitting = measures_overfitting

    @override
    def value_names(self, penalized: bool) -> tuple[str, ...]:
        kinds = [f"loss/{self.name}", f"watch/{self.objective.share_name}"]
        penalties = [f"penalty/{penalty}" for penalty in self.gammas] if penalized else []
        names = [f"{kind}_{name}" for kind in (*kinds, *penalties) for name in self.networks]
        return (*names, OVERFITTING) if self.measures_overfitting else tuple(names)

    @override
    def forward(
        self,
        real: Tensor,
        z: Tensor,
        labels: Tensor | None = None,
        augment: Tensor | None = None,
        noise: Tensor | None = None,
        penalty_factor: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), self._autocast(z):
            fake = self.frozen(z.to(self.dtype), labels)
        inputs = self.trained.inputs(self._images(torch.cat((real, fake)), augment))
        both_labels = None if labels is None else torch.cat((labels, labels))
        squares: Squares = {}
        if penalty_factor is None:
            logits = self._logits(inputs, both_labels)
        else:
            logits, squares = self._logits_and_squares(inputs, both_labels, noise, penalty_factor)
        pairs = {name: logits[name].chunk(2) for name in self.networks}
        losses = {name: self.objective.d_loss(*pairs[name]) for name in self.networks}
        total = self._weighted_sum(losses)
        values = [*losses.values(), *(self.objective.share(*pairs[name]) for name in self.networks)]
        for number, gamma in enumerate(self.gammas.values() if penalty_factor is not None else ()):
            penalties = {name: squares[name][number].mean() for name in self.networks}
            total = total + penalty_factor * (gamma / 2) * self._weighted_sum(penalties)
            values += penalties.values()
        if self.measures_overfitting:
            values.append(self.objective.overfitting(*pairs["image"]))
        return total, torch.stack(values).detach()

    def _logits(self, inputs: Inputs, labels: Tensor | None) -> Logits:
        with self._autocast(next(iter(inputs.values()))[0]):
            return self.trained.logits(inputs, labels)

    def _logits_and_squares(
        self, inputs: Inputs, labels: Tensor | None, noise: Tensor | None, penalty_factor: Tensor
    ) -> tuple[Logits, Squares]:
        halves = [HALVES[name] for name in self.gammas]
        if noise is None:
            return exact_squares(self._logits, inputs, labels, halves, penalty_factor)
        assert self.noise_size is not None
        noises = self.trained.inputs(noise, scaled=False)  # bands of white noise are white: the transform is orthonormal
        return approximate_squares(self._logits, inputs, labels, halves, noises, self.noise_size)


class GeneratorPhase(Phase):
    """Trains the generator.

    `trained` is the generator, `frozen` the discriminator. `forward` uses `real` only if the objective's `g_needs_real`, and
    never `noise` and `penalty_factor`.
    """

    name = "g"

    @override
    def value_names(self, penalized: bool) -> tuple[str, ...]:
        return tuple(f"loss/{self.name}_{name}" for name in self.networks)

    @override
    def forward(
        self,
        real: Tensor,
        z: Tensor,
        labels: Tensor | None = None,
        augment: Tensor | None = None,
        noise: Tensor | None = None,
        penalty_factor: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        real_logits: Logits = {}
        with self._autocast(z):
            if self.objective.g_needs_real:
                with torch.no_grad():
                    real_logits = self.frozen(self._images(real, augment), labels)
            fake = self.trained(z.to(self.dtype), labels)
            fake_logits = self.frozen(self._images(fake, augment), labels)
        losses = {name: self.objective.g_loss(real_logits.get(name), fake_logits[name]) for name in self.networks}
        return self._weighted_sum(losses), torch.stack(list(losses.values())).detach()


def compile_phase(phase: Phase, mode: str) -> None:
    """Apply `torch.compile` to a phase: one graph for the forward, one for the backward, compiled at the first call.

    Changes settings of `torch._dynamo.config` for the whole process.

    Args:
        phase: the phase. Calling `phase.forward` directly still runs eagerly.
        mode: `train.compile`. `off`: do nothing; `default`: compile; `graphs`: also record and replay CUDA graphs.
    """
    if mode == "off":
        return
    if phase.gammas and phase.noise_size is None:
        torch._dynamo.config.trace_autograd_ops = True  # exact penalties call autograd.grad
    # Otherwise DDP would split the graph at the boundaries of its buckets.
    torch._dynamo.config.optimize_ddp = False
    options: dict[str, Any] = {"mode": "reduce-overhead"} if mode == "graphs" else {}
    phase.compile(fullgraph=True, dynamic=False, **options)
