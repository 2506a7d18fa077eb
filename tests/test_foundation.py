"""Files that are complete or absent, locks, counted randomness, pictures."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers import wait_for
from wavegan_dist import counted, files
from wavegan_dist.cluster.evaluation_queue import EvaluationQueue, submit_evaluations
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.cluster.profile import Profile
from wavegan_dist.cluster.run_exit import CrashLog, exit_after
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import append_json_lines, atomic_dir, atomic_file, locked, read_json_lines, save_tensors
from wavegan_dist.images import from_uint8, save_grid, to_uint8
from wavegan_dist.redact import without_folders
from wavegan_dist.run_folder import RunExit, RunFolder


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_file(path) as file:
        file.write("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(f"new {1 / 0}")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with atomic_dir(path) as folder:
            (folder / content).touch()
            assert not (path / content).exists()
    assert [entry.name for entry in path.iterdir()] == ["new"]
    with pytest.raises(FileNotFoundError), atomic_dir(path) as folder:
        (folder / "broken" / "deep").touch()
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(NotADirectoryError), atomic_dir(path) as folder:
        (folder / "new").touch()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_files_of_a_folder_are_on_the_disk_before_its_folders_and_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "fsync", synced.append)
    with atomic_dir(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        written = [folder / name for name in ("a", "b", "sub/c")]
        for path in written:
            path.touch()
    assert set(synced[:3]) == set(written)
    assert synced[3:] == [folder, folder / "sub", tmp_path]


def test_a_file_that_cannot_be_synced_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with atomic_dir(tmp_path / "out") as folder:
        (folder / "old").touch()
    monkeypatch.setattr(files, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_dir(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]


def test_a_folder_with_files_is_not_overwritten_unless_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with atomic_dir(path, overwrite=False) as folder:
        (folder / "first").touch()
    with pytest.raises(OSError, match="not empty") as failure, atomic_dir(path, overwrite=False) as folder:
        (folder / "second").touch()
    assert failure.value.filename == str(path)
    assert [entry.name for entry in path.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as failure, atomic_file(tmp_path / "x"):
        Path("/dev/full").write_text("x")
    assert failure.value.filename == str(tmp_path / "x")


@pytest.mark.parametrize("tail", [b"", b'{"a": 2', b"\x80\n", b"[1]\n", b"\x00\x00"])
def test_a_damaged_line_of_json_is_skipped_and_does_not_damage_the_next(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    assert read_json_lines(path) == []
    append_json_lines(path, [{"a": 1}])
    with path.open("ab") as file:
        file.write(tail)
    assert read_json_lines(path) == [{"a": 1}]
    append_json_lines(path, [{"a": 3}, {"a": 4}])
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}, {"a": 4}]


def test_a_damaged_crash_log_or_exit_json_does_not_end_the_job(tmp_path: Path) -> None:
    assert CrashLog(tmp_path, "1").add(RunExit("died", 5, "", 1.0))
    with (tmp_path / "crashes.jsonl").open("a") as file:
        file.write('{"x": 1}\n{"job": "1", "ni')
    assert not CrashLog(tmp_path, "1").add(RunExit("died", 5, "", 2.0))
    assert CrashLog(tmp_path, "1").add(RunExit("died", 6, "", 3.0))
    for content in ("", "[]", '{"state": "failed"}', '{"state": "failed", "nimg": 1, "reason": "", "time": "soon"}'):
        (tmp_path / "exit.json").write_text(content)
        assert exit_after(tmp_path, None).state == "died"


def test_the_end_of_a_trainer_is_found_although_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.write_exit("failed", 5, "an earlier start")
    before = run.read_exit()
    assert exit_after(tmp_path, before).state == "died"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    run.write_exit("finished", 9)
    assert exit_after(tmp_path, before).state == "finished"


@pytest.mark.parametrize("content", ["", "[]", '{"kimg-0000'])
def test_a_damaged_list_of_evaluation_jobs_does_not_end_the_job(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = EvaluateJob(run_dir=tmp_path, profile=Profile(time=60), arguments=[])
    job.folder.mkdir()
    (job.folder / "evaluations.json").write_text(content)
    EvaluationQueue(job).finish()
    assert f"cannot submit evaluations: {job.folder}/evaluations.json is damaged; delete it" in caplog.text


def test_a_damaged_file_of_a_job_is_one_line(tmp_path: Path) -> None:
    file = EvaluateJob(run_dir=tmp_path, profile=Profile(time=60), arguments=[]).save()
    file.write_bytes(file.read_bytes()[:40] + b"\xff")
    with pytest.raises(WaveganError, match="is damaged; submit the job again"):
        EvaluateJob.read(file)


def test_evaluations_that_a_user_submits_wait_until_the_training_job_has_submitted_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "squeue"):  # no job is in the queue
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = EvaluateJob(run_dir=tmp_path, profile=Profile(time=60), arguments=[])
    job.folder.mkdir()
    with ThreadPoolExecutor() as pool:
        with locked(job.folder / "evaluations.lock"):
            submission = pool.submit(submit_evaluations, job, ["kimg-000001"])
            with pytest.raises(TimeoutError):
                submission.result(timeout=0.2)
        with pytest.raises(UsageError, match=r"config\.yaml"):
            submission.result()


def test_tensors_written_one_by_one_in_any_order_are_a_safetensors_file(tmp_path: Path) -> None:
    tensors = {
        "weight": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "lam": torch.tensor(0.25),
        "mean": torch.randn(3, dtype=torch.float64),
        "part": torch.arange(12.0)[::3],
        "none": torch.zeros(0, 3),
    }
    layout = {name: value.to("meta") for name, value in tensors.items()}
    save_tensors(layout, reversed(tensors.items()), tmp_path / "file.safetensors")
    read = load_file(tmp_path / "file.safetensors")
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(read[name], value)
        assert read[name].dtype == value.dtype


def is_locked(path: Path) -> bool:
    try:
        with locked(path, wait=False):
            return False
    except BlockingIOError:
        return True


def holder(path: Path, inside: str) -> subprocess.Popen[str]:
    """A process that runs the statement `inside` while it holds the lock; its first line of output says that it does."""
    code = "import os, sys, time; from pathlib import Path; from wavegan_dist.files import locked\n"
    code += f"with locked(Path({str(path)!r})): {inside}"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def is_waited_for(path: Path) -> bool:
    """Return whether a thread or process waits for the lock of a file."""
    waiting = (line for line in Path("/proc/locks").read_text().splitlines() if " -> " in line)
    return any(f":{path.stat().st_ino} " in line for line in waiting)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_lock_excludes_other_threads(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locked(tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                time.sleep(1e-4)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)


def test_a_lock_excludes_other_processes_until_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "print('held', flush=True); sys.stdin.readline(); print('done', flush=True)") as process:
        assert line_of(process) == "held"
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        process.communicate("\n")
    assert not is_locked(path)


def test_who_waits_for_a_lock_goes_on_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "print('held', flush=True); time.sleep(0.3); print('done', flush=True)") as process:
        assert line_of(process) == "held"
        with locked(path):
            assert line_of(process) == "done"


def test_an_error_in_the_block_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        raise ZeroDivisionError
    assert not is_locked(tmp_path / "lock")


def test_a_lock_ends_with_a_killed_holder_though_its_forked_child_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "os.fork() or print(os.getpid(), flush=True); time.sleep(60)") as process:
        child = int(line_of(process))
        try:
            assert is_locked(path)
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.kill(child, 0)  # raises if the child has ended
            assert not is_locked(path)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_free_its_parent_s_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "os.fork() or os._exit(0); os.wait(); print('held', flush=True); sys.stdin.readline()") as process:
        assert line_of(process) == "held"
        assert is_locked(path)
        process.communicate("\n")


def test_a_lock_file_that_is_replaced_while_another_waits_is_locked_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held, release = threading.Event(), threading.Event()

    def wait_for_lock() -> None:
        with locked(path):
            held.set()
            release.wait(30)

    waiting = threading.Thread(target=wait_for_lock)
    with locked(path):
        waiting.start()
        wait_for(lambda: is_waited_for(path))
        path.rename(tmp_path / "old")
        path.touch()
    assert held.wait(30)
    assert is_locked(path)  # the new file, not the old one
    assert not is_locked(tmp_path / "old")
    release.set()
    waiting.join()


def test_draws_depend_on_seed_stream_and_position_only() -> None:
    whole = counted.normal(7, "latent", range(10, 20), 5)
    parts = torch.cat([counted.normal(7, "latent", range(10, 13), 5), counted.normal(7, "latent", range(13, 20), 5)])
    assert torch.equal(whole, parts)
    for other in (counted.normal(8, "latent", range(10, 20), 5), counted.normal(7, "flip", range(10, 20), 5)):
        assert not (other == whole).any()
    assert torch.equal(counted.coin_flips(1, "flip", range(50))[20:], counted.coin_flips(1, "flip", range(20, 50)))


def test_draws_are_normal_fair_and_uncorrelated_between_neighbours() -> None:
    rows = counted.normal(0, "latent", range(4000), 16).double()
    assert abs(rows.mean().item()) < 0.01
    assert rows.std().item() == pytest.approx(1, abs=0.01)
    assert abs((rows[1:] * rows[:-1]).mean().item()) < 0.01
    assert counted.coin_flips(0, "flip", range(4000)).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_pixels_survive_the_round_trip_and_clamp() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(pixels)), pixels)
    assert from_uint8(pixels).min() == -1
    assert from_uint8(pixels).max() == 1
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_a_grid_is_filled_row_by_row(tmp_path: Path) -> None:
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 4) * 10
    save_grid(images, tmp_path / "grid.png", columns=3)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (4, 12, 3)
    assert pixels[0, ::4, 0].tolist() == [0, 10, 20]
    assert pixels[2, ::4, 0].tolist() == [30, 40, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/demo.yaml", "demo.yaml"),
        ("--run-dir=/home/me/runs/x/ a/b/c ../d ./e", "--run-dir=x a/b/c ../d ./e"),
        ("~/photos/x '/data/a b'", "x 'a b'"),
        ("sqlite:////home/me/mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:///mlflow.db file:///home/me/x", "sqlite:///mlflow.db file://x"),
        ("https://host/a/b s3://bucket/{file}", "https://host/a/b s3://bucket/{file}"),
        ("pipe:/usr/bin/cat /data/me/{file}", "pipe:cat {file}"),
        ("data.index=[/d/a,/d/b]", "data.index=[a,b]"),
        ("1/2, a / b", "1/2, a / b"),
    ],
)
def test_only_the_last_part_of_an_absolute_path_stays(text: str, expected: str) -> None:
    assert without_folders(text) == expected


def test_files_of_other_names_in_a_run_folder_are_left_out(tmp_path):
    for name in ("samples/kimg-xyz.png", "samples/kimg-000100 (1).png", "checkpoints/kimg-zzz", "checkpoints/kimg-000100 copy"):
        (tmp_path / name).mkdir(parents=True)
    folder = RunFolder(tmp_path)
    for path in (folder.samples(100_064), folder.checkpoint(2_000_000)):
        path.mkdir()
    assert folder.sample_grids() == {100_064: folder.samples(100_064)}
    assert folder.checkpoints() == [folder.checkpoint(2_000_000)]
