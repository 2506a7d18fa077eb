"""The log of shards and images that cannot be read."""

import json
from pathlib import Path

import pytest

from wavegan_dist.data import DataError, DataErrorLog, Index
from wavegan_dist.errors import WaveganError
from wavegan_dist.processes import join


def image_error(row: int, reason: str = "cannot be decoded") -> DataError:
    return DataError("shard-000000.tar", reason, row, f"{row:08d}")


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_error_is_listed_once_and_counted_over_restarts(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "data_errors.jsonl"
    log = DataErrorLog(join(), path, index, 1.0)
    assert log.sync() == {"data/bad_images": 0, "data/bad_shards": 0}
    assert not path.exists()
    log.record([image_error(3), DataError("shard-000001.tar", "is cut short")])
    assert log.sync() == {"data/bad_images": 1, "data/bad_shards": 1}
    log.record([image_error(3), image_error(4)])
    assert log.sync() == {"data/bad_images": 2, "data/bad_shards": 1}

    restarted = DataErrorLog(join(), path, index, 1.0)
    restarted.record([image_error(4), image_error(5)])
    assert restarted.sync() == {"data/bad_images": 3, "data/bad_shards": 1}
    assert [entry["row"] for entry in entries(path)] == [3, None, 4, 5]
    assert entries(path)[0] == {
        "shard": "shard-000000.tar", "reason": "cannot be decoded", "row": 3, "image": "00000003",
    }  # fmt: skip


@pytest.mark.parametrize("tail", [b'{"shard": "shard-0000', b"\x80\xff", b"[1]\n", b'{"x": 1}\n'])
def test_a_line_that_a_kill_cut_short_or_that_is_damaged_is_skipped(index: Index, tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "data_errors.jsonl"
    log = DataErrorLog(join(), path, index, 1.0)
    log.record([image_error(3)])
    log.sync()
    with path.open("ab") as file:
        file.write(tail)
    restarted = DataErrorLog(join(), path, index, 1.0)
    restarted.record([image_error(3), image_error(4)])
    assert restarted.sync() == {"data/bad_images": 2, "data/bad_shards": 0}
    assert DataErrorLog(join(), path, index, 1.0).sync() == {"data/bad_images": 2, "data/bad_shards": 0}
    first, last = path.read_bytes().splitlines()[:: len(path.read_bytes().splitlines()) - 1]
    assert (json.loads(first)["row"], json.loads(last)["row"]) == (3, 4)


@pytest.mark.parametrize("restart", [False, True])
def test_more_bad_images_than_allowed_are_an_error_that_names_the_last(index: Index, tmp_path: Path, restart: bool) -> None:
    path = tmp_path / "data_errors.jsonl"
    log = DataErrorLog(join(), path, index, 1.0 if restart else 2 / index.count)
    log.record([image_error(3), image_error(4), image_error(5)])
    if restart:  # with a lower limit, and nothing new to list
        log.sync()
        log = DataErrorLog(join(), path, index, 2 / index.count)
    with pytest.raises(WaveganError, match=rf"3 of {index.count} images .* data\.max_bad_fraction.*last .*: 00000005 cannot"):
        log.sync()
    assert len(entries(path)) == 3


def test_images_that_were_repaired_before_the_next_start_count_no_more(index: Index, tmp_path: Path) -> None:
    path, limit = tmp_path / "data_errors.jsonl", 1 / index.count
    log = DataErrorLog(join(), path, index, 1.0)
    log.record([image_error(3), image_error(4), DataError("shard-000001.tar", "is cut short")])
    log.record([DataError("shard-000001.tar", "cannot be decoded", 99, "00000099")])
    log.sync()
    restarted = DataErrorLog(join(), path, index, limit)
    restarted.recheck(lambda rows: [row for row in rows if row == 4])
    assert restarted.sync() == {"data/bad_images": 1, "data/bad_shards": 0}
    assert len(entries(path)) == 4
    restarted.record([image_error(3)])  # broken again
    with pytest.raises(WaveganError, match="2 of"):
        restarted.sync()
