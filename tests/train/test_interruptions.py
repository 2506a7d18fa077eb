"""Signals, locks, full disks, dead ranks: a run ends in order, with one error line, and can be resumed."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.helpers import (
    PATIENCE,
    accelerate_command,
    points,
    refused,
    run_ranks,
    running,
    start_ranks,
    two_processes,
    wait_for_points,
)
from wavegan_dist.data import training_batches
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.checkpoint import find_damage
from wavegan_dist.train.signals import SAME_SIGNAL_SECONDS

LONG = ("train.total_kimg=1000", "train.snapshot_kimg=1000", "train.checkpoint_kimg=1000", "train.report_kimg=0.032")


def train(run: Path, config: Path, *overrides: str) -> list[object]:
    return ["-m", "wavegan_dist", "train", "--config", config, "--run-dir", run, *overrides]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75), (signal.SIGINT, 130)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_signal_saves_the_run_and_exits_with_its_own_code(tmp_path, config, number, code):
    run = tmp_path / "run"
    with running(sys.executable, *train(run, config, *LONG, "data.workers=1")) as process:
        wait_for_points(run, 2, process)
        os.killpg(process.pid, number)  # the loader's worker gets it too, as from a terminal or Slurm
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    assert re.search(rf"^wavegan: {number.name}: saved at kimg [\d.]+; run the same command again to resume$", errors, re.M)
    assert "Traceback" not in errors
    (checkpoint,) = RunFolder(run).checkpoints()
    nimg = json.loads((checkpoint / "state.json").read_text())["nimg"]
    assert nimg == points(run)[-1]["nimg"]
    assert json.loads((run / "exit.json").read_text())["state"] == "interrupted"
    assert f"{number.name}: saved at kimg" in RunFolder(run).log.read_text().splitlines()[-1]


def tensors(run: Path) -> dict[str, bytes]:
    files = RunFolder(run).checkpoints()[-1].glob("*.safetensors")
    return {name: value.numpy().tobytes() for file in files for name, value in load_file(file).items()}


def test_two_processes_agree_on_a_signal_to_one_and_another_number_resumes(tmp_path, config, index):
    """2 -> 1 -> 2 processes in one epoch, the first two ended by a signal to one rank: every image is seen exactly once."""
    run, seen = tmp_path / "run", tmp_path / "seen"
    script = Path(__file__).parent / "record_images.py"
    arguments = [seen, "train", "--config", config, "--run-dir", run, "train.total_kimg=0.512", *LONG[1:]]
    positions = []
    for processes, stop_at in ((2, 160), (1, 320), (2, 0)):
        code = 75 if stop_at else 0
        run_ranks(processes, script, *arguments, exit_code=code, SIGNAL_AT=str(stop_at))
        newest = RunFolder(run).checkpoints()[-1]
        positions.append(json.loads((newest / "state.json").read_text())["nimg"])
    assert positions[0] < positions[1] < positions[2] == 512
    images = [line for file in tmp_path.glob("seen.*") for line in file.read_text().split()]
    straight = next(training_batches(index, batch_size=512, seed=0, start_nimg=0, rank=0, world_size=1, workers=0)).images
    assert sorted(images) == sorted(hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in straight)
    assert len(set(images)) == 512 < index.count
    losses = [point["loss/d_image"] for point in points(run)]
    assert [point["nimg"] for point in points(run)] == list(range(32, 513, 32))
    assert max(abs(a - b) for a, b in pairwise(losses)) < 0.2  # no jump where the processes changed


def test_a_second_signal_exits_at_once_and_the_old_checkpoint_stays(tmp_path, config, wavegan):
    run = tmp_path / "run"
    assert wavegan("train", "--config", config, "--run-dir", run).returncode == 0
    before = tensors(run)
    stuck = [sys.executable, Path(__file__).parent / "stuck.py", *train(run, config, "train.total_kimg=1")[2:]]
    with running(*stuck) as process:
        assert process.stdout is not None
        assert "stuck\n" in process.stdout, process.communicate()[1]  # a step that does not end, outside the interpreter
        began = time.monotonic()
        while process.poll() is None:  # at first, each counts as the same signal, forwarded by a launcher
            assert time.monotonic() < began + PATIENCE
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.1)
        assert time.monotonic() > began + SAME_SIGNAL_SECONDS
        assert process.returncode == 128 + signal.SIGTERM
    assert tensors(run) == before


def test_accelerate_launch_forwards_the_signal_and_the_run_saves_a_checkpoint(tmp_path, config):
    run = tmp_path / "run"
    with running(*accelerate_command(*two_processes(), *train(run, config, *LONG)[2:])) as process:
        wait_for_points(run, 2, process)
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "wavegan: SIGTERM: saved at kimg" in errors
    assert json.loads((run / "exit.json").read_text())["state"] == "interrupted"
    assert len(RunFolder(run).checkpoints()) == 1


def test_a_rank_that_dies_ends_the_others_before_a_time_out_with_one_line(tmp_path, config):
    run = tmp_path / "run"
    with start_ranks(2, *train(run, config, *LONG)) as (first, second):
        wait_for_points(run, 2, first)
        os.kill(second.pid, signal.SIGKILL)
        _, errors = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert errors.splitlines()[-1].startswith(
        "wavegan: another process of this run has ended or stopped answering; see its own error for the reason ("
    )
    assert "Traceback" not in errors


def test_a_run_folder_in_use_is_refused_until_its_run_ends(tmp_path, config, wavegan):
    run = tmp_path / "run"
    with running(sys.executable, *train(run, config, *LONG)) as process:
        wait_for_points(run, 1, process)
        refused(wavegan("train", "--config", config, "--run-dir", run, *LONG), "is in use by process", str(process.pid))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    outcome = wavegan("train", "--config", config, "--run-dir", run, "train.total_kimg=0.064")
    assert outcome.returncode == 0, outcome.stderr


def test_a_start_that_fails_before_its_first_step_says_so_in_exit_json(tmp_path, config, wavegan):
    run = tmp_path / "run"
    run.mkdir()
    (run / "tracking").write_text("")  # in place of the folder of the tracker
    words = ("train", "--config", config, "--run-dir", run, "tracking.enabled=true")
    refused(wavegan(*words), str(run / "tracking"), exit_code=1)
    left = json.loads((run / "exit.json").read_text())
    assert (left["state"], left["nimg"]) == ("failed", 0)
    assert str(run / "tracking") in left["reason"]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Return the mount point of a file system of 3 MiB."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount_point]).returncode:
        pytest.skip("mounting a tmpfs takes root")
    yield mount_point
    subprocess.run(["umount", "--lazy", mount_point], check=True)


FULL_DISK = Path(__file__).parent / "full_disk.py"


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_full_disk_keeps_the_old_checkpoint_and_stops_or_continues_as_set(small_disk, config, wavegan, policy):
    run = small_disk / "run"
    lengths = ("train.total_kimg=1.6", "train.report_kimg=0.032", "train.snapshot_kimg=100")
    ballast, words = small_disk / "ballast", train(run, config, *lengths, f"train.on_disk_error={policy}")[2:]
    (errors,) = run_ranks(1, FULL_DISK, ballast, *words, exit_code=int(policy == "stop"))
    if policy == "stop":
        assert f"wavegan: {run}" in errors
        assert "no space left on device" in errors.splitlines()[-1]
        assert "exit.json" not in errors.splitlines()[-1]  # the file that failed first, not the last
    else:
        assert "cannot write a checkpoint" in errors
        assert "kimg 1.6/1.6" in errors
    assert "Traceback" not in errors
    assert find_damage(RunFolder(run).checkpoints()[-1]) is None
    assert RunFolder(run).checkpoints()[-1] == RunFolder(run).checkpoint(320)
    ballast.unlink()
    outcome = wavegan("train", "--config", config, "--run-dir", run, *lengths)
    assert outcome.returncode == 0, outcome.stderr
    assert "resuming at kimg 0." in outcome.stderr


def make_read_only(run: Path) -> None:
    """Let nothing be written below a run folder any more, except to files that are open: mount the folder over itself."""
    read_only = run.with_name("read-only")
    read_only.mkdir()
    for words in (("--bind", run, read_only), ("-o", "remount,bind,ro", read_only), ("--bind", read_only, run)):
        subprocess.run(["mount", *words], check=True)


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_run_folder_that_becomes_read_only_stops_or_continues_as_set(small_disk, config, wavegan, policy):
    run = small_disk / "run"
    settings = (*LONG[:2], "train.report_kimg=0.032", f"train.on_disk_error={policy}")
    with running(sys.executable, *train(run, config, *settings)) as process:
        wait_for_points(run, 6, process)
        make_read_only(run)
        warned = ""
        if policy == "continue":
            for line in process.stderr:
                warned += line
                if "cannot write metrics" in warned and "cannot write a checkpoint" in warned:
                    break
            os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=100)
    errors = warned + errors
    last = errors.splitlines()[-1]
    if policy == "stop":
        assert (process.returncode, "read-only file system" in last) == (1, True), errors
        assert last.startswith(f"wavegan: {run}/")
    else:
        assert (process.returncode, "SIGTERM: could not be saved at kimg" in last) == (75, True), errors
    assert "Traceback" not in errors
    subprocess.run(["umount", run], check=True)
    nimg = json.loads((RunFolder(run).checkpoints()[-1] / "state.json").read_text())["nimg"]
    outcome = wavegan("train", "--config", config, "--run-dir", run, f"train.total_kimg={nimg / 1000 + 0.064}")
    assert outcome.returncode == 0, outcome.stderr
    assert f"resuming at kimg {nimg / 1000:g}" in outcome.stderr


def test_a_full_disk_names_the_checkpoint_that_failed(small_disk, config, wavegan):
    run = small_disk / "run"
    settings = ("train.report_kimg=100", "train.snapshot_kimg=100", "model.width=16")  # a checkpoint does not fit
    outcome = wavegan("train", "--config", config, "--run-dir", run, *settings)
    assert outcome.returncode == 1
    last = outcome.stderr.splitlines()[-1]
    assert last.startswith(f"wavegan: {run}/checkpoints/kimg-000000.")
    assert last.endswith("no space left on device; free some space there or write elsewhere")
    assert "Traceback" not in outcome.stderr
    assert not list(run.glob("checkpoints/.*"))  # so there is space to say how the run ended
    assert last == f"wavegan: {RunFolder(run).read_exit().reason}"


def test_a_full_disk_names_the_metrics_file(small_disk, config):
    run = small_disk / "run"
    lengths = ("train.total_kimg=100", "train.report_kimg=0.032", "train.snapshot_kimg=100", "train.checkpoint_kimg=100")
    (errors,) = run_ranks(1, FULL_DISK, small_disk / "ballast", *train(run, config, *lengths)[2:], exit_code=1)
    assert errors.splitlines()[-1].startswith(f"wavegan: {run}/metrics.jsonl: no space left on device")


def test_a_run_folder_that_vanishes_ends_the_run_with_one_line(tmp_path, config):
    run = tmp_path / "run"
    with running(sys.executable, *train(run, config, *LONG)) as process:
        wait_for_points(run, 2, process)
        run.rename(tmp_path / "gone")
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith(f"wavegan: {run}")
    assert "Traceback" not in errors
