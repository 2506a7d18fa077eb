"""The queue on disk: complete lines or none, each delivered once."""

import json
import resource

import pytest

from wavegan_dist.errors import WaveganError
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.sender import batches, retry_delay
from wavegan_dist.tracking.spool import Spool, format_counts
from wavegan_dist.tracking.sync import log_best
from wavegan_dist.tracking.tracker import MlflowTracker


@pytest.fixture
def spool(tmp_path) -> Spool:
    spool = Spool(tmp_path / "tracking" / "kimg-000000.320-x.jsonl")
    spool.open()
    return spool


def point(nimg: int, values: int = 1) -> dict:
    return {"kind": "metrics", "nimg": nimg, "values": {f"m{i}": float(nimg) for i in range(values)}}


def test_delivered_events_are_not_returned_again(spool):
    for nimg in (1, 2, 3):
        spool.append(point(nimg))
    (_, first), *rest = list(spool.undelivered())
    spool.set_delivered(first, rejected=2)
    assert [event["nimg"] for event, _ in Spool(spool.path).undelivered()] == [2, 3] == [event["nimg"] for event, _ in rest]
    assert Spool(spool.path).delivered() == (first, 2)
    assert format_counts(spool.count_undelivered()) == "2 points"


@pytest.mark.parametrize("tail", [b'{"kind": "met', b'{"kind": "metrics"}', "ü".encode()[:1]])
def test_an_incomplete_line_is_not_read_and_is_truncated_by_the_next_writer(spool, tail):
    spool.append(point(1))
    with spool.path.open("ab") as file:
        file.write(tail)
    assert [event["nimg"] for event in spool.events()] == [1]
    again = Spool(spool.path)
    again.open()
    again.append(point(2))
    assert [event["nimg"] for event in again.events()] == [1, 2]


def test_events_wait_for_room_on_a_full_disk_which_is_reported_once(tmp_path, experiment, caplog):
    """A limit on the file size simulates a full disk: one write is cut short, the next ones fail."""
    tracker = MlflowTracker.open(tmp_path, experiment("http://127.0.0.1:9"))
    tracker.sidecar.kill()
    for nimg in (1, 2):
        tracker.log_metrics({"m": 1.0}, nimg)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (tracker.spool.path.stat().st_size + 10, hard))
    try:
        for nimg in (3, 4, 5):
            tracker.log_metrics({"m": 1.0}, nimg)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [event["nimg"] for event in tracker.spool.events() if event["kind"] == "metrics"] == [1, 2]
    tracker.log_metrics({"m": 1.0}, 6)
    assert [event["nimg"] for event in tracker.spool.events() if event["kind"] == "metrics"] == [1, 2, 3, 4, 5, 6]
    assert caplog.text.count("training continues, MLflow gets the points when there is room for them") == 1
    assert str(tracker.spool.path) in caplog.text


@pytest.mark.parametrize("content", [b"", b'{"offset": 3', b"\x80", b"[]", b"3", b"{}"])
def test_a_damaged_position_counts_nothing_as_delivered(spool, content):
    spool.append(point(1))
    spool.position.write_bytes(content)
    assert spool.delivered() == (0, 0)
    assert spool.count_undelivered() == {"metrics": 1}


@pytest.mark.parametrize("content", [b"", b'{"uri": "x', b"\x80", b"[]", b"3", b'{"x": 1}'])
def test_a_damaged_tracking_json_is_one_line_and_only_a_warning_after_an_evaluation(tmp_path, experiment, caplog, content):
    run = RunFolder(tmp_path)
    run.tracking.write_bytes(content)
    with pytest.raises(WaveganError, match=r"tracking\.json is damaged; .*delete it") as error:
        MlflowTracker.open(tmp_path, experiment("http://127.0.0.1:9"))
    assert "\n" not in str(error.value)
    log_best(tmp_path, {"snapshot": "kimg-000001", "metric": "fwd", "value": 0.5}, 1000)
    assert caplog.messages == [str(error.value)]
    assert not (tmp_path / "tracking").exists()


def test_a_line_that_is_no_event_does_not_block_the_queue(spool):
    with spool.path.open("ab") as file:
        file.write(b"[1]\n{}\n3\n")
    spool.append(point(1))
    assert spool.count_undelivered() == {"unreadable": 3, "metrics": 1}


def test_a_line_that_the_disk_changed_does_not_block_the_queue(spool):
    spool.append(point(1))
    spool.path.write_bytes(b"\x00" * 5 + spool.path.read_bytes()[5:])
    spool.append(point(2))
    assert [event["kind"] for event in spool.events()] == ["unreadable", "metrics"]


def test_batches_keep_the_order_and_mlflow_s_limit_and_end_where_their_events_end(spool):
    file = {"kind": "file", "path": "config.yaml", "under": None}
    for event in (point(1, 400), point(2, 600), point(3, 1), file, point(4), file, file):
        spool.append(event)
    given = list(batches(spool.undelivered()))
    assert [[event.get("nimg") for event in events] for events, _ in given] == [[1, 2], [3], [None], [4], [None], [None]]
    content = spool.path.read_bytes()
    for events, offset in given:
        assert json.loads(content[:offset].splitlines()[-1]) == events[-1]


def test_only_one_sender_at_a_time(spool):
    with spool.lock(wait=False), pytest.raises(BlockingIOError), Spool(spool.path).lock(wait=False):
        pass


def test_retry_delays_double_from_a_second_to_half_a_minute():
    for failures, seconds in ((1, 1), (2, 2), (5, 16), (6, 30), (10**6, 30)):
        drawn = [retry_delay(failures) for _ in range(200)]
        assert 0.5 * seconds <= min(drawn) < 0.7 * seconds
        assert 1.3 * seconds < max(drawn) <= 1.5 * seconds
