"""Encode and decode single images.

JPEGs, and PNG and WebP files of plain 8-bit RGB, are decoded straight into the caller's buffer: JPEG by simplejpeg, PNG and
WebP by imagecodecs. These were the fastest decoders that also detect truncated files and wrong PNG checksums
(benchmarks/README.md). All other PNG, JPEG and WebP files are decoded by Pillow and converted by `to_rgb`.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from imagecodecs import png_decode, webp_decode
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from simplejpeg import decode_jpeg

from wavegan_dist.data.formats import HEAD_BYTES, describe_content
from wavegan_dist.errors import WaveganError

# Arguments of Pillow's `save` for each encoding. JPEG keeps color at full resolution; PNG and WebP are lossless.
ENCODINGS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}

_FORMATS = ("PNG", "JPEG", "WEBP")


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
    """Encode a uint8 RGB image [H, W, 3]; `encoding` is a key of `ENCODINGS`."""
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

    The first bytes of `content` determine the format. Of an animation, the first frame is decoded. The layout is
    channels-last, as decoders produce it: a batch [B, S, S, 3] is filled image by image and viewed as [B, 3, S, S].

    Raises:
        DecodeError: the image is damaged, of another format or of another size; `out_hwc` is left with arbitrary values.
            A larger image is refused before memory is allocated for it.
    """
    try:
        (_fast_decoder(content) or _decode_with_pillow)(content, out=out_hwc)
    except Exception as error:  # decoders raise exceptions of almost any type on broken bytes
        raise DecodeError(_reason(content, out_hwc, error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    The EXIF orientation is applied, transparent pixels are composited onto white, and 16-bit values keep their upper 8 bits.

    Raises:
        ValueError: the pixel values have no fixed range (32-bit integers, floats).
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range; convert them to 8 or 16 bits")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _fast_decoder(content: bytes) -> Callable[..., object] | None:
    """Choose the decoder for an image that needs no conversion; None if Pillow must decode and convert the image.

    Only the header is inspected, up to the pixel data (PNG) or the quantization tables (JPEG): EXIF data and transparency are
    declared earlier in the file.
    """
    if content.startswith(b"\xff\xd8"):
        return None if b"Exif\0" in content[: content.find(b"\xff\xdb")] else _decode_jpeg
    if content.startswith(b"\x89PNG"):
        head = content[: content.find(b"IDAT")]
        return png_decode if head[24:26] == b"\x08\x02" and b"tRNS" not in head and b"eXIf" not in head else None
    if content.startswith(b"RIFF"):
        kind, alpha = content[12:16], content[24] & 0x10
        return webp_decode if kind == b"VP8 " or (kind == b"VP8L" and not alpha) else None
    return None


def _decode_jpeg(content: bytes, out: NDArray[np.uint8]) -> None:
    if decode_jpeg(content, buffer=out).shape != out.shape:  # simplejpeg accepts a buffer that is larger than the image
        raise ValueError("another size")


def _decode_with_pillow(content: bytes, out: NDArray[np.uint8]) -> None:
    with Image.open(BytesIO(content), formats=_FORMATS) as image:
        if image.size != out.shape[:2]:
            raise ValueError("another size")
        out[:] = np.asarray(to_rgb(image))


def _reason(content: bytes, out_hwc: NDArray[np.uint8], error: Exception) -> str:
    try:
        width, height = Image.open(BytesIO(content), formats=_FORMATS).size
    except Exception:  # not even the header can be read
        height, width = out_hwc.shape[:2]
    if (height, width) != out_hwc.shape[:2]:
        return f"is {width}x{height} px but the index says {out_hwc.shape[1]}x{out_hwc.shape[0]}"
    detail = describe_content(content[:HEAD_BYTES]) if isinstance(error, UnidentifiedImageError) else str(error)
    return f"cannot be decoded ({' '.join(detail.split())})"
