"""A short soak: three faults at random, and runs that end equal to the one without faults."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, environment

FAULTS = 3


@pytest.mark.slow  # 4 minutes
@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk, which needs root")
def test_faults_at_random_change_nothing(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    seed = random.SystemRandom().randrange(1000)  # other faults each time
    command = f"benchmarks/soak.py --steps 150 --faults {FAULTS} --every 0,1 --stopped 2 --seed {seed} --out"
    outcome = subprocess.run(
        [sys.executable, *command.split(), out],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert outcome.returncode == 0, f"seed {seed}\n{outcome.stdout}{outcome.stderr}"
    result = json.loads(out.read_text())
    assert sum(row["count"] for row in result["faults"]) == FAULTS
    assert result["runs"]
    assert all(run["values"] > 300 for run in result["runs"])
