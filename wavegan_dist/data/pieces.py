"""A write in pieces: each is a run of pictures, encoded and on the disk, so that a killed write does not begin again."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

from wavegan_dist import __version__
from wavegan_dist.data.bands import BandStdAccumulator, BandSums
from wavegan_dist.data.codec import decode, encode
from wavegan_dist.data.sources import Picture
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file

PIECES = 64  # about as many, so that all workers have some,
SMALLEST, LARGEST = 8, 256  # but so many pictures in each; pictures that are cut into patches are long work, one is enough
LOSSLESS = ("png", "webp")


class Piece(NamedTuple):
    """A run of pictures and where their images go: PATH.bin, the contents in turn, and PATH.npz, written last."""

    path: Path
    size: int
    encoding: str
    pictures: Sequence[Picture]

    @property
    def done(self) -> bool:
        """Whether it was made before."""
        return self.path.with_suffix(".npz").exists()

    def read(self) -> tuple[NDArray[np.int64], NDArray[np.int64], BandSums]:
        """End of each image's content in PATH.bin [images], its label [images], and the sums over all their bands."""
        with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as file:
            return file["ends"], file["labels"], file["sums"]


@contextmanager
def work_folder(out: Path, settings: Mapping[str, object]) -> Iterator[Path]:
    """The folder of the pieces, beside `out`. It goes when the block ends well, and stays for the same settings if images
    are encoded when it ends otherwise.

    Raises:
        UsageError: another process is at it, or the folder is there with pieces of other settings.
    """
    work = out.with_name(f".{out.name}.partial")
    with _alone(work, out), _kept(work, settings):
        yield work


@contextmanager
def _kept(work: Path, settings: Mapping[str, object]) -> Iterator[None]:
    plan = work / "plan.json"
    if plan.exists() and (before := json.loads(plan.read_text())) != settings:
        other = ", ".join(
            f"{key} {before.get(key)}, not {value}" for key, value in settings.items() if before.get(key) != value
        )
        raise UsageError(f"{work} holds an unfinished write with {other}; finish it with its own command or remove that folder")
    try:
        with atomic_file(plan) as file:
            file.write(json.dumps(settings))
        yield
    except BaseException:
        if not any(path.stat().st_size for path in work.glob("*.bin")):
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work)


@contextmanager
def _alone(work: Path, out: Path) -> Iterator[None]:
    """Hold the folder, made if need be, against all other writes until the block or this process, however, ends."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's not inherited by workers, who may end later
        except (BlockingIOError, PermissionError) as error:
            raise UsageError(f"another `shards write` is at {out}; wait for its end or choose another folder") from error
        yield


def split(pictures: Sequence[Picture], work: Path, size: int, encoding: str) -> list[Piece]:
    """Pieces of all pictures, named by all that their content depends on: pictures that changed make another piece."""
    smallest = 1 if pictures[0].stride else SMALLEST
    length = min(max(len(pictures) // PIECES, smallest), LARGEST)
    runs = [pictures[start : start + length] for start in range(0, len(pictures), length)]
    return [Piece(work / _name(run, size, encoding), size, encoding, run) for run in runs]


def make_piece(piece: Piece) -> None:
    """Encode the images of a piece onto the disk. Raises WaveganError, naming it, for a picture that cannot be decoded."""
    ends, labels, bands = [0], [], BandStdAccumulator()
    with atomic_file(piece.path.with_suffix(".bin"), "wb") as file:
        for picture in piece.pictures:
            for image in picture.images(piece.size):
                content = encode(image, piece.encoding)
                file.write(content)
                ends.append(ends[-1] + len(content))
                labels.append(picture.label)
                bands.add(image if piece.encoding in LOSSLESS else decode(content, piece.size, picture.name))
    with atomic_file(piece.path.with_suffix(".npz"), "wb") as file:
        np.savez(file, ends=np.array(ends[1:], np.int64), labels=np.array(labels, np.int64), sums=bands.sums())


def _name(pictures: Sequence[Picture], size: int, encoding: str) -> str:
    listed = [(picture.name, picture.stamp, picture.label, picture.stride) for picture in pictures]
    known = json.dumps([__version__, PIL.__version__, size, encoding, listed])
    return hashlib.sha256(known.encode()).hexdigest()[:32]
