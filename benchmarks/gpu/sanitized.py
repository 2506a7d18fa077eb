"""Every kernel of the wavelet transform on odd shapes, for compute-sanitizer; on the CPU if there is no GPU.

`tests.py` runs it with PYTORCH_NO_CUDA_MEMORY_CACHING=1: each tensor is then an allocation of its own, so that an access past
its end is found.
"""

import itertools

import torch

from wavegan_dist.wavelet import choose, dwt, fuse, idwt

SHAPES = [(1, 1, 2, 2), (2, 3, 6, 34), (1, 2, 258, 2), (1, 1, 2, 1026), (3, 5, 10, 18)]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def main() -> None:
    """Run forward, backward and double backward of every operator."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for shape, dtype in itertools.product(SHAPES, DTYPES):
        x = torch.rand(shape, dtype=torch.float32).to(device, dtype).requires_grad_()
        misaligned = torch.rand(x.numel() + 1).to(device, dtype)[1:].view(shape).requires_grad_()
        lam = torch.tensor(0.3, device=device, requires_grad=True)
        low, high = dwt(misaligned)
        image = fuse(x, low, high, lam) + idwt(low, high)
        gradients = torch.autograd.grad(image.square().sum(), (x, misaligned, lam), create_graph=True)
        torch.autograd.grad(torch.stack([gradient.float().sum() for gradient in gradients]).sum(), (x, misaligned, lam))
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{choose(device)[0]}: {len(SHAPES) * len(DTYPES)} cases")


if __name__ == "__main__":
    main()
