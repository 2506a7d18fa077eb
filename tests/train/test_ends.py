"""The end of a run on several ranks: all of them end together, and each says why."""

import json
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.helpers import environments, refused, run_each
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.run_writer import RunWriter

HERE = Path(__file__).parent


def test_a_rank_that_is_killed_while_the_ranks_read_their_settings_ends_the_others_with_one_line(tmp_path, config):
    train = ("train", "--config", config, "--run-dir", tmp_path / "run")
    first, second = run_each([(HERE / "alone.py", "killed", 1, *train)] * 2, environments(2, {}), 120)
    assert second.returncode == -signal.SIGKILL
    refused(first, "another process of this run has ended or stopped answering", exit_code=1)


@pytest.mark.parametrize(("signalled", "code", "state"), [(1, 75, "interrupted"), (0, 0, "finished")])
def test_no_rank_ends_or_obeys_a_late_signal_before_exit_json_is_written(tmp_path, config, signalled, code, state):
    run = tmp_path / "run"
    command = (HERE / "ending.py", signalled, "train", "--config", config, "train.total_kimg=0.064", "--run-dir", run)
    for outcome in run_each([command] * 2, environments(2, {}), 120):
        assert outcome.returncode == code, outcome.stderr
    assert json.loads((run / "exit.json").read_text())["state"] == state


def test_a_finished_run_that_cannot_write_exit_json_says_so_on_each_rank(tmp_path, config):
    settings = ("train.total_kimg=0.064", "--log-level", "error")
    train = ("train", "--config", config, "--run-dir", tmp_path / "run", *settings)
    first, second = run_each([(HERE / "alone.py", "exit", 0, *train)] * 2, environments(2, {}), 120)
    refused(first, "exit.json: no space left on device", exit_code=1)
    refused(second, "rank 0: ", "exit.json: no space left on device", exit_code=1)


def test_the_mlflow_run_ends_even_if_exit_json_cannot_be_written():
    writer = Mock(_write_exit=Mock(side_effect=OSError("full")))
    with pytest.raises(OSError, match="full"):
        RunWriter._end(writer, None)
    writer.tracker.close.assert_called_once_with("FINISHED")


def test_a_start_that_fails_deletes_no_checkpoint(tmp_path, config, wavegan):
    run = RunFolder(tmp_path / "run")
    train = ("train", "--config", config, "--run-dir", run.path)
    assert wavegan(*train).returncode == 0
    before = run.checkpoints()
    (run.path / "tracking").write_text("")  # in place of the folder of the tracker
    refused(wavegan(*train, "tracking.enabled=true", "train.keep_checkpoints=1"), str(run.path / "tracking"), exit_code=1)
    assert run.checkpoints() == before
    assert len(before) == 2
