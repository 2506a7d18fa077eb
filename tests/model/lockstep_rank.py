"""One rank that runs three networks in lockstep: `lockstep_rank.py OUT` saves outputs, gradients and buffers to OUT.RANK.

In one process the networks have PyTorch's own batch norm.
"""

import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from wavegan_dist.model import sync_batchnorm
from wavegan_dist.model.lockstep import run_in_lockstep

dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
batch_norm = nn.BatchNorm2d if world_size == 1 else sync_batchnorm.SyncBatchNorm
networks = [
    nn.Sequential(nn.Conv2d(3, 4, 1), batch_norm(4), nn.ReLU(), nn.Conv2d(4, 5, 1), batch_norm(5)),
    nn.Sequential(batch_norm(3), nn.Tanh()),
    nn.Sequential(nn.Conv2d(3, 2, 1)),
]
inputs = [(torch.randn(8, 3, 6, 6) * 3 + 10).chunk(world_size)[rank].to(memory_format=torch.channels_last) for _ in networks]
for x in inputs:
    x.requires_grad_()
messages: list[Tensor] = []
all_gather = dist.all_gather


def counted_all_gather(gathered: list[Tensor], x: Tensor) -> None:
    messages.append(x)
    all_gather(gathered, x)


dist.all_gather = counted_all_gather  # type: ignore[assignment]
outputs = run_in_lockstep(networks, inputs)
torch.stack([(output**3).sum() for output in outputs]).sum().backward()
results: dict[str, Tensor] = {"messages": torch.tensor(len(messages))}
for number, (network, x, output) in enumerate(zip(networks, inputs, outputs, strict=True)):
    assert x.grad is not None
    results |= {f"{number}/output": output, f"{number}/input_gradient": x.grad}
    results |= {f"{number}/buffer/{name}": value.float() for name, value in network.named_buffers()}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        results[f"{number}/gradient/{name}"] = parameter.grad
save_file({name: value.detach().contiguous() for name, value in results.items()}, f"{sys.argv[1]}.{rank}")
dist.destroy_process_group()
