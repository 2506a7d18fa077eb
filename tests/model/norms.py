"""What one rank computes with three networks side by side: outputs, gradients and buffers into a file, messages counted."""

import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from wavegan_dist.model import norm

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
nets = [
    torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), norm.BatchNorm(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 1), norm.BatchNorm(5)
    ),
    torch.nn.Sequential(norm.BatchNorm(3), torch.nn.Tanh()),
    torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1)),
]
inputs = [(torch.randn(8, 3, 6, 6) * 3 + 10).chunk(size)[rank].to(memory_format=torch.channels_last) for _ in nets]
for each in inputs:
    each.requires_grad_()
messages = []
gather = dist.all_gather
norm.dist.all_gather = lambda slots, x: messages.append(x) or gather(slots, x)
outputs = norm.run_in_lockstep(nets, inputs)
sum((output**3).sum() for output in outputs).backward()
told = {f"{number}/output": output for number, output in enumerate(outputs)}
told |= {f"{number}/input_gradient": each.grad for number, each in enumerate(inputs)}
for number, net in enumerate(nets):
    told |= {f"{number}/buffer/{name}": value.float() for name, value in net.named_buffers()}
    for name, parameter in net.named_parameters():
        dist.all_reduce(parameter.grad)
        told[f"{number}/gradient/{name}"] = parameter.grad
told["messages"] = torch.tensor(len(messages))
save_file({name: value.detach().contiguous() for name, value in told.items()}, f"{sys.argv[1]}.{rank}")
dist.destroy_process_group()
