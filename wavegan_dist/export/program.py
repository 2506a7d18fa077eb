"""A generator as a `torch.export` program that consists of PyTorch's own operators only."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from typing_extensions import override

from wavegan_dist.images import to_uint8
from wavegan_dist.model.generator import WaveletGenerator


class PixelGenerator(nn.Module):
    """Generates uint8 pixels [B, 3, R, R]: the generator's images clamped to [-1, 1] and rounded to 0..255.

    `forward` takes latents [B, z_dim] and, for a generator with classes, labels int64 [B].
    """

    def __init__(self, generator: WaveletGenerator) -> None:
        super().__init__()
        self.generator = generator

    @override
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return to_uint8(self.generator(z, labels))


def generator_inputs(generator: WaveletGenerator, z: Tensor) -> tuple[Tensor, ...]:
    """Return the generator's arguments for latents `z`, [B, z_dim]: (z,), or (z, labels) for a generator with classes.

    The labels, int64 [B] on the CPU, are all classes in turn: 0, 1, ..., num_classes - 1, 0, ...
    """
    return (z, torch.arange(len(z)) % generator.num_classes) if generator.num_classes else (z,)


def trace(generator: WaveletGenerator, *, pixels: bool = False) -> ExportedProgram:
    """Trace a generator for any batch size. The program has no operators but PyTorch's own.

    Args:
        generator: the generator, on the CPU, in eval mode.
        pixels: trace `PixelGenerator`, whose output is uint8.

    Returns:
        A program with the inputs `z`, float32 [B, z_dim], and, for a generator with classes, `labels`, int64 [B]. Weights and
        lam are part of it. It holds no file names of this machine.
    """
    module = PixelGenerator(generator) if pixels else generator
    inputs = generator_inputs(generator, torch.zeros(2, generator.z_dim))
    batch = {0: Dim("batch", min=1)}
    shapes = dict(zip(("z", "labels"), (batch for _ in inputs), strict=False))
    program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program
