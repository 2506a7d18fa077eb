"""Separate the metadata of PNG, JPEG and TIFF files from their pixels: the orientation is read, the optional rest is dropped.

All decoders of the package decode `StrippedPicture.pixels` and then apply `StrippedPicture.orientation`. Broken or oversized
metadata can therefore not stop a picture whose pixels are whole, and the place of the metadata in the file does not matter.

Sources: PNG specification (third edition), chapters 5 and 11; ITU-T T.81, annex B; TIFF 6.0, section 2; Exif 2.32, 4.6.4.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

_ORIENTATION = 0x0112  # TIFF tag
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # TIFF types of integers and their struct formats
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9]{1,2})')
_RAW_PROFILE = b"Raw profile type exif"  # how ImageMagick and exiftool stored EXIF before eXIf existed
_PNG_XMP = b"XML:com.adobe.xmp"
_JPEG_EXIF = b"Exif\0\0"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MAX_TEXT = 2**20  # bytes; a longer text is not decompressed further

_unpack_chunk = struct.Struct(">I4s").unpack_from
_unpack_segment = struct.Struct(">HH").unpack_from
_JPEG_OPTIONAL = frozenset((*range(0xFFE0, 0xFFF0), 0xFFFE))  # application data and comments
_JPEG_FRAMES = frozenset((0xFFC0, 0xFFC1, 0xFFC2))  # headers of the kinds that libjpeg decodes
_JPEG_NOTED = _JPEG_OPTIONAL | _JPEG_FRAMES
_USUAL_SAMPLING = (0x11, 0x12, 0x21, 0x22, 0x14, 0x41)  # of the luma, beside chroma of 0x11; see `StrippedPicture.needs_pillow`
_JPEG_COLOR_HEADERS = {0xFFE0: 16, 0xFFEE: 14}  # JFIF, Adobe: the length from which decoders read the color space
_PNG_PIXELS = frozenset((b"IHDR", b"PLTE", b"IDAT"))
_PNG_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # byte orders
# Tags that say nothing about the pixels: texts, resolution, and all from XMP on (EXIF, GPS, color profile, private tags).
_TIFF_OPTIONAL = frozenset((269, 270, 271, 272, _ORIENTATION, 282, 283, 285, 297, 305, 306, 315, 316, *range(700, 2**16)))
_TIFF_XMP = 700


class StrippedPicture(NamedTuple):
    """An encoded picture without its metadata."""

    pixels: bytes  # the file without optional metadata
    orientation: int  # 1 to 8, as in EXIF; 1 if the file has no usable one
    needs_pillow: bool = False  # a JPEG that simplejpeg does not decode as Pillow does: four channels, or unusual sampling


def split_metadata(content: bytes) -> StrippedPicture:
    """Separate the metadata of a PNG, JPEG or TIFF file from its pixels. The pixels are neither decoded nor rotated.

    `pixels` lacks color profiles, gamma, animation frames and texts, but keeps transparency. `orientation` is that of EXIF,
    else of XMP, as in Pillow. Of a file of another format, `pixels` is the file itself and `orientation` is 1. Damage of the
    file structure stays in `pixels`, so that the decoder reports it.

    Raises:
        ValueError: the checksum of a PNG's transparency (tRNS) is wrong.
    """
    if content.startswith(PNG):
        return _split_png(content)
    if content.startswith(JPEG):
        return _split_jpeg(content)
    if content[:4] in _TIFF_ORDERS:
        return _split_tiff(content)
    return StrippedPicture(content, 1)


def _split_png(content: bytes) -> StrippedPicture:
    if content[37:41] == b"IDAT" and len(content) == 57 + int.from_bytes(content[33:37]):  # IHDR, one IDAT, IEND: the usual PNG
        return StrippedPicture(content, 1)
    kept, optional, kept_to = [], [], 0
    for kind, start, end in _other_png_chunks(content):
        if kind == b"tRNS" and not _is_intact(content[start:end]):
            raise ValueError("wrong checksum of the tRNS chunk")
        if kind != b"tRNS" and kind[0] & 0x20:  # lower case: ancillary
            optional.append((kind, content[start:end]))
            kept.append(content[kept_to:start])
            kept_to = end
    if not optional:
        return StrippedPicture(content, 1)
    return StrippedPicture(b"".join((*kept, content[kept_to:])), _png_orientation(optional))


def _other_png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, start and end of each complete chunk except header, palette and pixels, up to IEND."""
    start, size = len(PNG), len(content)
    while start + 12 <= size:
        length, kind = _unpack_chunk(content, start)
        end = start + 12 + length
        if kind not in _PNG_PIXELS:
            if end > size or kind == b"IEND":
                return
            yield kind, start, end
        start = end


def _is_intact(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]).to_bytes(4) == chunk[-4:]


def _png_orientation(chunks: list[tuple[bytes, bytes]]) -> int:
    exif, texts = b"", {}
    for kind, chunk in chunks:
        if kind == b"eXIf" and _is_intact(chunk):
            exif = chunk[8:-4]
        elif kind in _PNG_TEXTS and chunk.startswith((_RAW_PROFILE, _PNG_XMP), 8) and _is_intact(chunk):
            keyword, _, text = chunk[8:-4].partition(b"\0")
            texts[keyword] = _text(kind, text)
    return _orientation(exif or _raw_profile(texts.get(_RAW_PROFILE, b"")), texts.get(_PNG_XMP, b""))


def _text(kind: bytes, text: bytes) -> bytes:
    """Return the text of a tEXt, zTXt or iTXt chunk, given what follows its keyword; empty if it cannot be decompressed.

    Of a compressed text, at most the first `_MAX_TEXT` bytes are returned.
    """
    compressed = kind == b"zTXt"
    if kind == b"iTXt":
        compressed = text[:1] == b"\1"
        text = text[1:2] + text[2:].split(b"\0", 2)[-1]  # compression method; language and translated keyword are dropped
    if kind == b"tEXt":
        return text
    if not compressed:
        return text[1:]
    try:
        return zlib.decompressobj().decompress(text[1:], _MAX_TEXT)
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes:
    """Decode the hexadecimal text of ImageMagick: an empty line, name, length, then lines of digits; empty if it is damaged."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def _split_jpeg(content: bytes) -> StrippedPicture:
    kept, kept_to, exif, xmp, needs_pillow = [], 0, b"", b"", False
    for marker, start, end in _noted_jpeg_segments(content):
        if marker in _JPEG_FRAMES:
            needs_pillow = not _is_usual_frame(content[start + 9 : end])
            continue
        kept.append(content[kept_to:start])
        kept_to = end
        if marker == 0xFFE1 and content.startswith(_JPEG_EXIF, start + 4):
            exif += content[start + 4 + len(_JPEG_EXIF) : end]  # a long EXIF block continues in the next segment
        elif marker == 0xFFE1 and content.startswith(_JPEG_XMP, start + 4):
            xmp = content[start + 4 + len(_JPEG_XMP) : end]
    if not kept:
        return StrippedPicture(content, 1, needs_pillow)
    return StrippedPicture(b"".join((*kept, content[kept_to:])), _orientation(exif, xmp), needs_pillow)


def _is_usual_frame(components: bytes) -> bool:
    """Return whether a frame header lists one channel, or a luma of a usual sampling and two chroma channels, or is damaged.

    Args:
        components: the number of channels, and for each its id, sampling factors and table.
    """
    if not components or len(components) != 1 + 3 * components[0]:
        return True  # damaged, which simplejpeg reports
    return components[0] == 1 or (components[0] == 3 and components[2] in _USUAL_SAMPLING and components[5::3] == b"\x11\x11")


def _noted_jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of the frame header and of each complete optional segment before the first scan.

    JFIF and Adobe headers that determine the color space are not optional, and are not yielded.
    """
    start, size = 2, len(content)
    while start + 4 <= size:
        marker, length = _unpack_segment(content, start)
        if marker < 0xFF00 or marker == 0xFFFF:  # a byte between segments, a fill byte
            start += 1
            continue
        if marker <= 0xFF01 or 0xFFD0 <= marker <= 0xFFD8:  # no length
            start += 2
            continue
        end = start + 2 + length
        if marker in (0xFFD9, 0xFFDA) or length < 2 or end > size:  # the end of the image, a scan, or damage
            return
        if marker in _JPEG_NOTED and length < _JPEG_COLOR_HEADERS.get(marker, 2**16):
            yield marker, start, end
        start = end


def _split_tiff(content: bytes) -> StrippedPicture:
    """Drop the optional entries of the first directory; everything else stays at its place in the file."""
    order = _TIFF_ORDERS[content[:4]]
    directory, entries = _tiff_directory(content)
    end = directory + 2 + 12 * len(entries)
    if not entries or end + 4 > len(content):
        return StrippedPicture(content, 1)
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] not in _TIFF_OPTIONAL]
    xmp = next(
        (_tiff_bytes(content, entry) for entry in entries if struct.unpack_from(f"{order}H", entry)[0] == _TIFF_XMP), b""
    )
    shorter = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + content[end : end + 4]
    pixels = content[:directory] + shorter + content[directory + len(shorter) :]
    return StrippedPicture(pixels, _orientation(content, xmp))


def _tiff_directory(tiff: bytes) -> tuple[int, list[bytes]]:
    """Return the offset of the first directory of a TIFF or EXIF block, and its entries of 12 bytes; none if it is damaged."""
    order = _TIFF_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 0, []
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return 0, []
    (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    places = range(directory + 2, min(directory + 2 + 12 * entries, len(tiff) - 11), 12)
    return directory, [tiff[place : place + 12] for place in places]


def _tiff_bytes(tiff: bytes, entry: bytes) -> bytes:
    """Return the content of an entry of more than 4 single bytes; fewer bytes if the file ends before."""
    _, _, count, offset = struct.unpack(f"{_TIFF_ORDERS[tiff[:4]]}HHII", entry)
    return tiff[offset : offset + count]


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation, 1 to 8, that EXIF or, without the tag in EXIF, XMP declares; 1 if it is missing or unusable."""
    value = _tiff_orientation(exif)
    if value is None and (match := _XMP_ORIENTATION.search(xmp)):
        value = int(match[1])
    return value if value is not None and 1 <= value <= 8 else 1


def _tiff_orientation(exif: bytes) -> int | None:
    """Read the orientation tag from the first directory of an EXIF block; 0 if it is not a single integer, None if missing."""
    tiff = re.sub(rb"^(?:Exif\0\0)+", b"", exif)
    order = _TIFF_ORDERS.get(tiff[:4])
    for entry in _tiff_directory(tiff)[1]:
        tag, kind, count = struct.unpack_from(f"{order}HHI", entry)
        if tag == _ORIENTATION:
            is_integer = count == 1 and kind in _INTEGERS
            return int(struct.unpack_from(f"{order}{_INTEGERS[kind]}", entry, 8)[0]) if is_integer else 0
    return None
