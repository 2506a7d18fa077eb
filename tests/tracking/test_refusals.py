"""Stores and disks that fail in part: a file that is refused, a run that is being created, a folder that is gone."""

import io
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import locked
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import log_evaluation, sender, sync
from wavegan_dist.tracking.mlflow_page import dataset_input
from wavegan_dist.tracking.mlflow_run import MlflowUnavailableError
from wavegan_dist.tracking.sender import Sender
from wavegan_dist.tracking.spool import Spool
from wavegan_dist.tracking.tracker import MlflowTracker
from wavegan_dist.tracking.tracking_info import TrackingInfo

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def run(tmp_path: Path, experiment, proxy) -> RunFolder:
    """A run that is tracked through the proxy."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    for name in ("one.txt", "two.txt"):
        (folder.path / name).write_text(name)
    TrackingInfo.create(folder, experiment(proxy.uri)).save(folder)
    return folder


def add_spool(run: RunFolder, name: str, files: tuple[str, ...] = ()) -> Spool:
    """A spool with a metric of this name between these files."""
    spool = Spool(run.spool(name))
    spool.open()
    for file in files:
        spool.append({"kind": "file", "path": file, "under": "files"})
    spool.append({"kind": "metrics", "nimg": 1, "values": {name: 1.0}})
    return spool


def test_attempts_while_the_server_is_down_do_not_count_against_a_file(run, proxy, stored):
    spool = add_spool(run, "train")
    deliver = Sender(spool).deliver
    deliver()
    spool.append({"kind": "file", "path": "one.txt", "under": "files"})
    for mode in (*["fail"] * sender.MAX_ATTEMPTS, "fail PUT"):
        proxy.mode = mode
        with pytest.raises(MlflowUnavailableError, match="500"):
            deliver()
    proxy.mode = "pass"
    deliver()
    assert stored(run.path).files("files") == ["files/one.txt"]
    assert spool.delivered()[1] == 0


def test_sync_skips_files_that_always_fail(run, proxy, stored, monkeypatch, caplog):
    monkeypatch.setattr(sender, "retry_delay", lambda failures: 0.0)
    add_spool(run, "kimg-000001", ("one.txt", "two.txt"))
    add_spool(run, "train")
    proxy.mode = "fail PUT"
    assert sync(run.path) == {"file": 2, "metrics": 2}
    assert sum("failed 5 times" in message for message in caplog.messages) == 2
    assert [stored(run.path).steps(name) for name in ("kimg-000001", "train")] == [[1], [1]]
    assert sync(run.path) == {}


def test_sync_goes_on_with_the_other_spools_after_one_that_it_cannot_deliver(run, stored):
    busy = add_spool(run, "a")
    add_spool(run, "b")
    with busy.lock(wait=False), pytest.raises(WaveganError, match=r"a\.jsonl is being delivered by its run"):
        sync(run.path)
    assert stored(run.path).steps("b") == [1]
    assert sync(run.path) == {"metrics": 1}


def test_an_evaluation_does_not_wait_for_a_process_that_creates_the_run(run, stored, caplog):
    run.tracking_lock.parent.mkdir(exist_ok=True)
    settings: dict[str, Any] = {"spool": "kimg-000001", "files": {}, "images": {}}
    logging = threading.Thread(target=log_evaluation, args=(run.path, {"eval/fwd": 0.5}, 1), kwargs=settings)
    with locked(run.tracking_lock):
        logging.start()
        logging.join(30)
        waits = logging.is_alive()
    logging.join()
    assert not waits
    assert "another process is creating the run in MLflow" in caplog.text
    assert sync(run.path) == {"metrics": 1}
    with locked(run.tracking_lock):  # the run exists
        log_evaluation(run.path, {"eval/fwd": 0.4}, 2, spool="kimg-000002", files={}, images={})
    assert stored(run.path).steps("eval/fwd") == [1, 2]


def test_the_end_of_a_run_whose_folder_is_gone_is_a_warning(tmp_path, experiment, caplog):
    tracker = MlflowTracker.open(tmp_path / "run", experiment(NOWHERE))
    tracker.sidecar.kill()
    shutil.rmtree(tmp_path / "run")
    tracker.close("FINISHED")
    assert f"cannot find out what was sent to {NOWHERE}: {tracker.spool.path}: No such file" in caplog.text


class Growing(io.FileIO):
    """A file whose incomplete last line another process completes while it is read."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if line and not line.endswith(b"\n"):
            with open(self.name, "ab") as file:  # noqa: PTH123
                file.write(b'"nimg": 2, "values": {}}\n')
        return line


def test_a_line_that_is_completed_while_it_is_read_is_read_later_and_whole(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "tracking" / "train.jsonl")
    spool.open()
    spool.append({"kind": "metrics", "nimg": 1, "values": {}})
    with spool.path.open("ab") as file:
        file.write(b'{"kind": "metrics", ')
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode: Growing(path))
        (only,) = spool.undelivered()
    spool.set_delivered(only[1], 0)
    assert [event for event, _ in spool.undelivered()] == [{"kind": "metrics", "nimg": 2, "values": {}}]


@pytest.mark.parametrize(
    ("index", "name"),
    [
        ("/data/my photos/index.json", "my photos"),
        ("/data/photos", "photos"),
        ("photos/other.json", "photos"),
        (".", "here"),
        ("index.json", "here"),
        ("./index.json", "here"),
        ("s3://bucket/birds/index.json", "birds"),
        ("pipe:aws s3 cp s3://bucket/birds/{file} -", "birds"),
    ],
)
def test_a_dataset_has_the_name_of_its_folder(tmp_path, monkeypatch, index, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = RunFolder(tmp_path)
    run.config.write_text(yaml.safe_dump({"data": {"index": index, "cache": "/cache"}}))
    run.environment.write_text(json.dumps({"index_digest": "0" * 64}))
    assert dataset_input(run).dataset.name == name
