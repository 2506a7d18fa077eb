"""`wavegan shards index` on tars of other tools."""

import errno
import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import pywt
import webdataset
from PIL import Image

import wavegan_dist.data.indexing
from wavegan_dist.cli import main
from wavegan_dist.data import Index, index_shards, real_images, verify_shards, write_shards
from wavegan_dist.data.index import new_index
from wavegan_dist.data.left_out import HIDDEN, left_out_by_reason
from wavegan_dist.data.picture import BadPictureError
from wavegan_dist.errors import UsageError, WaveganError


def image(number: int, kind: str = "png", size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    """Encode an image of one color whose red value is `number`."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (number, 255 - number, 7)).convert(mode).save(buffer, {"jpg": "jpeg"}.get(kind, kind))
    return buffer.getvalue()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """40 images in 4 tars of webdataset's ShardWriter: labels, other members, three formats."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "train-%03d.tar"), maxcount=10, verbose=0) as writer:
        for number in range(40):
            kind = ("png", "jpg", "webp")[number % 3]
            writer.write({"__key__": f"im{number}", kind: image(number, kind), "cls": number % 5, "json": {"n": 1}, "txt": "a"})
    return folder


def contents(index: Index) -> list[bytes]:
    """The encoded images at the positions in members.npy."""
    rows = np.split(index.members, index.starts[1:-1])
    return [
        (index.folder / shard.file).read_bytes()[offset : offset + size]
        for shard, part in zip(index.shards, rows, strict=True)
        for offset, size, _ in part.tolist()
    ]


def test_tars_of_webdataset_become_a_set(foreign: Path) -> None:
    before = {path.name: path.read_bytes() for path in foreign.iterdir()}
    index = index_shards(foreign)
    assert {path.name: path.read_bytes() for path in foreign.glob("*.tar")} == before
    assert (index.size, index.count, index.encoding, [shard.images for shard in index.shards]) == (32, 40, "mixed", [10] * 4)
    assert contents(index) == [image(number, ("png", "jpg", "webp")[number % 3]) for number in range(40)]
    assert index.members[:, 2].tolist() == [number % 5 for number in range(40)]
    assert verify_shards(foreign) == []
    shown = next(real_images(index, 40, 0, 40))[:, 0, 0, 0].tolist()
    assert max(abs(a - b) for a, b in zip(sorted(shown), range(40), strict=True)) <= 3  # tolerance for lossy encodings


def test_workers_do_not_change_the_index(foreign: Path) -> None:
    one = index_shards(foreign)
    assert index_shards(foreign, workers=3).digest == one.digest


def test_plain_tar_with_long_names_becomes_a_set(tmp_path: Path) -> None:
    names = [f"{'long/' * 40}{number}.jpeg" for number in range(3)] + ["é.jpeg"]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(image(number, "jpg"))
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-cf", tmp_path / "out" / "a.tar", "--sort=name", "-C", tmp_path / "in", "."], check=True)
    index = index_shards(tmp_path / "out")
    assert (index.encoding, sorted(contents(index))) == ("jpg", sorted(image(number, "jpg") for number in range(4)))
    assert (index.members[:, 2] == -1).all()


def test_indexing_what_we_wrote_changes_nothing_but_the_names_of_classes(numbered: Index) -> None:
    assert index_shards(numbered.folder).digest == numbered.digest


def test_band_std_is_that_of_pywavelets_over_all_or_over_a_drawn_part(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_shards(pictures, tmp_path / "set", 32, patches=True, progress=False)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(content))) for content in contents(written)]).astype(float)

    def std(images: np.ndarray) -> list[float]:
        low, high = pywt.dwt2(images / 127.5 - 1, "haar", axes=(1, 2))
        return [float(band.std()) for band in (low, *high)]

    measured = [value for _, value in index_shards(tmp_path / "set").band_std]
    assert measured == pytest.approx(std(pixels), rel=1e-9)
    monkeypatch.setattr(wavegan_dist.data.indexing, "BAND_STD_IMAGES", 20)
    part = [value for _, value in index_shards(tmp_path / "set", workers=2).band_std]
    assert part != measured
    assert part == pytest.approx(measured, rel=0.2)


def one_tar(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    with webdataset.ShardWriter(str(folder / "%03d.tar"), maxcount=100, encoder=False, verbose=0) as writer:
        for name, content in files.items():
            key, _, extension = name.partition(".")
            writer.write({"__key__": key, extension: content})
    return folder


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"a.png": image(0, size=(40, 30))}, UsageError, r"a\.png in .* is 40x30 px, not square .* shards write .* --size N"),
        ({"a.png": image(0, size=(48, 48))}, UsageError, r"a\.png in .* is 48x48 px, not square with a side of 32, 64"),
        ({"a.png": image(0), "b.png": image(0, size=(64, 64))}, UsageError, r"b\.png in .* has another size .* --size N"),
        ({"a.png": image(0)[:20]}, BadPictureError, r"a\.png in .* cannot be read as an image"),
        ({"a.png": image(0)[:60]}, WaveganError, r"image a of .*000\.tar cannot be decoded \(.*\); repair or remove it"),
        ({"a.txt": b"hello"}, WaveganError, r"000\.tar holds no image, only 1 without an image .*\(\.txt\), such as a\.txt in"),
    ],
)
def test_images_that_cannot_be_trained_on_are_named(
    tmp_path: Path, files: dict[str, bytes], kind: type[WaveganError], message: str
) -> None:
    folder = one_tar(tmp_path / "set", files)
    with pytest.raises(WaveganError, match=message) as caught:
        index_shards(folder)
    assert type(caught.value) is kind
    assert [path.name for path in folder.iterdir()] == ["000.tar"]


def test_an_image_of_too_many_bytes_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = one_tar(tmp_path / "set", {"big.png": image(0)})
    monkeypatch.setattr("wavegan_dist.data.scan.MAX_IMAGE_BYTES", len(image(0)) - 1)
    with pytest.raises(
        BadPictureError, match=rf"big\.png in .*000\.tar .*{len(image(0))} bytes are more than {len(image(0)) - 1}"
    ):
        index_shards(folder)
    monkeypatch.setattr("wavegan_dist.data.scan.MAX_IMAGE_BYTES", len(image(0)))
    assert index_shards(folder).count == 1


def test_shards_of_different_sizes_are_named(foreign: Path) -> None:
    one_tar(foreign, {"a.png": image(0, size=(64, 64))})
    with pytest.raises(UsageError, match=r"images are 64 px in 000\.tar but 32 px in train-000\.tar"):
        index_shards(foreign, workers=2)


def test_a_cut_tar_is_not_indexed(foreign: Path) -> None:
    for length in (5000, 3 * 4096):
        os.truncate(foreign / "train-002.tar", length)
        with pytest.raises(WaveganError, match=r"train-002\.tar is (not a complete tar|damaged or cut short)"):
            index_shards(foreign, workers=2)


def test_a_folder_without_tars_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no \.tar; give the folder of the shards"):
        index_shards(tmp_path)


def test_the_command_line_indexes_verifies_and_draws(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "index", str(foreign), "--workers", "2"]) == 0
    assert main(["shards", "verify", str(foreign)]) == 0
    assert main(["shards", "info", str(foreign), "--sheet", str(foreign / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert f"{foreign}: 40 images of 32 px in 4 shards" in printed
    assert "labels: 5 classes" in printed
    assert Image.open(foreign / "sheet.png").size == (8 * 32, 5 * 32)
    assert main(["shards", "index", str(foreign / "nowhere")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("failing", ["save_left_out", "band_std"])
def test_a_failed_index_leaves_the_former_one_whole(foreign: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    index_shards(foreign)
    before = {path.name: path.read_bytes() for path in foreign.iterdir()}

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(wavegan_dist.data.indexing, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        index_shards(foreign, classes="3,1")
    after = {path.name: path.read_bytes() for path in foreign.iterdir()}
    changed = {"left_out.jsonl"} if failing == "band_std" else set()
    assert {name: content for name, content in after.items() if name not in changed} == {
        name: content for name, content in before.items() if name not in changed
    }


def test_an_index_that_is_killed_in_the_end_leaves_none_beside_the_members_of_another(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_shards(foreign)
    replace = Path.replace
    states = []

    def watch(path: Path, target: Path) -> Path:
        states.append((sorted(file.name for file in foreign.glob("[im]*")), Path(target).name))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    index_shards(foreign, classes="3,1")
    assert states[-2:] == [(["members.npy"], "members.npy"), (["members.npy"], "index.json")]
    assert verify_shards(foreign) == []


def test_what_killed_commands_have_left_is_removed_and_the_folder_of_a_running_one_stays(foreign: Path) -> None:
    left = foreign / ".index.0.tmp"
    left.mkdir()
    for name in ("lock", "members.npy"):
        (left / name).write_bytes(b"left")
    with new_index(foreign) as running:
        index_shards(foreign)
        assert not left.exists()
        assert running.exists()
        for name in ("members.npy", "index.json"):
            (foreign / name).rename(running / name)
    assert index_shards(foreign) == Index.load(foreign)
    assert not list(foreign.glob(".*"))
    assert not any(reason["reason"] == HIDDEN for reason in left_out_by_reason(foreign))
