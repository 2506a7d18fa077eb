"""The end of a run on several ranks: all of them end together, and each says why."""

import signal
from pathlib import Path

from tests.helpers import environments, refused, run_each

ALONE = Path(__file__).with_name("alone.py")


def test_a_rank_that_is_killed_while_the_ranks_read_their_settings_ends_the_others_with_one_line(tmp_path, config):
    train = ("train", "--config", config, "--run-dir", tmp_path / "run")
    first, second = run_each([(ALONE, "killed", 1, *train)] * 2, environments(2, {}), 60)
    assert second.returncode == -signal.SIGKILL
    refused(first, "another process of this run has ended or stopped answering", exit_code=1)
