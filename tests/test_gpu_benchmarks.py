"""benchmarks/gpu/run.sh with tiny shapes on the CPU: every section writes its result, and a failed section stops no other."""

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu import common, quality, step
from gpu.common import Helper, Section

from tests.helpers import ROOT, environment
from wavegan_dist.config import TrainConfig
from wavegan_dist.evaluate.registry import check_names

SCRIPT = ROOT / "benchmarks" / "gpu" / "run.sh"
# Two runs that take about equally long. The second begins with a section that fails.
GROUPS = (("haar", "step", "loader", "quality"), ("loader", "tests", "exact", "evaluate"))
# Fields that each row of a section has.
FIELDS = {
    "tests": {"test", "outcome", "seconds"},
    "haar": {"operation", "order"},
    "step": {"side", "precision", "mode", "images_per_second", "kernel_share", "launches", "peak_gib", "first_step_seconds"},
    "exact": {"settings", "precision", "equal", "step_cost"},
    "loader": {"workers"},
    "evaluate": {"command", "images", "seconds", "images_per_second"},
    "quality": {"model", "seed", "kimg", "metrics"},
}
ABOUT = {"card", "driver", "cuda", "cudnn", "date", "git_commit", "packages", "budget_seconds"}


def run(out: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), "--out", str(out), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(PYTHON=sys.executable, **variables), timeout=400
    )


def summary(outcome: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """Return the words of each line of the summary."""
    return [line.split()[:-2] for line in outcome.stdout.partition("== summary\n")[2].splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[tuple[Path, subprocess.CompletedProcess[str]]]:
    """The folder and the outcome of the run of each group; both run at the same time."""
    folder = tmp_path_factory.mktemp("gpu")
    outs = [folder / "first", folder / "second"]
    (outs[0] / "pictures").mkdir(parents=True)  # left by a section that was killed at its time limit
    (outs[1] / "loader.json").mkdir(parents=True)  # the result of this section cannot be written
    sanitizer = folder / "compute-sanitizer"
    sanitizer.write_text("#!/bin/sh\necho '========= ERROR SUMMARY: 0 errors'\n")
    sanitizer.chmod(0o755)
    path = f"{folder}:{environment()['PATH']}"
    with ThreadPoolExecutor() as pool:
        outcomes = pool.map(lambda out, group: run(out, "--tiny", "--seconds", 200, *group, PATH=path), outs, GROUPS)
        return list(zip(outs, outcomes, strict=True))


@pytest.mark.parametrize("section", FIELDS)
def test_a_section_prints_a_table_and_writes_its_result(runs, section):
    out, outcome = runs[section not in GROUPS[0]]
    assert [section, "ok"] in summary(outcome), outcome.stdout
    log = (out / "run.log").read_text()
    assert all(line in log for line in outcome.stdout.splitlines())
    result = json.loads((out / f"{section}.json").read_text())
    assert result.keys() >= ABOUT
    assert result["card"] == "CPU"
    assert result["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert result["rows"]
    assert all(row.keys() >= FIELDS[section] for row in result["rows"])


def test_a_result_of_a_copy_has_the_packed_commit_and_a_plus_if_the_code_has_changed_since(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(common, "PACKED", tmp_path / "build")
    monkeypatch.setattr(common, "git_commit", lambda: "unknown")
    assert common._commit() == "unknown"
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "COMMIT").write_text("0123abc\n")
    code = tmp_path / "code.py"
    code.write_text("first")
    sums = subprocess.run(["sha256sum", "code.py"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (tmp_path / "build" / "SHA256SUMS").write_text(sums)
    assert common._commit() == "0123abc"
    code.write_text("second")
    assert common._commit() == "0123abc+"
    code.unlink()
    assert common._commit() == "0123abc+"


def test_the_results_say_what_the_sections_found(runs):
    files = [file for out, _ in runs for file in out.glob("*.json") if file.is_file()]
    results: dict[str, Any] = {file.stem: json.loads(file.read_text()) for file in files}
    assert [row["equal"] for row in results["exact"]["rows"]] == [True]
    assert "0 errors" in results["tests"]["sanitizer"]
    assert {row["mode"] for row in results["step"]["rows"]} == {"plain", "off"}
    assert "spectrum_db" in results["quality"]["rows"][0]["metrics"]


def test_a_section_that_fails_does_not_stop_the_next(runs):
    (_, good), (_, bad) = runs
    assert good.returncode == 0
    assert bad.returncode == 1
    together, rest = summary(bad)[:2], summary(bad)[2:]
    assert sorted(together) == [["exact", "ok"], ["tests", "ok"]]
    assert rest == [["loader", "failed"], ["evaluate", "ok"]]
    assert "Is a directory" in bad.stdout


def test_a_row_in_a_process_of_its_own_is_measured_and_a_failed_one_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["step", "--out", str(tmp_path), "--seconds", "200", "--tiny"])
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'benchmarks'}")
    section = Section("step", "")
    rows = [Helper(section, "gpu.step_row", vars(step.Case(32, "fp32", mode))) for mode in ("off", "none")]
    assert not rows[0].is_ready(time.monotonic())
    for row in rows:
        assert row.is_ready(time.monotonic() + 200)
        row.begin(1.0)
    assert rows[0].result(200)["images_per_second"] > 0
    with pytest.raises(RuntimeError, match="ended with code 1"):
        rows[1].result(200)


def test_a_section_that_takes_too_long_is_stopped(tmp_path):
    outcome = run(tmp_path, "--tiny", "--seconds", 0.3, "loader")
    assert outcome.returncode == 1
    assert summary(outcome) == [["loader", "timed", "out"]]


def test_without_a_gpu_or_with_an_unknown_section_there_is_one_line(tmp_path):
    cases = {"haar": "PyTorch sees no GPU", "speed": "no section is called speed", "--fast": "no option is called '--fast'"}
    for arguments, message in [*(([name], message) for name, message in cases.items()), (["--seconds", "x"], "needs a number")]:
        outcome = run(tmp_path, *arguments, CUDA_VISIBLE_DEVICES="")
        assert outcome.returncode == 2
        (line,) = (outcome.stdout + outcome.stderr).splitlines()
        assert line.startswith("run.sh: ")
        assert message in line


def test_the_settings_of_the_full_run_are_valid_and_its_budgets_fit_nine_minutes():
    for case in step.cases(tiny=False):
        if case.mode in ("plain", "off") or "compile" in TrainConfig.model_fields:
            assert case.experiment(tiny=False).model.resolution == case.side
    assert check_names(quality.METRICS) == list(quality.METRICS)
    (budgets,) = re.findall(r"budgets=\((.*)\)", SCRIPT.read_text())
    seconds = {name: int(value) for name, value in re.findall(r"\[(\w+)\]=(\d+)", budgets)}
    together = [seconds.pop(name) for name in ("tests", "exact", "quality")]  # these run at the same time
    assert max(together) + sum(seconds.values()) < 540
