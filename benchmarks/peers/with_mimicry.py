"""Train mimicry's SNGAN with its own networks, trainer and settings for a number of CPU seconds; write images of it.

    python with_mimicry.py IMAGES.npy SECONDS COUNT SEED OUT.npy      in an environment with torch-mimicry 0.1.16

IMAGES.npy holds the real images, uint8 [N, 32, 32, 3]; OUT.npy becomes uint8 [COUNT, 3, 32, 32]. Prints a JSON object. The
settings are those of mimicry's README: Adam(2e-4, betas=(0.0, 0.9)), 5 discriminator steps for each generator step, batches of
64, linear decay over the run, whose number of steps follows from two timed steps. One thread.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

for part in ("datasets", "metrics"):  # unused here; they import modules that PyTorch no longer has, and TensorFlow
    sys.modules[f"torch_mimicry.{part}"] = ModuleType(f"torch_mimicry.{part}")
from torch_mimicry.nets import sngan  # noqa: E402
from torch_mimicry.training import Trainer  # noqa: E402

BATCH, D_STEPS, TIMED_STEPS = 64, 5, 2


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Images in [-1, 1] without labels, as mimicry's own dataset of CIFAR-10 has them."""

    def __init__(self, path: str) -> None:
        self._pixels = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self._pixels[number].copy()).permute(2, 0, 1) / 127.5 - 1, 0


def train(images: Dataset[Any], steps: int, seed: int) -> tuple[Any, float]:
    """Train for a number of generator steps; return the generator and the CPU seconds."""
    torch.manual_seed(seed)
    generator, discriminator = sngan.SNGANGenerator32(), sngan.SNGANDiscriminator32()
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9)) for net in (discriminator, generator)]
    loader = DataLoader(images, batch_size=BATCH, shuffle=True)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            netD=discriminator, netG=generator, optD=optimizers[0], optG=optimizers[1], n_dis=D_STEPS, num_steps=steps,
            lr_decay="linear", dataloader=loader, log_dir=folder, device=torch.device("cpu"),
        )  # fmt: skip
        started = time.process_time()
        trainer.train()
        return generator, time.process_time() - started


def main() -> None:
    """Run the command of the module's docstring."""
    path, seconds, count, seed, out = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
    torch.set_num_threads(1)
    result, sys.stdout = sys.stdout, sys.stderr  # the trainer prints each step
    images = Images(path)
    steps = max(round(seconds / (train(images, TIMED_STEPS, seed)[1] / TIMED_STEPS)), 1)
    generator, trained = train(images, steps, seed)
    with torch.inference_mode():
        parts = [generator.generate_images(min(BATCH, count - first)) for first in range(0, count, BATCH)]
    np.save(out, ((torch.cat(parts) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())
    shown = {"steps": steps, "cpu_seconds": round(trained, 1), "kimg": steps * D_STEPS * BATCH / 1000}
    print(json.dumps(shown | {"torch": torch.__version__}), file=result)


if __name__ == "__main__":
    main()
