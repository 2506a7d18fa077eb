"""Batch norm over processes is batch norm of the whole batch, in as few messages as the deepest network has norms."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.helpers import run_ranks

SCRIPT = Path(__file__).parent / "norms.py"


def test_outputs_gradients_and_statistics_are_those_of_the_whole_batch(tmp_path):
    for processes in (1, 2):
        run_ranks(processes, SCRIPT, tmp_path / f"of{processes}")
    alone = load_file(tmp_path / "of1.0")  # in one process, PyTorch's own batch norm
    ranks = [load_file(tmp_path / f"of2.{rank}") for rank in range(2)]
    for name, expected in alone.items():
        if name.endswith(("/output", "/input_gradient")):
            torch.testing.assert_close(torch.cat([rank[name] for rank in ranks]), expected, rtol=1e-4, atol=1e-4)
        elif name != "messages":
            torch.testing.assert_close(ranks[0][name], ranks[1][name], rtol=0, atol=0)
            torch.testing.assert_close(ranks[0][name], expected, rtol=1e-4, atol=1e-3)
    assert alone["messages"] == 0
    assert ranks[0]["messages"] == 4  # two forward, two backward, for three norms
