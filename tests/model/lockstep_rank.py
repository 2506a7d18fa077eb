"""One rank that runs three networks in lockstep: `lockstep_rank.py OUT` saves outputs, gradients and buffers to OUT.RANK.

In one process the networks have PyTorch's own batch norm.
"""

import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from wavegan_dist.model.backbones.dcgan import DCGANGenerator
from wavegan_dist.model.lockstep import replace_batch_norms, run_in_lockstep

dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
networks = [
    DCGANGenerator(6, {32: 1.0}, 3, width=2),
    DCGANGenerator(6, {16: 2.0, 8: 4.0}, 9, width=2, num_classes=3),
    DCGANGenerator(6, {8: 2.0}, 3, width=2),
]
if world_size > 1:
    for network in networks:
        replace_batch_norms(network)
inputs = [(torch.randn(8, 6) * 3 + 10).chunk(world_size)[rank] for _ in networks]
labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]).chunk(world_size)[rank]
for x in inputs:
    x.requires_grad_()
messages: list[Tensor] = []
all_gather = dist.all_gather


def counted_all_gather(gathered: list[Tensor], x: Tensor) -> None:
    messages.append(x)
    all_gather(gathered, x)


dist.all_gather = counted_all_gather  # type: ignore[assignment]
outputs = [output for outputs in run_in_lockstep(networks, inputs, labels) for output in outputs]
torch.stack([(output**3).sum() for output in outputs]).sum().backward()
results: dict[str, Tensor] = {"messages": torch.tensor(len(messages))}
results |= {f"{number}/output": output for number, output in enumerate(outputs)}
for number, (network, x) in enumerate(zip(networks, inputs, strict=True)):
    assert x.grad is not None
    results[f"{number}/input_gradient"] = x.grad
    results |= {f"{number}/buffer/{name}": value.float() for name, value in network.named_buffers()}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        results[f"{number}/gradient/{name}"] = parameter.grad
save_file({name: value.detach().contiguous() for name, value in results.items()}, f"{sys.argv[1]}.{rank}")
dist.destroy_process_group()
