"""Reading encoded images from shards."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from wavegan_dist.data import Index, read
from wavegan_dist.data.read import Reader, UnreadableError


def test_shards_that_the_cache_has_deleted_are_closed_unless_they_are_being_read(
    numbered: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, cache = tmp_path / "index", tmp_path / "cache"
    elsewhere.mkdir()
    shutil.copy(numbered.folder / "members.npy", elsewhere)
    numbered.model_copy(update={"source": f"pipe:cat '{numbered.folder}'/{{file}}"}).save(elsewhere)
    reader = Reader(Index.load(elsewhere, cache, 2**30))
    locations = reader.locations(np.arange(0, 96, 12))  # the first image of each shard
    local = [Reader(numbered).read(location) for location in locations]

    def open_and_deleted() -> int:
        links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum(link.startswith(str(cache)) and link.endswith("(deleted)") for link in links)

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for location in locations[:5]:
        assert reader.read(location) == local[location.shard]
    for path in list(cache.iterdir()):
        path.unlink()
    monkeypatch.setattr(time, "monotonic", lambda: now + read.IDLE)
    for location in locations[:2]:
        assert reader.read(location) == local[location.shard]
    assert open_and_deleted() == 5
    assert reader.read(locations[5]) == local[5]
    assert open_and_deleted() == 2  # the two that were read just now
    assert [reader.read(location) for location in locations] == local


@pytest.mark.parametrize("wrong", [{"offset": -1}, {"size": 0}, {"size": 1001}], ids=str)
def test_an_impossible_place_of_an_image_is_an_error_that_names_it(
    numbered: Index, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, int]
) -> None:
    monkeypatch.setattr(read, "MAX_IMAGE_BYTES", 1000)
    reader = Reader(numbered)
    (location,) = reader.locations(np.array([5]))
    assert len(reader.read(location)) == location.size <= 1000
    with pytest.raises(UnreadableError, match=r"is -?[\d,]+ bytes at byte -?[\d,]+, which is impossible") as caught:
        reader.read(location._replace(**wrong))
    assert [error.row for error in caught.value.errors] == [5]
