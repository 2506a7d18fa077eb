"""The sample grids of a run: the same latents at every snapshot."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from wavegan_dist.errors import WaveganError
from wavegan_dist.run_folder import RunFolder

MAX_SIDE = 1024  # pixels of the longer side of a frame; larger grids are shrunk
MAX_PIXELS = 2**24  # of all frames of a run: 64 frames of 512 x 512 pixels, 16 of 1024 x 1024


@dataclass(frozen=True)
class Frame:
    """A sample grid.

    Attributes:
        nimg: real images shown to the discriminators before the grid was made.
        png: content of a PNG file: the grid, shrunk if its longer side has more than 1,024 pixels (`MAX_SIDE`).
    """

    nimg: int
    png: bytes


def read_frames(run: RunFolder) -> tuple[list[Frame], int]:
    """Read the sample grids of a run, oldest first: all, or equally spaced ones if all would have more than 2**24 pixels.

    Pixels are counted as if every grid had the size of the newest, after shrinking (`MAX_SIDE`).

    Returns:
        The frames, which include the first and the last grid, and the number of grids in the run folder; ([], 0) if the run has
        none.

    Raises:
        WaveganError: a grid is damaged.
        OSError: a grid cannot be read.
    """
    grids = run.sample_grids()
    if not grids:
        return [], 0
    newest = max(grids)
    width, height = _size(_read(grids[newest]))
    chosen = spread(sorted(grids), max(MAX_PIXELS // (width * height), 2))
    return [Frame(nimg, _read(grids[nimg])) for nimg in chosen], len(grids)


def spread(values: list[int], count: int) -> list[int]:
    """Return at most `count` >= 2 equally spaced values of the list, including the first and the last."""
    if len(values) <= count:
        return values
    return [values[round(number * (len(values) - 1) / (count - 1))] for number in range(count)]


def _read(path: Path) -> bytes:
    """Return the bytes of a PNG file, shrunk to `MAX_SIDE` if it is larger, else unchanged.

    Raises:
        WaveganError: the file is damaged.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as picture:
            picture.load()
            if max(picture.size) <= MAX_SIDE:
                return content
            picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
            file = BytesIO()
            picture.save(file, format="PNG")
            return file.getvalue()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise WaveganError(f"{path} is damaged: it is not a PNG file that can be read; delete it") from error


def _size(png: bytes) -> tuple[int, int]:
    with Image.open(BytesIO(png)) as picture:
        return picture.size
