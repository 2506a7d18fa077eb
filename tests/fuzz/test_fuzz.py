"""A minute of the fuzz; `python -m tests.fuzz --inputs 100000` is the long run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

INPUTS = {"mlflow": 20, "checkpoints": 40}  # these are slow


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_every_input_is_accepted_or_refused_with_a_documented_error(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--inputs", str(INPUTS.get(name, 100))]
    outcome = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
