"""A short soak: a few faults at random, and runs that end equal to the one without faults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, environment


@pytest.mark.slow  # 4 minutes
@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk, which needs root")
def test_faults_at_random_change_nothing(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    command = "benchmarks/soak.py --steps 150 --minutes 3 --every 1,2 --stopped 2 --out"
    outcome = subprocess.run(
        [sys.executable, *command.split(), out],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    result = json.loads(out.read_text())
    assert sum(row["count"] for row in result["faults"]) >= 2
    assert result["runs"]
    assert all(run["values"] > 300 for run in result["runs"])
