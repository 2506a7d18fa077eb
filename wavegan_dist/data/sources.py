"""Where pictures come from: a folder, a zip, WebDataset tars, a torchvision dataset on the disk, or the embedded set."""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath
from stat import S_IFMT, S_IFREG
from typing import Any, NamedTuple

from PIL import Image

from wavegan_dist.data.codec import to_rgb
from wavegan_dist.data.embedded import embedded_pictures
from wavegan_dist.data.pixels import Pixels, centre, open_picture, patches
from wavegan_dist.data.tars import Sample, pair, read_at, refuse_unsafe, walk
from wavegan_dist.errors import UsageError, WaveganError

EMBEDDED = "embedded"
TORCHVISION = "torchvision:"
EXTENSIONS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff")
LARGEST = 2**30  # bytes of one file: more is no picture


class Picture(NamedTuple):
    """One picture of a source, not opened yet."""

    name: str  # for messages and for the order
    stamp: str  # another one where the content may have changed
    label: int  # -1 without
    stride: int  # 0: crop and resize; more: cut patches so far apart
    load: Callable[[], Image.Image]

    def images(self, size: int) -> list[Pixels] | Iterator[Pixels]:
        """Its uint8 RGB [size, size, 3] images. Raises WaveganError, naming it, where it cannot be decoded."""
        try:
            image = to_rgb(self.load())
        except Exception as error:  # Pillow's decoders raise almost anything on a broken file
            raise WaveganError(f"{self.name} cannot be read as an image ({error}); mend it or take it away") from error
        return patches(image, size, self.stride) if self.stride else [centre(image, size)]


class Listing(NamedTuple):
    """The pictures of a source in an order that does not change, and the names of their labels 0, 1, ... where known."""

    pictures: list[Picture]
    classes: list[str]


def find(source: str, size: int, *, cut: bool, labels: bool) -> Listing:
    """Find the pictures of a source; hidden files are left out and none is opened yet.

    Args:
        source: a folder, searched with its subfolders; a folder with *.tar in it; a .zip; "torchvision:CLASS:FOLDER", a
            dataset on the disk, its training part; or "embedded".
        size: side of the images to make.
        cut: make patches at a stride of size / 2 instead of cropping and resizing. The embedded set always is patches.
        labels: give every picture its label: the class folder it lies in, the .cls member, or the dataset's target.

    Raises:
        UsageError: no such source, no pictures in it, or no labels to be had.
        WaveganError: an archive is damaged, or a member of it is a link, a device or leads out of it.
    """
    stride = size // 2 if cut else 0
    path = Path(source)
    if source == EMBEDDED:
        found = _embedded(size, labels)
    elif source.startswith(TORCHVISION):
        found = _torchvision(source, stride, labels)
    elif zipfile.is_zipfile(path):
        found = _zip(path, stride, labels)
    elif path.is_dir() and any(path.glob("*.tar")):
        found = _tars(sorted(path.glob("*.tar")), stride, labels)
    elif path.is_dir():
        found = _folder(path, stride, labels)
    else:
        raise UsageError(f"{source} is neither a folder nor a zip; give one, torchvision:CLASS:FOLDER or '{EMBEDDED}'")
    if not found.pictures:
        looked = ", ".join(f".{extension}" for extension in EXTENSIONS)
        raise UsageError(f"{source} holds no pictures; looked for {looked} there and in its subfolders")
    return found


def _embedded(size: int, labels: bool) -> Listing:
    if labels:
        raise UsageError("the embedded set has no labels; leave --labels away")
    places = embedded_pictures(size)
    return Listing([Picture(str(path), _stamp(path), -1, stride, partial(_read_file, path)) for path, stride in places], [])


def _folder(folder: Path, stride: int, labels: bool) -> Listing:
    names = _visible(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    numbers, classes = _classes(names, str(folder)) if labels else ([-1] * len(names), [])
    paths = [folder / name for name in names]
    return Listing(
        [
            Picture(str(path), _stamp(path), label, stride, partial(_read_file, path))
            for path, label in zip(paths, numbers, strict=True)
        ],
        classes,
    )


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
    numbers, classes = _classes(names, str(path)) if labels else ([-1] * len(names), [])
    return Listing(
        [
            Picture(
                f"{name} in {path}",
                f"{entries[name].CRC}-{entries[name].file_size}",
                label,
                stride,
                partial(_unzip, path, name),
            )
            for name, label in zip(names, numbers, strict=True)
        ],
        classes,
    )


def _tars(paths: Sequence[Path], stride: int, labels: bool) -> Listing:
    pictures = []
    for path in paths:
        stamp = _stamp(path)
        for sample in pair(path, walk(path), EXTENSIONS):
            if labels and sample.label < 0:
                raise UsageError(f"{sample.image.name} in {path} has no .cls member beside it; leave --labels away")
            pictures.append(_in_tar(path, stamp, sample, stride, labels))
    return Listing(pictures, [])


def _in_tar(path: Path, stamp: str, sample: Sample, stride: int, labels: bool) -> Picture:
    name, _, _, offset, size = sample.image
    load = partial(_read_member, path, offset, size)
    return Picture(f"{name} in {path}", f"{stamp}-{offset}", sample.label if labels else -1, stride, load)


def _torchvision(source: str, stride: int, labels: bool) -> Listing:
    _, kind, root = (*source.split(":", 2), "")[:3]
    data = _dataset(kind, root)
    targets: Any = getattr(data, "targets", getattr(data, "labels", None)) if labels else [-1] * len(data)
    if targets is None or len(targets) != len(data):
        raise UsageError(f"torchvision's {kind} has no targets, one an image; leave --labels away")
    stamp = _stamp(Path(root))
    return Listing(
        [
            Picture(f"image {number} of {source}", stamp, int(target), stride, partial(_item, kind, root, number))
            for number, target in enumerate(targets)
        ],
        list(map(str, getattr(data, "classes", []))) if labels else [],
    )


def _visible(names: Iterator[str]) -> list[str]:
    """Names of pictures with no hidden part, in order."""
    paths = [PurePosixPath(name) for name in names if name.lower().endswith(tuple(f".{kind}" for kind in EXTENSIONS))]
    return [str(path) for path in sorted(paths, key=lambda path: path.parts) if not any(part[0] == "." for part in path.parts)]


def _classes(names: Sequence[str], source: str) -> tuple[list[int], list[str]]:
    """Label of each name, and the classes: the folders side by side in the deepest folder that holds all pictures."""
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    shared = 0
    while folders and all(len(parts) > shared and parts[shared] == folders[0][shared] for parts in folders):
        shared += 1
    if not folders or any(len(parts) == shared for parts in folders):
        raise UsageError(
            f"{source} is not one folder a class, two classes or more; sort its pictures so or leave --labels away"
        )
    classes = sorted({parts[shared] for parts in folders})
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[parts[shared]] for parts in folders], classes


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _read_file(path: Path) -> Image.Image:
    _refuse_large(path.stat().st_size)
    return open_picture(path.read_bytes())


def _unzip(path: Path, name: str) -> Image.Image:
    archive = _archive(path)
    _refuse_large(archive.getinfo(name).file_size)
    return open_picture(archive.read(name))


def _read_member(path: Path, offset: int, size: int) -> Image.Image:
    _refuse_large(size)
    return open_picture(read_at(path, offset, size))


def _item(kind: str, root: str, number: int) -> Image.Image:
    image: Image.Image = _dataset(kind, root)[number][0]
    return image


def _refuse_large(size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"{size:,} bytes")


@cache
def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise WaveganError(f"{path} is a damaged zip ({error}); copy it again") from error


os.register_at_fork(after_in_child=_archive.cache_clear)  # or processes would move each other's place in the file


@cache
def _dataset(kind: str, root: str) -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise UsageError("a torchvision dataset needs torchvision; pip install torchvision") from error
    if kind not in datasets.__all__ or not root:
        raise UsageError(f"'{kind}' is no dataset of torchvision; write torchvision:CIFAR10:FOLDER, for example")
    try:
        return getattr(datasets, kind)(root)
    except Exception as error:  # each dataset has its own way to miss its files
        raise UsageError(
            f"torchvision cannot open {kind} in {root} ({error}); put it there first, nothing is downloaded"
        ) from error
