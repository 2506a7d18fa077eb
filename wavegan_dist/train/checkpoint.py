"""Checkpoints: all that a run needs to go on, in one folder, swapped in whole.

generator, discriminator, ema, optimizer_g, optimizer_d .safetensors    state.json (nimg)
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_dir, save_tensors

if TYPE_CHECKING:
    from wavegan_dist.train.trainer import Trainer


def save_checkpoint(path: Path, trainer: "Trainer") -> None:
    """Write the folder `path`, whole or not at all; one rank calls this."""
    with atomic_dir(path) as folder:
        for name, tensors in _tensors(trainer).items():
            save_tensors(tensors, folder / f"{name}.safetensors")
        (folder / "state.json").write_text(json.dumps({"nimg": trainer.nimg}))


def load_checkpoint(path: Path, trainer: "Trainer") -> None:
    """Put a trainer back where `save_checkpoint` found it; every rank calls this.

    Raises:
        WaveganError: a file is missing, damaged or of another model.
    """
    try:
        for name, module in trainer.modules().items():
            module.load_state_dict(load_file(path / f"{name}.safetensors"))
        for name, optimizer in trainer.optimizers().items():
            _load_optimizer(optimizer, load_file(path / f"{name}.safetensors"))
        trainer.nimg = json.loads((path / "state.json").read_text())["nimg"]
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise WaveganError(f"cannot go on from {path}: {reason}; give an older one with --resume PATH") from error


def prune(checkpoints: list[Path], keep: int) -> None:
    """Delete all but the newest `keep` of these folders, oldest first in the list."""
    for path in checkpoints[:-keep]:
        shutil.rmtree(path)


def _tensors(trainer: "Trainer") -> dict[str, dict[str, Tensor]]:
    tensors = {name: dict(module.state_dict()) for name, module in trainer.modules().items()}
    for name, optimizer in trainer.optimizers().items():
        states = optimizer.state_dict()["state"]
        tensors[name] = {f"{index}.{key}": value for index, state in states.items() for key, value in state.items()}
    return tensors


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
