"""Compares the checkpoints and samples that the script strategies.py writes."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

SCRIPT = Path(__file__).parent / "strategies.py"


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Return weights, batch statistics and EMA of a checkpoint."""
    loaded: dict[str, Tensor] = {}
    for file in checkpoint.glob("*.safetensors"):
        loaded |= load_file(file)
    return {name: value for name, value in loaded.items() if not name.startswith("optimizer")}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest distance between two tensors of the same name, relative to the first one's norm."""
    assert one.keys() == other.keys()
    pairs = [(one[name].double(), other[name].double()) for name in one]
    return max(((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in pairs)
