"""Delivery to a real server through a network that misbehaves: everything once, in order."""

import re
import time

import pytest
from PIL import Image

from tests.helpers import refused
from wavegan_dist.errors import WaveganError
from wavegan_dist.tracking import log_metrics, sync
from wavegan_dist.tracking.record import Record
from wavegan_dist.tracking.sender import Sender
from wavegan_dist.tracking.spool import Spool
from wavegan_dist.tracking.store import AwayError


@pytest.fixture
def spool(tmp_path, experiment, proxy) -> Spool:
    """The spool of a run that is tracked through the proxy, with some of everything in it."""
    run = tmp_path / "run"
    (run / "snapshot").mkdir(parents=True)
    for name in ("weights", "config"):
        (run / "snapshot" / name).write_text(name)
    Image.new("RGB", (300, 300)).save(run / "grid.png")
    Record.new(run, experiment(proxy.uri)).save(run)
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


def assert_all_there_once(stored, spool):
    run = stored(spool.run)
    for i in (0, 149):
        assert run.steps(f"m{i}") == list(range(100, 1100, 100))
        assert run.values(f"m{i}") == [nimg + i / 7 for nimg in range(100, 1100, 100)]
    assert run.steps("odd") == list(range(100, 1100, 100))
    assert len(run.client.get_run(run.run_id).data.params) == 150
    assert [file.rsplit(".")[-1] for file in run.files("images")] == ["webp", "png"]
    assert run.files("snapshots/last") == ["snapshots/last/config", "snapshots/last/weights"]
    assert run.status == "FINISHED"


def deliver_at_last(spool: Spool) -> int:
    """How often delivery failed before it was done; a new sender each time, as after a crash."""
    for failures in range(200):
        try:
            Sender(spool).deliver()
            return failures
        except AwayError:
            pass
    raise AssertionError("never done")


def test_answers_that_are_lost_double_nothing(spool, proxy, stored, client):
    proxy.mode = "lose"
    assert deliver_at_last(spool) > 5
    assert_all_there_once(stored, spool)
    key = Record.of(spool.run).key
    experiment = client.get_experiment_by_name("wavegan").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`wavegan.key` = '{key}'")
    assert run.info.start_time == Record.of(spool.run).started
    assert run.info.run_name == "run"


def test_a_position_that_is_lost_doubles_nothing(spool, stored):
    Sender(spool).deliver()
    spool.sent.unlink()
    Sender(spool).deliver()
    assert_all_there_once(stored, spool)


def test_a_server_that_fails_gets_everything_when_it_recovers(spool, proxy, stored):
    proxy.mode = "fail"
    for _ in range(10):
        with pytest.raises(AwayError, match="500"):
            Sender(spool).deliver()
    proxy.mode = "pass"
    Sender(spool).deliver()
    assert_all_there_once(stored, spool)


def test_what_mlflow_refuses_is_skipped_and_counted_and_the_rest_arrives(spool, stored, caplog):
    spool.append({"kind": "metrics", "nimg": 1100, "values": {"m0": 1.0, "what: <name>": 1.0, "m1": 2.0}})
    spool.append({"kind": "picture", "path": "gone.png", "name": "samples", "nimg": 1100})
    spool.append({"kind": "nonsense"})
    spool.append({"kind": "metrics", "nimg": 1200, "values": {"m0": 3.0}})
    Sender(spool).deliver()
    assert not spool.left()
    assert spool.progress()[1] == 3
    assert stored(spool.run).steps("m0")[-2:] == [1100, 1200]
    assert stored(spool.run).steps("m1")[-1] == 1100
    for word in ("what: <name>", "gone.png", "nonsense"):
        assert sum(word in message for message in caplog.messages) == 1


def test_files_that_always_fail_hold_nothing_up_for_ever(spool, proxy, stored, caplog):
    spool.append({"kind": "metrics", "nimg": 1100, "values": {"m0": 1.0}})
    proxy.mode = "fail PUT"
    sender = Sender(spool)
    for _ in range(8):  # five tries of the picture, five of the snapshot
        with pytest.raises(AwayError, match="500"):
            sender.deliver()
    sender.deliver()
    assert stored(spool.run).steps("m0")[-1] == 1100
    assert stored(spool.run).status == "FINISHED"
    assert spool.progress()[1] == 2
    assert sum("failed 5 times" in message for message in caplog.messages) == 2


def test_points_of_a_deleted_run_wait_for_its_restoration(spool, stored, client):
    Sender(spool).deliver()
    run_id = Record.of(spool.run).run_id
    client.delete_run(run_id)
    spool.append({"kind": "metrics", "nimg": 1100, "values": {"m0": 1.0}})
    with pytest.raises(WaveganError, match=r"does not take 1 point .*deleted.*restore.*wavegan track sync"):
        sync(spool.run)
    client.restore_run(run_id)
    assert sync(spool.run) == {"metrics": 1}
    assert stored(spool.run).steps("m0")[-1] == 1100


def test_a_picture_is_named_as_mlflow_names_it(spool, stored, client):
    Sender(spool).deliver()
    run_id = Record.of(spool.run).run_id
    with Image.open(spool.run / "grid.png") as image:
        client.log_image(run_id, image, key="samples", step=1000, synchronous=True)
    form = re.sub(r"timestamp\+\d+\+[0-9a-f-]{36}", "timestamp+T+U", " ".join(stored(spool.run).files("images")))
    ours = ["images/samples+step+1000+timestamp+T+U+compressed.webp", "images/samples+step+1000+timestamp+T+U.png"]
    assert sorted(form.split()) == sorted(ours * 2)


def test_sync_sends_all_spools_or_says_in_a_line_that_it_cannot(spool, proxy, stored, wavegan, tmp_path):
    proxy.mode = "fail"
    log_metrics(spool.run, {"eval/fd_at_128": 3.5}, 1000, spool="kimg-000001", files={}, pictures={})  # does not raise
    outcome = wavegan("track", "sync", spool.run)
    refused(outcome, proxy.uri, "1 point", "wavegan track sync", exit_code=1)
    proxy.mode = "pass"
    outcome = wavegan("track", "sync", spool.run)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "sent 11 points and 4 other entries\n"
    assert_all_there_once(stored, spool)
    assert stored(spool.run).values("eval/fd_at_128") == [3.5]
    assert wavegan("track", "sync", spool.run).stdout == "sent nothing\n"
    refused(wavegan("track", "sync", tmp_path), "no tracked run")


def test_an_evaluation_waits_seconds_for_a_server_that_hangs_and_leaves_its_points(spool, proxy, stored):
    Sender(spool).deliver()
    proxy.mode = "hang"
    began = time.monotonic()
    log_metrics(spool.run, {"eval/fwd": 0.5}, 1000, spool="kimg-000001", files={}, pictures={})
    assert time.monotonic() - began < 8
    proxy.mode = "pass"
    assert sync(spool.run) == {"metrics": 1}
    assert stored(spool.run).values("eval/fwd") == [0.5]
