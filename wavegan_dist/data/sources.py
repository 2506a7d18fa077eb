"""Where images come from: a folder of pictures, whole or in patches, or the embedded set."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wavegan_dist.data.embedded import embedded_pictures
from wavegan_dist.errors import UsageError, WaveganError

Pixels = NDArray[np.uint8]

EMBEDDED = "embedded"
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

# A patch is flat, and left out, where the standard deviation of its grey levels (of 0..255) is below this: skies,
# blank walls and black borders go, shaded and textured surfaces stay.
FLAT = 12.0


class Source:
    """The images to write: uint8 RGB [size, size, 3], picture by picture, in an order that does not change."""

    def __init__(self, source: str | Path, size: int, *, patches: bool) -> None:
        """Find the pictures; none is opened yet.

        Args:
            source: a folder, searched with its subfolders (hidden files left out), or the word "embedded".
            size: side of the images in pixels.
            patches: cut `size` x `size` patches at a stride of size / 2 out of each picture of a folder, instead of
                cropping its centre to a square and resizing that. The embedded set always comes in patches.

        Raises:
            UsageError: not a folder, no pictures in it, or a package of the embedded set is missing.
        """
        self.size = size
        self.name = str(source)
        if self.name == EMBEDDED:
            self.pictures: list[tuple[Path, int]] = embedded_pictures(size)
        else:
            stride = size // 2 if patches else 0
            self.pictures = [(path, stride) for path in _find(Path(source))]

    def images(self, picture: tuple[Path, int]) -> Iterable[Pixels]:
        """The images of one of `pictures`. Raises WaveganError, naming the file, where it cannot be decoded."""
        path, stride = picture
        image = _open(path)
        if stride:
            return _patches(np.asarray(image), self.size, stride)
        return [np.asarray(ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS))]


def _find(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give a folder of pictures or the word '{EMBEDDED}'")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file()]
    visible = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not visible:
        raise UsageError(f"{folder} holds no pictures; looked for {', '.join(EXTENSIONS)} there and in its subfolders")
    return sorted(visible, key=lambda path: path.relative_to(folder).parts)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise WaveganError(f"{path} cannot be read as an image ({error}); mend it or take it away") from error


def _patches(image: Pixels, size: int, stride: int) -> Iterator[Pixels]:
    """Patches of [H, W, 3], row by row, the flat ones left out."""
    height, width = image.shape[:2]
    if width < size:
        return
    for top in range(0, height - size + 1, stride):
        strip = image[top : top + size]
        windows = np.lib.stride_tricks.sliding_window_view(strip.mean(2, dtype=np.float32), size, axis=1)[:, ::stride]
        for column in np.flatnonzero(windows.std(axis=(0, 2)) >= FLAT):
            yield strip[:, column * stride : column * stride + size]
