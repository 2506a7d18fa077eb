"""The two phases of a training step. Each is a module that computes the loss of a micro-batch from its inputs.

DDP, DeepSpeed and `torch.compile` wrap a whole phase: the forward of both modules and the loss. The backward of this loss
synchronizes the gradients.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.config import LossWeights
from wavegan_dist.model.augment import augment
from wavegan_dist.model.discriminator import NETWORKS
from wavegan_dist.model.losses import Discriminator, Losses, discriminator_losses, generator_losses, overfitting, saturation

OVERFITTING = "augment/overfitting"  # name of the value that `model.losses.overfitting` returns


class MicroBatch(NamedTuple):
    """The inputs of a phase: b real images, and the random numbers of the b images that the generator makes beside them.

    Attributes:
        real: real images, float32 [b, 3, R, R] in [-1, 1].
        z: latents, float32 [b, z_dim].
        labels: the class of each real image, and of the generated image beside it, int64 [b]; None for a model without classes.
        augment: the parameters of `model.augment.augment` for each real image, and for the generated image beside it, float32
            [b, parameters]; None without augmentation.
    """

    real: Tensor
    z: Tensor
    labels: Tensor | None = None
    augment: Tensor | None = None

    def split(self, count: int) -> list["MicroBatch"]:
        """Split along the batch into `count` micro-batches of equal size."""
        columns = [[None] * count if tensor is None else tensor.chunk(count) for tensor in self]
        return [MicroBatch(*tensors) for tensors in zip(*columns, strict=True)]


class Phase(nn.Module, ABC):
    """Computes the loss of the module that trains, while the other module is frozen.

    `forward` takes the fields of a `MicroBatch`. It returns the weighted sum of the losses, a float32 scalar to differentiate,
    and detached values, float32 [n], whose names are `value_names`.

    Attributes:
        name: "d" or "g".
        networks: names of the discriminator networks; each has one loss.

    Args:
        trained: the module that trains. It is the only submodule, so that DDP and DeepSpeed handle its parameters only.
        frozen: the other module.
        weights: the weight of each discriminator network's loss.
    """

    name: ClassVar[str]

    def __init__(self, trained: nn.Module, frozen: nn.Module, weights: LossWeights) -> None:
        super().__init__()
        self.trained = trained
        self._frozen = (frozen,)  # an attribute that is a module would become a submodule
        self.weights = {name: weight for name in NETWORKS if (weight := getattr(weights, name)) > 0}
        self.networks = tuple(self.weights)

    @property
    def frozen(self) -> nn.Module:
        """The module that does not train."""
        return self._frozen[0]

    @property
    @abstractmethod
    def value_names(self) -> tuple[str, ...]:
        """Names of the values that `forward` returns. The losses come first, in the order of `networks`."""

    def _augmented(self, discriminator: nn.Module, parameters: Tensor | None) -> Discriminator:
        """Return a function that augments images with `parameters` before the discriminator takes their bands."""
        if parameters is None:
            return discriminator
        return lambda images, labels: cast(dict[str, Tensor], discriminator(augment(images, parameters), labels))

    def _weighted_sum(self, losses: Losses) -> Tensor:
        return torch.stack([self.weights[name] * losses[name] for name in self.networks]).sum()


class DiscriminatorPhase(Phase):
    """Trains the discriminator.

    Args:
        trained, frozen, weights: as for `Phase`.
        measures_overfitting: whether `OVERFITTING` is the last of the values, measured by the network `image`.
    """

    name = "d"

    def __init__(self, trained: nn.Module, frozen: nn.Module, weights: LossWeights, measures_overfitting: bool = False) -> None:
        super().__init__(trained, frozen, weights)
        self.measures_overfitting = measures_overfitting

    @property
    @override
    def value_names(self) -> tuple[str, ...]:
        names = (*(f"loss/d_{name}" for name in self.networks), *(f"watch/saturation_{name}" for name in self.networks))
        return (*names, OVERFITTING) if self.measures_overfitting else names

    @override
    def forward(
        self, real: Tensor, z: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        discriminator = self._augmented(self.trained, augment)
        losses, logits = discriminator_losses(self.frozen, discriminator, real, z, labels)
        values = [*(losses[name].detach() for name in self.networks), *(saturation(*logits[name]) for name in self.networks)]
        if self.measures_overfitting:
            values.append(overfitting(logits["image"][0]))
        return self._weighted_sum(losses), torch.stack(values)


class GeneratorPhase(Phase):
    """Trains the generator."""

    name = "g"

    @property
    @override
    def value_names(self) -> tuple[str, ...]:
        return tuple(f"loss/g_{name}" for name in self.networks)

    @override
    def forward(
        self, real: Tensor, z: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        losses = generator_losses(self.trained, self._augmented(self.frozen, augment), z, labels)
        return self._weighted_sum(losses), torch.stack([losses[name].detach() for name in self.networks])


def compile_phase(phase: Phase, mode: str) -> None:
    """Make the first call of a phase compile it with `torch.compile`: one graph for the forward, one for the backward.

    Args:
        phase: the phase. Calling `phase.forward` directly still runs eagerly.
        mode: `train.compile`: `off` does nothing; `default`, or `graphs` to also record and replay CUDA graphs.
    """
    if mode == "off":
        return
    # Otherwise DDP would split the graph at the boundaries of its buckets.
    torch._dynamo.config.optimize_ddp = False
    options: dict[str, Any] = {"mode": "reduce-overhead"} if mode == "graphs" else {}
    phase.compile(fullgraph=True, dynamic=False, **options)
