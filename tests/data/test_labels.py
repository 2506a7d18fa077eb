"""Labels from .cls members to the batches of training, and the checks before a run."""

import io
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from torch import Tensor

from wavegan_dist.cli import main
from wavegan_dist.data import (
    DataError,
    ImageBatch,
    Index,
    classes_for_training,
    count_classes,
    index_shards,
    training_batches,
    warn_of_unused_classes,
    write_shards,
)
from wavegan_dist.errors import UsageError

Read = Callable[[Tensor], list[int]]


def write_tars(folder: Path, label: Callable[[int], int | None], images: int = 40) -> Path:
    """Write tars of webdataset whose image `n` has the red value n and the class `label(n)`."""
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "%03d.tar"), maxcount=10, verbose=0) as writer:
        for number in range(images):
            content = io.BytesIO()
            Image.new("RGB", (32, 32), (number, 255 - number, 7)).save(content, "PNG")
            member = {} if label(number) is None else {"cls": label(number)}
            writer.write({"__key__": f"im{number}", "png": content.getvalue(), **member})
    return folder


@pytest.fixture
def labeled(tmp_path: Path) -> Index:
    """40 images; image n has the class n * n % 7, one of 0, 1, 2, 4."""
    return index_shards(write_tars(tmp_path / "labeled", lambda number: number * number % 7))


def label_of(numbers: list[int]) -> list[int]:
    return [number * number % 7 for number in numbers]


def pairs(batches: list[ImageBatch], numbers: Read) -> list[tuple[int, int]]:
    """The number and the label of each image."""
    return [pair for batch in batches for pair in zip(numbers(batch.images), batch.labels.tolist(), strict=True)]


def stream(index: Index, count: int, **settings: Any) -> list[ImageBatch]:
    """Copies of `count` batches: the loader reuses their memory."""
    chosen: dict[str, Any] = {
        "batch_size": 4,
        "seed": 0,
        "start_nimg": 0,
        "rank": 0,
        "world_size": 1,
        "workers": 0,
        "labels": True,
        **settings,
    }
    batches = training_batches(index, **chosen)
    return [
        ImageBatch(images.clone(), labels if labels is None else labels.clone()) for images, labels in islice(batches, count)
    ]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_image_comes_with_the_label_of_its_tar(labeled: Index, numbers: Read, workers: int) -> None:
    batches = stream(labeled, 30, workers=workers)
    seen = pairs(batches, numbers)
    assert [label for _, label in seen] == label_of([number for number, _ in seen])
    assert sorted(number for number, _ in seen[:40]) == list(range(40))
    assert all(batch.labels.dtype == torch.int64 for batch in batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_start_and_another_number_of_ranks_keep_images_and_labels(labeled: Index, numbers: Read, workers: int) -> None:
    straight = pairs(stream(labeled, 30), numbers)
    assert pairs(stream(labeled, 10, start_nimg=28, workers=workers), numbers) == straight[28:68]
    ranks = [pairs(stream(labeled, 8, batch_size=2, start_nimg=20, rank=rank, world_size=2), numbers) for rank in (0, 1)]
    assert [pair for step in range(0, 16, 2) for rank in ranks for pair in rank[step : step + 2]] == straight[20:52]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_replaces_a_bad_one_has_its_own_label(labeled: Index, numbers: Read, workers: int) -> None:
    for row in range(0, 40, 3):
        offset, size, _ = labeled.members[row].tolist()
        with (labeled.folder / labeled.shards[row // 10].file).open("r+b") as file:
            file.seek(offset)
            file.write(bytes(size))
    errors: list[DataError] = []
    seen = pairs(stream(labeled, 20, batch_size=8, workers=workers, on_errors=errors.extend), numbers)
    assert len(errors) >= 14
    assert [label for _, label in seen] == label_of([number for number, _ in seen])


def test_labels_come_only_on_request(labeled: Index) -> None:
    assert stream(labeled, 1, labels=False)[0].labels is None


def test_the_classes_of_a_model_are_those_of_numpy(labeled: Index, caplog: pytest.LogCaptureFixture) -> None:
    wanted = np.bincount(np.arange(40) ** 2 % 7)
    assert count_classes(labeled) == wanted.tolist()
    classes = classes_for_training(labeled, 6)
    assert classes.counts == [*wanted.tolist(), 0]
    warn_of_unused_classes(classes)
    assert "2 of 6 classes have no image: 3, 5" in caplog.text


def test_labels_that_do_not_fit_the_model_are_one_line(labeled: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.num_classes = 3, but .* has labels up to 4; set model\.num_classes=5$"):
        classes_for_training(labeled, 3)
    without = index_shards(write_tars(tmp_path / "without", lambda _: None))
    with pytest.raises(UsageError, match=r"num_classes = 3, but .*without has no labels; write the shards with --labels"):
        classes_for_training(without, 3)
    partly = index_shards(write_tars(tmp_path / "partly", lambda number: None if number % 8 == 0 else 1))
    with pytest.raises(UsageError, match=r"partly has no label for 5 of 40 images; .* or set model\.num_classes=0"):
        classes_for_training(partly, 3)


def write_class_folders(folder: Path) -> Path:
    """Write 3, 2 and 1 pictures of the classes ant, bee and cat."""
    for name, count in {"ant": 3, "bee": 2, "cat": 1}.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (32, 32), (number, 99, 7)).save(folder / name / f"{number}.png")
    return folder


def test_names_of_classes_survive_indexing_the_same_tars_again_but_not_other_tars(tmp_path: Path) -> None:
    written = write_shards(write_class_folders(tmp_path / "pictures"), tmp_path / "set", 32, labels=True, progress=False)
    assert written.classes == ["ant", "bee", "cat"]
    assert index_shards(tmp_path / "set").classes == ["ant", "bee", "cat"]
    with pytest.raises(UsageError, match=r"num_classes = 2, but .* has labels up to 2; set model\.num_classes=3"):
        classes_for_training(written, 2)
    next((tmp_path / "set").glob("*.tar")).unlink()
    assert index_shards(tmp_path / "set").classes == []


def test_more_names_than_labels_are_named(labeled: Index) -> None:
    named = labeled.model_copy(update={"classes": [*"abcdefgh"]})
    with pytest.raises(UsageError, match=r"num_classes = 5, but .* names 8 classes; set model\.num_classes=8"):
        classes_for_training(named, 5)


def test_info_prints_how_often_each_class_occurs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shards(write_class_folders(tmp_path / "pictures"), tmp_path / "set", 32, labels=True, progress=False)
    assert main(["shards", "info", str(tmp_path / "set")]) == 0
    printed = capsys.readouterr().out
    assert "labels: 3 classes (ant, bee, cat)\n  class 0 (ant): 3 images, 50.0%\n  class 1 (bee): 2 images, 33.3%" in printed
    assert main(["shards", "info", str(tmp_path / "set"), "--json"]) == 0
    assert '"class_counts": [3, 2, 1]' in capsys.readouterr().out
