"""benchmarks/gpu/run.sh with tiny shapes on the CPU: every section writes its result, and a failed section stops no other."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import ROOT, environment

SECTIONS = ["tests", "haar", "step", "exact", "loader", "evaluate", "quality"]
# Fields that a row of each section has.
FIELDS = {
    "tests": {"test", "outcome", "seconds"},
    "haar": {"operation", "order"},
    "step": {"side", "precision", "mode", "images_per_second", "kernel_share", "launches", "peak_gib", "first_step_seconds"},
    "exact": {"settings", "precision", "equal", "step_cost"},
    "loader": {"workers"},
    "evaluate": {"command", "images", "seconds", "images_per_second"},
    "quality": {"model", "seed", "kimg", "metrics"},
}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """One folder for the results of all sections, which share the data set in it."""
    return tmp_path_factory.mktemp("gpu")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "benchmarks" / "gpu" / "run.sh"), *map(str, arguments)]
    env = environment(PYTHON=sys.executable)
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


def result(out: Path, section: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / f"{section}.json").read_text())
    return content


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_prints_a_table_and_writes_its_result(out, section):
    outcome = run("--tiny", "--out", out, section)
    assert outcome.returncode == 0, outcome.stdout
    assert outcome.stdout.splitlines()[-1].split()[:2] == [section, "ok"]
    assert (
        outcome.stdout in (out / "run.log").read_text().replace(f"-- stderr of {section}\n", "") or (out / "run.log").exists()
    )
    content = result(out, section)
    assert content["card"] == "CPU"
    assert content["packages"]["torch"] == torch.__version__.split("+")[0]
    assert {"driver", "cuda", "cudnn", "date", "git_commit", "budget_seconds"} <= content.keys()
    assert content["rows"]
    assert all(FIELDS[section] <= row.keys() for row in content["rows"])


def test_the_tiny_run_resumed_bit_for_bit(out):
    assert [row["equal"] for row in result(out, "exact")["rows"]] == [True]


def test_a_section_that_fails_or_takes_too_long_does_not_stop_the_next(tmp_path):
    (tmp_path / "haar.json").mkdir()  # this result cannot be written
    outcome = run("--tiny", "--out", tmp_path, "haar", "loader")
    assert outcome.returncode == 1
    summary = [line.split() for line in outcome.stdout.splitlines()[-2:]]
    assert [line[:2] for line in summary] == [["haar", "failed"], ["loader", "ok"]]
    assert "Is a directory" in outcome.stdout
    late = run("--tiny", "--out", tmp_path, "--seconds", "0.3", "loader")
    assert late.returncode == 1
    assert late.stdout.splitlines()[-1].split()[:3] == ["loader", "timed", "out"]


def test_without_a_gpu_or_with_an_unknown_section_there_is_one_line(tmp_path):
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    for arguments, message in ((["haar"], "PyTorch sees no GPU"), (["--tiny", "speed"], "no section is called speed")):
        command = [str(ROOT / "benchmarks" / "gpu" / "run.sh"), "--out", str(tmp_path), *arguments]
        outcome = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | hidden | {"PYTHON": sys.executable}, timeout=60
        )
        assert outcome.returncode == 2
        (line,) = (outcome.stdout + outcome.stderr).splitlines()
        assert line.startswith("run.sh: ")
        assert message in line
