"""WebDataset shards of generated images."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import webdataset
from PIL import Image

from tests.sample.snapshots import conditional
from wavegan_dist.data import index_shards, verify_shards
from wavegan_dist.images import encode_png
from wavegan_dist.model.generate import generated_images
from wavegan_dist.model.snapshot import Snapshot, labels_of_images
from wavegan_dist.sample import sample
from wavegan_dist.sample.shards import divide


def test_webdataset_and_our_index_read_the_images_in_order(loaded: Snapshot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample(loaded, 100, 3, out, format="shards")
    tars = [str(path) for path in sorted(out.iterdir())]
    assert tars == [str(out / f"shard-{number:06d}.tar") for number in range(8)]
    read = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [entry["__key__"] for entry in read] == [f"{number:08d}" for number in range(100)]
    expected = torch.cat(list(generated_images(loaded.generator, range(100), 3, 16, 16)))
    for entry, image_chw in zip(read, expected, strict=True):
        assert "cls" not in entry
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(entry["png"]))), image_chw.permute(1, 2, 0))
    index = index_shards(out)
    assert (index.count, index.size, index.encoding, len(index.shards)) == (100, 32, "png", 8)
    assert verify_shards(out) == []


def test_shards_of_a_model_with_classes_hold_the_class_of_each_image(loaded: Snapshot, tmp_path: Path) -> None:
    sample(conditional(loaded), 50, 1, tmp_path / "out", format="shards")
    read = list(webdataset.WebDataset([str(path) for path in sorted(tmp_path.glob("out/*"))], shardshuffle=False))
    classes = [int(entry["cls"]) for entry in read]
    assert classes == labels_of_images(conditional(loaded), 1)(range(50)).tolist()
    assert len(set(classes)) == 3
    assert [np.asarray(Image.open(BytesIO(entry["png"])))[0, 0, 0] // 100 for entry in read] == classes


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_the_bytes_do_not_depend_on_the_number_of_threads(
    loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    sample(loaded, 60, 0, tmp_path / "expected", format="shards")
    monkeypatch.setattr("wavegan_dist.sample.workers.cores", lambda: cores)
    sample(loaded, 60, 0, tmp_path / "out", format="shards")
    for path in (tmp_path / "expected").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("count", "resolution", "shards", "largest"),
    [
        (1, 64, 1, 1),
        (7, 64, 7, 1),
        (10_000, 64, 8, 1250),
        (16_384, 256, 8, 2048),
        (16_385, 256, 16, 1025),
        (5_000, 512, 16, 313),
        (5_000, 1024, 40, 125),
    ],
)
def test_shards_are_of_nearly_equal_size_and_have_at_most_2048_images(
    count: int, resolution: int, shards: int, largest: int
) -> None:
    parts = divide(count, resolution)
    assert [number for part in parts for number in part] == list(range(count))
    assert len(parts) == shards
    assert {len(part) for part in parts} <= {largest, largest - 1}


@pytest.mark.parametrize("size", [2, 32, 257])
def test_a_png_holds_every_pixel(size: int) -> None:
    noise = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image_hwc in (noise.permute(1, 2, 0), torch.zeros(size, size, 3, dtype=torch.uint8)):
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(encode_png(image_hwc.permute(2, 0, 1))))), image_hwc)


def test_the_pngs_of_a_photo_take_as_many_bytes_as_those_of_pillow() -> None:
    photo, expected = skimage.data.chelsea(), BytesIO()
    Image.fromarray(photo).save(expected, "PNG")
    assert len(encode_png(torch.from_numpy(photo).permute(2, 0, 1))) < 1.03 * expected.tell()
