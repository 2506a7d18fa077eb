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
    """Write the images that `folder` lacks as 000000.png, 000001.png, ..., and labels.json for a model with classes.

    More than 10,000 images are in subfolders: image i is in subfolder i // 10000, such as 00001/012345.png.
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
    """Return the path of each image below the folder, from the numbers that name the images."""
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
