"""Sources of pictures: a folder, a zip, WebDataset tars, a torchvision dataset on disk, or the embedded dataset."""

import zipfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from wavegan_dist.data.codec import read_picture, to_rgb
from wavegan_dist.data.embedded import embedded_pictures
from wavegan_dist.data.folders import files_in, head_of, is_hidden, select_pictures, tars_in
from wavegan_dist.data.formats import compression, is_tar, picture_extensions
from wavegan_dist.data.left_out import HIDDEN, LeftOut, by_reason, summary
from wavegan_dist.data.picture import Picture
from wavegan_dist.data.tars import Contents, Sample, read_at
from wavegan_dist.data.zips import files_in_zip, open_zip, read_head_in_zip
from wavegan_dist.errors import UsageError
from wavegan_dist.files import parse_json

EMBEDDED = "embedded"
TORCHVISION = "torchvision:"
_SOURCES = f"give a folder, a zip, torchvision:CLASS:FOLDER or '{EMBEDDED}'"
LABELS_OF_STYLEGAN = "dataset.json"  # at the top of a folder or zip that dataset_tool.py of StyleGAN wrote
MAX_FILE_BYTES = 2**30  # a larger file is not a picture


class Listing(NamedTuple):
    """The pictures of a source, in a reproducible order, and all other files that it holds."""

    pictures: list[Picture]
    classes: list[str]  # names of the labels 0, 1, ...; empty if unknown
    left_out: Sequence[LeftOut] = ()


def list_pictures(source: str, size: int, *, cut_patches: bool, labels: bool) -> Listing:
    """List the pictures of a source without decoding them. `Listing.left_out` names hidden files and files of other kinds.

    Args:
        source: a folder, searched with its subfolders; a folder that holds *.tar; a .zip; "torchvision:CLASS:FOLDER" for the
            training split of a dataset on disk; or "embedded".
        size: side of the images to make, in pixels.
        cut_patches: cut patches at a stride of size / 2 instead of cropping and resizing each picture. The embedded dataset
            always consists of patches.
        labels: label each picture by its class folder, its .cls member or the target of the torchvision dataset. False: each
            label is -1.

    Raises:
        UsageError: the source does not exist, is none of those above, or has no pictures; `labels` is True, and the source has
            no labels, or has them in a dataset.json of StyleGAN; a package that the source needs is not installed; or
            torchvision cannot open the dataset.
        WaveganError: an archive is damaged or unsafe (see `refuse_unsafe`), or a tar has two images or two labels for one key,
            or a label that is not an integer from 0 to 1,048,575.
        OSError: a file or folder cannot be read.
    """
    stride = size // 2 if cut_patches else 0
    path = Path(source)
    if not source:  # as from "$UNSET_VARIABLE"; the path would be the working folder
        raise UsageError(f"the source is empty; {_SOURCES}")
    if source == EMBEDDED:
        listing = _embedded(size, labels)
    elif source.startswith(TORCHVISION):
        listing = _torchvision(source, stride, labels)
    elif zipfile.is_zipfile(path):
        listing = _zip(path, stride, labels)
    elif path.is_dir():
        left_out: list[LeftOut] = []
        tars = tars_in(path, left_out)
        listing = _tars(tars, stride, labels, left_out) if tars else _folder(path, stride, labels)
    else:
        raise UsageError(f"{source} {_not_a_source(path)}")
    if not listing.pictures:
        found = "; ".join(summary(by_reason(listing.left_out)))
        raise UsageError(f"{source} holds no pictures{f', only {found}' if found else ' and no other files'}")
    return listing


def _not_a_source(path: Path) -> str:
    """Return why a path that is neither a folder nor a whole zip is no source, and what to give: a predicate for its name."""
    if not path.exists():
        if set(path.name) & set("{}*?[]"):
            return f"is a pattern, and no file has this name; give the folder of the tars, {path.parent}"
        return f"does not exist; {_SOURCES}"
    kind = compression(head_of(path))
    if kind == "zip":
        return "is a damaged or incomplete zip; copy it again"
    if is_tar(path.name):
        return f"is a single tar; give a folder that holds it, such as {path.parent}"
    if kind:
        return f"is a {kind} file; unpack it and give the folder"
    return f"is a single file, and not a zip; {_SOURCES}"


def _embedded(size: int, labels: bool) -> Listing:
    if labels:
        raise UsageError("the embedded dataset has no labels; omit --labels")
    return Listing([_file_picture(path, -1, stride) for path, stride in embedded_pictures(size)], [])


def _folder(folder: Path, stride: int, labels: bool) -> Listing:
    left_out: list[LeftOut] = []
    files = files_in(folder, left_out)
    if labels and LABELS_OF_STYLEGAN in files:
        _refuse_label_file(str(folder), (folder / LABELS_OF_STYLEGAN).read_bytes())
    names = list(select_pictures(files, str(folder), lambda name: head_of(folder / name), left_out))
    picture_labels, classes = _class_labels(names, str(folder)) if labels else ([-1] * len(names), [])
    pictures = [_file_picture(folder / name, label, stride) for name, label in zip(names, picture_labels, strict=True)]
    return Listing(pictures, classes, left_out)


def _file_picture(path: Path, label: int, stride: int) -> Picture:
    return Picture(str(path), _fingerprint(path), label, stride, partial(_read_file, path))


def _zip(path: Path, stride: int, labels: bool) -> Listing:
    entries = files_in_zip(path)
    if labels and LABELS_OF_STYLEGAN in entries:
        _refuse_label_file(str(path), read_head_in_zip(path, LABELS_OF_STYLEGAN, MAX_FILE_BYTES))
    hidden = {name for name in entries if any(map(is_hidden, PurePosixPath(name).parts))}
    left_out = [LeftOut(f"{path}/{name}", HIDDEN) for name in entries if name in hidden]
    visible = sorted((name for name in entries if name not in hidden), key=lambda name: PurePosixPath(name).parts)
    names = list(select_pictures(visible, str(path), partial(read_head_in_zip, path), left_out))
    picture_labels, classes = _class_labels(names, str(path)) if labels else ([-1] * len(names), [])
    pictures = [_zip_picture(path, entries[name], label, stride) for name, label in zip(names, picture_labels, strict=True)]
    return Listing(pictures, classes, left_out)


def _zip_picture(path: Path, entry: zipfile.ZipInfo, label: int, stride: int) -> Picture:
    name, fingerprint = f"{entry.filename} in {path}", f"{entry.CRC}-{entry.file_size}"
    return Picture(name, fingerprint, label, stride, partial(_read_zip_member, path, entry.filename))


def _tars(paths: Sequence[Path], stride: int, labels: bool, left_out: list[LeftOut]) -> Listing:
    """List the images in tars; members that are neither an image nor a label are appended to `left_out`.

    Raises:
        UsageError: labels are requested, and an image has none.
        WaveganError: see `Contents.read` and `Contents.samples`.
    """
    pictures, extensions = [], picture_extensions()
    for path in paths:
        fingerprint, contents = _fingerprint(path), Contents(str(path), extensions)
        with path.open("rb") as file:
            contents.read(file)
        samples = contents.samples()
        left_out += contents.left_out()
        for sample in samples:
            if labels and sample.label < 0:
                raise UsageError(f"{sample.image.name} in {path} has no .cls member; omit --labels")
            pictures.append(_tar_picture(path, fingerprint, sample, stride, labels))
    return Listing(pictures, [], left_out)


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


def _class_labels(names: Sequence[str], source: str) -> tuple[list[int], list[str]]:
    """Label each name by its class: the subfolders of the deepest folder that holds all pictures are the classes.

    Args:
        names: relative names of the pictures, with "/" between the folders.
        source: what the error message calls the source.

    Returns:
        The label of each name, and the names of the classes in alphabetical order.

    Raises:
        UsageError: there are no names, or a picture is not in a subfolder of that folder.
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


def _refuse_label_file(source: str, content: bytes) -> None:
    """Raise UsageError if `content`, that of StyleGAN's dataset.json, lists labels: its folders are no classes.

    The message names `source`. Content that is not JSON is accepted: dataset.json is then some other file.
    """
    try:
        dataset = parse_json(content)
    except ValueError:
        return
    if isinstance(dataset, dict) and dataset.get("labels"):
        raise UsageError(
            f"{source}: {LABELS_OF_STYLEGAN} lists the labels, and --labels reads folders; arrange the pictures in one folder "
            f"per class and remove {LABELS_OF_STYLEGAN}, or omit --labels"
        )


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _read_file(path: Path) -> Image.Image:
    _refuse_large(path.stat().st_size)
    return read_picture(path.read_bytes())


def _read_zip_member(path: Path, name: str) -> Image.Image:
    archive = open_zip(path)
    entry = archive.getinfo(name)
    _refuse_large(entry.file_size)
    with archive.open(entry) as file:
        return read_picture(file.read(entry.file_size))  # without a size, it decompresses more than the zip's directory states


def _read_tar_member(path: Path, offset: int, size: int) -> Image.Image:
    _refuse_large(size)
    return read_picture(read_at(path, offset, size))


def _load_item(kind: str, root: str, number: int) -> Image.Image:
    return to_rgb(_dataset(kind, root)[number][0])


def _refuse_large(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{size:,} bytes")


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
