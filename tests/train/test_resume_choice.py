"""Where a start begins: after `--resume PATH`, past damaged checkpoints, with other losses, at the end of a run."""

import shutil
from pathlib import Path

import pytest

from tests.helpers import Command, refused
from wavegan_dist.run_folder import RunFolder, images_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, wavegan: Command, config: Path) -> Path:
    """A run of 320 images with checkpoints after 160 and 320."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    outcome = wavegan("train", "--config", config, "--run-dir", run)
    assert outcome.returncode == 0, outcome.stderr
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    """A copy that a test may change."""
    return RunFolder(shutil.copytree(finished, tmp_path / "run"))


def names(run: RunFolder) -> list[str]:
    return [path.name for path in run.checkpoints()]


def test_a_run_that_goes_back_never_meets_its_later_checkpoints_again(run: RunFolder, wavegan: Command, config: Path) -> None:
    command = ("train", "--config", config, "--run-dir", run.path, "--resume", run.checkpoint(160), "train.keep_checkpoints=1")
    outcome = wavegan(*command, "train.total_kimg=0.256")
    assert outcome.returncode == 0, outcome.stderr
    assert "kimg-000000.320 renamed to unused-kimg-..." in outcome.stderr
    assert names(run) == ["kimg-000000.256"]
    assert (run.path / "checkpoints" / "unused-kimg-000000.320").is_dir()
    outcome = wavegan(*command, "train.total_kimg=0.288")  # the checkpoint of the command is gone
    assert outcome.returncode == 0, outcome.stderr
    assert "resuming at kimg 0.256" in outcome.stderr
    outcome = wavegan("train", "--config", config, "--run-dir", run.path)
    assert "resuming at kimg 0.288" in outcome.stderr


def test_a_run_that_begins_at_a_checkpoint_of_another_goes_on_from_its_own(
    run: RunFolder, wavegan: Command, config: Path, tmp_path: Path
) -> None:
    other = RunFolder(tmp_path / "other")
    command = ("train", "--config", config, "--run-dir", other.path, "--resume", run.checkpoint(160))
    assert "resuming at kimg 0.16" in wavegan(*command, "train.total_kimg=0.224").stderr
    assert "resuming at kimg 0.224" in wavegan(*command, "train.total_kimg=0.256").stderr
    automatic = ("train", "--config", config, "--run-dir", other.path, "train.total_kimg=0.288")
    assert "resuming at kimg 0.256" in wavegan(*automatic).stderr
    outcome = wavegan(*command)
    assert f"{other.checkpoint(288)} continues a start from {run.checkpoint(160)}" in outcome.stderr
    assert "resuming at kimg 0.288" in outcome.stderr
    assert names(other)[-1] == "kimg-000000.320"


def test_a_run_whose_own_checkpoints_are_all_damaged_does_not_begin_at_that_of_another_again(
    run: RunFolder, wavegan: Command, config: Path, tmp_path: Path
) -> None:
    other = RunFolder(tmp_path / "other")
    command = (
        "train",
        "--config",
        config,
        "--run-dir",
        other.path,
        "--resume",
        run.checkpoint(160),
        "train.checkpoint_kimg=0.096",
    )
    assert wavegan(*command).returncode == 0
    for checkpoint, file in zip(other.checkpoints(), ("manifest.json", "state.json", "state.json"), strict=True):
        (checkpoint / file).write_text("")
    refused(wavegan(*command), f"no checkpoint of {other.path} since {run.checkpoint(160)} is intact", exit_code=1)
    assert len(other.checkpoints()) == 3


def test_damaged_checkpoints_do_not_take_the_place_of_new_ones(run: RunFolder, wavegan: Command, config: Path) -> None:
    (run.checkpoint(320) / "manifest.json").unlink()
    outcome = wavegan("train", "--config", config, "--run-dir", run.path, "train.total_kimg=0.256", "train.keep_checkpoints=1")
    assert outcome.returncode == 0, outcome.stderr
    assert names(run) == ["kimg-000000.256"]


def test_a_checkpoint_of_a_run_with_another_loss_can_be_resumed(
    run: RunFolder, wavegan: Command, config: Path, tmp_path: Path
) -> None:
    command = ("train", "--config", config, "--resume", run.checkpoint(160), "train.report_kimg=0.032")
    for number, setting in enumerate(("loss.objective=relativistic", "augment.probability=0.3", "loss.weights.low=0")):
        other = RunFolder(tmp_path / str(number))
        outcome = wavegan(*command, "--run-dir", other.path, setting)
        assert outcome.returncode == 0, outcome.stderr
        assert ("loss/d_low" in other.reports()[-1]) == (setting != "loss.weights.low=0")


def test_a_run_that_is_over_writes_the_last_snapshot_that_is_missing(run: RunFolder, wavegan: Command, config: Path) -> None:
    shutil.rmtree(run.snapshot(320))
    outcome = wavegan("train", "--config", config, "--run-dir", run.path)
    assert outcome.returncode == 0, outcome.stderr
    assert run.snapshot(320).is_dir()


def test_numbers_of_images_have_no_rounding_error() -> None:
    assert 128.448 * 1000 != 128448
    assert all(images_of(images / 1000) == images for images in range(64, 5_000_000, 64))
