import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import pywt
import torch
import webdataset
from PIL import Image

import wavegan_dist.data.write
from tests.helpers import PATIENCE, Command, refused, running, wait_for
from wavegan_dist.data import Index, index_shards, real_images, verify_shards, write_shards
from wavegan_dist.data.bands import BandStdAccumulator
from wavegan_dist.data.tars import key_at
from wavegan_dist.data.write import Encoding
from wavegan_dist.errors import UsageError, WaveganError


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def samples(index: Index) -> Iterator[dict[str, Any]]:
    """Read the samples with WebDataset."""
    urls = [str(index.folder / shard.file) for shard in index.shards]
    return iter(webdataset.WebDataset(urls, shardshuffle=False))


def images(index: Index) -> np.ndarray:
    return torch.cat(list(real_images(index, index.count, 0, 64))).permute(0, 2, 3, 1).numpy()


def images_in_order(index: Index) -> list[np.ndarray]:
    return [np.asarray(Image.open(BytesIO(sample["png"]))) for sample in samples(index)]


@pytest.mark.slow
def test_embedded_set_gives_ten_thousand_patches_in_eight_shards(tmp_path: Path) -> None:
    index = write_shards("embedded", tmp_path / "set", 32, progress=False)
    assert index.count >= 10_000
    assert len(index.shards) >= 8
    assert verify_shards(tmp_path / "set") == []
    sample = torch.cat(list(real_images(index, 1000, 0, 100)))
    assert (sample.float().mean(1).std(dim=(1, 2), correction=0) > 11.9).all()


def test_embedded_set_without_its_packages_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegan_dist.data.embedded.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'wavegan-dist\[embedded\]'"):
        write_shards("embedded", tmp_path / "set", 32)


@pytest.mark.parametrize("encoding", ["png", "jpg", "webp"])
def test_two_writes_are_byte_identical_whatever_the_workers(pictures: Path, tmp_path: Path, encoding: Encoding) -> None:
    for name, workers in ("a", 1), ("b", 3):
        write_shards(pictures, tmp_path / name, 32, patches=True, encoding=encoding, workers=workers, progress=False)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert Index.load(tmp_path / "a").digest == Index.load(tmp_path / "b").digest


def test_every_image_is_written_once_under_a_key_of_its_own(numbered: Index) -> None:
    assert len({sample["__key__"] for sample in samples(numbered)}) == numbered.count == 96
    assert sorted(images(numbered)[:, 0, 0, 0]) == list(range(96))


def test_members_say_where_each_image_lies(numbered: Index) -> None:
    files = [numbered.folder / shard.file for shard in numbered.shards for _ in range(shard.images)]
    assert numbered.starts.tolist() == list(range(0, 97, 12))
    for path, (offset, size, label), sample in zip(files, numbered.members.tolist(), samples(numbered), strict=True):
        assert path.read_bytes()[offset : offset + size] == sample["png"]
        assert key_at(path, offset) == sample["__key__"]
        assert label == -1


def test_every_shard_is_a_sample_of_all_pictures(numbered: Index) -> None:
    assert [shard.images for shard in numbered.shards] == [12] * 8
    shown = np.array([image[0, 0, 0] for image in images_in_order(numbered)]).reshape(8, 12)
    for members in shown.tolist():
        assert members != sorted(members)
        assert max(members) - min(members) > 40


def test_shards_are_as_small_as_asked_for(numbered_pictures: Path, tmp_path: Path) -> None:
    index = write_shards(numbered_pictures, tmp_path / "set", 32, shard_images=10, progress=False)
    assert len(index.shards) == 10
    assert max(shard.images for shard in index.shards) <= 10


def test_band_std_is_that_of_pywavelets(pictures: Path, tmp_path: Path) -> None:
    index = write_shards(pictures, tmp_path / "set", 32, patches=True, progress=False)
    scaled = images(index).astype(np.float64) / 127.5 - 1
    low, high = pywt.dwt2(scaled, "haar", axes=(1, 2))
    wanted = [band.std() for band in (low, *high)]
    assert [value for _, value in index.band_std] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("size", "levels"), [(32, 2), (64, 3)])
def test_deeper_band_std_is_that_of_pywavelets_and_exactly_the_same_after_indexing(
    pictures: Path, tmp_path: Path, size: int, levels: int
) -> None:
    index = write_shards(pictures, tmp_path / "set", size, patches=True, progress=False)
    scaled = images(index).astype(np.float64) / 127.5 - 1
    measured = index.band_std_by_level()
    assert len(measured) == levels
    for level, std in enumerate(measured, start=1):
        low, high, *_ = pywt.wavedec2(scaled, "haar", level=level, axes=(1, 2))
        assert [value for _, value in std] == pytest.approx([band.std() for band in (low, *high)], rel=1e-12)
    assert index_shards(tmp_path / "set", workers=2).digest == index.digest


def test_sums_over_bands_are_exact_at_every_level_of_the_largest_size() -> None:
    draws = np.random.default_rng(0)
    pixels = draws.choice(np.array([0, 1, 254, 255], dtype=np.uint8), (1024, 1024, 3))
    bands = BandStdAccumulator(1024)
    bands.add(pixels)
    low = pixels.astype(object)  # Python integers: the low band times 2**level
    for level in range(7):
        a, b, c, d = low[::2, ::2], low[::2, 1::2], low[1::2, ::2], low[1::2, 1::2]
        low = a + b + c + d
        for row, band in enumerate((low, a + b - c - d, a - b + c - d, a - b - c + d)):
            assert bands.sums()[level, row].tolist() == [band.size, band.sum(), (band**2).sum()]


def test_an_index_of_an_older_version_has_one_level_and_keeps_its_digest(pictures: Path, tmp_path: Path) -> None:
    write_shards(pictures, tmp_path / "set", 32, patches=True, progress=False)
    path = tmp_path / "set" / "index.json"
    content = json.loads(path.read_text())
    del content["deeper_band_std"]
    path.write_text(json.dumps(content))
    index = Index.load(path)
    assert index.band_std_by_level() == [index.band_std]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert index.digest == hashlib.sha256(canonical.encode()).hexdigest()


def test_patches_leave_out_what_is_flat(pictures: Path, tmp_path: Path) -> None:
    index = write_shards(pictures, tmp_path / "set", 32, patches=True, progress=False)
    assert index.count == 3 * 3 * 3  # two of the 5 columns at a stride of 16 px are black
    assert images(index).any(axis=(1, 2, 3)).all()


def test_whole_pictures_are_cropped_at_the_center_and_resized(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 32:96] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "in" / "wide.png")
    index = write_shards(tmp_path / "in", tmp_path / "set", 32, progress=False)
    assert (images(index)[:, 4:-4, 4:-4] == (200, 100, 50)).all()  # the Lanczos filter blurs the border


def test_bad_input_leaves_nothing_behind(pictures: Path, tmp_path: Path) -> None:
    empty, broken, text = tmp_path / "empty", tmp_path / "broken", tmp_path / "text.png"
    empty.mkdir()
    broken.mkdir()
    text.write_text("not an image")
    whole = (pictures / "one.png").read_bytes()
    (broken / "cut.png").write_bytes(whole[: len(whole) // 2])
    work = tmp_path / "work"
    work.mkdir()
    cases: list[tuple[Path, int, bool, type[WaveganError], str]] = [
        (empty, 32, False, UsageError, "no pictures"),
        (text, 32, False, UsageError, "text.png is a single file, and not a zip; give a folder"),
        (tmp_path / "nowhere", 32, False, UsageError, "nowhere does not exist; give a folder, a zip"),
        (pictures, 48, False, UsageError, "48 is not a power of two from 32 to 1024"),
        (pictures, 16, False, UsageError, "the nearest is 32"),
        (pictures, 128, True, UsageError, "gives no image"),
        (broken, 32, False, WaveganError, "cut.png cannot be read as an image"),
    ]
    for source, size, patches, kind, message in cases:
        with pytest.raises(WaveganError, match=message) as caught:
            write_shards(source, work / "set", size, patches=patches, progress=False)
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
        assert list(work.iterdir()) == []


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.fixture
def unfinished(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """OUT of a write that encoded all chunks and failed on its first shard because the disk was full."""
    with monkeypatch.context() as patch:
        patch.setattr(wavegan_dist.data.write, "_write_shard", full_disk)
        with pytest.raises(OSError, match="No space left"):
            write_shards(pictures, tmp_path / "set", 32, progress=False)
    return tmp_path / "set"


def test_after_a_full_disk_the_same_command_goes_on(
    pictures: Path, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [path.name for path in tmp_path.iterdir()] == [".set.partial"]
    assert not (tmp_path / ".set.partial" / "set").exists()
    monkeypatch.setattr(wavegan_dist.data.write, "encode_chunk", full_disk)  # nothing is left to encode
    write_shards(pictures, unfinished, 32, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert verify_shards(unfinished) == []


def test_another_command_does_not_take_over_an_unfinished_write(pictures: Path, unfinished: Path) -> None:
    with pytest.raises(UsageError, match=r"\.set\.partial holds an unfinished write with size 32, not 64;"):
        write_shards(pictures, unfinished, 64, progress=False)
    assert (unfinished.parent / ".set.partial" / "plan.json").exists()


def test_a_picture_changed_in_between_is_read_again(pictures: Path, unfinished: Path, tmp_path: Path) -> None:
    picture = pictures / "one.png"
    before = picture.read_bytes()
    try:
        Image.new("RGB", (50, 50), "red").save(picture)
        resumed = write_shards(pictures, unfinished, 32, progress=False)
        fresh = write_shards(pictures, tmp_path / "fresh", 32, progress=False)
    finally:
        picture.write_bytes(before)
    assert resumed.digest == fresh.digest


def writing(source: Path, out: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """Write shards in a new process, which is killed with its workers at the end of the block."""
    settings = ("--size", 64, "--patches", "--workers", 2)
    return running(sys.executable, "-m", "wavegan_dist", "shards", "write", source, out, *settings)


def long_work(folder: Path) -> Path:
    """Pictures that take seconds to encode."""
    folder.mkdir()
    for number in range(24):
        noise = np.random.default_rng(number).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.bmp")
    return folder


def test_of_two_writes_at_once_the_second_is_refused_and_the_first_ends_well(tmp_path: Path) -> None:
    source, out = long_work(tmp_path / "in"), tmp_path / "set"
    with writing(source, out) as first:
        wait_for((tmp_path / ".set.partial" / "plan.json").exists, first)
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(
            UsageError, match=r"another `shards write` is writing to .*/set; wait until it ends or choose another folder"
        ):
            write_shards(source, out, 64, patches=True, progress=False)
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, errors
    assert verify_shards(out) == []


def test_a_killed_write_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    long_work(tmp_path / "in")
    work = tmp_path / ".set.partial"
    with writing(tmp_path / "in", tmp_path / "set") as process:
        wait_for(lambda: len(list(work.glob("*.npz"))) >= 3, process)
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == []  # workers exit with their parent
    assert not (tmp_path / "set").exists()
    done = {path: path.stat().st_mtime_ns for path in work.glob("*.npz")}
    assert 3 <= len(done) < 24
    with writing(tmp_path / "in", tmp_path / "set") as process:
        while process.poll() is None:
            for path in done:
                with suppress(FileNotFoundError):
                    assert path.stat().st_mtime_ns == done[path], "a finished piece was made again"
            time.sleep(0.005)
        assert process.returncode == 0, process.communicate()[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "set"]
    write_shards(tmp_path / "in", tmp_path / "straight", 64, patches=True, progress=False)
    assert content(tmp_path / "straight") == content(tmp_path / "set")


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.npz"])
def test_the_name_of_a_file_does_not_become_a_folder(pictures: Path, tmp_path: Path, wavegan: Command, name: str) -> None:
    refused(wavegan("shards", "write", pictures, tmp_path / name, "--size", 32), f"{name} is the name of a file; leave out .")
    assert not list(tmp_path.iterdir())


def test_an_out_folder_that_holds_something_is_refused_and_kept(pictures: Path, tmp_path: Path) -> None:
    write_shards(pictures, tmp_path / "set", 32, progress=False)
    before = content(tmp_path / "set")
    with pytest.raises(UsageError, match="already holds shards"):
        write_shards(pictures, tmp_path / "set", 64)
    assert content(tmp_path / "set") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="already holds files"):
        write_shards(pictures, tmp_path / "mine", 32)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_link_to_an_empty_folder_is_filled(numbered_pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "disk" / "empty").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/empty")
    write_shards(numbered_pictures, tmp_path / "link", 32, progress=False)
    assert (tmp_path / "link").is_symlink()
    assert Index.load(tmp_path / "disk" / "empty").count == 96
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["disk", "empty", "link"]


@pytest.mark.parametrize("name", ["mounted", "link"])
def test_a_folder_that_cannot_be_replaced_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "link").symlink_to("mounted")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_mount", lambda path: path == tmp_path / "mounted")
        with pytest.raises(UsageError, match=r"is a mount point or the working folder, .*; name a new folder in it"):
            write_shards("nowhere", tmp_path / name, 32)
    monkeypatch.chdir(tmp_path / "mounted")
    with pytest.raises(UsageError, match="is a mount point or the working folder"):
        write_shards("nowhere", tmp_path / name, 32)
