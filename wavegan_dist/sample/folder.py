"""A folder of PNG files."""

import json
from collections.abc import Sequence
from pathlib import Path

from wavegan_dist.files import atomic_file
from wavegan_dist.sample.encoded import encoded
from wavegan_dist.sample.images import Images
from wavegan_dist.sample.workers import Workers

LABELS_FILE = "labels.json"
FOLDER_IMAGES = 10_000  # a folder of more images has subfolders of this many
PNG_END = b"IEND\xaeB`\x82"  # the last bytes of every PNG file


def write_folder(workers: Workers, images: Images, folder: Path) -> None:
    """Write the images that `folder` lacks as PNG files, and labels.json for a model with classes.

    `file_names(images.names)` names the files: 000000.png, 000001.png, ... A file that a power failure cut short is written
    again. labels.json maps each of these names to the class of the image.

    Args:
        workers: the threads.
        images: the images.
        folder: an existing folder.

    Raises:
        WaveganError: an image is not finite.
        OSError: a file cannot be written.
    """
    names = file_names(images.names)
    missing = {number for number, name in enumerate(names) if not _is_complete(folder / name)}
    for name in {Path(names[number]).parent for number in missing}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, content in encoded(workers, images, missing):
        _write(folder / names[number], content)
    if classes := images.classes():
        with atomic_file(folder / LABELS_FILE) as file:
            file.write(json.dumps(dict(zip(names, classes, strict=True)), indent=0) + "\n")


def file_names(numbers: Sequence[int]) -> list[str]:
    """Return the path of each image, relative to the folder: 000007.png for the number 7.

    If there are more than FOLDER_IMAGES images, number n is in subfolder n // FOLDER_IMAGES, such as 00001/012345.png.

    Args:
        numbers: the numbers that name the images (`Images.names`).
    """
    if len(numbers) <= FOLDER_IMAGES:
        return [f"{number:06d}.png" for number in numbers]
    return [f"{number // FOLDER_IMAGES:05d}/{number:06d}.png" for number in numbers]


def _is_complete(path: Path) -> bool:
    """Whether a PNG file exists and is whole: a power failure may cut the files of the last seconds short."""
    return path.exists() and path.read_bytes().endswith(PNG_END)


def _write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it. Not synced: a power failure may leave a part of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
