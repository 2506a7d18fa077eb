"""Read one tar from its first to its last byte: what the index says about it, and the statistics of its images' bands."""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wavegan_dist.config import RESOLUTIONS
from wavegan_dist.data.bands import DrawnBands, DrawnSums, no_sums
from wavegan_dist.data.codec import DecodeError, decode
from wavegan_dist.data.forward_file import ForwardFile
from wavegan_dist.data.index import Members
from wavegan_dist.data.left_out import LeftOut, by_reason, summary
from wavegan_dist.data.picture import BadPictureError
from wavegan_dist.data.pixels import open_picture
from wavegan_dist.data.read import MAX_IMAGE_BYTES
from wavegan_dist.data.remote import Answer
from wavegan_dist.data.selection import read_keys
from wavegan_dist.data.shards import Shard
from wavegan_dist.data.storage import Storage
from wavegan_dist.data.tars import Contents, Member
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import atomic_file, parse_json

# File extensions that training reads.
TRAINING_EXTENSIONS = ("png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp")
_ENCODINGS = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp"}  # of Pillow's formats: names in the index


class Tar(NamedTuple):
    """A tar to read."""

    storage: Storage
    file: str
    number: int  # among the tars of the dataset
    drawn: int  # largest number of images to decode for the statistics of the bands
    labels: frozenset[int]  # of the images that are chosen; empty: of any class
    keys: Path | None  # file with the keys of the images that are chosen; None: all
    result: Path | None  # where the scan is kept for a later command

    @property
    def name(self) -> str:
        """Path or URL of the tar, or the command that prints it, for messages."""
        return self.storage.url(self.file)


class Scan(NamedTuple):
    """What was found in a tar.

    `members`, `keys`, `size` and `encodings` are about the images that are chosen by their keys. `sums` is about those that are
    also chosen by their classes.
    """

    shard: Shard  # `images` counts all images of the tar
    left_out: list[LeftOut]
    members: Members
    keys: frozenset[str]  # empty if all images are chosen
    size: int  # of the images, in pixels; 0 if there is none
    encodings: list[str]
    sums: DrawnSums
    version: str  # of the tar, see `Answer`

    def save(self, path: Path) -> None:
        """Write the scan to the file `path`, whose name ends in .npz, atomically. Raises OSError if that is impossible."""
        content = json.dumps(
            {
                "shard": self.shard.model_dump(),
                "left_out": self.left_out,
                "keys": sorted(self.keys),
                "size": self.size,
                "encodings": self.encodings,
                "sums": self.sums.sums.tolist(),
                "drawn": self.sums.drawn,
                "version": self.version,
            }
        )
        with atomic_file(path, "wb") as file:
            np.savez(file, members=self.members, content=np.array(content))

    @classmethod
    def load(cls, path: Path) -> "Scan":
        """Read what `save` wrote to `path`. Raises FileNotFoundError if there is no such file."""
        with np.load(path, allow_pickle=False) as file:
            content = parse_json(str(file["content"]))
            return cls(
                Shard(**content["shard"]),
                [LeftOut(*entry) for entry in content["left_out"]],
                file["members"],
                frozenset(content["keys"]),
                content["size"],
                content["encodings"],
                DrawnSums(np.array(content["sums"], dtype=object), content["drawn"]),
                content["version"],
            )


def scan_tar(tar: Tar) -> Scan:
    """Read a tar from its first to its last byte, and write the scan to `tar.result` unless that is None.

    Returns:
        The scan; without reading the tar, if `tar.result` has a scan of the same version of the tar, or of an unknown version
        (`Answer.version`).

    Raises:
        UsageError, WaveganError: see `index_shards`.
        OSError: a tar on this machine cannot be read, or `tar.result` cannot be written.
    """
    if tar.result is not None and tar.result.exists():
        scan = Scan.load(tar.result)
        if not scan.version or scan.version == _version(tar):
            return scan
    scan = tar.storage.stream(tar.file, partial(_read, tar))
    if tar.result is not None:
        scan.save(tar.result)
    return scan


def _version(tar: Tar) -> str:
    try:
        return tar.storage.version(tar.file)
    except WaveganError:  # the tar is read again, which raises the error if it is still there
        return ""


def _read(tar: Tar, answer: Answer) -> Scan:
    file, contents, images = ForwardFile(answer.blocks), Contents(tar.name, TRAINING_EXTENSIONS), _Images(tar)
    keys = None if tar.keys is None else read_keys(tar.keys)

    def on_image(member: Member) -> None:
        if keys is None or member.key in keys:
            if member.size > MAX_IMAGE_BYTES:
                raise BadPictureError(
                    f"{member.name} in {tar.name}", f"{member.size:,} bytes are more than {MAX_IMAGE_BYTES:,}"
                )
            images.add(member, file.read(member.size), contents.label(member.key))

    contents.read(file, on_image)
    samples = contents.samples()
    left_out = contents.left_out()
    if not samples:
        found = "; ".join(summary(by_reason(left_out)))
        raise WaveganError(f"{tar.name} holds no image, only {found}; convert the images or move the tar elsewhere")
    size, sha256 = file.finish()
    shard = Shard(file=tar.file, images=len(samples), bytes=size, sha256=sha256)
    chosen = [sample for sample in samples if keys is None or sample.image.key in keys]
    rows = np.array([(image.offset, image.size, label) for image, label in chosen], dtype=np.int64).reshape(-1, 3)
    found_keys = frozenset[str]() if keys is None else frozenset(image.key for image, _ in chosen)
    encodings = sorted(images.encodings)
    return Scan(shard, left_out, rows, found_keys, images.size, encodings, images.sums(), answer.version)


class _Images:
    """What the images of a tar have in common, and the statistics of their bands.

    Attributes:
        size: side of the images in pixels; 0 before the first image.
        encodings: names of their encodings.
    """

    def __init__(self, tar: Tar) -> None:
        self._tar = tar
        self.size = 0
        self.encodings: set[str] = set()

    def add(self, member: Member, content: bytes, label: int) -> None:
        """Check an image, and count its bands if it is drawn.

        Args:
            member: the image.
            content: its content.
            label: its label, or -1. Tools write labels before images. If a label comes later, the image counts as chosen here.

        Raises:
            UsageError, WaveganError: the image cannot be used; see `index_shards`.
        """
        if len(content) < member.size:
            return  # the tar is cut short, which its walk reports
        side, encoding = _image_header(member, content, self._tar)
        self.encodings.add(encoding)
        if not self.size:
            self.size = side
            self._bands = DrawnBands(side, self._tar.drawn, self._tar.number)
        if side != self.size:
            raise UsageError(
                f"{member.name} in {self._tar.name} has another size than the images before it; {advice(self._tar.storage)}"
            )
        if self._tar.labels and label not in {-1, *self._tar.labels}:
            return
        try:
            self._bands.add(lambda: decode(content, side))
        except DecodeError as error:
            raise WaveganError(f"image {member.key} of {self._tar.name} {error.reason}; repair or remove it") from error

    def sums(self) -> DrawnSums:
        """Return the sums over the bands of the images drawn; sums over no image before the first image."""
        return self._bands.sums() if self.size else DrawnSums(no_sums(RESOLUTIONS[0]), 0)


def _image_header(image: Member, content: bytes, tar: Tar) -> tuple[int, str]:
    """Read the side of a square image, in pixels, and the name of its encoding in the index ("png", "jpg", "webp").

    Only the header is read, from the bytes `content`. The names of `image` and `tar` are for error messages.

    Raises:
        UsageError: the image has another format than PNG, JPEG and WebP, or a width and height that training cannot use.
        WaveganError: the header cannot be read.
    """
    try:
        picture = open_picture(content)
    except Exception as error:  # Pillow raises exceptions of almost any type on broken bytes
        raise BadPictureError.of(f"{image.name} in {tar.name}", error) from error
    width, height = picture.size
    if picture.format not in _ENCODINGS:
        raise UsageError(
            f"{image.name} in {tar.name} is a {picture.format} despite its name, and training reads PNG, JPEG and WebP; "
            f"{advice(tar.storage)}"
        )
    if width != height or width not in RESOLUTIONS:
        sizes = ", ".join(map(str, RESOLUTIONS))
        raise UsageError(
            f"{image.name} in {tar.name} is {width}x{height} px, not square with a side of {sizes}; {advice(tar.storage)}"
        )
    return width, _ENCODINGS[picture.format]


def advice(storage: Storage) -> str:
    """Return the end of an error message: what to do with images of `storage` that training cannot use as they are."""
    if storage.is_remote:
        return "copy the tars to this machine and convert them with `wavegan shards write DIR OUT --size N`"
    return f"convert them with `wavegan shards write {storage.base} OUT --size N`"
