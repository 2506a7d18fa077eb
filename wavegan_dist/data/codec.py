"""Images to bytes and back.

Plain 8-bit RGB goes straight into the caller's buffer: JPEG through simplejpeg, PNG and WebP through imagecodecs, the
fastest decoders found that also notice a truncated file and, in PNG, a wrong checksum (benchmarks/README.md). Everything
else that is a PNG, JPEG or WebP goes through Pillow, by the rules of `to_rgb`.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from imagecodecs import png_decode, webp_decode
from numpy.typing import NDArray
from PIL import Image, ImageOps
from simplejpeg import decode_jpeg

from wavegan_dist.errors import WaveganError

# How Pillow is asked for each encoding; JPEG keeps the colours at full resolution, PNG and WebP lose nothing.
ENCODINGS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}

_FORMATS = ("PNG", "JPEG", "WEBP")


def encode(image: NDArray[np.uint8], encoding: str) -> bytes:
    """Bytes of a uint8 RGB [H, W, 3] image; `encoding` is one of ENCODINGS."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, **ENCODINGS[encoding])
    return buffer.getvalue()


def decode(content: bytes, size: int, name: str) -> NDArray[np.uint8]:
    """The uint8 RGB [size, size, 3] image in `content`. Raises WaveganError as `decode_into` does."""
    image = np.empty((size, size, 3), dtype=np.uint8)
    decode_into(content, image, name)
    return image


def decode_into(content: bytes, out: NDArray[np.uint8], name: str) -> None:
    """Decode a PNG, JPEG or WebP, told by its first bytes, into `out`: uint8 RGB [S, S, 3], contiguous.

    Pixels come interleaved, as all decoders make them: a batch [B, S, S, 3] is filled in place, image by image, and
    permuted to [B, 3, S, S] as a view. Of an animation the first frame counts.

    Raises:
        WaveganError: damaged, of another format or of another size; the message calls it `name`. An image that claims to
            be larger is refused before memory is taken for it. `out` holds anything then.
    """
    try:
        (_plain_decoder(content) or _decode_any)(content, out=out)
    except Exception as error:  # decoders raise almost anything on broken bytes
        raise WaveganError(f"{name} {_complaint(content, out, error)}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any picture: turned as its EXIF says, transparency on white, of 16 bits the upper 8.

    Raises:
        ValueError: its values have no fixed range (32-bit integers, floats).
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


def _plain_decoder(content: bytes) -> Callable[..., object] | None:
    """The fast decoder of what is stored as 8-bit RGB (or is any JPEG) and shown as it is stored; None for all else.

    The header decides, up to the pixels or the tables for them: there EXIF and transparency are announced.
    """
    if content.startswith(b"\xff\xd8"):
        return None if b"Exif\0" in content[: content.find(b"\xff\xdb")] else _jpeg
    if content.startswith(b"\x89PNG"):
        head = content[: content.find(b"IDAT")]
        return png_decode if head[24:26] == b"\x08\x02" and b"tRNS" not in head and b"eXIf" not in head else None
    if content.startswith(b"RIFF"):
        kind, alpha = content[12:16], content[24] & 0x10
        return webp_decode if kind == b"VP8 " or (kind == b"VP8L" and not alpha) else None
    return None


def _jpeg(content: bytes, out: NDArray[np.uint8]) -> None:
    if decode_jpeg(content, buffer=out).shape != out.shape:  # it fits into the buffer but does not fill it
        raise ValueError("another size")


def _decode_any(content: bytes, out: NDArray[np.uint8]) -> None:
    with Image.open(BytesIO(content), formats=_FORMATS) as image:
        if image.size != out.shape[:2]:
            raise ValueError("another size")
        out[:] = np.asarray(to_rgb(image))


def _complaint(content: bytes, out: NDArray[np.uint8], error: Exception) -> str:
    try:
        width, height = Image.open(BytesIO(content), formats=_FORMATS).size
    except Exception:  # not even its header can be read
        height, width = out.shape[:2]
    if (height, width) != out.shape[:2]:
        wanted = f"{out.shape[1]}x{out.shape[0]}"
        return f"is {width}x{height} px but the index says {wanted}; write the set again"
    return f"cannot be decoded ({' '.join(str(error).split())}); find what else is broken with `wavegan shards verify`"
