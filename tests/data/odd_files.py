"""Build 200 odd files, and the pixels that each must give: those of a careful reference in Pillow, or none."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

from tests.data.odd_pictures import Pixels, chunk, jpeg_metadata, png_metadata, save, segment, tiff

SIDE = 32
READ_BY_TRAINING = ("png", "PNG", "jpg", "JPG", "jpeg", "jpe", "jfif", "webp", "apng")


class OddFile(NamedTuple):
    """A file, and the picture that it must give.

    Args:
        kind: what is odd about it.
        extension: of its name.
        content: of the file.
        pixels: what the file shows, uint8 RGB [H, W, 3]; None if no dataset can hold it.
    """

    kind: str
    extension: str
    content: bytes
    pixels: Pixels | None

    @property
    def ending(self) -> str:
        """The extension with its dot."""
        return self.extension and f".{self.extension}"


def odd_files(width: int, height: int, *, count: int = 200) -> list[OddFile]:
    """Build `count` files that show different pictures of `width` x `height` pixels; KINDS repeat."""
    kinds = list(KINDS.items())
    files = []
    for number in range(count):
        name, (extension, build) = kinds[number % len(kinds)]
        content, shown = build(_picture(number, width, height))
        pixels = reference(shown) if isinstance(shown, bytes) else shown
        files.append(OddFile(name, extension, content, pixels))
    return files


def reference(content: bytes) -> Pixels:
    """Show a file as docs/data.md promises: upright, on white, the upper 8 of 16 bits, the first frame, no color profiles."""
    image = ImageOps.exif_transpose(Image.open(BytesIO(content)))
    clear = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        gray, alpha = values >> 8, np.where(values == (-1 if clear is None else clear), 0, 255)
        rgba = np.stack((gray, gray, gray, alpha), axis=2)
    else:
        rgba = np.asarray(image.convert("RGBA")).astype(np.int64)
    opacity = rgba[..., 3:] / 255
    return (rgba[..., :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)


def cropped(pixels: Pixels) -> Pixels:
    """Crop the centered square and resize it to `SIDE`."""
    image, side = Image.fromarray(pixels), min(pixels.shape[:2])
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)))


def _picture(number: int, width: int, height: int) -> Image.Image:
    """A smooth picture that differs from those of other numbers."""
    coarse = np.random.default_rng([number, width, height]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


Built = tuple[bytes, bytes | Pixels | None]  # the file; and a file that shows the same without its oddity, or what it shows
Build = Callable[[Image.Image], Built]


def _as(form: str, mode: str = "RGB", **settings: Any) -> Build:
    def build(image: Image.Image) -> Built:
        content = save(image.convert(mode), form, **settings)
        return content, content

    return build


def _alpha(image: Image.Image) -> Image.Image:
    ramp = np.linspace(0, 255, image.width * image.height).reshape(image.height, image.width).astype(np.uint8)
    copy = image.copy()
    copy.putalpha(Image.fromarray(ramp))
    return copy


def _with_alpha(form: str, mode: str = "RGBA", **settings: Any) -> Build:
    def build(image: Image.Image) -> Built:
        content = save(_alpha(image).convert(mode), form, **settings)
        return content, content

    return build


def _samples(image: Image.Image, channels: int, depth: int) -> np.ndarray:
    """Samples of `depth` bits, [H, W, channels]; the first rows have the color of the first pixel."""
    rgba = np.asarray(_alpha(image)).astype(np.int64)
    planes = {1: rgba[..., :1], 2: rgba[..., [0, 3]], 3: rgba[..., :3], 4: rgba}[channels]
    fine = planes * 257 + np.arange(image.width)[:, None] % 7 * (planes < 255)
    fine[:3] = fine[0, 0]
    return fine >> (16 - depth)


def _raw_png(color: int, depth: int, *, clear: bool = False, interlaced: bool = False) -> Build:
    """A PNG written by hand. NumPy computes what it shows if one color is transparent: Pillow gets only 8 bits right."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]

    def build(image: Image.Image) -> Built:
        samples = _samples(image, channels, depth)
        header = struct.pack(">IIBBBBB", image.width, image.height, depth, color, 0, 0, int(interlaced))
        key = chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes()) if clear else b""
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7 if samples[y::dy, x::dx].size] if interlaced else [samples]
        data = zlib.compress(b"".join(_rows(part, depth) for part in passes))
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", data) + chunk(b"IEND", b"")
        if not clear:
            return content, content
        eight = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
        shown = np.where((samples == samples[0, 0]).all(axis=2, keepdims=True), 255, eight)
        return content, np.broadcast_to(shown, (image.height, image.width, 3)).astype(np.uint8)

    return build


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _rows(samples: np.ndarray, depth: int) -> bytes:
    bits = np.unpackbits(np.ascontiguousarray(samples, ">u2").view(np.uint8).reshape(*samples.shape, 2), axis=3)[
        ..., 16 - depth :
    ]
    rows = np.packbits(bits.reshape(len(samples), -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def _palette(clear: object = None) -> Build:
    def build(image: Image.Image) -> Built:
        content = save(image.quantize(16), "PNG", **({} if clear is None else {"transparency": clear}))
        return content, content

    return build


def _frames(form: str, **settings: Any) -> Build:
    def build(image: Image.Image) -> Built:
        more = [ImageOps.invert(image), Image.new("RGB", image.size, "lime")]
        content = save(image, form, save_all=True, append_images=more, **settings)
        return content, content

    return build


def _in_png(metadata: Callable[[int], bytes], *, orientation: int = 1, behind: bool = False, **settings: Any) -> Build:
    """A PNG with chunks before or behind its pixels. Pillow reads the same picture with a plain eXIf chunk."""

    def build(image: Image.Image) -> Built:
        plain = save(image, "PNG", **settings)
        where = len(plain) - 12 if behind else 33
        exif = chunk(b"eXIf", tiff(orientation))
        return plain[:where] + metadata(orientation) + plain[where:], plain[:33] + exif + plain[33:]

    return build


def _png_chunk(name: str) -> Callable[[int], bytes]:
    return lambda orientation: png_metadata(orientation)[name]


def _in_jpeg(metadata: bytes, *, orientation: int = 1, before: bytes = b"", mode: str = "RGB", **settings: Any) -> Build:
    """A JPEG with segments at its start or before a marker. Pillow reads the same picture with a plain Exif segment."""

    def build(image: Image.Image) -> Built:
        plain = save(image.convert(mode), "JPEG", quality=95, **settings)
        where = plain.index(before) if before else 2
        exif = segment(0xE1, b"Exif\0\0" + tiff(orientation))
        return plain[:where] + metadata + plain[where:], plain[:2] + exif + plain[2:]

    return build


def _with_exif(form: str, orientation: int, **settings: Any) -> Build:
    return _as(form, exif=b"Exif\0\0" + tiff(orientation), **settings)


def _changed(build: Build, change: Callable[[bytes], bytes], *, good: bool = False) -> Build:
    """A file after `change`; it shows the same picture if it is still `good`."""

    def changed(image: Image.Image) -> Built:
        content, shown = build(image)
        return change(content), shown if good else None

    return changed


def _flipped(content: bytes) -> bytes:
    where = content.index(b"IDAT") + 20
    return content[:where] + bytes([content[where] ^ 0x55]) + content[where + 1 :]


def _pgm16(image: Image.Image) -> Built:
    samples = _samples(image, 1, 16)
    pixels = np.broadcast_to(samples >> 8, (image.height, image.width, 3)).astype(np.uint8)
    return b"P5 %d %d 65535\n" % image.size + samples.astype(">u2").tobytes(), pixels


def _tiff16(mode: str) -> Build:
    def build(image: Image.Image) -> Built:
        content = save(
            Image.frombytes(mode, image.size, _samples(image, 1, 16).astype(">u2" if "B" in mode else "<u2").tobytes()), "TIFF"
        )
        return content, content

    return build


def _numbers(kind: str) -> Build:
    """A TIFF of 32-bit numbers, whose range nobody knows."""

    def build(image: Image.Image) -> Built:
        return save(Image.fromarray(np.asarray(image.convert("L")).astype(kind)), "TIFF"), None

    return build


def _png_exif5(image: Image.Image) -> Built:
    content = save(_alpha(image), "PNG", exif=tiff(5))
    return content, content


def _cmyk_without_adobe(image: Image.Image) -> Built:
    content = save(image.convert("CMYK"), "JPEG").replace(segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"), b"")
    return content, content


def _clear_gif(image: Image.Image) -> Built:
    content = save(image.quantize(16), "GIF", transparency=2)
    return content, content


def _webp_of_garbage(image: Image.Image) -> Built:
    return save(image, "WEBP", lossless=True, exif=b"Exif\0\0hello"), save(image, "WEBP", lossless=True)


def _bytes(content: bytes) -> Build:
    return lambda image: (content, None)


def _lab(image: Image.Image) -> Built:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    content = save(ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB"), "TIFF")
    shown = Image.open(BytesIO(content))
    return content, np.asarray(shown.convert("RGB"))


HUGE = zlib.compress(bytes(3 << 20))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PNG, JPEG, WEBP = _as("PNG"), _as("JPEG", quality=95), _as("WEBP", lossless=True)
EXIF6 = segment(0xE1, b"Exif\0\0" + tiff(6))

KINDS: dict[str, tuple[str, Build]] = {
    # colors and depths
    "png": ("png", PNG),
    "gray png": ("png", _as("PNG", "L")),
    "gray and alpha png": ("png", _with_alpha("PNG", "LA")),
    "alpha png": ("PNG", _with_alpha("PNG")),
    "palette png": ("png", _palette()),
    "palette png, one clear": ("png", _palette(3)),
    "palette png, many half clear": ("png", _palette(bytes(range(0, 160, 10)))),
    "1-bit png": ("png", _raw_png(0, 1)),
    "2-bit png, one clear": ("png", _raw_png(0, 2, clear=True)),
    "4-bit png": ("png", _raw_png(0, 4)),
    "16-bit gray png": ("png", _raw_png(0, 16)),
    "16-bit gray png, one clear": ("png", _raw_png(0, 16, clear=True)),
    "16-bit gray and alpha png": ("png", _raw_png(4, 16)),
    "16-bit png": ("png", _raw_png(2, 16)),
    "16-bit png, one clear": ("png", _raw_png(2, 16, clear=True)),
    "16-bit alpha png": ("png", _raw_png(6, 16)),
    "8-bit png, one clear": ("png", _raw_png(2, 8, clear=True)),
    "interlaced png": ("png", _raw_png(2, 8, interlaced=True)),
    "interlaced gray png, one clear": ("png", _raw_png(0, 4, clear=True, interlaced=True)),
    "interlaced 16-bit alpha png": ("png", _raw_png(6, 16, interlaced=True)),
    "gray jpg": ("jpg", _as("JPEG", "L", quality=95)),
    "cmyk jpg": ("jpg", _as("JPEG", "CMYK", quality=95)),
    "cmyk jpg without Adobe": ("jpg", _cmyk_without_adobe),
    "rgb jpg of Adobe": ("jpg", _as("JPEG", quality=95, keep_rgb=True)),
    "full color jpg": ("jpeg", _as("JPEG", quality=95, subsampling=0)),
    "half color jpg": ("jpe", _as("JPEG", quality=95, subsampling=1)),
    "progressive jpg": ("jfif", _as("JPEG", quality=95, progressive=True)),
    "jpg with restarts": ("JPG", _as("JPEG", quality=95, restart_marker_rows=1)),
    "webp": ("webp", WEBP),
    "lossy webp": ("webp", _as("WEBP", quality=90)),
    "alpha webp": ("webp", _with_alpha("WEBP", lossless=True, exact=True)),
    "lossy alpha webp": ("webp", _with_alpha("WEBP", quality=90)),
    # orientations
    **{f"png {name}": ("png", _in_png(_png_chunk(name), orientation=6)) for name in png_metadata(1)},
    **{f"png {name} behind": ("png", _in_png(_png_chunk(name), orientation=8, behind=True)) for name in png_metadata(1)},
    "alpha png turned": ("png", _png_exif5),
    **{f"jpg {name}": ("jpg", _in_jpeg(jpeg_metadata(3)[name], orientation=3)) for name in jpeg_metadata(1)},
    **{f"jpg turned {turn}": ("jpg", _in_jpeg(jpeg_metadata(turn)["Exif"], orientation=turn)) for turn in (2, 4, 5, 7, 8)},
    "jpg turned behind tables": ("jpg", _in_jpeg(EXIF6, orientation=6, before=b"\xff\xc0")),
    "gray jpg turned behind tables": ("jpg", _in_jpeg(EXIF6, orientation=6, before=b"\xff\xda", mode="L")),
    "cmyk jpg turned": ("jpg", _in_jpeg(EXIF6, orientation=6, mode="CMYK")),
    "progressive jpg turned": ("jpg", _in_jpeg(EXIF6, orientation=6, before=b"\xff\xdb", progressive=True)),
    "webp turned": ("webp", _with_exif("WEBP", 6, lossless=True)),
    "lossy webp turned": ("webp", _with_exif("WEBP", 7, quality=90)),
    # broken or unusual metadata
    "png of a broken exif": ("png", _in_png(lambda _: chunk(b"eXIf", b"\0\x08\0\2\1\x12\0\3\0\0"))),
    "png of a huge profile": ("png", _in_png(lambda _: chunk(b"iCCP", b"p\0\0" + HUGE))),
    "png of a huge text": ("png", _in_png(lambda _: chunk(b"zTXt", b"Comment\0\0" + HUGE))),
    "png of a broken text behind": ("png", _in_png(lambda _: chunk(b"zTXt", b"Comment\0\0not zlib"), behind=True)),
    "png of a private chunk": ("png", _in_png(lambda _: chunk(b"prVt", bytes(99)))),
    "png of sBIT and bKGD": ("png", _in_png(lambda _: chunk(b"sBIT", b"\5\6\5") + chunk(b"bKGD", bytes(6)))),
    "png of a gamma": ("png", _in_png(lambda _: chunk(b"gAMA", struct.pack(">I", 100_000)))),
    "png of orientation 0": ("png", _in_png(lambda _: chunk(b"eXIf", tiff(0)))),
    "png of a profile": ("png", _as("PNG", icc_profile=PROFILE)),
    "png with bytes behind": ("png", _changed(PNG, lambda content: content + b"\0trailer" * 99, good=True)),
    "jpg of a profile": ("jpg", _as("JPEG", quality=95, icc_profile=PROFILE)),
    "jpg of a garbage exif": ("jpg", _in_jpeg(segment(0xE1, b"Exif\0\0hello, world" * 9))),
    "jpg of an orientation as text": ("jpg", _in_jpeg(segment(0xE1, b"Exif\0\0" + tiff(6, kind=2)))),
    "jpg of a broken xmp": ("jpg", _in_jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x \xa8\xff>"))),
    "jpg of a comment": ("jpg", _in_jpeg(segment(0xFE, b"\xff\xd8\xff\xda" * 9))),
    "jpg with bytes behind": ("jpg", _changed(JPEG, lambda content: content + bytes(5000), good=True)),
    "jpg without JFIF": ("jpg", _changed(JPEG, lambda content: content[:2] + content[20:], good=True)),
    "webp of a garbage exif": ("webp", _webp_of_garbage),
    "webp with xmp": ("webp", _as("WEBP", lossless=True, xmp=b"<x/>")),
    # several pictures in a file
    "animated png": ("png", _frames("PNG", duration=100)),
    "animated png with a picture of its own": ("apng", _frames("PNG", duration=100, default_image=True)),
    "animated webp": ("webp", _frames("WEBP", lossless=True, duration=100)),
    "jpg of two pictures": ("jpg", _frames("MPO", quality=95)),
    # wrong names
    "png named jpg": ("jpg", PNG),
    "jpg named png": ("png", JPEG),
    "webp named jpg": ("jpg", WEBP),
    # what training does not read
    "gif": ("gif", _as("GIF")),
    "animated gif": ("gif", _frames("GIF")),
    "clear gif": ("gif", _clear_gif),
    "bmp": ("bmp", _as("BMP")),
    "palette bmp": ("bmp", _as("BMP", "P")),
    "1-bit bmp": ("dib", _as("BMP", "1")),
    "tga": ("tga", _as("TGA")),
    "alpha tga": ("tga", _with_alpha("TGA")),
    "ppm": ("ppm", _as("PPM")),
    "pbm": ("pbm", _as("PPM", "1")),
    "16-bit pgm": ("pgm", _pgm16),
    "tiff": ("tif", _as("TIFF", compression="tiff_lzw")),
    "turned tiff": ("tiff", _as("TIFF", tiffinfo={274: 6})),
    "cmyk tiff": ("tif", _as("TIFF", "CMYK")),
    "lab tiff": ("tif", _lab),
    "16-bit tiff": ("tif", _tiff16("I;16")),
    "16-bit tiff of a Mac": ("tif", _tiff16("I;16B")),
    "alpha tiff": ("tif", _with_alpha("TIFF")),
    "tiff of two pages": ("tif", _frames("TIFF")),
    "jpeg in tiff": ("tif", _as("TIFF", compression="jpeg", quality=95)),
    "jp2": ("jp2", _as("JPEG2000")),
    "alpha jp2": ("j2k", _with_alpha("JPEG2000")),
    "avif": ("avif", _as("AVIF", quality=95)),
    "alpha avif": ("avif", _with_alpha("AVIF", quality=95)),
    "turned avif": ("avif", _with_exif("AVIF", 6, quality=95)),
    "qoi": ("qoi", _as("QOI")),
    "pcx": ("pcx", _as("PCX")),
    "sgi": ("rgb", _as("SGI")),
    "dds": ("dds", _with_alpha("DDS")),
    "without an extension": ("", PNG),
    # damage
    "cut png": ("png", _changed(PNG, lambda content: content[:-99])),
    "flipped png": ("png", _changed(PNG, _flipped)),
    "cut jpg": ("jpg", _changed(JPEG, lambda content: content[: len(content) * 2 // 3])),
    "cut webp": ("webp", _changed(WEBP, lambda content: content[:-50])),
    "cut gif": ("gif", _changed(_as("GIF"), lambda content: content[: len(content) // 2])),
    "cut tiff": ("tif", _changed(_as("TIFF"), lambda content: content[: len(content) // 2])),
    "cut bmp": ("bmp", _changed(_as("BMP"), lambda content: content[: len(content) // 2])),
    "empty": ("jpg", _bytes(b"")),
    "a web page": ("jpg", _bytes(b"<!DOCTYPE html><html>404</html>")),
    "floats": ("tif", _numbers("float32")),
    "integers": ("tif", _numbers("int32")),
    # no pictures
    "caption": ("txt", _bytes(b"BM is a bitmap")),
    "json": ("json", _bytes(b"{}")),
    "heic": ("heic", _bytes(b"\0\0\0\x18ftypheic")),
    "vector": ("eps", _bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
    "svg": ("svg", _bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
}
