"""Sources of pictures: a folder, a zip, WebDataset tars, a torchvision dataset on disk, or the embedded dataset."""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath
from stat import S_IFMT, S_IFREG
from typing import Any, NamedTuple

from PIL import Image

from wavegan_dist.data.codec import read_picture, to_rgb
from wavegan_dist.data.embedded import embedded_pictures
from wavegan_dist.data.pixels import Pixels, center_crop, patches
from wavegan_dist.data.tars import Sample, pair_labels, read_at, refuse_unsafe, walk
from wavegan_dist.errors import UsageError, WaveganError

EMBEDDED = "embedded"
TORCHVISION = "torchvision:"
EXTENSIONS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff")
MAX_FILE_BYTES = 2**30  # a larger file is not a picture


class Picture(NamedTuple):
    """One picture of a source; its file is opened by `load` only."""

    name: str  # for error messages
    fingerprint: str  # changes if the content may have changed
    label: int  # -1 if the picture has none
    stride: int  # of the patches to cut, in pixels; 0 crops and resizes the picture instead
    load: Callable[[], Image.Image]  # returns it as upright 8-bit RGB

    def images(self, size: int) -> list[Pixels] | Iterator[Pixels]:
        """Decode the picture and make its images, each uint8 RGB [size, size, 3].

        Raises:
            WaveganError: the picture cannot be decoded; the message names it.
        """
        try:
            image = self.load()
        except Exception as error:  # Pillow's decoders raise almost anything on a broken file
            raise WaveganError(f"{self.name} cannot be read as an image ({error}); repair or remove it") from error
        return patches(image, size, self.stride) if self.stride else [center_crop(image, size)]


class Listing(NamedTuple):
    """The pictures of a source, in a reproducible order."""

    pictures: list[Picture]
    classes: list[str]  # names of the labels 0, 1, ...; empty if unknown


def list_pictures(source: str, size: int, *, cut_patches: bool, labels: bool) -> Listing:
    """List the pictures of a source without opening them. Hidden files are skipped.

    Args:
        source: a folder, searched with its subfolders; a folder that holds *.tar; a .zip; "torchvision:CLASS:FOLDER" for the
            training split of a dataset on disk; or "embedded".
        size: side of the images to make, in pixels.
        cut_patches: cut patches at a stride of size / 2 instead of cropping and resizing each picture. The embedded dataset
            always consists of patches.
        labels: label each picture by its class folder, its .cls member or the target of the torchvision dataset.

    Raises:
        UsageError: the source does not exist, or has no pictures or no labels.
        WaveganError: an archive is damaged or unsafe; see `refuse_unsafe`.
    """
    stride = size // 2 if cut_patches else 0
    path = Path(source)
    if source == EMBEDDED:
        listing = _embedded(size, labels)
    elif source.startswith(TORCHVISION):
        listing = _torchvision(source, stride, labels)
    elif zipfile.is_zipfile(path):
        listing = _zip(path, stride, labels)
    elif path.is_dir() and any(path.glob("*.tar")):
        listing = _tars(sorted(path.glob("*.tar")), stride, labels)
    elif path.is_dir():
        listing = _folder(path, stride, labels)
    else:
        raise UsageError(f"{source} is neither a folder nor a zip; give one, torchvision:CLASS:FOLDER or '{EMBEDDED}'")
    if not listing.pictures:
        extensions = ", ".join(f".{extension}" for extension in EXTENSIONS)
        raise UsageError(f"{source} holds no pictures; searched it and its subfolders for {extensions}")
    return listing


def _embedded(size: int, labels: bool) -> Listing:
    if labels:
        raise UsageError("the embedded dataset has no labels; omit --labels")
    return Listing([_file_picture(path, -1, stride) for path, stride in embedded_pictures(size)], [])


def _folder(folder: Path, stride: int, labels: bool) -> Listing:
    names = _visible(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    picture_labels, classes = _class_labels(names, str(folder)) if labels else ([-1] * len(names), [])
    pictures = [_file_picture(folder / name, label, stride) for name, label in zip(names, picture_labels, strict=True)]
    return Listing(pictures, classes)


def _file_picture(path: Path, label: int, stride: int) -> Picture:
    return Picture(str(path), _fingerprint(path), label, stride, partial(_read_file, path))


def _zip(path: Path, stride: int, labels: bool) -> Listing:
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in _archive(path).infolist():
        regular = S_IFMT(entry.external_attr >> 16) in (0, S_IFREG)
        if not entry.is_dir():
            refuse_unsafe(f"{entry.filename} in {path}", entry.filename, regular=regular)
            if entry.filename in entries:
                raise WaveganError(f"{path} holds {entry.filename} twice; write the zip again")
            entries[entry.filename] = entry
    names = _visible(name for name in entries if not name.startswith("__MACOSX/"))
    picture_labels, classes = _class_labels(names, str(path)) if labels else ([-1] * len(names), [])
    pictures = [_zip_picture(path, entries[name], label, stride) for name, label in zip(names, picture_labels, strict=True)]
    return Listing(pictures, classes)


def _zip_picture(path: Path, entry: zipfile.ZipInfo, label: int, stride: int) -> Picture:
    name, fingerprint = f"{entry.filename} in {path}", f"{entry.CRC}-{entry.file_size}"
    return Picture(name, fingerprint, label, stride, partial(_read_zip_member, path, entry.filename))


def _tars(paths: Sequence[Path], stride: int, labels: bool) -> Listing:
    pictures = []
    for path in paths:
        fingerprint = _fingerprint(path)
        for sample in pair_labels(path, walk(path), EXTENSIONS):
            if labels and sample.label < 0:
                raise UsageError(f"{sample.image.name} in {path} has no .cls member; omit --labels")
            pictures.append(_tar_picture(path, fingerprint, sample, stride, labels))
    return Listing(pictures, [])


def _tar_picture(path: Path, fingerprint: str, sample: Sample, stride: int, labels: bool) -> Picture:
    name, _, _, offset, size = sample.image
    load = partial(_read_tar_member, path, offset, size)
    return Picture(f"{name} in {path}", f"{fingerprint}-{offset}", sample.label if labels else -1, stride, load)


def _torchvision(source: str, stride: int, labels: bool) -> Listing:
    _, kind, root = (*source.split(":", 2), "")[:3]
    data = _dataset(kind, root)
    targets: Any = getattr(data, "targets", getattr(data, "labels", None)) if labels else [-1] * len(data)
    if targets is None or len(targets) != len(data):
        raise UsageError(f"torchvision's {kind} does not have one target per image; omit --labels")
    fingerprint = _fingerprint(Path(root))
    return Listing(
        [
            Picture(f"image {number} of {source}", fingerprint, int(target), stride, partial(_load_item, kind, root, number))
            for number, target in enumerate(targets)
        ],
        list(map(str, getattr(data, "classes", []))) if labels else [],
    )


def _visible(names: Iterator[str]) -> list[str]:
    """Sort the names that have an image extension and no hidden part."""
    paths = [PurePosixPath(name) for name in names if name.lower().endswith(tuple(f".{kind}" for kind in EXTENSIONS))]
    return [str(path) for path in sorted(paths, key=lambda path: path.parts) if not any(part[0] == "." for part in path.parts)]


def _class_labels(names: Sequence[str], source: str) -> tuple[list[int], list[str]]:
    """Label each name by its class: the subfolders of the deepest folder that holds all pictures are the classes.

    Returns:
        The label of each name, and the names of the classes in alphabetical order.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    shared = 0
    while folders and all(len(parts) > shared and parts[shared] == folders[0][shared] for parts in folders):
        shared += 1
    if not folders or any(len(parts) == shared for parts in folders):
        raise UsageError(
            f"{source} does not have one folder per class and at least two classes; "
            "arrange its pictures like that or omit --labels"
        )
    classes = sorted({parts[shared] for parts in folders})
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[parts[shared]] for parts in folders], classes


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _read_file(path: Path) -> Image.Image:
    _refuse_large(path.stat().st_size)
    return read_picture(path.read_bytes())


def _read_zip_member(path: Path, name: str) -> Image.Image:
    archive = _archive(path)
    _refuse_large(archive.getinfo(name).file_size)
    return read_picture(archive.read(name))


def _read_tar_member(path: Path, offset: int, size: int) -> Image.Image:
    _refuse_large(size)
    return read_picture(read_at(path, offset, size))


def _load_item(kind: str, root: str, number: int) -> Image.Image:
    return to_rgb(_dataset(kind, root)[number][0])


def _refuse_large(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{size:,} bytes")


@cache
def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise WaveganError(f"{path} is a damaged zip ({error}); copy it again") from error


os.register_at_fork(after_in_child=_archive.cache_clear)  # otherwise processes would share a file position


@cache
def _dataset(kind: str, root: str) -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise UsageError("a torchvision dataset needs torchvision; pip install torchvision") from error
    if kind not in datasets.__all__ or not root:
        raise UsageError(f"'{kind}' is not a torchvision dataset; write torchvision:CIFAR10:FOLDER, for example")
    try:
        return getattr(datasets, kind)(root)
    except Exception as error:  # every dataset has its own exceptions
        raise UsageError(
            f"torchvision cannot open {kind} in {root} ({error}); download it there first: this command downloads nothing"
        ) from error
