"""Several datasets in one stream of batches: shares, epochs, labels, errors, and a cache that the datasets share."""

import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from wavegan_dist.config import DataConfig
from wavegan_dist.data import (
    DataError,
    DataErrorLog,
    ImageBatch,
    Mixture,
    batch_keys,
    classes_for_training,
    load_training_data,
    training_batches,
    write_shards,
)
from wavegan_dist.errors import UsageError
from wavegan_dist.processes import join

Read = Callable[[Tensor], list[int]]


def write_set(folder: Path, numbers: range, classes: Callable[[int], str] | None = None, size: int = 32) -> Path:
    """Write a set of 8 shards whose images show `numbers` (see `numbers` in conftest.py), each in the folder of its class."""
    pictures = folder.with_name(f"{folder.name}-pictures")
    for number in numbers:
        place = pictures / (classes(number) if classes else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (number, 255 - number, 7)).save(place / f"{number:03d}.png")
    folder.parent.mkdir(exist_ok=True)
    write_shards(pictures, folder, size, labels=classes is not None, progress=False)
    return folder


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Images 0 to 15."""
    return write_set(tmp_path / "few", range(16))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Images 100 to 147, in shards of the same names as those of `few`."""
    return write_set(tmp_path / "many", range(100, 148))


def mixed(*sets: tuple[object, float], **settings: Any) -> Mixture:
    data = DataConfig(index=[{"index": str(index), "weight": weight} for index, weight in sets], **settings)
    mixture = load_training_data(data)
    assert isinstance(mixture, Mixture)
    return mixture


def stream(data: Any, count: int, **settings: Any) -> list[ImageBatch]:
    """Copies of the first `count` batches: the loader reuses their memory."""
    chosen = {"batch_size": 8, "seed": 0, "start_nimg": 0, "rank": 0, "world_size": 1, "workers": 0, "labels": True, **settings}
    batches = training_batches(data, **chosen)
    copies = [ImageBatch(images.clone(), labels.clone()) for images, labels in islice(batches, count)]
    batches.close()
    return copies


def shown(batches: list[ImageBatch], numbers: Read) -> list[int]:
    return [number for batch in batches for number in numbers(batch.images)]


@pytest.mark.parametrize("workers", [0, 2])
def test_shares_are_exact_and_each_set_has_its_own_epochs(few: Path, many: Path, numbers: Read, workers: int) -> None:
    data = mixed((few, 1), (many, 3))
    seen = shown(stream(data, 24, workers=workers), numbers)  # 192 images
    first, second = ([number for number in seen if (number < 100) == small] for small in (True, False))
    assert (len(first), len(second)) == (48, 144)
    for epoch in range(3):
        assert sorted(first[epoch * 16 : (epoch + 1) * 16]) == list(range(16))
        assert sorted(second[epoch * 48 : (epoch + 1) * 48]) == list(range(100, 148))
    assert data.images_shown(192) == {"data/images/few": 48, "data/images/many": 144}
    assert all(sum(number < 100 for number in seen[start : start + 8]) == 2 for start in range(0, 192, 8))


def test_batches_depend_neither_on_ranks_nor_workers_nor_restarts(few: Path, many: Path, numbers: Read) -> None:
    data = mixed((few, 0.7), (many, 0.3))
    straight = shown(stream(data, 20), numbers)
    assert shown(stream(data, 10, start_nimg=80, workers=1), numbers) == straight[80:160]
    ranks = [shown(stream(data, 10, batch_size=4, start_nimg=40, rank=rank, world_size=2), numbers) for rank in (0, 1)]
    assert [image for step in range(0, 40, 4) for rank in ranks for image in rank[step : step + 4]] == straight[40:120]
    assert shown(stream(data, 20, seed=1), numbers) != straight


def test_a_mixture_of_one_set_is_the_set(few: Path) -> None:
    data = load_training_data(DataConfig(index=[{"index": str(few), "weight": 3}]))
    assert not isinstance(data, Mixture)
    assert data.images_shown(100) == {}


def test_sets_of_equal_file_names_share_a_cache(few: Path, many: Path, numbers: Read, tmp_path: Path) -> None:
    assert {path.name for path in few.iterdir()} == {path.name for path in many.iterdir()}
    remote = [f"pipe:cat {folder}/{{file}}" for folder in (few, many)]
    data = mixed((remote[0], 1), (remote[1], 2), cache=tmp_path / "cache")
    assert data.names == ["few", "many"]
    local = mixed((few, 1), (many, 2))
    assert data.digest == local.digest
    for workers in (0, 2):
        assert shown(stream(data, 20, workers=workers), numbers) == shown(stream(local, 20), numbers)
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 16


def test_names_of_sets_are_those_of_their_folders_and_never_equal(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one" / "set", range(10))
    two = write_set(tmp_path / "two" / "set", range(10, 20))
    assert mixed((one / "index.json", 1), (two, 1)).names == ["1-set", "2-set"]


def test_the_digest_is_that_of_the_sets_and_their_shares(few: Path, many: Path) -> None:
    digests = [mixed((few, a), (many, b)).digest for a, b in ((1, 1), (2, 2), (1, 2))]
    assert digests[0] == digests[1] != digests[2]
    assert mixed((many, 1), (few, 1)).digest != digests[0]


def test_the_same_images_twice_are_one_line(few: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.index: .*few and .*few/index\.json hold the same images; give one of them"):
        mixed((few, 1), (few / "index.json", 2))
    with pytest.raises(UsageError, match=r"few and .*few hold the same images"):
        mixed((few, 1), (few, 2))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_name_the_set_and_shards_of_equal_names_are_counted_apart(
    few: Path, many: Path, numbers: Read, workers: int, tmp_path: Path
) -> None:
    data = mixed((few, 1), (many, 1))
    for folder in (few, many):
        (folder / "shard-000003.tar").unlink()
    log = DataErrorLog(join(), tmp_path / "errors.jsonl", data, 0.5)
    errors: list[DataError] = []
    batches = stream(data, 16, workers=workers, max_bad_fraction=0.5, on_errors=errors.extend)
    log.record(errors)
    assert log.sync() == {"data/bad_images": 2 + 6, "data/bad_shards": 2}
    assert {error.shard for error in errors} == {"few/shard-000003.tar", "many/shard-000003.tar"}
    assert {error.row for error in errors} == {None, *range(6, 8), *range(16 + 18, 16 + 24)}
    assert len(set(shown(batches, numbers))) == 14 + 42
    with pytest.raises(UsageError, match=r"1 of 8 shards \(6 images\) are missing from .*many"):
        stream(mixed((many, 1), (few, 1)), 1)


def test_keys_of_a_batch_name_the_set(few: Path, many: Path) -> None:
    data = mixed((few, 1), (many, 1))
    keys = batch_keys(data, 0, 0, 8, slice(0, 8))
    assert [key.partition("/")[0] for key in keys] == ["few", "many"] * 4
    assert all(re.fullmatch(r"(few|many)/shard-00000\d\.tar: 000000\d\d", key) for key in keys)


def test_statistics_of_bands_are_those_of_the_shares(few: Path, many: Path) -> None:
    data = mixed((few, 1), (many, 3))
    levels = data.band_std_by_level()
    assert len(levels) == len(data.sets[0].band_std_by_level())
    first, second = (one.band_std.low for one in data.sets)
    assert levels[0].low == pytest.approx(((first**2 + 3 * second**2) / 4) ** 0.5)


def test_labels_come_with_their_images_and_classes_have_the_frequencies_of_the_mixture(tmp_path: Path, numbers: Read) -> None:
    one = write_set(tmp_path / "one", range(20), lambda number: "ant" if number < 15 else "bee")
    two = write_set(tmp_path / "two", range(100, 200), lambda number: "ant" if number < 110 else "bee")
    data = mixed((one, 3), (two, 1))
    classes = classes_for_training(data, 3)
    assert classes.names == ["ant", "bee"]
    assert classes.counts == [round(120 * (0.75 * 15 / 20 + 0.25 * 0.1)), round(120 * (0.75 * 5 / 20 + 0.25 * 0.9)), 0]
    batches = stream(data, 40)
    labels = torch.cat([batch.labels for batch in batches]).tolist()
    assert labels == [int(number in range(15, 20) or number >= 110) for number in shown(batches, numbers)]
    assert np.mean(labels) == pytest.approx(classes.counts[1] / sum(classes.counts), abs=0.05)


def test_a_rare_class_keeps_an_image(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", range(20), lambda number: f"class{number // 18}")  # 2 of 20
    two = write_set(tmp_path / "two", range(100, 200), lambda number: f"class{number // 199}")  # 1 of 100
    assert classes_for_training(mixed((one, 1), (two, 1)), 3).counts == [113, 7, 0]
    rare = write_set(tmp_path / "rare", range(200, 220), lambda number: f"class{number // 219}")
    assert classes_for_training(mixed((rare, 1), (two, 10**6)), 2).counts == [119, 1]


def test_classes_that_differ_between_the_sets_are_one_line(few: Path, tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", range(20), lambda number: "ant" if number < 15 else "bee")
    two = write_set(tmp_path / "two", range(30, 50), lambda number: "ant" if number < 40 else "cat")
    with pytest.raises(UsageError, match=r"class 1 is bee in .*one and cat in .*two; give both .* --classes or --class-names"):
        classes_for_training(mixed((one, 3), (two, 1)), 2)
    with pytest.raises(UsageError, match=r"model\.num_classes = 2, but .*few has no labels; write the shards with --labels"):
        classes_for_training(mixed((one, 3), (few, 1)), 2)
    with pytest.raises(UsageError, match=r"model\.num_classes = 1, but .*one names 2 classes|has labels up to 1"):
        classes_for_training(mixed((one, 3), (two, 1)), 1)
