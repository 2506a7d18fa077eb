"""Encode and decode single images.

JPEGs, and PNG and WebP files of plain 8-bit RGB, are decoded straight into the caller's buffer: JPEG by simplejpeg, PNG and
WebP by imagecodecs. These were the fastest decoders that also detect truncated files and wrong PNG checksums
(benchmarks/README.md). All other PNG files are decoded by imagecodecs, JPEGs of four channels or unusual sampling and all other
WebP files by Pillow, and then converted by `to_rgb`. `shards write` reads its pictures by `read_picture`, which uses the same
decoders: a file that training would refuse as damaged is refused there, too.
"""

import logging
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from imagecodecs import png_decode, webp_decode
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from simplejpeg import decode_jpeg

from wavegan_dist.data.formats import HEAD_BYTES, describe_content
from wavegan_dist.data.metadata import JPEG, PNG, StrippedPicture, split_metadata
from wavegan_dist.data.pixels import open_picture
from wavegan_dist.errors import WaveganError

# Arguments of Pillow's `save` for each encoding. JPEG keeps color at full resolution; PNG and WebP are lossless.
ENCODINGS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}

_FORMATS = ("PNG", "JPEG", "WEBP")
# TIFF tags. Bit 0 of the first: a reduced version of another image of the file. The last is 0 if white is the value 0.
_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC = 254, 258, 262

# imagecodecs warns of every interlaced PNG that it decodes. Without a handler, Python prints warnings to stderr itself.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())


class DecodeError(WaveganError):
    """Bytes that do not decode to an image of the expected size.

    Args:
        reason: the error message without its subject, such as "is 8x8 px but the index says 32x32". The caller prepends the
            name of the image.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def encode(image_hwc: NDArray[np.uint8], encoding: str) -> bytes:
    """Return the bytes of an image file.

    Args:
        image_hwc: uint8 RGB [H, W, 3].
        encoding: a key of `ENCODINGS`; another one raises KeyError.
    """
    buffer = BytesIO()
    Image.fromarray(image_hwc).save(buffer, **ENCODINGS[encoding])
    return buffer.getvalue()


def decode(content: bytes, size: int) -> NDArray[np.uint8]:
    """Decode a PNG, JPEG or WebP image to uint8 RGB [size, size, 3].

    Raises:
        DecodeError: see `decode_into`.
    """
    image_hwc = np.empty((size, size, 3), dtype=np.uint8)
    decode_into(content, image_hwc)
    return image_hwc


def decode_into(content: bytes, out_hwc: NDArray[np.uint8]) -> None:
    """Decode a PNG, JPEG or WebP image into `out_hwc`: uint8 RGB [S, S, 3], contiguous.

    The first bytes of `content` determine the format. Of an animation, the first frame is decoded. The orientation in the
    metadata is applied; other color modes are converted as `to_rgb` does. The layout is channels-last, as decoders produce it:
    a batch [B, S, S, 3] is filled image by image and viewed as [B, 3, S, S].

    Raises:
        DecodeError: the image is damaged, of another format or of another size; `out_hwc` is left with arbitrary values.
            A larger image is refused before memory is allocated for it.
    """
    try:
        parts = split_metadata(content)
        (_fast_decoder(parts) or _decode_and_convert)(parts.pixels, out=out_hwc)
        if parts.orientation != 1:
            out_hwc[:] = np.asarray(_upright(Image.fromarray(out_hwc), parts.orientation))
    except Exception as error:  # decoders raise exceptions of almost any type on broken bytes
        raise DecodeError(_reason(content, out_hwc, error)) from error


def read_picture(content: bytes) -> Image.Image:
    """Decode a picture of any size and of any of `formats()` to an upright 8-bit RGB image; `to_rgb` says how it converts.

    Raises:
        ValueError: the first image of a TIFF is a thumbnail, as in raw photographs.
        Exception: of almost any type, from the decoders, if the bytes are broken; see also `open_picture` and `to_rgb`.
    """
    pixels, orientation, needs_pillow = split_metadata(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow about files that it can read, or cannot read, which is an exception as well
        image = open_picture(pixels)
        if pixels.startswith(PNG):
            image = Image.fromarray(_decode_png(pixels))
        elif pixels.startswith(JPEG) and not needs_pillow:
            image = Image.fromarray(decode_jpeg(pixels))  # Pillow ignores damage that simplejpeg reports
        elif isinstance(image, TiffImageFile) and image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 1:
            raise ValueError("its first image is only a thumbnail, as in raw photographs")
        return _upright(to_rgb(image), orientation)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to a new 8-bit RGB image. Decodes the pixels of `image` if that has not been done.

    The EXIF orientation is applied, transparent pixels are composited onto white, and values of 12 or 16 bits keep their upper
    8 bits.

    Raises:
        ValueError: the pixel values have no fixed range (32-bit integers, floats).
        Exception: of almost any type, from Pillow, if the pixels cannot be decoded.
    """
    image.load()
    orientation = _orientation(image)
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")  # Pillow scales PGM to 16 bits
    if image.mode in ("I", "F") and not has_16_bits:
        raise ValueError(f"pixels of mode {image.mode} have no fixed range; convert them to 8 or 16 bits")
    if has_16_bits:
        image = Image.fromarray(_upper_8_bits(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = _upright(image.convert("RGB"), orientation)
    image.info.clear()  # otherwise a second call would apply the orientation again
    return image


def _upper_8_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Return the upper 8 bits of each value of a gray image, uint8 [H, W]. Pillow neither scales nor inverts a TIFF's."""
    values, bits = np.asarray(image), 16
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2[_BITS_PER_SAMPLE][0]
        if image.tag_v2.get(_PHOTOMETRIC, 0) == 0:
            values = 2**bits - 1 - values
    return (values >> (bits - 8)).astype(np.uint8)


# The transposition that shows an image upright, by EXIF orientation.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_TRANSPOSITIONS[orientation])


def _orientation(image: Image.Image) -> int:
    """Read the orientation of a loaded image, 1 to 8; 1 if it has no usable one."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises exceptions of almost any type on broken EXIF
        return 1
    return orientation if orientation in _TRANSPOSITIONS else 1


def _fast_decoder(parts: StrippedPicture) -> Callable[..., object] | None:
    """Return the decoder of a JPEG, PNG or WebP image that needs no conversion to 8-bit RGB; None for any other file.

    Raises:
        IndexError: a WebP file ends within its header.
    """
    pixels, _, needs_pillow = parts
    if pixels.startswith(JPEG):
        return None if needs_pillow else _decode_jpeg
    if pixels.startswith(PNG):
        return png_decode if _is_plain(pixels) else None
    if pixels.startswith(b"RIFF"):
        kind, alpha = pixels[12:16], pixels[24] & 0x10
        return webp_decode if kind == b"VP8 " or (kind == b"VP8L" and not alpha) else None
    return None


def _is_plain(png: bytes) -> bool:
    """Whether a PNG, without its metadata, is 8-bit RGB and has no transparent color (a tRNS chunk before the first IDAT)."""
    return png[24:26] == b"\x08\x02" and png.find(b"tRNS", 33, png.find(b"IDAT")) < 0


def _decode_jpeg(content: bytes, out: NDArray[np.uint8]) -> None:
    if decode_jpeg(content, buffer=out).shape != out.shape:  # simplejpeg accepts a buffer that is larger than the image
        raise ValueError("another size")


def _decode_png(pixels: bytes) -> NDArray[np.uint8]:
    """Decode a PNG of any color type to uint8 [H, W] or [H, W, C] with 2 to 4 channels; of 16 bits, the upper 8 are kept.

    libpng compares the transparent color with all 16 bits and at the depth of the file, which Pillow does not.
    """
    image = png_decode(pixels)
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def _decode_and_convert(pixels: bytes, out: NDArray[np.uint8]) -> None:
    with Image.open(BytesIO(pixels), formats=_FORMATS) as image:
        if image.size != out.shape[:2]:
            raise ValueError("another size")
        out[:] = np.asarray(to_rgb(Image.fromarray(_decode_png(pixels)) if pixels.startswith(PNG) else image))


def _reason(content: bytes, out_hwc: NDArray[np.uint8], error: Exception) -> str:
    try:
        width, height = Image.open(BytesIO(split_metadata(content).pixels), formats=_FORMATS).size
    except Exception:  # not even the header can be read
        height, width = out_hwc.shape[:2]
    if (height, width) != out_hwc.shape[:2]:
        return f"is {width}x{height} px but the index says {out_hwc.shape[1]}x{out_hwc.shape[0]}"
    detail = describe_content(content[:HEAD_BYTES]) if isinstance(error, UnidentifiedImageError) else str(error)
    return f"cannot be decoded ({' '.join(detail.split())})"
