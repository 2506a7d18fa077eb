"""Which files are pictures, by extension or first bytes: the formats that Pillow reads. And which files are tars."""

import re
from functools import cache

from PIL import Image

# Pillow only recognizes these formats, or decodes them with another program (Ghostscript), which a dataset must not start.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}

# First bytes that only pictures have, of formats whose files often lack an extension.
_PICTURE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|GIF8[79]a|....ftypavi[fs]|II\*\0|MM\0\*|\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51|"
    rb"BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    re.DOTALL,
)
# Raw photographs, which are TIFF files: Pillow would read their thumbnail.
_RAW = re.compile("3fr|arw|cr2|dcr|dng|erf|fff|gpr|iiq|k25|kdc|mef|mos|nef|nrw|pef|sr2|srf|srw")
_OTHER_KINDS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\3\4", "zip"),
    (b"7z\xbc\xaf", "7z"),
    (b"Rar!", "rar"),
)
HEAD_BYTES = 64  # enough of a file for the functions below
TARS = "*.[tT][aA][rR]"  # glob pattern of the names for which `is_tar` is true


@cache
def formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are decoded, sorted."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - _NOT_DECODED))


@cache
def picture_extensions() -> frozenset[str]:
    """Return the extensions of the formats that are decoded, in lower case and without the dot."""
    known = {*formats(), "MPO"}  # a JPEG with several pictures; Pillow lists it as a format that it only writes
    return frozenset(extension[1:] for extension, name in Image.registered_extensions().items() if name in known)


def is_picture(head: bytes) -> bool:
    """Return whether the first HEAD_BYTES of a file are those of a PNG, JPEG, WebP, GIF, AVIF, TIFF, JPEG 2000 or BMP picture.

    Pictures of all other formats are recognized by their extension only.
    """
    return _PICTURE.match(head) is not None


def is_raw(extension: str) -> bool:
    """Return whether files of this extension, in lower case and without the dot, are raw photographs of a camera."""
    return _RAW.fullmatch(extension) is not None


def is_tar(name: str) -> bool:
    """Return whether a file of this name is taken for a tar: the name ends in .tar, in upper or lower case."""
    return name.lower().endswith(".tar")


def compression(head: bytes) -> str | None:
    """Return which kind of compressed file or archive, such as "gzip" or "zip", begins with `head`; None for any other file."""
    return next((kind for start, kind in _OTHER_KINDS if head.startswith(start)), None)


def is_lfs_pointer(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a Git LFS pointer, which stands for content that was not fetched."""
    return head.startswith(b"version https://git-lfs")


def describe_content(head: bytes) -> str:
    """Return what a file is that Pillow cannot open, from its first HEAD_BYTES: a clause such as "it is a gzip file"."""
    if not head:
        return "the file is empty"
    if is_lfs_pointer(head):
        return "it is a Git LFS pointer; fetch the content with `git lfs pull`"
    if kind := compression(head):
        return f"it is a {kind} file"
    if is_picture(head):
        return "its header is damaged, or of a kind that Pillow does not read"
    return f"it is not a picture and begins with {head[:16]!r}"
