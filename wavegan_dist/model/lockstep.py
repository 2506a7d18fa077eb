"""Training of a generator with batch norm in several processes: one collective for the batch norms of all three networks.

Only the trainer uses this module. Each collective costs its latency and the wait for the slowest process, so the three networks
advance together from one batch norm to the next and share its collective. The price: forward hooks on the three
networks do not fire in training mode. Hooks on their layers fire, except those on batch norms.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from wavegan_dist.model.backbones.dcgan import apply_layer
from wavegan_dist.model.generator import WaveletGenerator
from wavegan_dist.model.sync_batchnorm import SyncBatchNorm, synchronized_batch_norms


def convert_to_lockstep(generator: WaveletGenerator) -> None:
    """Make `generator` train with the batch statistics of all processes; changes the module in place.

    Replaces every `nn.BatchNorm2d` by a `SyncBatchNorm` with the same state, and sets the generator's attribute
    `training_runner`, so that in training mode the three networks run through `run_in_lockstep` (with `base_only`, each batch
    norm synchronizes alone). From then on, forward and backward in training mode are collective calls of the default process
    group; the conversion itself is not. Results in eval mode and the names in the state dict do not change. A generator without
    batch norms stays as it is.

    Call the function before the generator is moved to a GPU and before the optimizer is made: the new batch norms are on the
    CPU, in training mode, and have parameters of their own.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in generator.modules()):
        return
    for network in generator.children():
        replace_batch_norms(network)
    generator.training_runner = run_in_lockstep


def replace_batch_norms(network: nn.Module) -> None:
    """Replace every immediate child of `network` that is an `nn.BatchNorm2d` by a `SyncBatchNorm` with the same state.

    Changes `network` in place. The new layers are on the CPU, in training mode, with parameters of their own.
    """
    for name, layer in network.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            setattr(network, name, SyncBatchNorm.from_batch_norm(layer))


def run_in_lockstep(
    networks: Sequence[nn.Module], inputs: Sequence[Tensor], labels: Tensor | None = None
) -> list[list[Tensor]]:
    """Run `DCGANGenerator` networks side by side, so that their batch norms share collectives: a collective call.

    The n-th batch norms of all networks are computed together, with one all-gather in forward and one in backward, by the
    statistics of the global batch, as in training mode. The outputs equal those of `network(input, labels)` up to rounding.

    If ZeRO stage 3 has partitioned the weights of the batch norms, each network is called separately instead: DeepSpeed gathers
    a layer's weights in a hook that fires only when the layer itself is called.

    Args:
        networks: the networks; their batch norms are `SyncBatchNorm` layers.
        inputs: latents, float [B, z_dim of the network], for each network; B is the same on every process.
        labels: classes of the samples, int64 [B], the same for all networks; None for networks without classes.

    Returns:
        For each network, in the order of `networks`, the list of its outputs, float [B, C, s, s], the largest first.
    """
    if not all(map(_has_norm_weights, networks)):
        return [network(x, labels) for network, x in zip(networks, inputs, strict=True)]
    activations = list(inputs)
    layers = [iter(network.children()) for network in networks]
    outputs: list[list[Tensor]] = [[] for _ in networks]
    while norms := _run_to_next_norms(layers, activations, labels, outputs):
        normalized = synchronized_batch_norms(list(norms.values()), [activations[number] for number in norms])
        for number, output in zip(norms, normalized, strict=True):
            activations[number] = output
    return [network_outputs[::-1] for network_outputs in outputs]


def _has_norm_weights(network: nn.Module) -> bool:
    """Whether the batch norms of `network` have their weights on this rank; ZeRO stage 3 replaces weights by empty tensors."""
    norms = [layer for layer in network.children() if isinstance(layer, SyncBatchNorm)]
    return all(norm.weight is None or norm.weight.numel() == norm.num_features for norm in norms)


def _run_to_next_norms(
    layers: Sequence[Iterator[nn.Module]], activations: list[Tensor], labels: Tensor | None, outputs: Sequence[list[Tensor]]
) -> dict[int, SyncBatchNorm]:
    """Apply the layers of each network that come before its next batch norm, or all that are left.

    Args:
        layers: the remaining layers of each network; the batch norm at which a network stops is consumed, but not applied.
        activations: the input of each network's next layer; replaced by the output of the last layer applied.
        labels: classes of the samples.
        outputs: the outputs of each network so far, to which its output heads append.

    Returns:
        The batch norm at which each network stopped, by the network's index in `layers`. Networks that have ended are missing.
    """
    norms: dict[int, SyncBatchNorm] = {}
    for number, remaining in enumerate(layers):
        for layer in remaining:
            if isinstance(layer, SyncBatchNorm):
                norms[number] = layer
                break
            activations[number] = apply_layer(layer, activations[number], labels, outputs[number])
    return norms
