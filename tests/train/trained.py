"""Compares the checkpoints and samples that the script strategies.py writes."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

SCRIPT = Path(__file__).parent / "strategies.py"


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Return weights, batch statistics and EMA of a checkpoint."""
    loaded: dict[str, Tensor] = {}
    for file in checkpoint.glob("*.safetensors"):
        loaded |= load_file(file)
    return {name: value for name, value in loaded.items() if not name.startswith("optimizer")}


def gradients(checkpoint: Path) -> dict[str, Tensor]:
    """Return the gradient of each module in the last step as one vector: Adam's first moment if beta1 is 0.

    One vector, because the gradients of some biases are only rounding noise.
    """
    moments: dict[str, Tensor] = {}
    for file in checkpoint.glob("*.safetensors"):
        moments |= {name: value for name, value in load_file(file).items() if name.endswith(".exp_avg")}
    names = sorted(moments)
    return {
        side: torch.cat([moments[name].flatten() for name in names if name.startswith(f"optimizer_{side}")]) for side in "gd"
    }


def norms(checkpoint: Path) -> list[float]:
    """Return the norms of the gradients in each step, of the discriminator and the generator in turn."""
    steps = json.loads(checkpoint.with_name(f"{checkpoint.name}.norms").read_text())
    return [step[f"grad_norm/{side}"] for step in steps for side in "dg"]


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest distance between two tensors of the same name, relative to the first one's norm."""
    assert one.keys() == other.keys()
    pairs = [(one[name].double(), other[name].double()) for name in one]
    return max(((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in pairs)
