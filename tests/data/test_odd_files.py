"""Of 200 odd files, each is in the dataset with the pixels of a careful reference in Pillow, or in left_out.jsonl."""

import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.data.odd_files import READ_BY_TRAINING, SIDE, OddFile, cropped, odd_files
from tests.data.odd_pictures import Pixels
from tests.helpers import Command
from wavegan_dist.data import Index, index_shards
from wavegan_dist.data.codec import decode
from wavegan_dist.data.read import Reader
from wavegan_dist.errors import WaveganError

FILES = 200


def images_by_class(folder: Path) -> dict[str, Pixels]:
    """Decode the images of a dataset as training does; their classes are the numbers of the files."""
    index = Index.load(folder)
    reader, labels = Reader(index), index.members[:, 2].tolist()
    names = [index.classes[label] if index.classes else f"{label:04d}" for label in labels]
    assert len(set(names)) == len(names)
    locations = reader.locations(np.arange(index.count))
    return {name: decode(reader.read(place), SIDE) for name, place in zip(names, locations, strict=True)}


def listed(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]


def check_pixels(files: Sequence[OddFile], images: dict[str, Pixels]) -> None:
    """Assert that the dataset holds the pictures of `files`, and nothing else."""
    wrong = {}
    for number, file in enumerate(files):
        image = images.pop(f"{number:04d}", None)
        if (image is None) != (file.pixels is None):
            wrong[number, file.kind] = "missing" if image is None else "should be left out"
        elif image is not None and file.pixels is not None:
            distance = np.abs(image.astype(int) - cropped(file.pixels))
            if distance.max() > 1:
                wrong[number, file.kind] = f"differs by {distance.max()} at most, {distance.mean():.1f} on average"
    assert not wrong
    assert not images


def put_in_folders(folder: Path, files: Sequence[OddFile]) -> None:
    for number, file in enumerate(files):
        (folder / f"{number:04d}").mkdir(parents=True)
        (folder / f"{number:04d}" / f"{file.kind}{file.ending}").write_bytes(file.content)


def put_in_zip(path: Path, files: Sequence[OddFile]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, file in enumerate(files):
            archive.writestr(f"{number:04d}/{file.kind}{file.ending}", file.content)


def put_in_tars(folder: Path, files: Sequence[OddFile]) -> None:
    folder.mkdir()
    for shard in range(min(4, len(files))):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard, len(files), 4):
                label, file = str(number).encode(), files[number]
                for name, content in ((f"{number:04d}.cls", label), (f"{number:04d}{file.ending}", file.content)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("source", ["in", "in.zip"])
def test_write_of_pictures(tmp_path: Path, wavegan: Command, source: str) -> None:
    files = odd_files(48, 36, count=FILES)
    (put_in_zip if source.endswith(".zip") else put_in_folders)(tmp_path / source, files)
    write = ("shards", "write", tmp_path / source, tmp_path / "set", "--size", SIDE, "--labels", "--max-bad-fraction", 0.3)
    outcome = wavegan(*write, "--workers", 1)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    images, left_out = images_by_class(tmp_path / "set"), listed(tmp_path / "set")
    assert len(images) + len(left_out) == FILES
    numbers = [next(number for number in range(FILES) if f"{number:04d}/" in entry["file"]) for entry in left_out]
    assert sorted([*map(int, images), *numbers]) == list(range(FILES))
    check_pixels(files, images)


def test_write_of_tars(tmp_path: Path, wavegan: Command) -> None:
    files = odd_files(36, 48, count=FILES)
    put_in_tars(tmp_path / "in", files)
    write = ("shards", "write", tmp_path / "in", tmp_path / "set", "--size", SIDE, "--labels", "--max-bad-fraction", 0.3)
    outcome = wavegan(*write, "--workers", 1)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    images, left_out = images_by_class(tmp_path / "set"), listed(tmp_path / "set")
    # What cannot be decoded is listed without its label; a file that is no picture counts twice, with its label.
    bad = sum(entry["reason"] == "cannot be decoded" for entry in left_out)
    assert 2 * (len(images) + bad) + sum(int(entry["files"]) for entry in left_out) - bad == 2 * FILES
    check_pixels([file if file.ending else file._replace(pixels=None) for file in files], images)


def test_index_of_tars(tmp_path: Path, wavegan: Command) -> None:
    files = odd_files(SIDE, SIDE, count=FILES)
    damaged = {number for number, file in enumerate(files) if file.pixels is None and file.extension in READ_BY_TRAINING}
    whole = [OddFile("caption", "txt", b"words", None) if number in damaged else file for number, file in enumerate(files)]
    put_in_tars(tmp_path / "in", whole)
    outcome = wavegan("shards", "index", tmp_path / "in", "--workers", 1)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    images, left_out = images_by_class(tmp_path / "in"), listed(tmp_path / "in")
    assert 2 * len(images) + sum(int(entry["files"]) for entry in left_out) == 2 * FILES
    read = [file if file.extension in READ_BY_TRAINING else file._replace(pixels=None) for file in whole]
    check_pixels(read, images)
    assert wavegan("shards", "verify", tmp_path / "in").returncode == 0
    for number in damaged:  # `index` leaves no image out: it names the damaged one
        put_in_tars(tmp_path / f"{number}", [OddFile("good", "png", files[0].content, None), files[number]])
        with pytest.raises(WaveganError, match=r"\b0001\b"):
            index_shards(tmp_path / f"{number}")
