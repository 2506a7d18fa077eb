"""The command `wavegan` with PyTorch's settings for reproducibility: python -m gpu.exact_run SETTINGS train --config ..."""

import os
import sys

import torch

SETTINGS = ("default", "deterministic algorithms")
NOT_DETERMINISTIC = "not deterministic"  # the baseline of the costs


def apply(name: str) -> None:
    """Apply one of SETTINGS, or NOT_DETERMINISTIC, to this process; training itself applies the default."""
    torch.backends.cudnn.deterministic = name != NOT_DETERMINISTIC
    torch.use_deterministic_algorithms(name == "deterministic algorithms")


def main() -> int:
    """Run `wavegan` with the arguments after the first, under the setting that the first names."""
    from wavegan_dist.cli import main

    name, *sys.argv[1:] = sys.argv[1:]
    if name == "deterministic algorithms":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    apply(name)
    return main()


if __name__ == "__main__":
    sys.exit(main())
