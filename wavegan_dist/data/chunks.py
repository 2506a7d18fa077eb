"""Encode the pictures of a dataset in chunks that stay on disk, so that an interrupted `shards write` can resume."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

from wavegan_dist import __version__
from wavegan_dist.data.bands import BandStdAccumulator, BandSums
from wavegan_dist.data.codec import decode, encode
from wavegan_dist.data.left_out import LeftOut
from wavegan_dist.data.picture import BadPictureError, Picture
from wavegan_dist.files import atomic_file, parse_json

CHUNKS = 64  # target number of chunks: enough to give every worker some
MIN_PICTURES, MAX_PICTURES = 8, 256  # per chunk; the minimum is 1 where pictures are cut into many patches
LOSSLESS = ("png", "webp")


class EncodedChunk(NamedTuple):
    """The content of a chunk's PATH.npz: where the encoded images are in PATH.bin, their labels, and what gave no image."""

    ends: NDArray[np.int64]  # [images]: end offset of each image in PATH.bin
    labels: NDArray[np.int64]  # [images]
    sums: BandSums
    bad: list[LeftOut]  # pictures that cannot be decoded
    without_image: list[LeftOut]  # pictures that are smaller than a patch or flat


class Chunk(NamedTuple):
    """Consecutive pictures of the source and the files of their encoded images.

    PATH stands for `path`, which has no extension. PATH.bin holds the encoded images, one after another. PATH.npz holds an
    `EncodedChunk` and is written last.
    """

    path: Path
    size: int  # of the images, in pixels
    encoding: str
    pictures: Sequence[Picture]

    @property
    def done(self) -> bool:
        """Whether `encode_chunk` has encoded this chunk, now or in an earlier command: PATH.npz, written last, exists."""
        return self.path.with_suffix(".npz").exists()

    def read(self) -> EncodedChunk:
        """Read what `encode_chunk` wrote to PATH.npz. Raises FileNotFoundError if the chunk is not `done`."""
        with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as file:
            bad, small = parse_json(str(file["left_out"]))
            return EncodedChunk(
                file["ends"],
                file["labels"],
                np.array(parse_json(str(file["sums"])), dtype=object),
                [LeftOut(*entry) for entry in bad],
                [LeftOut(*entry) for entry in small],
            )


def split_into_chunks(pictures: Sequence[Picture], work: Path, size: int, encoding: str) -> list[Chunk]:
    """Divide the pictures, in their order, into chunks. Reads and writes no file.

    The name of a chunk's files is a hash of the name, fingerprint, label and stride of each picture, `size`, `encoding` and the
    versions of this package and of Pillow: if any of them changes, the name is a new one, and the pictures are encoded again.

    Args:
        pictures: at least one picture.
        work: folder of the chunks' files.
        size: side of the images to make, in pixels.
        encoding: a key of `codec.ENCODINGS`.
    """
    smallest = 1 if pictures[0].stride else MIN_PICTURES
    length = min(max(len(pictures) // CHUNKS, smallest), MAX_PICTURES)
    groups = [pictures[start : start + length] for start in range(0, len(pictures), length)]
    return [Chunk(work / _hash(group, size, encoding), size, encoding, group) for group in groups]


def encode_chunk(chunk: Chunk) -> list[LeftOut]:
    """Decode the pictures of a chunk, encode the images that they give, and write PATH.bin and PATH.npz (see `Chunk`).

    Returns:
        An entry for each picture that cannot be decoded; such pictures are skipped.

    Raises:
        KeyError: the encoding is not a key of `codec.ENCODINGS`.
        OSError: a file cannot be read or written.
        WaveganError: the memory does not suffice to decode a picture.
    """
    ends, labels, bands = [0], [], BandStdAccumulator(chunk.size)
    bad, without_image = list[LeftOut](), list[LeftOut]()
    with atomic_file(chunk.path.with_suffix(".bin"), "wb") as file:
        for picture in chunk.pictures:
            before = len(ends)
            try:
                images = picture.images(chunk.size)
            except BadPictureError as error:
                bad.append(LeftOut(error.name, "cannot be decoded", detail=error.reason))
                continue
            for image in images:
                content = encode(image, chunk.encoding)
                file.write(content)
                ends.append(ends[-1] + len(content))
                labels.append(picture.label)
                bands.add(image if chunk.encoding in LOSSLESS else decode(content, chunk.size))
            if len(ends) == before:
                without_image.append(LeftOut(picture.name, f"without a patch: smaller than {chunk.size} px, or flat"))
    left_out, sums = (np.array(json.dumps(content)) for content in ([bad, without_image], bands.sums().tolist()))
    with atomic_file(chunk.path.with_suffix(".npz"), "wb") as file:
        np.savez(file, ends=np.array(ends[1:], np.int64), labels=np.array(labels, np.int64), sums=sums, left_out=left_out)
    return bad


def _hash(pictures: Sequence[Picture], size: int, encoding: str) -> str:
    inputs = [(picture.name, picture.fingerprint, picture.label, picture.stride) for picture in pictures]
    text = json.dumps([__version__, PIL.__version__, size, encoding, inputs])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
