import json
import multiprocessing
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.evaluate.helpers import statistics_of
from tests.helpers import fresh_cache
from wavegan_dist.evaluate import cache
from wavegan_dist.evaluate.statistics import Moments
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", fresh_cache(tmp_path))
    return tmp_path / "wavegan" / "evaluate"


def test_an_entry_is_found_by_its_whole_key_only() -> None:
    key = {"index": "a", "count": 3, "weights_sha256": "b", "image_size": 32}
    cache.write(key, {"rows": torch.arange(3.0)})
    found = cache.read(dict(reversed(key.items())))
    assert found is not None
    assert torch.equal(found["rows"], torch.arange(3.0))
    for name in key:
        assert cache.read({**key, name: "other"}) is None


def test_a_damaged_or_cut_entry_is_not_used_and_can_be_made_again(folder: Path) -> None:
    cache.write({"a": 1}, {"rows": torch.arange(100.0)})
    (entry,) = folder.iterdir()
    complete = entry.read_bytes()
    for content in (complete[:-1], complete[:10], b"", complete[:-4] + bytes([complete[-4] ^ 1]) + complete[-3:]):
        entry.write_bytes(content)
        assert cache.read({"a": 1}) is None
    cache.write({"a": 1}, {"rows": torch.arange(100.0)})
    assert entry.read_bytes() == complete


def test_moments_come_back_as_they_were(photos: Tensor) -> None:
    metric = WaveletDistance(32)
    moments = statistics_of(metric, photos[:200])
    cache.write({"a": 1}, moments.to_tensors())
    found = cache.read({"a": 1})
    assert found is not None
    again = metric.feature.statistics.from_tensors(found)
    assert isinstance(again, Moments)
    assert again.count == 200
    assert torch.equal(again.scatter, moments.scatter)


def _write_and_read(number: int) -> bool:
    """Repeat many times: every entry that is read is complete."""
    for _ in range(20):
        cache.write({"a": 1}, {"rows": torch.full((50_000,), 7.0)})
        found = cache.read({"a": 1})
        if found is None or not bool((found["rows"] == 7).all()):
            return False
    return True


def test_jobs_that_write_the_same_entry_at_once_never_see_half_of_it(folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.map(_write_and_read, range(3)))
    assert len(list(folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_said_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.write({"a": 1}, {"rows": torch.zeros(1)})
    assert "not cached" in caplog.text
    assert cache.read({"a": 1}) is None


def test_keys_may_hold_what_json_can() -> None:
    key = json.loads(json.dumps({"range": [0, 1], "nested": {"a": None}}))
    cache.write(key, {"x": torch.tensor(np.pi)})
    assert cache.read(key) is not None


def test_an_entry_is_written_without_a_copy_of_its_tensors() -> None:
    rows = torch.zeros(10**6)
    tracemalloc.start()
    cache.write({"a": 1}, {"rows": rows})
    assert tracemalloc.get_traced_memory()[1] < rows.nbytes / 2
    tracemalloc.stop()
