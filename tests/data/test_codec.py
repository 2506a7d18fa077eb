import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.data.odd_pictures import UPRIGHT, chunk, save
from wavegan_dist.data.codec import ENCODINGS, DecodeError, decode, decode_into, encode, read_picture, to_rgb

Pixels = NDArray[np.uint8]
SIZE = 32
FORMATS = [*ENCODINGS, "webp lossy"]


def photograph(size: int = SIZE, seed: int = 0) -> Pixels:
    """A smooth image, which JPEG preserves well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def pillow(content: bytes) -> Pixels:
    """Decode with Pillow, as a reference."""
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


def encoded(kind: str, pixels: Pixels) -> bytes:
    return encode(pixels, kind) if kind in ENCODINGS else save(Image.fromarray(pixels), "WEBP", quality=80)


def with_chunk(png: bytes, kind: bytes, content: bytes, before: bytes = b"IDAT") -> bytes:
    """Insert a chunk into a PNG."""
    where = png.index(before) - 4
    return png[:where] + chunk(kind, content) + png[where:]


def refusal(content: bytes, size: int = SIZE) -> str:
    """Return the reason of the DecodeError that `content` causes."""
    with pytest.raises(DecodeError) as caught:
        decode(content, size)
    reason = caught.value.reason
    assert str(caught.value) == reason
    assert reason.startswith(("cannot be decoded (", "is "))
    assert "\n" not in reason
    assert len(reason) < 250
    return reason


@pytest.mark.parametrize("size", [2, 32, 64, 256])
@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_is_what_pillow_sees(kind: str, size: int) -> None:
    content = encoded(kind, photograph(size))
    assert np.array_equal(decode(content, size), pillow(content))


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_png_and_webp_lose_nothing(kind: str) -> None:
    assert np.array_equal(decode(encode(photograph(), kind), SIZE), photograph())


def test_jpeg_is_close_to_what_was_written() -> None:
    assert np.abs(decode(encode(photograph(), "jpg"), SIZE).astype(int) - photograph()).max() <= 8


@pytest.mark.parametrize(
    "settings", [{"progressive": True}, {"subsampling": 2}, {"subsampling": 1}, {"optimize": True}, {"quality": 5}], ids=str
)
def test_every_way_of_writing_a_jpeg_reads_as_pillow_reads_it(settings: dict[str, Any]) -> None:
    content = save(Image.fromarray(photograph()), "JPEG", **settings)
    assert np.array_equal(decode(content, SIZE), pillow(content))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_batch_is_filled_in_place_and_nothing_beside_the_image_is_touched(kind: str) -> None:
    batch = np.full((3, SIZE, SIZE, 3), 77, dtype=np.uint8)
    decode_into(encoded(kind, photograph()), batch[1])
    assert np.array_equal(batch[1], pillow(encoded(kind, photograph())))
    assert (batch[[0, 2]] == 77).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_truncation_is_noticed(kind: str) -> None:
    content = encoded(kind, photograph())
    end = content.index(b"IEND") - 4 if kind == "png" else len(content)  # the pixels of a PNG are complete before IEND
    for length in range(end):
        assert "cannot be decoded" in refusal(content[:length])


def test_every_flipped_byte_of_a_png_changes_nothing_or_is_noticed() -> None:
    content = encode(photograph(), "png")
    for place in range(len(content)):
        broken = content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]
        with suppress(DecodeError):
            assert np.array_equal(decode(broken, SIZE), photograph()), place


@pytest.mark.parametrize("kind", FORMATS)
def test_random_damage_is_one_line_or_an_image_never_something_else(kind: str) -> None:
    content, draws = encoded(kind, photograph()), np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(content)
        for place in draws.integers(0, len(content), 5):
            broken[place] = draws.integers(256)
        with suppress(DecodeError):
            assert decode(bytes(broken), SIZE).shape == (SIZE, SIZE, 3)
            continue
        refusal(bytes(broken))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\x89PNG", b"RIFF....WEBPVP8L", b"hello" * 100], ids=str)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    assert "cannot be decoded" in refusal(content)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "EPS"])
def test_other_formats_are_refused(kind: str) -> None:
    assert "cannot be decoded" in refusal(save(Image.fromarray(photograph()), kind))


@pytest.mark.parametrize("shape", [(64, 64), (16, 16), (32, 16), (16, 64), (64, 16), (2, 512)], ids=str)
@pytest.mark.parametrize("kind", FORMATS)
def test_another_size_is_named_even_where_the_bytes_are_as_many(kind: str, shape: tuple[int, int]) -> None:
    height, width = shape
    content = encoded(kind, np.zeros((height, width, 3), dtype=np.uint8))
    assert refusal(content) == f"is {width}x{height} px but the index says 32x32"


def bomb_png(color: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def bomb_jpeg(exif: bool) -> bytes:
    settings = {"exif": turned(6)} if exif else {}
    content = save(Image.fromarray(photograph()), "JPEG", **settings)
    where = content.index(b"\xff\xc0") + 5
    return content[:where] + struct.pack(">HH", 50_000, 50_000) + content[where + 4 :]


BOMBS: dict[str, Callable[[], bytes]] = {
    "png": lambda: bomb_png(color=2),
    "png with alpha": lambda: bomb_png(color=6),
    "jpg": lambda: bomb_jpeg(exif=False),
    "jpg with exif": lambda: bomb_jpeg(exif=True),
    "webp": lambda: save(Image.new("RGB", (4_000, 4_000)), "WEBP", quality=0, method=0),
    "webp with alpha": lambda: save(Image.new("RGBA", (4_000, 4_000)), "WEBP", quality=0, method=0),
}


def test_a_decompression_bomb_is_refused_before_memory_is_taken_for_it(tmp_path: Path) -> None:
    for kind, content in BOMBS.items():
        (tmp_path / kind).write_bytes(content())
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from wavegan_dist.data.codec import decode\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try:\n        decode(path.read_bytes(), 32)\n"
        "    except Exception as error:\n        print(type(error).__name__, error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60, check=True)
    *messages, mebibytes = run.stdout.splitlines()
    assert len(messages) == len(BOMBS)
    assert all(message.startswith("DecodeError ") for message in messages)
    assert int(mebibytes) < 30


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("settings", [{"format": "PNG"}, {"format": "JPEG"}, {"format": "WEBP", "lossless": True}], ids=str)
def test_exif_orientation_is_applied(settings: dict[str, Any], orientation: int) -> None:
    image = Image.fromarray(photograph())
    stored, marked = save(image, **settings), save(image, **settings, exif=turned(orientation))
    assert np.array_equal(decode(marked, SIZE), UPRIGHT[orientation](pillow(stored)))


GRAY = Image.fromarray(photograph()[..., 0])
MODES: dict[str, tuple[Image.Image, Pixels]] = {
    "gray": (GRAY, np.stack([np.asarray(GRAY)] * 3, axis=2)),
    "bilevel": (GRAY.convert("1"), np.asarray(GRAY.convert("1").convert("RGB"))),
    "palette": (
        Image.fromarray(photograph()).quantize(8),
        np.asarray(Image.fromarray(photograph()).quantize(8).convert("RGB")),
    ),
    "16-bit gray": (Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 256 + 9), np.stack([np.asarray(GRAY)] * 3, axis=2)),
}


@pytest.mark.parametrize("mode", MODES)
def test_gray_palette_and_16_bit_pngs_become_rgb(mode: str) -> None:
    image, wanted = MODES[mode]
    assert np.array_equal(decode(save(image, "PNG"), SIZE), wanted)


def test_16_bit_color_keeps_its_upper_bytes() -> None:
    wide = np.dstack([photograph(), photograph()[::-1]])[
        ..., [0, 3, 1, 4, 2, 5]
    ]  # big-endian: the expected byte, then another one
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(decode(content, SIZE), photograph())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_gray_is_three_equal_colors(kind: str) -> None:
    image = decode(save(GRAY, kind), SIZE)
    assert (image == image[..., :1]).all()
    assert np.array_equal(image, pillow(save(GRAY, kind)))


@pytest.mark.parametrize("settings", [{"format": "PNG"}, {"format": "WEBP", "lossless": True, "exact": True}], ids=str)
def test_transparency_is_shown_on_white(settings: dict[str, Any]) -> None:
    alpha = np.linspace(0, 255, SIZE).astype(np.uint8)[None, :].repeat(SIZE, axis=0)
    content = save(Image.fromarray(np.dstack([photograph(), alpha])), **settings)
    share = alpha[..., None] / 255
    wanted = photograph() * share + 255 * (1 - share)
    assert np.abs(decode(content, SIZE) - wanted).max() <= 1


def test_one_transparent_color_is_shown_as_white() -> None:
    pixels = photograph().copy()
    pixels[:4] = (1, 2, 3)
    image = decode(save(Image.fromarray(pixels), "PNG", transparency=(1, 2, 3)), SIZE)
    assert (image[:4] == 255).all()
    assert np.array_equal(image[4:], pixels[4:])


def test_cmyk_jpegs_become_rgb() -> None:
    content = save(Image.fromarray(photograph()).convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert np.abs(decode(content, SIZE).astype(int) - pillow(content)).max() <= 1


def test_chunks_that_do_not_concern_the_pixels_change_nothing() -> None:
    png = encode(photograph(), "png")
    for kind, content in ((b"gAMA", struct.pack(">I", 100_000)), (b"tEXt", b"Comment\0tRNS eXIf"), (b"sRGB", b"\0")):
        assert np.array_equal(decode(with_chunk(png, kind, content), SIZE), photograph())


def test_an_interlaced_png_is_read() -> None:
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(b"\0" + row.tobytes() for y, x, down, right in passes for row in photograph()[y::down, x::right])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 1))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(decode(content, SIZE), photograph())


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.fromarray(photograph(seed=seed)) for seed in range(2)]
    for kind in ("PNG", "WEBP"):
        settings = {"lossless": True} if kind == "WEBP" else {}
        content = save(frames[0], kind, save_all=True, append_images=frames[1:], **settings)
        assert np.array_equal(decode(content, SIZE), photograph())


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_fixed_range_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode {mode} have no fixed range"):
        to_rgb(Image.new(mode, (4, 4)))


def test_a_second_conversion_changes_nothing() -> None:
    once = to_rgb(Image.open(BytesIO(save(Image.fromarray(photograph()), "WEBP", lossless=True, exif=turned(6)))))
    assert np.array_equal(np.asarray(to_rgb(once)), np.asarray(once))


def gray_tiff(values: NDArray[np.integer[Any]], bits: int, photometric: int) -> bytes:
    """A little-endian TIFF of gray values of so many bits; `photometric` 0: white is the value 0."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = pairs[:, 0] << 12 | pairs[:, 1]
    twelve = np.stack([packed >> 16, packed >> 8, packed], axis=1).astype(np.uint8)
    pixels = {8: values.astype(np.uint8), 12: twelve, 16: values.astype("<u2")}[bits].tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("bits", "photometric"), [(8, 0), (8, 1), (12, 1), (16, 0), (16, 1)])
def test_a_gray_tiff_keeps_its_brightness(bits: int, photometric: int) -> None:
    gray = np.arange(256).reshape(16, 16)
    values = gray << (bits - 8) | np.random.default_rng(0).integers(0, 2 ** (bits - 8), gray.shape)
    stored = values if photometric else 2**bits - 1 - values
    pixels = np.asarray(read_picture(gray_tiff(stored, bits, photometric)))
    np.testing.assert_array_equal(pixels, np.repeat(gray[..., None], 3, axis=2))
