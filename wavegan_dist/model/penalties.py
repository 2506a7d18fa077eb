"""Zero-centered gradient penalties R1 and R2 (Mescheder et al. 2018; Roth et al. 2017), exact and approximate.

R1 is `gamma / 2 * E |d logit / d input|^2` over real images, R2 the same over generated images. Each discriminator network's
logit is differentiated with respect to the network's own input: the image, its low band or its high bands, the bands after the
scaling of `model.band_scale`. Gamma therefore means the same with and without scaled bands.

Exact penalties differentiate twice. The approximation needs no second derivative: for small s, the mean of
`(logit(x + s * eps) - logit(x))^2 / s^2` over standard normal eps is `|d logit / d x|^2` (Lin et al. 2025, Diffusion
Adversarial Post-Training).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wavegan_dist.model.discriminator import Inputs

Logits = dict[str, Tensor]  # [N] by discriminator network
Squares = dict[str, tuple[Tensor, ...]]  # squared gradient norms, float32 [b] for each penalty, by discriminator network
LogitsOf = Callable[[Inputs, Tensor | None], Logits]  # of the networks' inputs [N, ...] and classes [N]
REAL, FAKE = 0, 1  # halves of a batch of b real images, then b generated ones
HALVES = {"r1": REAL, "r2": FAKE}  # which half each penalty is about


def exact_squares(
    logits_of: LogitsOf, inputs: Inputs, labels: Tensor | None, halves: Sequence[int], anchor: Tensor
) -> tuple[Logits, Squares]:
    """Compute logits, and the squared norms of their gradients, by differentiation with `create_graph=True`.

    Args:
        logits_of: function of the inputs by network and the classes; returns the logits [2b] by network. Each image's logits
            must depend on the inputs of this image only.
        inputs: for each discriminator network, its inputs [2b, ...] for b real images, then b generated ones.
        labels: classes, int64 [2b]; None for a model without classes.
        halves: the images whose squared norms to return: [REAL] (the b real ones), [FAKE] (the b generated ones) or both:
            [REAL, FAKE].
        anchor: a finite scalar that requires gradients. Adding 0 times the anchor makes the inputs require gradients:
            `torch.compile` does not support `requires_grad_()` on a tensor that is computed within the graph.

    Returns:
        Two dicts by network: the logits [2b]; and for each of `halves`, in their order, the squared norms
        |d logit / d input|^2, float32 [b], summed over the network's inputs.
    """
    inputs = {name: [tensor + 0 * anchor for tensor in tensors] for name, tensors in inputs.items()}
    logits = logits_of(inputs, labels)
    squares: Squares = {}
    for name, tensors in inputs.items():
        gradients = torch.autograd.grad(_pick(logits[name], halves).sum(), tensors, create_graph=True)
        norms = torch.stack([gradient.float().square().flatten(1).sum(1) for gradient in gradients]).sum(0)
        squares[name] = _pick(norms, halves).chunk(len(halves))
    return logits, squares


def approximate_squares(
    logits_of: LogitsOf, inputs: Inputs, labels: Tensor | None, halves: Sequence[int], noise: Inputs, size: float
) -> tuple[Logits, Squares]:
    """Compute logits, and estimate the squared norms of their gradients by finite differences, in one call of `logits_of`.

    Args:
        logits_of: function of the inputs by network and the classes; returns the logits by network. It is called once with
            2b + b * len(halves) images: those of `inputs`, then those of `halves` with noise. Each image's logits must depend
            on the inputs of this image only.
        inputs: for each discriminator network, its inputs [2b, ...] for b real images, then b generated ones.
        labels: classes, int64 [2b]; None for a model without classes.
        halves: the images whose squared norms to return: [REAL] (the b real ones), [FAKE] (the b generated ones) or both:
            [REAL, FAKE].
        noise: for each network, standard normal noise [b, ...] for each of its inputs; both halves get the same.
        size: standard deviation of the noise that is added, above 0, in the unit of the inputs.

    Returns:
        Two dicts by network: the logits [2b] of the inputs without noise; and for each of `halves`, in their order, the
        estimated squared norms, float32 [b].
    """
    count, joined = len(halves), {}
    for name, tensors in inputs.items():
        noisy = [
            torch.add(_pick(tensor, halves), torch.cat([eps] * count), alpha=size).to(tensor.dtype)
            for tensor, eps in zip(tensors, noise[name], strict=True)
        ]
        joined[name] = [torch.cat(pair) for pair in zip(tensors, noisy, strict=True)]
    all_logits = logits_of(joined, None if labels is None else torch.cat((labels, _pick(labels, halves))))
    logits, squares = {}, {}
    for name, values in all_logits.items():
        batch = 2 * len(values) // (2 + count)
        logits[name], noisy_logits = values[:batch], values[batch:]
        difference = noisy_logits.float() - _pick(logits[name], halves).float()
        squares[name] = (difference / size).square().chunk(count)
    return logits, squares


def _pick(batch: Tensor, halves: Sequence[int]) -> Tensor:
    """Return half of a batch [2b, ...] or all of it: `halves` is [REAL], [FAKE] or [REAL, FAKE]. Does not copy."""
    return batch if len(halves) == 2 else batch.chunk(2)[halves[0]]
