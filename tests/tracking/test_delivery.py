"""Delivery to a real server through a network that fails: every event once and in order."""

import re
import time

import pytest
from PIL import Image

from tests.helpers import refused
from wavegan_dist.errors import WaveganError
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import log_evaluation, sync
from wavegan_dist.tracking.mlflow_run import MlflowUnavailableError
from wavegan_dist.tracking.sender import Sender
from wavegan_dist.tracking.spool import Spool
from wavegan_dist.tracking.sync import SYNC_TIMEOUT, log_best
from wavegan_dist.tracking.tracking_info import TrackingInfo


@pytest.fixture
def spool(tmp_path, experiment, proxy) -> Spool:
    """The spool of a run that is tracked through the proxy, with events of every kind."""
    run = tmp_path / "run"
    (run / "snapshot").mkdir(parents=True)
    for name in ("weights", "config"):
        (run / "snapshot" / name).write_text(name)
    Image.new("RGB", (300, 300)).save(run / "grid.png")
    folder = RunFolder(run)
    TrackingInfo.create(folder, experiment(proxy.uri)).save(folder)
    spool = Spool(run / "tracking" / "train.jsonl")
    spool.open()
    spool.append({"kind": "params", "values": {f"p{i}": i for i in range(150)}})
    for nimg in range(100, 1100, 100):
        values = {f"m{i}": nimg + i / 7 for i in range(150)}
        spool.append({"kind": "metrics", "nimg": nimg, "values": values | {"odd": float("nan")}})
    spool.append({"kind": "picture", "path": "grid.png", "name": "samples", "nimg": 1000})
    spool.append({"kind": "file", "path": "snapshot", "under": "snapshots/last"})
    spool.append({"kind": "status", "status": "FINISHED"})
    return spool


def assert_complete_and_unique(stored, spool):
    run = stored(spool.folder.path)
    for i in (0, 149):
        assert run.steps(f"m{i}") == list(range(100, 1100, 100))
        assert run.values(f"m{i}") == [nimg + i / 7 for nimg in range(100, 1100, 100)]
    assert run.steps("odd") == list(range(100, 1100, 100))
    assert len(run.client.get_run(run.run_id).data.params) == 150
    assert [file.rsplit(".")[-1] for file in run.files("images")] == ["webp", "png"]
    assert run.files("snapshots/last") == ["snapshots/last/config", "snapshots/last/weights"]
    assert run.status == "FINISHED"


def deliver_with_retries(spool: Spool) -> int:
    """Delivers with a new sender for each attempt, as after a crash; returns the number of failed attempts."""
    for failures in range(200):
        try:
            Sender(spool).deliver()
            return failures
        except MlflowUnavailableError:
            pass
    raise AssertionError("200 attempts failed")


def test_lost_answers_duplicate_nothing(spool, proxy, stored, client):
    proxy.mode = "lose"
    assert deliver_with_retries(spool) > 5
    assert_complete_and_unique(stored, spool)
    key = TrackingInfo.load(spool.folder).key
    experiment = client.get_experiment_by_name("wavegan").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`wavegan.key` = '{key}'")
    assert run.info.start_time == TrackingInfo.load(spool.folder).started
    assert run.info.run_name == "run"


def test_a_lost_position_duplicates_nothing(spool, stored):
    Sender(spool).deliver()
    spool.position.unlink()
    Sender(spool).deliver()
    assert_complete_and_unique(stored, spool)


def test_a_server_that_fails_gets_everything_when_it_recovers(spool, proxy, stored):
    proxy.mode = "fail"
    for _ in range(10):
        with pytest.raises(MlflowUnavailableError, match="500"):
            Sender(spool).deliver()
    proxy.mode = "pass"
    Sender(spool).deliver()
    assert_complete_and_unique(stored, spool)


def test_values_and_events_that_mlflow_rejects_are_skipped_and_counted(spool, stored, caplog):
    spool.append({"kind": "metrics", "nimg": 1100, "values": {"m0": 1.0, "what: <name>": 1.0, "m1": 2.0}})
    spool.append({"kind": "picture", "path": "gone.png", "name": "samples", "nimg": 1100})
    spool.append({"kind": "nonsense"})
    spool.append({"kind": "metrics", "nimg": 1200, "values": {"m0": 3.0}})
    Sender(spool).deliver()
    assert not spool.count_undelivered()
    assert spool.delivered()[1] == 3
    assert stored(spool.folder.path).steps("m0")[-2:] == [1100, 1200]
    assert stored(spool.folder.path).steps("m1")[-1] == 1100
    for word in ("what: <name>", "gone.png", "nonsense"):
        assert sum(word in message for message in caplog.messages) == 1


def test_files_that_always_fail_are_skipped_after_five_attempts(spool, proxy, stored, caplog):
    spool.append({"kind": "metrics", "nimg": 1100, "values": {"m0": 1.0}})
    proxy.mode = "fail PUT"
    sender = Sender(spool)
    for _ in range(8):  # five tries of the picture, five of the snapshot
        with pytest.raises(MlflowUnavailableError, match="500"):
            sender.deliver()
    sender.deliver()
    assert stored(spool.folder.path).steps("m0")[-1] == 1100
    assert stored(spool.folder.path).status == "FINISHED"
    assert spool.delivered()[1] == 2
    assert sum("failed 5 times" in message for message in caplog.messages) == 2


def test_points_of_a_deleted_run_wait_for_its_restoration(spool, stored, client):
    Sender(spool).deliver()
    run_id = TrackingInfo.load(spool.folder).run_id
    client.delete_run(run_id)
    spool.append({"kind": "metrics", "nimg": 1100, "values": {"m0": 1.0}})
    with pytest.raises(WaveganError, match=r"did not accept 1 point .*deleted.*restore.*wavegan track sync"):
        sync(spool.folder.path)
    client.restore_run(run_id)
    assert sync(spool.folder.path) == {"metrics": 1}
    assert stored(spool.folder.path).steps("m0")[-1] == 1100


def test_an_image_is_named_as_mlflow_names_it(spool, stored, client):
    Sender(spool).deliver()
    run_id = TrackingInfo.load(spool.folder).run_id
    with Image.open(spool.folder.path / "grid.png") as image:
        client.log_image(run_id, image, key="samples", step=1000, synchronous=True)
    form = re.sub(r"timestamp\+\d+\+[0-9a-f-]{36}", "timestamp+T+U", " ".join(stored(spool.folder.path).files("images")))
    ours = ["images/samples+step+1000+timestamp+T+U+compressed.webp", "images/samples+step+1000+timestamp+T+U.png"]
    assert sorted(form.split()) == sorted(ours * 2)


def test_sync_sends_all_spools_or_fails_with_one_line(spool, proxy, stored, wavegan, tmp_path):
    proxy.mode = "fail"
    log_evaluation(spool.folder.path, {"eval/fd_at_128": 3.5}, 1000, spool="kimg-000001", files={}, images={})  # does not raise
    outcome = wavegan("track", "sync", spool.folder.path)
    refused(outcome, proxy.uri, "1 point", "wavegan track sync", exit_code=1)
    proxy.mode = "pass"
    outcome = wavegan("track", "sync", spool.folder.path)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "sent 11 points and 4 other entries\n"
    assert_complete_and_unique(stored, spool)
    assert stored(spool.folder.path).values("eval/fd_at_128") == [3.5]
    assert wavegan("track", "sync", spool.folder.path).stdout == "sent nothing\n"
    refused(wavegan("track", "sync", tmp_path), "no tracked run")


def test_an_evaluation_waits_seconds_for_a_server_that_hangs_and_leaves_its_points(spool, proxy, stored):
    Sender(spool).deliver()
    proxy.mode = "hang"
    began = time.monotonic()
    log_evaluation(spool.folder.path, {"eval/fwd": 0.5}, 1000, spool="kimg-000001", files={}, images={})
    assert time.monotonic() - began < SYNC_TIMEOUT
    proxy.mode = "pass"
    assert sync(spool.folder.path) == {"metrics": 1}
    assert stored(spool.folder.path).values("eval/fwd") == [0.5]


def test_a_best_snapshot_that_had_to_wait_does_not_replace_a_later_one(spool, proxy, client):
    Sender(spool).deliver()
    run = spool.folder.path
    proxy.mode = "fail"
    log_best(run, {"snapshot": "kimg-000100", "metric": "fwd", "value": 2.0}, 100_000)
    proxy.mode = "pass"
    log_best(run, {"snapshot": "kimg-000200", "metric": "fwd", "value": 1.0}, 200_000)
    sync(run)
    tags = client.get_run(TrackingInfo.load(spool.folder).run_id).data.tags
    assert (tags["best_snapshot"], tags["best_value"]) == ("kimg-000200", "1.0")
