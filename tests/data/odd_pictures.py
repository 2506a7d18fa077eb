"""Build pictures with every color type, bit depth and orientation, and the pixels that they must give."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
SIZE = 32
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by PNG color type
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # by the EXIF standard, from the position of the stored first row and column
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}


def photograph(seed: int = 0) -> Pixels:
    """A smooth image, which JPEG preserves well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def save(image: Image.Image, format: str, **settings: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes, checksum: int = 0) -> bytes:
    """A PNG chunk; `checksum` is added to the right one."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ checksum)


def png(depth: int, color: int, *, transparent: bool, before: bytes = b"", after: bytes = b"") -> tuple[bytes, Pixels]:
    """A PNG of random samples, and the RGB pixels that it must give, composited onto white.

    Args:
        depth: bits per sample.
        color: PNG color type.
        transparent: add a tRNS chunk.
        before: chunks before the pixels.
        after: chunks behind the pixels.
    """
    draws = np.random.default_rng([depth, color])
    samples = draws.integers(0, 2**depth, (SIZE, SIZE, CHANNELS[color]))
    samples[: SIZE // 2, :, :] = samples[0, 0]  # the transparent color: half of the image
    samples[SIZE // 2, :, :] = samples[0, 0] ^ 1  # almost the transparent color
    palette = draws.integers(0, 256, (2**depth, 3)) if color == 3 else None
    alphas = draws.integers(0, 256, 2**depth)
    bits = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(SIZE, -1, 2), axis=2)[:, :, 16 - depth :]
    rows = np.packbits(bits.reshape(SIZE, -1), axis=1)
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, depth, color, 0, 0, 0)), before]
    if palette is not None:
        chunks.append(chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
    if transparent:
        content = alphas.astype(np.uint8).tobytes() if color == 3 else samples[0, 0].astype(">u2").tobytes()
        chunks.append(chunk(b"tRNS", content))
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks += [chunk(b"IDAT", pixels[:500]), chunk(b"IDAT", pixels[500:]), after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks), _shown(samples, depth, palette, alphas if transparent else None)


def _shown(samples: NDArray[Any], depth: int, palette: NDArray[Any] | None, alphas: NDArray[Any] | None) -> Pixels:
    channels = samples.shape[2]
    eight = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
    if palette is not None:
        colors, alpha = palette[samples[..., 0]], 255 if alphas is None else alphas[samples[..., 0]][..., None]
    elif channels in (2, 4):
        colors, alpha = eight[..., :-1], eight[..., -1:]
    else:
        colors, alpha = eight, 255 if alphas is None else 255 * (samples != samples[0, 0]).any(axis=2, keepdims=True)
    shown = colors * (alpha / 255) + 255 * (1 - alpha / 255)
    return np.broadcast_to(shown, (SIZE, SIZE, 3)).round().astype(np.uint8)


def tiff(orientation: int, *, big: bool = False, kind: int = 3, tags: bytes = b"") -> bytes:
    """An EXIF block with one tag, the orientation, behind `tags` of 12 bytes each."""
    order = ">" if big else "<"
    value = struct.pack(f"{order}HH", orientation, 0) if kind == 3 else struct.pack(f"{order}I", orientation)
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    head = (b"MM" if big else b"II") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", 1 + len(tags) // 12) + tags + entry + bytes(4)


def raw_profile(exif: bytes) -> bytes:
    """The text that ImageMagick writes under the keyword "Raw profile type exif"."""
    digits = (b"Exif\0\0" + exif).hex()
    lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    return "\n".join(["", "exif", f"{len(digits) // 2:8d}", *lines, ""]).encode()


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def png_metadata(orientation: int) -> dict[str, bytes]:
    """Chunks that declare an orientation, by description."""
    raw, text = raw_profile(tiff(orientation)), xmp(orientation)
    return {
        "eXIf": chunk(b"eXIf", tiff(orientation)),
        "big-endian eXIf": chunk(b"eXIf", tiff(orientation, big=True)),
        "raw tEXt": chunk(b"tEXt", b"Raw profile type exif\0" + raw),
        "raw zTXt": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
        "xmp iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text),
        "xmp compressed iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text)),
    }


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_metadata(orientation: int) -> dict[str, bytes]:
    """Segments that declare an orientation, by description."""
    exif = b"Exif\0\0" + tiff(orientation)
    tables = segment(0xE2, b"ICC_PROFILE\0\1\1" + b"\0\xff\xdb\0\xff\xda" * 8)
    return {
        "Exif": segment(0xE1, exif),
        "Exif in two segments": segment(0xE1, exif[:20]) + segment(0xE1, b"Exif\0\0" + exif[20:]),
        "Exif twice in its header": segment(0xE1, b"Exif\0\0" + exif),
        "Exif behind fill bytes": b"\xff\xff" + segment(0xE1, exif),
        "Exif behind a profile": tables + segment(0xE1, exif),
        "32-bit Exif": segment(0xE1, b"Exif\0\0" + tiff(orientation, kind=4)),
        "xmp": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(orientation)),
    }
