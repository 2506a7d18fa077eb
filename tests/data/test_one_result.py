"""A picture gives the same pixels, whether `shards write` or training decodes it, and with any metadata."""

import io
import json
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.odd_pictures import (
    DEPTHS,
    SIZE,
    UPRIGHT,
    Pixels,
    blocks_jpeg,
    chunk,
    jpeg_metadata,
    photograph,
    png,
    png_metadata,
    save,
    segment,
    tiff,
    tiff_picture,
    xmp,
)
from tests.helpers import Command, refused
from wavegan_dist.data import Index
from wavegan_dist.data.codec import DecodeError, decode
from wavegan_dist.data.read import Reader

Case = tuple[bytes, Pixels]  # the file, and the pixels that it must give
JPEG_PLACES = {"first": b"\xff\xdb", "behind the tables": b"\xff\xc0", "before the scan": b"\xff\xda"}


def pillow(content: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def colors() -> dict[str, Case]:
    return {
        f"png {color} {depth} {transparent}": png(depth, color, transparent=transparent)
        for color, depths in DEPTHS.items()
        for depth in depths
        for transparent in ((False, True) if color < 4 else (False,))
    }


def turned_pngs() -> dict[str, Case]:
    cases = {}
    for number, (color, depths) in enumerate(DEPTHS.items()):
        for orientation in UPRIGHT:
            for place in ("before", "after"):
                metadata = list(png_metadata(orientation).items())
                name, chunks = metadata[(number + orientation) % len(metadata)]
                content, stored = png(depths[-1], color, transparent=color < 4, **{place: chunks})
                cases[f"png {color} {orientation} {place} {name}"] = content, UPRIGHT[orientation](stored)
    for name, chunks in png_metadata(6).items():
        for place in ("before", "after"):
            content, stored = png(8, 2, transparent=False, **{place: chunks})
            cases[f"png {place} {name}"] = content, UPRIGHT[6](stored)
    return cases


def turned_jpegs() -> dict[str, Case]:
    plain = save(Image.fromarray(photograph()), "JPEG", quality=95)
    gray = save(Image.fromarray(photograph()).convert("L"), "JPEG", quality=95)
    cmyk = save(Image.fromarray(photograph()).convert("CMYK"), "JPEG", quality=95)
    bare = cmyk.replace(segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"), b"")
    assert len(bare) == len(cmyk) - 16
    cases = {}
    for orientation in UPRIGHT:
        for name, segments in jpeg_metadata(orientation).items():
            for place, marker in JPEG_PLACES.items():
                where = plain.index(marker)
                content = plain[:where] + segments + plain[where:]
                cases[f"jpg {orientation} {place} {name}"] = content, UPRIGHT[orientation](pillow(plain))
        for color, stored in {"gray": gray, "cmyk": cmyk, "bare cmyk": bare}.items():
            content = stored[:2] + jpeg_metadata(orientation)["Exif"] + stored[2:]
            cases[f"{color} jpg {orientation}"] = content, UPRIGHT[orientation](pillow(stored))
    return cases


def turned_webps() -> dict[str, Case]:
    image = Image.fromarray(photograph())
    return {
        f"webp {orientation}": (
            save(image, "WEBP", lossless=True, exif=b"Exif\0\0" + tiff(orientation)),
            UPRIGHT[orientation](photograph()),
        )
        for orientation in UPRIGHT
    }


def broken_pngs() -> dict[str, Case]:
    huge = zlib.compress(bytes(3 << 20))
    chunks = {
        "broken exif": chunk(b"eXIf", b"\x00\x08\x00\x02\x01\x12\x00\x03\x00\x00"),
        "orientation 9": chunk(b"eXIf", tiff(9)),
        "orientation of a wrong checksum": chunk(b"eXIf", tiff(6), checksum=1),
        "huge profile": chunk(b"iCCP", b"p\0\0" + huge),
        "huge text": chunk(b"zTXt", b"Comment\0\0" + huge),
        "huge international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + huge),
        "many texts": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 20))) * 70,
        "unknown compression": chunk(b"zTXt", b"Comment\0\7abc"),
        "broken raw profile": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  4\nxyz\n"),
        "short gamma": chunk(b"gAMA", b"\0"),
        "short chromaticities": chunk(b"cHRM", b"\0"),
        "empty resolution": chunk(b"pHYs", b""),
        "empty rendering intent": chunk(b"sRGB", b""),
        "text of a wrong checksum": chunk(b"tEXt", b"Comment\0abc", checksum=1),
        "short animation": chunk(b"acTL", b""),
        "frame without animation": chunk(b"fcTL", b""),
    }
    return {
        f"png {color} {name}": png(8, color, transparent=False, before=broken)
        for color in (2, 6)
        for name, broken in chunks.items()
    }


def broken_jpegs() -> dict[str, Case]:
    plain = save(Image.fromarray(photograph()), "JPEG", quality=95)
    far = b"\x0f\x01\x02\0" + (2_000_000_000).to_bytes(4, "little") + (99_999).to_bytes(4, "little")
    segments = {
        "garbage exif": (segment(0xE1, b"Exif\0\0" + b"hello, world" * 9), 1),
        "empty exif": (segment(0xE1, b"Exif\0\0"), 1),
        "exif with a tag that points nowhere": (segment(0xE1, b"Exif\0\0" + tiff(6, tags=far)), 6),
        "orientation 0": (segment(0xE1, b"Exif\0\0" + tiff(0)), 1),
        "orientation as text": (segment(0xE1, b"Exif\0\0" + tiff(6, kind=2)), 1),
        "short jfif": (segment(0xE0, b"JFIF\0"), 1),
        "short adobe": (segment(0xEE, b"Adobe"), 1),
        "broken xmp": (segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x \xa8 tiff:Orientation="99'), 1),
        "broken photoshop": (segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"), 1),
    }
    return {
        f"jpg {name}": (plain[:2] + broken + plain[2:], UPRIGHT[orientation](pillow(plain)))
        for name, (broken, orientation) in segments.items()
    }


def broken_webps() -> dict[str, Case]:
    exifs = {"garbage exif": b"Exif\0\0hello, world", "orientation 9": b"Exif\0\0" + tiff(9)}
    image = Image.fromarray(photograph())
    return {f"webp {name}": (save(image, "WEBP", lossless=True, exif=exif), photograph()) for name, exif in exifs.items()}


# Sampling factors of the channels that simplejpeg decodes, and others that it refuses.
SAMPLINGS = {
    "4:1:1": (0x41, 0x11, 0x11),
    "4:4:1": (0x14, 0x11, 0x11),
    "4:1:0": (0x42, 0x11, 0x11),
    "4:2:2 with larger factors": (0x22, 0x12, 0x12),
    "4:4:0 with larger factors": (0x22, 0x21, 0x21),
    "finer chroma": (0x11, 0x22, 0x22),
    "different chroma": (0x22, 0x21, 0x12),
    "one finer chroma": (0x22, 0x11, 0x22),
    "four channels": (0x22, 0x11, 0x11, 0x22),
}


def sampled_jpegs() -> dict[str, Case]:
    contents = {f"jpg {name}": blocks_jpeg(*sampling) for name, sampling in SAMPLINGS.items()}
    return {name: (content, pillow(content)) for name, content in contents.items()}


SETS = {
    "colors": colors,
    "sampled jpegs": sampled_jpegs,
    "turned pngs": turned_pngs,
    "turned jpegs": turned_jpegs,
    "turned webps": turned_webps,
    "broken pngs": broken_pngs,
    "broken jpegs": broken_jpegs,
    "broken webps": broken_webps,
}


def images_of(folder: Path) -> dict[int, Pixels]:
    """Decode the images of a dataset as training does, by label."""
    index = Index.load(folder)
    reader = Reader(index)
    locations = reader.locations(np.arange(index.count))
    return {
        int(label): decode(reader.read(location), SIZE) for label, location in zip(index.members[:, 2], locations, strict=True)
    }


def write_pictures(folder: Path, contents: list[bytes], kind: str) -> None:
    for number, content in enumerate(contents):
        (folder / f"{number:04d}").mkdir(parents=True)
        (folder / f"{number:04d}" / f"picture.{kind}").write_bytes(content)


def write_tar(folder: Path, contents: list[bytes], kind: str) -> None:
    folder.mkdir()
    with tarfile.open(folder / "theirs.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, content in enumerate(contents):
            for name, data in ((f"{number:04d}.cls", str(number).encode()), (f"{number:04d}.{kind}", content)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("name", SETS)
def test_write_and_training_give_the_pixels_that_the_file_declares(tmp_path: Path, wavegan: Command, name: str) -> None:
    cases = SETS[name]()
    contents, kind = [content for content, _ in cases.values()], "png" if "png" in next(iter(cases)) else "jpg"
    write_pictures(tmp_path / "pictures", contents, kind)
    write_tar(tmp_path / "theirs", contents, kind)
    ours = wavegan("shards", "write", tmp_path / "pictures", tmp_path / "ours", "--size", SIZE, "--labels")
    theirs = wavegan("shards", "index", tmp_path / "theirs")
    assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr + theirs.stderr
    written, indexed = images_of(tmp_path / "ours"), images_of(tmp_path / "theirs")
    assert len(written) == len(indexed) == len(cases)
    for number, (case, (_, wanted)) in enumerate(cases.items()):
        assert np.array_equal(written[number], indexed[number]), case
        assert np.abs(written[number].astype(int) - wanted).max() <= 1, case  # Pillow rounds when it composites


@pytest.mark.parametrize("kind", ["zTXt", "iTXt"])
def test_a_compressed_text_is_not_read_beyond_the_limit(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    head = b"\0\0" if kind == "zTXt" else b"\0\1\0\0\0"
    text = b" " * 1000 + xmp(6)
    content, stored = png(
        8, 2, transparent=False, before=chunk(kind.encode(), b"XML:com.adobe.xmp" + head + zlib.compress(text))
    )
    for largest, orientation in ((len(text), 6), (1000, 1)):
        monkeypatch.setattr("wavegan_dist.data.metadata._MAX_TEXT", largest)
        assert np.array_equal(decode(content, SIZE), UPRIGHT[orientation](stored))


@pytest.mark.parametrize("color", [0, 2, 3])
def test_damaged_transparency_is_an_error_in_both(tmp_path: Path, wavegan: Command, color: int) -> None:
    content, _ = png(8, color, transparent=True)
    where = content.index(b"tRNS") + 4
    broken = content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :]
    write_pictures(tmp_path / "pictures", [broken, broken], "png")
    write_tar(tmp_path / "theirs", [broken], "png")
    ours = wavegan("shards", "write", tmp_path / "pictures", tmp_path / "ours", "--size", SIZE)
    theirs = wavegan("shards", "index", tmp_path / "theirs")
    assert ours.returncode == theirs.returncode == 1
    assert "tRNS" in ours.stderr
    assert "tRNS" in theirs.stderr


def test_a_damaged_jpeg_is_refused_by_both_or_gives_the_same_pixels(tmp_path: Path, wavegan: Command) -> None:
    draws, image, contents = np.random.default_rng(0), Image.fromarray(photograph()), []
    for settings in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        content = save(image, "JPEG", quality=95, **settings)
        scan = content.index(b"\xff\xda") + 14
        for place in draws.choice(np.arange(scan, len(content) - 2), 20, replace=False).tolist():
            contents.append(content[:place] + bytes([content[place] ^ 1 << int(draws.integers(8))]) + content[place + 1 :])
    write_pictures(tmp_path / "pictures", [*contents, save(image, "JPEG"), save(image, "JPEG")], "jpg")
    write = ("shards", "write", tmp_path / "pictures", tmp_path / "ours", "--size", SIZE, "--labels", "--max-bad-fraction", 1)
    outcome = wavegan(*write)
    assert outcome.returncode == 0, outcome.stderr
    bad = [json.loads(line) for line in (tmp_path / "ours" / "left_out.jsonl").read_text().splitlines()]
    refused_by_write = {int(Path(entry["file"]).parent.name) for entry in bad}
    names, taken = Index.load(tmp_path / "ours").classes, dict[int, Pixels]()
    for number, content in enumerate(contents):
        with suppress(DecodeError):
            taken[number] = decode(content, SIZE)
    assert 5 < len(refused_by_write) < len(contents)
    assert refused_by_write == set(range(len(contents))) - taken.keys()
    written = {int(names[label]): pixels for label, pixels in images_of(tmp_path / "ours").items()}
    assert all(np.array_equal(written[number], pixels) for number, pixels in taken.items())
    write_tar(tmp_path / "theirs", [contents[min(refused_by_write)]], "jpg")
    refused(wavegan("shards", "index", tmp_path / "theirs"), "0000 of", "Corrupt JPEG data", exit_code=1)


FAR = (99_999).to_bytes(4, "little")  # an offset beyond the end of the file
SHORT_6 = b"\6\0\0\0"
TIFF_TAGS = {
    "plain": ((), 1),
    "orientation 6": (((274, 3, 1, SHORT_6),), 6),
    "orientation in XMP": (((700, 1, len(xmp(8)), FAR),), 8),
    "orientation as text": (((274, 2, 4, b"abc\0"),), 1),
    "orientation far away": (((274, 3, 9, FAR),), 1),
    "model far away": (((272, 2, 20, FAR), (274, 3, 1, SHORT_6)), 6),
    "resolution far away": (((282, 5, 1, FAR), (283, 5, 1, FAR)), 1),
    "EXIF far away": (((34665, 4, 1, FAR),), 1),
    "EXIF in itself": (((34665, 4, 1, b"\10\0\0\0"),), 1),
    "a short profile": (((34675, 7, 4, b"abcd"),), 1),
    "a private tag of an unknown type": (((65000, 99, 1, FAR),), 1),
}


def test_metadata_of_a_tiff_does_not_stop_its_pixels(tmp_path: Path, wavegan: Command) -> None:
    stored = photograph()
    contents = [
        tiff_picture(stored, *tags).ljust(99_999 if "XMP" in name else 0, b"\0") for name, (tags, _) in TIFF_TAGS.items()
    ]
    contents = [content + xmp(8) if len(content) == 99_999 else content for content in contents]
    write_pictures(tmp_path / "pictures", contents, "tif")
    outcome = wavegan("shards", "write", tmp_path / "pictures", tmp_path / "ours", "--size", SIZE, "--labels")
    assert outcome.returncode == 0, outcome.stderr
    written = images_of(tmp_path / "ours")
    for number, (name, (_, orientation)) in enumerate(TIFF_TAGS.items()):
        assert np.array_equal(written[number], UPRIGHT[orientation](stored)), name


def test_the_thumbnail_of_a_raw_photograph_is_not_taken_for_it(tmp_path: Path, wavegan: Command) -> None:
    write_pictures(tmp_path / "pictures", [tiff_picture(photograph(), (254, 4, 1, b"\1\0\0\0"))], "tif")
    (tmp_path / "pictures" / "action-camera.GPR").write_bytes(tiff_picture(photograph()))
    (tmp_path / "pictures" / "good.png").write_bytes(save(Image.fromarray(photograph()), "PNG"))
    write = ("shards", "write", tmp_path / "pictures", tmp_path / "ours", "--size", SIZE)
    refused(wavegan(*write), "picture.tif", "its first image is only a thumbnail", exit_code=1)
    outcome = wavegan(*write, "--max-bad-fraction", 0.5, "--json")
    assert outcome.returncode == 0, outcome.stderr
    reasons = {entry["reason"]: entry["count"] for entry in json.loads(outcome.stdout)["left_out"]}
    assert reasons == {"cannot be decoded": 1, "no picture that Pillow reads (.gpr)": 1}
