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


SIZES = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)  # number of Huffman codes of 1, 2, ... bits; of the differences


def _huffman_codes() -> dict[int, str]:
    """The code of each number of bits of a difference."""
    codes, code = dict[int, str](), 0
    for length, count in enumerate(SIZES, 1):
        for _ in range(count):
            codes[len(codes)] = f"{code:0{length}b}"
            code += 1
        code <<= 1
    return codes


def blocks_jpeg(*sampling: int) -> bytes:
    """A JPEG of blocks of one color, for sampling factors that no encoder here writes.

    Args:
        sampling: for each channel, 16 times the horizontal factor plus the vertical one.
    """
    factors, draws, codes = [divmod(byte, 16) for byte in sampling], np.random.default_rng(list(sampling)), _huffman_codes()
    across, down = (SIZE // (8 * max(factors_of)) for factors_of in zip(*factors, strict=True))
    bits, last = "", [0] * len(factors)
    for _ in range(across * down):
        for channel, (width, height) in enumerate(factors):
            for value in draws.integers(-60, 60, width * height).tolist():
                difference, last[channel] = value - last[channel], value
                size = abs(difference).bit_length()
                bits += codes[size] + (f"{difference + (difference < 0) * (2**size - 1):0{size}b}" if size else "") + "00"
    bits += "1" * (-len(bits) % 8)
    frame = b"".join(bytes([number, byte, 0]) for number, byte in enumerate(sampling, 1))
    scan = b"".join(bytes([number, 0]) for number in range(1, len(factors) + 1))
    segments = (
        segment(0xDB, bytes([0] + [8] * 64)),
        segment(0xC0, struct.pack(">BHHB", 8, SIZE, SIZE, len(factors)) + frame),
        segment(0xC4, bytes([0, *SIZES, *range(12)])),
        segment(0xC4, bytes([0x10, 0, 1] + [0] * 14 + [0])),
        segment(0xDA, bytes([len(factors)]) + scan + bytes([0, 63, 0])),
    )
    entropy = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + b"".join(segments) + entropy + b"\xff\xd9"


def tiff_picture(pixels: Pixels, *tags: tuple[int, int, int, bytes]) -> bytes:
    """An uncompressed TIFF of RGB pixels with additional tags: number, type, count, and the value or its offset (4 bytes)."""
    height, width, _ = pixels.shape
    start = 8 + 2 + 12 * (9 + len(tags)) + 4
    plain = ((256, width), (257, height), (258, start), (259, 1), (262, 2), (273, start + 6), (277, 3), (278, height))
    entries = [(tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, struct.pack("<I", value)) for tag, value in plain]
    entries = sorted([*entries, (279, 4, 1, struct.pack("<I", pixels.size)), *tags])
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI4s", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<HHH", 8, 8, 8) + pixels.tobytes()
