"""`wavegan shards index`: write an index for WebDataset tars that another tool wrote, without changing the tars."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wavegan_dist.config import RESOLUTIONS
from wavegan_dist.counted import rng_at
from wavegan_dist.data.bands import BandStdAccumulator, BandSums, band_std, no_sums
from wavegan_dist.data.codec import DecodeError, decode
from wavegan_dist.data.folders import COMPRESSED, reason_without_picture, tars_in
from wavegan_dist.data.formats import TARS
from wavegan_dist.data.index import Index, Members, Selection, Shard, save_members
from wavegan_dist.data.left_out import NOT_CHOSEN, LeftOut, by_reason, save_left_out, summary
from wavegan_dist.data.pixels import open_picture
from wavegan_dist.data.selection import check_keys, choose_by_class, parse_classes, read_class_names, read_keys
from wavegan_dist.data.tars import Member, pair_labels, read_at, unused_members, walk
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import sha256
from wavegan_dist.processes import parallel_map

# File extensions that training reads.
TRAINING_EXTENSIONS = ("png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp")
_ENCODINGS = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp"}  # of Pillow's formats: names in the index
BAND_STD_IMAGES = 10_000  # number of randomly drawn images from which the standard deviations of the bands are estimated


def index_shards(
    folder: Path,
    *,
    classes: str | None = None,
    class_names: Path | None = None,
    keys: Path | None = None,
    workers: int = 1,
) -> Index:
    """Write index.json and members.npy for the tars of a folder, replacing existing ones.

    Tars hold the numbers of the classes, not their names: without `class_names`, the names of an existing index of the same
    tars are kept. `left_out.jsonl` lists all members other than images and their labels (KEY.cls), all other files in the
    folder, and the number of images that are not chosen.

    Args:
        folder: the folder of the tars.
        classes: comma-separated classes, by number or name. The dataset has the images of these classes, which are numbered
            from 0 in the order of the list. None: all images.
        class_names: file with a name for each class from 0 on, one a line.
        keys: file with the keys of the images that the dataset has, one a line. None: all images.
        workers: number of worker processes.

    Raises:
        UsageError: the folder has no tars; or an image is not square, differs in size from the others, or has a side that is
            not a power of two from 32 to 1024 pixels; or a class, a name or a key is missing, or no image is chosen.
        WaveganError: a tar is damaged, holds no image or is unsafe (see `walk`); a key occurs twice in a tar; a label is not a
            number; or an image has no readable header or, if drawn for the statistics of the wavelet bands, cannot be decoded.
            The message names the tar or the image.
    """
    left_out: list[LeftOut] = []
    paths = _tars(folder, left_out)
    if keys is not None:
        read_keys.cache_clear()
        read_keys(keys)
    all_scans = list(tqdm(parallel_map(partial(_scan, keys), paths, workers), "index", len(paths), unit="shard", disable=None))
    if keys is not None:
        check_keys(keys, frozenset().union(*(scan.keys for scan in all_scans)))
    labels = np.concatenate([scan.members[:, 2] for scan in all_scans])
    names = read_class_names(class_names, labels) if class_names else _known_classes(folder, [scan.shard for scan in all_scans])
    chosen = [] if classes is None else parse_classes(classes, labels, names)
    scans = [scan for scan in (scan.choose(chosen) for scan in all_scans) if len(scan.members)]
    paths = [folder / scan.shard.file for scan in scans]
    size = scans[0].size
    for path, scan in zip(paths, scans, strict=True):
        if scan.size != size:
            raise UsageError(f"images are {size} px in {paths[0].name} but {scan.size} px in {path.name}; {_advice(path)}")
    members = np.concatenate([scan.members for scan in scans])
    first_level, *deeper = band_std(_band_sums(paths, scans, workers))
    encodings = set().union(*(scan.encodings for scan in scans))
    index = Index(
        size=size,
        count=len(members),
        encoding=encodings.pop() if len(encodings) == 1 else "mixed",
        classes=[names[label] if label < len(names) else str(label) for label in chosen] or names,
        band_std=first_level,
        deeper_band_std=deeper,
        selection=None if classes is None and keys is None else _selection(all_scans, scans, chosen, names),
        members_sha256=save_members(members, folder),
        shards=[scan.shard for scan in scans],
    )
    left_out += [entry for scan in all_scans for entry in scan.left_out]
    save_left_out(folder, [*left_out, *_not_chosen(folder, all_scans, index)])
    index.save(folder)
    return Index.load(folder)


def _tars(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """List the tars of a folder; its other files are appended to `left_out`."""
    if not folder.exists():
        raise UsageError(f"{folder} does not exist; give the folder of the shards")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; give the folder of the shards, such as {folder.parent}")
    paths = tars_in(folder, left_out)
    if not paths:
        raise UsageError(f"{folder} holds no .tar; {_advice_without_tars(folder)}")
    return paths


def _known_classes(folder: Path, shards: Sequence[Shard]) -> list[str]:
    """Return the class names of an existing index if it describes the same tars, else an empty list."""
    try:
        existing = Index.load(folder)
    except WaveganError:
        return []
    unused = existing.selection.unused_tars if existing.selection else []
    digests = {shard.file: shard.sha256 for shard in shards}
    known = {shard.file: shard.sha256 for shard in existing.shards}
    if digests != known | {file: digests.get(file) for file in unused}:
        return []
    return existing.selection.classes if existing.selection else existing.classes


def _selection(
    all_scans: "Sequence[_ShardScan]", scans: "Sequence[_ShardScan]", labels: list[int], names: list[str]
) -> Selection:
    """Describe the choice of `scans` among `all_scans`."""
    used = {scan.shard.file for scan in scans}
    return Selection(
        images=sum(scan.shard.images for scan in all_scans),
        labels=labels,
        classes=names,
        unused_tars=[scan.shard.file for scan in all_scans if scan.shard.file not in used],
    )


def _not_chosen(folder: Path, all_scans: "Sequence[_ShardScan]", index: Index) -> Iterator[LeftOut]:
    """Yield an entry for each tar of which some images are not chosen."""
    chosen = {shard.file: shard.images for shard in index.shards}
    for scan in all_scans:
        if files := scan.shard.images - chosen.get(scan.shard.file, 0):
            yield LeftOut(str(folder / scan.shard.file), NOT_CHOSEN, files)


def _advice_without_tars(folder: Path) -> str:
    names = [path.name for path in sorted(folder.iterdir())]
    if compressed := [name for name in names if reason_without_picture(name) == COMPRESSED]:
        return f"decompress the tars first, such as {compressed[0]}"
    if nested := sorted(folder.glob(f"*/{TARS}")):
        return f"give the folder that holds the tars, such as {nested[0].parent}"
    return "give the folder of the shards, or make some with `wavegan shards write`"


class _ShardScan(NamedTuple):
    """The index entries of one tar, read from its headers."""

    shard: Shard
    members: Members
    size: int  # of its images, in pixels; 0 if none is chosen
    encodings: set[str]
    left_out: list[LeftOut]
    keys: frozenset[str]  # of the chosen images; empty if all are

    def choose(self, labels: Sequence[int]) -> Self:
        """Return the scan of the images with these labels, which are renumbered; all images if there are no labels."""
        members = choose_by_class(self.members, labels) if labels else self.members
        return self._replace(members=members, shard=self.shard.model_copy(update={"images": len(members)}))


class _DrawnImages(NamedTuple):
    """Images of one tar from which the band statistics are estimated."""

    path: Path
    size: int  # of the images, in pixels
    members: Members


def _scan(keys: Path | None, path: Path) -> _ShardScan:
    """Scan a tar; `keys` is a file with the keys of the images to choose. `images` of the shard counts all of its images."""
    members = list(walk(path))
    samples = pair_labels(path, members, TRAINING_EXTENSIONS)
    left_out = unused_members(path, members, samples, TRAINING_EXTENSIONS)
    if not samples:
        found = "; ".join(summary(by_reason(left_out)))
        raise WaveganError(f"{path} holds no image, only {found}; convert the images or move the tar elsewhere")
    shard = Shard(file=path.name, images=len(samples), bytes=path.stat().st_size, sha256=sha256(path))
    if keys is not None:
        samples = [sample for sample in samples if sample.image.key in read_keys(keys)]
    encodings, size = set(), 0
    for image, _ in samples:
        side, encoding = _image_header(path, image)
        encodings.add(encoding)
        size = size or side
        if side != size:
            raise UsageError(f"{image.name} in {path} has another size than the images before it; {_advice(path)}")
    rows = np.array([(image.offset, image.size, label) for image, label in samples], dtype=np.int64).reshape(-1, 3)
    chosen_keys = frozenset[str]() if keys is None else frozenset(image.key for image, _ in samples)
    return _ShardScan(shard, rows, size, encodings, left_out, chosen_keys)


def _image_header(path: Path, image: Member) -> tuple[int, str]:
    """Read the side of a square image, in pixels, and its encoding from its header."""
    try:
        picture = open_picture(read_at(path, image.offset, image.size))
    except Exception as error:  # Pillow raises exceptions of almost any type on broken bytes
        raise WaveganError(f"{image.name} in {path} cannot be read as an image ({error}); repair or remove it") from error
    width, height = picture.size
    if picture.format not in _ENCODINGS:
        raise UsageError(
            f"{image.name} in {path} is a {picture.format} despite its name, and training reads PNG, JPEG and WebP; "
            f"{_advice(path)}"
        )
    if width != height or width not in RESOLUTIONS:
        sizes = ", ".join(map(str, RESOLUTIONS))
        raise UsageError(f"{image.name} in {path} is {width}x{height} px, not square with a side of {sizes}; {_advice(path)}")
    return width, _ENCODINGS[picture.format]


def _advice(path: Path) -> str:
    return f"convert them with `wavegan shards write {path.parent} OUT --size N`"


def _band_sums(paths: Sequence[Path], scans: Sequence[_ShardScan], workers: int) -> BandSums:
    """Sum over the Haar bands of BAND_STD_IMAGES randomly drawn images, or of all images if there are fewer."""
    images = [len(scan.members) for scan in scans]
    mask = np.zeros(sum(images), dtype=bool)
    mask[rng_at(0, "shards/index", 0).permutation(len(mask))[:BAND_STD_IMAGES]] = True
    masks: list[NDArray[np.bool_]] = np.split(mask, np.cumsum(images)[:-1])
    jobs = [_DrawnImages(path, scan.size, scan.members[drawn]) for path, scan, drawn in zip(paths, scans, masks, strict=True)]
    sums = tqdm(parallel_map(_shard_band_sums, jobs, workers), "measure", len(jobs), unit="shard", disable=None)
    total: BandSums = sum(sums, no_sums(scans[0].size))
    return total


def _shard_band_sums(images: _DrawnImages) -> BandSums:
    bands = BandStdAccumulator(images.size)
    for offset, size, _ in images.members.tolist():
        try:
            bands.add(decode(read_at(images.path, offset, size), images.size))
        except DecodeError as error:
            key = next(member.key for member in walk(images.path) if member.offset == offset)
            raise WaveganError(f"image {key} of {images.path} {error.reason}; repair or remove it") from error
    return bands.sums()
