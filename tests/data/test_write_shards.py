from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from PIL import Image

import wavegan_dist.data.write
from wavegan_dist.data import Index, real_images, verify_shards, write_shards
from wavegan_dist.data.codec import decode
from wavegan_dist.data.read import read_shard
from wavegan_dist.data.write import Encoding
from wavegan_dist.errors import UsageError, WaveganError


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def images(index: Index) -> np.ndarray:
    return torch.cat(list(real_images(index, index.count, 0, 64))).permute(0, 2, 3, 1).numpy()


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


@pytest.mark.parametrize("encoding", ["png", "jpg"])
def test_two_writes_are_byte_identical(pictures: Path, tmp_path: Path, encoding: Encoding) -> None:
    for name in "ab":
        write_shards(pictures, tmp_path / name, 32, patches=True, encoding=encoding, progress=False)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert Index.load(tmp_path / "a").digest == Index.load(tmp_path / "b").digest


def test_every_image_is_written_once_under_a_key_of_its_own(numbered: Index) -> None:
    names = [name for shard in numbered.shards for name, _ in read_shard(numbered, shard)]
    assert len(set(names)) == numbered.count == 96
    assert sorted(images(numbered)[:, 0, 0, 0]) == list(range(96))


def test_every_shard_is_a_sample_of_all_pictures(numbered: Index) -> None:
    assert [shard.images for shard in numbered.shards] == [12] * 8
    for shard in numbered.shards:
        members = [decode(png, 32, name)[0, 0, 0] for name, png in read_shard(numbered, shard)]
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


def test_patches_leave_out_what_is_flat(pictures: Path, tmp_path: Path) -> None:
    index = write_shards(pictures, tmp_path / "set", 32, patches=True, progress=False)
    assert index.count == 3 * 3 * 3  # of 5 columns at a stride of 16 px, two lie in the black
    assert images(index).any(axis=(1, 2, 3)).all()


def test_whole_pictures_are_cropped_at_the_centre_and_resized(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 32:96] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "in" / "wide.png")
    index = write_shards(tmp_path / "in", tmp_path / "set", 32, progress=False)
    assert (images(index)[:, 4:-4, 4:-4] == (200, 100, 50)).all()  # Lanczos looks beyond the border


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: what is stored on top is shown on the right
    Image.fromarray(pixels).save(tmp_path / "in" / "turned.png", exif=exif)
    image = images(write_shards(tmp_path / "in", tmp_path / "set", 32, progress=False))[0]
    assert (image[:, 16:] == 255).all()
    assert (image[:, :16] == 0).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 40), "white").convert(mode).save(tmp_path / "in" / "white.tif")
    assert (images(write_shards(tmp_path / "in", tmp_path / "set", 32, progress=False)) == 255).all()


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
        (text, 32, False, UsageError, "not a folder"),
        (tmp_path / "nowhere", 32, False, UsageError, "not a folder"),
        (pictures, 48, False, UsageError, "48 is not a power of two from 32 to 256"),
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


def test_a_full_disk_leaves_nothing_behind(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wavegan_dist.data.write, "_write_tar", full)
    with pytest.raises(OSError, match="No space left"):
        write_shards(pictures, tmp_path / "set", 32, progress=False)
    assert list(tmp_path.iterdir()) == []


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
