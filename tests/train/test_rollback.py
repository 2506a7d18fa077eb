"""Rollbacks that meet another fault: a damaged checkpoint, a full disk, no checkpoint, no rollback left."""

from pathlib import Path

from tests.helpers import environments, points, run_each
from wavegan_dist.run_folder import RunFolder

HERE = Path(__file__).parent
ROLLBACK = ("train.on_nonfinite=rollback", "train.checkpoint_kimg=0.064")


def test_a_damaged_checkpoint_that_a_rollback_passes_does_not_take_the_place_of_new_ones(tmp_path, config):
    run = RunFolder(tmp_path / "run")
    words = ("train", "--config", config, "--run-dir", run.path, *ROLLBACK, "train.keep_checkpoints=2")
    (outcome,) = run_each([(HERE / "rollback.py", "damaged", 224, 0, *words)], environments(1, {}), 120)
    assert outcome.returncode == 75, outcome.stderr
    assert "rolled back to kimg 0.128" in outcome.stderr
    assert "kimg-000000.192 renamed to unused-kimg-..." in outcome.stderr
    assert [path.name for path in run.checkpoints()] == ["kimg-000000.128", "kimg-000000.160"]


def test_a_full_disk_in_a_rollback_ends_all_ranks_with_its_reason(tmp_path, config):
    words = ("train", "--config", config, "--run-dir", tmp_path / "run", *ROLLBACK)
    first, second = run_each([(HERE / "rollback.py", "disk", 224, 0, *words)] * 2, environments(2, {}), 120)
    for outcome, rank in ((first, ""), (second, "rank 0: ")):
        assert outcome.returncode == 1
        assert f"{rank}{tmp_path}/run/metrics.jsonl: no space left on device" in outcome.stderr.splitlines()[-1]


def test_a_full_disk_in_a_rollback_does_not_end_a_run_that_continues(tmp_path, config):
    run = tmp_path / "run"
    words = ("train", "--config", config, "--run-dir", run, *ROLLBACK, "train.on_disk_error=continue", "train.report_kimg=0.16")
    (outcome,) = run_each([(HERE / "rollback.py", "disk", 224, 0, *words)], environments(1, {}), 120)
    assert outcome.returncode == 0, outcome.stderr
    assert "cannot write metrics at kimg 0.192" in outcome.stderr
    assert RunFolder(run).checkpoint(320).is_dir()


def test_a_run_that_cannot_roll_back_is_not_advised_to_roll_back(tmp_path, config):
    words = ("train", "--config", config, "--run-dir", tmp_path / "run", *ROLLBACK)
    script = HERE / "poisoned.py"
    (none,) = run_each([(script, 32, 0, *words)], environments(1, {}), 120)
    assert "no checkpoint yet to roll back to; start again with another --run-dir" in none.stderr.splitlines()[-1]
    (once,) = run_each([(script, 96, 9, *words, "train.max_rollbacks=1")], environments(1, {}), 120)
    assert "resume with train.max_rollbacks=2 or more, or with --resume CHECKPOINT" in once.stderr.splitlines()[-1]
    assert (none.returncode, once.returncode) == (1, 1)
    assert [point["nimg"] for point in points(tmp_path / "run")] == [64]
    (stopped,) = run_each([(script, 96, 9, *words[:-2])], environments(1, {}), 120)
    assert "resume with train.on_nonfinite=rollback, or with --resume CHECKPOINT" in stopped.stderr.splitlines()[-1]
