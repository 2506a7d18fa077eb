"""A rank that fails alone, or whose disk is slow: the other ranks end with it in seconds, or wait for it."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers import PATIENCE, environments, refused, run_each
from wavegan_dist.run_folder import RunFolder

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory, wavegan, config) -> Path:
    """A run of five steps with a checkpoint."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    outcome = wavegan("train", "--config", config, "--run-dir", folder, "train.total_kimg=0.16")
    assert outcome.returncode == 0, outcome.stderr
    return folder


def two_ranks(*command: object) -> list[subprocess.CompletedProcess[str]]:
    """Run `python COMMAND` on two ranks, which must end before a collective times out."""
    return run_each([command] * 2, environments(2, {}), PATIENCE)


@pytest.mark.parametrize(
    ("fault", "rank", "exit_code", "words"),
    [
        ("config", 1, 2, "/nowhere/config.yaml"),
        ("config", 0, 2, "/nowhere/config.yaml"),
        ("index", 1, 2, "/nowhere/index.json"),
        ("checkpoint", 1, 1, "Input/output error"),
        ("disk", 1, 1, "file too large"),
        ("disk", 0, 1, "file too large"),
        ("list", 0, 1, "data_errors.jsonl: is a directory"),
        ("listed", 1, 1, "data_errors.jsonl: input/output error"),
    ],
)
def test_a_rank_that_fails_alone_ends_all_ranks_with_one_line(tmp_path, run, config, fault, rank, exit_code, words):
    folder = run if fault == "checkpoint" else tmp_path / "run"
    settings = ["train.total_kimg=1", "train.checkpoint_kimg=0.032", "train.report_kimg=1", "data.max_bad_fraction=1"]
    if fault == "list":  # it cannot be written, which ends the run in any case
        settings.append("train.on_disk_error=continue")
    train = ("train", "--config", config, "--run-dir", folder, *settings, "--log-level", "error")
    outcomes = two_ranks(HERE / "alone.py", fault, rank, *train)
    for outcome in outcomes:
        refused(outcome, words, exit_code=exit_code)
    if fault != "disk" or rank == 0:  # all ranks know why a checkpoint was not written
        assert f"rank {rank}: " in outcomes[1 - rank].stderr
    if fault == "disk":
        assert words in RunFolder(folder).read_exit().reason


def test_a_shard_that_one_rank_cannot_read_counts_on_all_ranks_until_it_is_repaired(tmp_path, config, index):
    run = RunFolder(tmp_path / "run")
    train = ("train", "--config", config, "--run-dir", run.path, "data.max_bad_fraction=0", "--log-level", "error")
    first, second = two_ranks(HERE / "alone.py", "shard", 1, *train)
    listed = [json.loads(line) for line in run.data_errors.read_text().splitlines()]
    rows = [error["row"] for error in listed if error["row"] is not None]
    assert len(rows) == len(listed) - 1 == len(set(rows))  # and the shard
    refused(first, f"wavegan: {len(rows)} of {index.count} images cannot be read", ".tar cannot be read: ", exit_code=1)
    assert (second.returncode, second.stderr) == (1, first.stderr.replace("wavegan: ", "wavegan: [rank 1] "))
    for outcome in two_ranks("-m", "wavegan_dist", *train):
        assert outcome.returncode == 0, outcome.stderr


def test_a_rank_on_which_the_kernels_do_not_compile_trains_with_the_reference(tmp_path, config):
    train = ("train", "--config", config, "--run-dir", tmp_path / "run", "train.total_kimg=0.064")
    for outcome in two_ranks(HERE / "alone.py", "kernels", 1, *train):
        assert outcome.returncode == 0, outcome.stderr
    assert list((tmp_path / "run.cache").rglob("*.log"))  # the compiler's output


@pytest.mark.slow
def test_a_disk_that_is_slower_than_a_collective_may_be_is_waited_for(tmp_path, run, config):
    train = ("train", "--config", config, "--run-dir", run, "train.total_kimg=0.192")
    first, second = two_ranks(HERE / "slow_disk.py", 9, *train)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    for doing in (
        "reading the index",
        "choosing the checkpoint",
        f"reading {run}",
        "writing a snapshot",
        "writing a checkpoint",
    ):
        assert f"WARNING rank 0: {doing}" in first.stderr, first.stderr
    assert "WARNING" not in second.stderr
