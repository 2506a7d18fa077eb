"""Non-finite numbers: all ranks detect them before any weight changes and name the network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import environment, environments, points, run_each, run_ranks
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.collapse import CollapseWarnings

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def injected(tmp_path_factory, config) -> tuple[list[dict], list[dict], Path]:
    """Return the records of ranks 0 and 1 for each fault on rank 1, and the folder of the reports."""
    folder = tmp_path_factory.mktemp("injected")
    run_ranks(2, HERE / "inject.py", folder / "seen", config, folder, "all", "weight,output,gradient")
    return (*(json.loads((folder / f"seen.{rank}").read_text()) for rank in range(2)), folder)


@pytest.mark.parametrize("case", range(18))
def test_a_nan_in_one_network_of_one_rank_stops_both_before_the_step_and_names_it(injected, case):
    first, second, folder = injected
    network, kind = first[case]["network"], first[case]["kind"]
    for seen in (first[case], second[case]):
        assert seen["nonfinite"] == 1
        # A fault in the generators' gradient appears after the discriminators' optimizer step.
        assert seen["moved"] == {"d": network.startswith("generator") and kind == "gradient", "g": False}
        assert f"phase: {network}, " in seen["error"], seen["error"]
        assert "on rank 1" in seen["error"]
    report = json.loads((folder / f"{network}-{kind}" / "report.json").read_text())
    assert report["phase"] == ("g" if network.startswith("generator") and kind == "gradient" else "d")
    bad = {"weight": "weights", "output": "outputs", "gradient": "weight_gradients"}[kind]
    assert any(each["name"].startswith(network) and not each["finite"] for each in report["ranks"][1][bad])
    assert all(each["finite"] for each in report["ranks"][0]["weights"])
    assert report["ranks"][0]["keys"] == ["key 64"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_under_zero_too_no_weight_moves_and_the_network_is_named(tmp_path, config, strategy):
    run_ranks(2, HERE / "inject.py", tmp_path / "seen", config, tmp_path, "all", "gradient", f"train.strategy={strategy}")
    for rank in range(2):
        seen = json.loads((tmp_path / f"seen.{rank}").read_text())
        assert len(seen) == 6
        for each in seen:
            assert each["nonfinite"] == 1
            assert each["moved"] == {"d": each["network"].startswith("generator"), "g": False}
            assert f"phase: {each['network']}, gradient of" in each["error"]
            assert "on rank 1" in each["error"]


def test_a_loss_that_is_not_finite_on_one_rank_is_diagnosed_in_fp16_where_the_other_rank_sees_an_overflow(tmp_path, config):
    network = "discriminator.low"
    run_ranks(2, HERE / "inject.py", tmp_path / "seen", config, tmp_path, network, "weight", "train.precision=fp16")
    (first,), (second,) = (json.loads((tmp_path / f"seen.{rank}").read_text()) for rank in range(2))
    assert (first["nonfinite"], second["nonfinite"]) == (0, 1)
    assert first["error"] == second["error"]
    assert f"phase: {network}, weight" in first["error"]
    assert "on rank 1" in first["error"]
    assert first["moved"] == second["moved"] == {"d": False, "g": False}


def poisoned(first: int, last_attempt: int, run: Path, config: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    train = ["train", "--config", config, "--run-dir", run, *overrides]
    command = [sys.executable, *map(str, (HERE / "poisoned.py", first, last_attempt, *train))]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)


def test_a_run_stops_with_one_line_a_report_and_its_last_good_checkpoint(tmp_path, config, wavegan):
    outcome = poisoned(224, 0, tmp_path / "run", config)
    assert outcome.returncode == 1
    (line,) = [line for line in outcome.stderr.splitlines() if "not finite" in line]
    assert "at image 224 in the D phase: generator.high, weight generator.high.1.weight" in line
    folder = RunFolder(tmp_path / "run")
    report = json.loads((folder.diagnostics(224) / "report.json").read_text())
    assert len(report["ranks"][0]["keys"]) == 32
    assert all(key.startswith("shard") or "tar: " in key for key in report["ranks"][0]["keys"])
    assert [path.name for path in folder.checkpoints()] == ["kimg-000000.160"]
    assert json.loads((folder.path / "exit.json").read_text())["state"] == "failed"
    outcome = wavegan("train", "--config", config, "--run-dir", folder.path)
    assert outcome.returncode == 0, outcome.stderr
    assert "resuming at kimg 0.16" in outcome.stderr


def test_a_report_that_cannot_be_written_does_not_hide_the_error(tmp_path, config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "diagnostics").write_text("no folder")
    outcome = poisoned(224, 0, tmp_path / "run", config)
    assert outcome.returncode == 1
    assert "cannot write the report" in outcome.stderr
    assert outcome.stderr.splitlines()[-1].startswith("wavegan: not finite at image 224")


def test_a_checkpoint_that_is_being_written_is_completed_before_an_error_ends_the_run(tmp_path, config):
    run = RunFolder(tmp_path / "run")
    command = (HERE / "slow_save.py", 160, 0, "train", "--config", config, "--run-dir", run.path)
    for outcome in run_each([command] * 2, environments(2, {}), 120):
        assert outcome.returncode == 1
        assert "not finite at image 160" in outcome.stderr.splitlines()[-1]
    assert [path.name for path in run.checkpoints()] == ["kimg-000000.160"]


def test_rollback_continues_from_the_last_checkpoint_with_other_latents(tmp_path, config, wavegan):
    run = tmp_path / "run"
    outcome = poisoned(224, 0, run, config, "train.on_nonfinite=rollback")
    assert outcome.returncode == 0, outcome.stderr
    assert "rolled back to kimg 0.16 (1 of at most 3)" in outcome.stderr
    assert "rolled back to kimg 0.16 (1 of at most 3)" in RunFolder(run).log.read_text()
    assert [point["nimg"] for point in points(run)] == [64, 128, 192, 256, 320]
    straight = tmp_path / "straight"
    assert wavegan("train", "--config", config, "--run-dir", straight).returncode == 0
    losses = [[point["loss/d_image"] for point in points(each)] for each in (run, straight)]
    assert losses[0][:2] == losses[1][:2]
    assert losses[0][3] != losses[1][3]
    assert json.loads((RunFolder(run).checkpoints()[-1] / "state.json").read_text())["rollbacks"] == 1


def test_rollbacks_are_bounded(tmp_path, config):
    outcome = poisoned(224, 9, tmp_path / "run", config, "train.on_nonfinite=rollback", "train.max_rollbacks=2")
    assert outcome.returncode == 1
    assert outcome.stderr.count("rolled back to kimg 0.16") == 2
    assert outcome.stderr.splitlines()[-1].startswith("wavegan: not finite at image 224")


def test_collapse_is_warned_of_once_until_it_has_ceased():
    collapse = CollapseWarnings(total_kimg=100)
    collapsed = {"kimg": 50, "watch/diversity": 0.05, "watch/saturation_low": 1.0, "watch/saturation_high": 0.5}
    healthy = {"kimg": 50, "watch/diversity": 0.8, "watch/saturation_low": 0.7}
    assert collapse.warnings({**collapsed, "kimg": 1}) == []  # untrained networks look collapsed, too
    first = collapse.warnings(collapsed)
    assert len(first) == 2
    assert "mode collapse" in first[0]
    assert "discriminator.low" in first[1]
    assert collapse.warnings(collapsed) == []
    assert collapse.warnings(healthy) == []
    assert collapse.warnings(collapsed) == first
    assert "larger logit in 99.5% of the pairs" in collapse.warnings({**healthy, "watch/pair_accuracy_low": 0.995})[0]
