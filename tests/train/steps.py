"""Trains five steps on batches that do not depend on the number of processes: `steps.py OUT CONFIG key=value ...`.

Each rank writes the losses, and the weights before and after, to OUT.RANK.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from wavegan_dist import config
from wavegan_dist.data import ImageBatch
from wavegan_dist.processes import leave
from wavegan_dist.train import launch
from wavegan_dist.train.loop import load_index
from wavegan_dist.train.trainer import Trainer


def weights(trainer: Trainer, moment: str) -> dict[str, torch.Tensor]:
    """Return parameters and buffers of each module and of the EMA as one vector each."""
    modules = {"generator": trainer.generator.module, "discriminator": trainer.discriminator.module}
    states = {kind: list(module.state_dict().values()) for kind, module in modules.items()}
    states["ema"] = [value for _, value in trainer.ema.iter_full_tensors()]
    return {f"{moment}/{kind}": torch.cat([v.detach().flatten().float() for v in state]) for kind, state in states.items()}


def main(out: Path, config_file: Path, overrides: list[str]) -> None:
    experiment = config.load(config_file, overrides)
    accelerator = launch.init_accelerator(experiment.train)
    trainer = Trainer(experiment, load_index(experiment), accelerator)
    rank, processes = accelerator.process_index, accelerator.num_processes
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, experiment.train.batch_size, 3, 32, 32), dtype=torch.uint8, generator=draws)
    batches = (ImageBatch(batch.chunk(processes)[rank]) for batch in images)
    losses: dict[str, torch.Tensor] = {}
    start = weights(trainer, "start")
    for step in range(5):
        trainer.step(batches)
        losses |= {f"{step}/{name}": torch.tensor(value) for name, value in trainer.metrics.drain().items()}
    save_file({**losses, **start, **weights(trainer, "end")}, f"{out}.{rank}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    leave()
    threads = [file.read_text() for file in Path("/proc/self/task").glob("*/comm")]
    assert "pt_gloo_runloop\n" not in threads, "a thread of gloo outlives its group: it can end the process with SIGABRT"
