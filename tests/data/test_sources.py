"""Sources of `wavegan shards write`, unusual pictures and unsafe archives."""

import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from wavegan_dist.data import Index, real_images, write_shards
from wavegan_dist.data.sources import list_pictures
from wavegan_dist.data.tars import write_tar
from wavegan_dist.errors import UsageError, WaveganError


def images(index: Index) -> np.ndarray:
    """All images of a dataset: uint8 [N, H, W, 3]."""
    return next(real_images(index, index.count, 0, index.count)).permute(0, 2, 3, 1).numpy()


def written(folder: Path, save: Callable[[Path], object], name: str = "picture.png", **settings: Any) -> np.ndarray:
    """Write a dataset from one picture and return its only image, uint8 [32, 32, 3]."""
    (folder / "in").mkdir()
    save(folder / "in" / name)
    return images(write_shards(folder / "in", folder / "set", 32, progress=False, **settings))[0]


def png(color: str = "red", side: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, "PNG")
    return buffer.getvalue()


def colored(index: Index) -> dict[tuple[int, ...], int]:
    """The label of each color, read from the positions in members.npy."""
    labels: dict[tuple[int, ...], int] = {}
    for number, shard in enumerate(index.shards):
        for offset, size, label in index.members[index.starts[number] : index.starts[number + 1]].tolist():
            content = (index.folder / shard.file).read_bytes()[offset : offset + size]
            red, green, blue = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[0, 0].tolist()
            labels[red, green, blue] = label
    return labels


def raw_png(pixels: np.ndarray, color_type: int) -> bytes:
    """Encode a PNG with 16 bits per channel by hand."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise: the stored top is displayed on the right
    image = written(tmp_path, lambda path: Image.fromarray(pixels).save(path, exif=exif))
    assert (image[:, 16:] == 255).all()
    assert (image[:, :16] == 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LAB"])
def test_other_color_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    def save(path: Path) -> None:
        white = Image.new("RGB", (40, 40), "white")
        (Image.new("LAB", (40, 40), (255, 128, 128)) if mode == "LAB" else white.convert(mode)).save(path)

    assert (written(tmp_path, save, "white.tif") >= 254).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    def save(path: Path) -> None:
        if mode == "P":
            Image.new("RGB", (32, 32)).convert("P", palette=Image.Palette.ADAPTIVE).save(path, transparency=0)
        else:
            Image.new("RGBA", (32, 32), (0, 0, 0, 51)).convert(mode).save(path)

    assert (written(tmp_path, save) == (255 if mode == "P" else 204)).all()


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3)])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, color_type: int, channels: int) -> None:
    ramp = np.linspace(0, 65535, 32 * 32 * channels).astype(np.uint16).reshape(32, 32, channels)
    image = written(tmp_path, lambda path: path.write_bytes(raw_png(ramp, color_type)))
    assert abs(image.astype(float) - ramp / 257).max() <= 1


def test_pixels_without_a_known_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WaveganError, match=r"depth\.tif cannot be read as an image \(.*range.*\); repair or remove it"):
        written(tmp_path, lambda path: Image.new("F", (32, 32)).save(path), "depth.tif")


@pytest.mark.parametrize("times", [1.2, 3])
def test_a_decompression_bomb_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(64 * 64 / times))
    with pytest.raises(WaveganError, match=r"bomb\.png cannot be read as an image \(Image size \(4096 pixels\) exceeds limit"):
        written(tmp_path, lambda path: path.write_bytes(png(side=64)), "bomb.png")


@pytest.mark.parametrize("source", ["pictures", "in.zip", "tars"])
def test_a_picture_of_too_many_bytes_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "big.png").write_bytes(png())
    zipped(tmp_path / "in.zip", {"big.png": "red"})
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "0.tar", [("big.png", png())])
    monkeypatch.setattr("wavegan_dist.data.sources.MAX_FILE_BYTES", len(png()) - 1)
    with pytest.raises(WaveganError, match=rf"big\.png.* cannot be read as an image \({len(png())} bytes.*\)"):
        write_shards(tmp_path / source, tmp_path / "set", 32, progress=False)
    monkeypatch.setattr("wavegan_dist.data.sources.MAX_FILE_BYTES", len(png()))
    assert write_shards(tmp_path / source, tmp_path / "set", 32, progress=False).count == 1


def test_a_folder_leaves_hidden_files_out(tmp_path: Path) -> None:
    for name in ("a.png", "deeper/b.png", ".hidden.png", ".cache/c.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "in" / name).write_bytes(png())
    assert write_shards(tmp_path / "in", tmp_path / "set", 32, progress=False).count == 2


def zipped(path: Path, names: dict[str, str], **entry: int) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, color in names.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = entry.get("mode", 0o644 | stat.S_IFREG) << 16
            archive.writestr(info, png(color))
    return path


CLASSES = {"top/cat/1.png": "red", "top/cat/deeper/2.png": "blue", "top/ant/3.png": "lime"}
LABELS = {(255, 0, 0): 1, (0, 0, 255): 1, (0, 255, 0): 0}


def test_a_zip_gives_what_its_folder_gives(tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {**CLASSES, "__MACOSX/top/cat/._1.png": "red"})
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "out")
    for workers in (1, 2):
        one = write_shards(path, tmp_path / f"zip{workers}", 32, labels=True, workers=workers, progress=False)
        assert colored(one) == LABELS
    (tmp_path / "out" / "__MACOSX" / "top" / "cat" / "._1.png").unlink()
    other = write_shards(tmp_path / "out", tmp_path / "set", 32, labels=True, progress=False)
    assert one.digest == other.digest
    assert other.classes == ["ant", "cat"]


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("../a.png", 0o644, r"\.\./a\.png in .*in\.zip leads out of the archive"),
        ("/a.png", 0o644, r"/a\.png in .*in\.zip leads out of the archive"),
        ("..\\a.png", 0o644, r"leads out of the archive"),
        ("a.png", stat.S_IFLNK | 0o777, r"a\.png in .*in\.zip is a link"),
        ("a.png", stat.S_IFCHR | 0o644, r"a\.png in .*in\.zip is a link, a device"),
    ],
)
def test_unsafe_members_of_a_zip_are_refused_by_name(tmp_path: Path, name: str, mode: int, message: str) -> None:
    with pytest.raises(WaveganError, match=message):
        write_shards(zipped(tmp_path / "in.zip", {name: "red"}, mode=mode), tmp_path / "set", 32, progress=False)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_whose_files_could_grow_without_a_limit_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w", method) as archive:
        archive.writestr("a.png", bytes(1000))
    with pytest.raises(WaveganError, match=r"a\.png in .*in\.zip is not compressed by deflate; unpack"):
        write_shards(tmp_path / "in.zip", tmp_path / "set", 32, progress=False)


def test_a_damaged_picture_in_a_zip_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {"a.png": "red", "b.png": "blue"})
    content = path.read_bytes()
    path.write_bytes(content.replace(png("blue")[40:50], b"0123456789", 1))
    with pytest.raises(WaveganError, match=r"[ab]\.png in .*in\.zip cannot be read as an image \(Bad CRC-32"):
        write_shards(path, tmp_path / "set", 32, progress=False)


def test_a_file_of_a_zip_is_not_decompressed_beyond_the_size_in_the_directory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png() + bytes(2**25))
    content = (tmp_path / "in.zip").read_bytes()
    (tmp_path / "in.zip").write_bytes(content.replace(struct.pack("<I", len(png()) + 2**25), struct.pack("<I", len(png()))))
    (picture,) = list_pictures(str(tmp_path / "in.zip"), 32, cut_patches=False, labels=False).pictures
    tracemalloc.start()
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        picture.load()
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_tars_of_mixed_sizes_are_made_one_size_with_their_labels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "in" / "%04d.tar"), maxcount=3, verbose=0) as writer:
        for number in range(5):
            color = ("red", "lime", "blue", "white", "black")[number]
            writer.write({"__key__": f"k{number}", "png": png(color, 32 + number), "cls": number % 2, "json": {"a": 1}})
    index = write_shards(tmp_path / "in", tmp_path / "set", 32, labels=True, progress=False)
    assert colored(index) == {(255, 0, 0): 0, (0, 255, 0): 1, (0, 0, 255): 0, (255, 255, 255): 1, (0, 0, 0): 0}
    again = write_shards(tmp_path / "set", tmp_path / "again", 32, labels=True, progress=False)
    assert colored(again) == colored(index)
    read = webdataset.WebDataset([str(index.folder / shard.file) for shard in index.shards], shardshuffle=False)
    assert [int(sample["cls"]) for sample in read] == index.members[:, 2].tolist()


def test_unsafe_members_of_a_tar_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for kind, name in ((tarfile.SYMTYPE, "a.png"), (tarfile.CHRTYPE, "null"), (tarfile.REGTYPE, "../b.png")):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        with tarfile.open(tmp_path / "in" / "0.tar", "w") as tar:
            tar.addfile(member)
        with pytest.raises(WaveganError, match=rf"{name} in .*0\.tar (is a link, a device|leads out)"):
            write_shards(tmp_path / "in", tmp_path / "set", 32, progress=False)


def test_a_torchvision_dataset_on_the_disk_is_written_with_its_targets(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(5 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(5, 28, 28)
    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 5, 28, 28) + pixels.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 5) + bytes([4, 3, 2, 1, 0]))
    source = f"torchvision:MNIST:{tmp_path / 'data'}"
    index = write_shards(source, tmp_path / "set", 32, labels=True, workers=2, progress=False)
    assert sorted(index.members[:, 2].tolist()) == [0, 1, 2, 3, 4]
    assert index.classes[4] == "4 - four"
    assert (write_shards(source, tmp_path / "plain", 32, progress=False).members[:, 2] == -1).all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision:MNIST:nowhere", "torchvision cannot open MNIST in nowhere .*downloads nothing"),
        ("torchvision:CIFER10:data", "'CIFER10' is not a torchvision dataset"),
        ("torchvision:MNIST", "write torchvision:CIFAR10:FOLDER"),
        ("embedded", "the embedded dataset has no labels; omit --labels"),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        write_shards(source, tmp_path / "set", 32, labels=True, progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["cat/a.png", "b.png"], ["cat/a.png", "cat/b.png"]])
def test_labels_need_a_folder_a_class(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "in" / name).write_bytes(png())
    with pytest.raises(UsageError, match="does not have one folder per class and at least two classes"):
        write_shards(tmp_path / "in", tmp_path / "set", 32, labels=True, progress=False)
