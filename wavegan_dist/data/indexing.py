"""`wavegan shards index`: write an index for WebDataset tars that another tool wrote, without changing or copying the tars."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from tqdm import tqdm

from wavegan_dist import __version__
from wavegan_dist.data.bands import BandSums, band_std, no_sums
from wavegan_dist.data.folders import COMPRESSED, reason_without_picture, tars_in
from wavegan_dist.data.formats import TARS
from wavegan_dist.data.index import Index, Members, Selection, new_index, remove_unfinished, save_members
from wavegan_dist.data.left_out import NOT_CHOSEN, LeftOut, save_left_out
from wavegan_dist.data.patterns import expand
from wavegan_dist.data.scan import Scan, Tar, advice, scan_tar
from wavegan_dist.data.selection import (
    check_class_names,
    check_keys,
    choose_by_class,
    expected_classes,
    parse_classes,
    read_class_names,
    read_keys,
)
from wavegan_dist.data.shards import Shard
from wavegan_dist.data.storage import Storage
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import check_folder
from wavegan_dist.processes import parallel_map
from wavegan_dist.work_folder import work_folder

BAND_STD_IMAGES = 10_000  # number of randomly drawn images from which the standard deviations of the bands are estimated


def index_shards(
    folder: Path,
    *,
    classes: str | None = None,
    class_names: Path | None = None,
    keys: Path | None = None,
    workers: int = 1,
) -> Index:
    """Write index.json and members.npy for the tars of a folder, replacing existing ones, and return the new index.

    Each tar at the top level of the folder is read once. The tars with a chosen image are the shards, in alphabetical order.

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
        UsageError: the folder does not exist or has no tars; or an image is not PNG, JPEG or WebP despite its name, is not
            square, differs in size from the others, or has a side that is not a power of two from 32 to 1024 pixels; or one of
            `classes` does not exist or has no image, or is a name of an existing index of other tars; or a label has no name in
            `class_names`, or one of `keys` is in no tar; or one of these two files cannot be read, is empty or gives two
            classes the same name.
        WaveganError: a tar is damaged, holds no image or is unsafe (see `walk_file`); a key has two images or two labels in a
            tar; a label is not an integer >= 0; or an image has no readable header or, if drawn for the statistics of the
            wavelet bands, cannot be decoded (the message names the tar or the image); or a worker process died.
        OSError: a tar cannot be read, or the index cannot be written.
    """
    remove_unfinished(folder)
    left_out: list[LeftOut] = []
    names = [path.name for path in _tars(folder, left_out)]
    return _write_index(Storage(str(folder)), names, _Choice(classes, class_names, keys), folder, None, left_out, workers)


def index_remote_shards(
    pattern: str,
    out: Path,
    *,
    classes: str | None = None,
    class_names: Path | None = None,
    keys: Path | None = None,
    workers: int = 1,
) -> Index:
    """Write index.json and members.npy for tars that are not on this machine and stay where they are; return the new index.

    Each tar is read once. Until all are read, `.OUT.partial` beside `out` holds what was found in each, and a command that was
    interrupted continues from there: it reads only the tars that are missing or, by their size, ETag or time, have changed.
    Changes of a tar of which none of these is known, such as the output of pipe:COMMAND, are not noticed.

    Args:
        pattern: the URLs of the tars, or pipe:COMMAND, with braces: s3://bucket/set/shard-{000..099}.tar; see `expand`.
        out: folder for the index. An existing index in it is replaced.
        classes, class_names, keys: the images to choose, see `index_shards`.
        workers: number of worker processes.

    Raises:
        UsageError: the pattern cannot be used (see `expand`); `out` is no folder, holds tars, or another process writes to it;
            `.OUT.partial` holds tars of another pattern; or one of the causes in `index_shards`, except those of its folder.
        WaveganError: a tar cannot be read, or one of the causes in `index_shards`.
        OSError: the index or a file in `.OUT.partial` cannot be written.
    """
    out = out.absolute()
    check_folder(out, "--out")
    if tars := sorted(out.glob(TARS)):
        raise UsageError(f"--out: {out} holds tars, such as {tars[0].name}; choose another folder for the index")
    source, names = expand(pattern)
    remove_unfinished(out)
    with work_folder(out, "shards index", {"tars": pattern}, "*.npz") as work:
        return _write_index(Storage(source), names, _Choice(classes, class_names, keys), out, work, [], workers)


class _Choice(NamedTuple):
    """The arguments of `index_shards` that choose images and name their classes."""

    classes: str | None
    class_names: Path | None
    keys: Path | None


def _write_index(
    storage: Storage, names: Sequence[str], choice: _Choice, out: Path, work: Path | None, left_out: list[LeftOut], workers: int
) -> Index:
    """Read the tars `names` of a storage, write index.json, members.npy and left_out.jsonl into `out`, and return the index.

    Args:
        storage, names, choice, workers: the tars, the images to choose, and the number of worker processes.
        out: folder for the index.
        work: folder that keeps the scan of each tar; None: no scan is kept.
        left_out: entries of left_out.jsonl that are known before the tars are read.
    """
    if choice.keys is not None:
        read_keys.cache_clear()
        read_keys(choice.keys)
    class_names = read_class_names(choice.class_names) if choice.class_names else _classes_in(out)
    labels = [] if choice.classes is None else expected_classes(choice.classes, class_names)
    tars = list(_jobs(storage, names, frozenset(labels), choice.keys, work))
    scans = tqdm(parallel_map(scan_tar, tars, workers), "index", len(tars), unit="shard", disable=None)
    found = _Found(tars, choice, labels, out)
    with new_index(out) as temporary:
        members_sha256 = save_members(found.rows(scans), temporary)
        save_left_out(out, [*left_out, *found.left_out])
        first_level, *deeper = band_std(found.sums)
        Index(
            size=found.size,
            count=sum(shard.images for shard in found.chosen),
            encoding=found.encodings.pop() if len(found.encodings) == 1 else "mixed",
            classes=[found.names[label] if label < len(found.names) else str(label) for label in labels] or found.names,
            band_std=first_level,
            deeper_band_std=deeper,
            selection=None if choice.classes is None and choice.keys is None else found.selection(),
            members_sha256=members_sha256,
            source=storage.base if storage.is_remote else None,
            shards=found.chosen,
        ).save(temporary)
    return Index.load(out)


def _jobs(
    storage: Storage, names: Sequence[str], labels: frozenset[int], keys: Path | None, work: Path | None
) -> Iterator[Tar]:
    drawn = math.ceil(BAND_STD_IMAGES / len(names))
    choice = [sorted(labels), None if keys is None else sorted(read_keys(keys))]
    choice_sha256 = hashlib.sha256(json.dumps([__version__, pillow_version, drawn, choice]).encode()).hexdigest()
    for number, name in enumerate(names):
        inputs = f"{choice_sha256} {number} {storage.url(name)}"
        result = None if work is None else work / f"{hashlib.sha256(inputs.encode()).hexdigest()[:32]}.npz"
        yield Tar(storage, name, number, drawn, labels, keys, result)


class _Found:
    """What the scans of all tars show together. The attributes are complete when the iterator that `rows` returns has ended.

    Attributes:
        size: side of the images in pixels.
        encodings: names of the encodings of the images.
        sums: sums over the bands of the images chosen; estimated for a shard of which not all images were drawn.
        shards: all tars; `images` counts all of their images.
        chosen: the tars with chosen images; `images` counts these.
        left_out: what is not in the dataset.
        names: names of the classes in the tars; empty if unknown.
    """

    def __init__(self, tars: Sequence[Tar], choice: _Choice, labels: list[int], out: Path) -> None:
        self._tars, self._choice, self._labels, self._out = tars, choice, labels, out
        self.size = 0
        self.encodings: set[str] = set()
        self.sums: BandSums
        self.shards: list[Shard] = []
        self.chosen: list[Shard] = []
        self.left_out: list[LeftOut] = []
        self.names: list[str] = []
        self._counts = np.zeros(0, dtype=np.int64)  # of the labels of images that are chosen by their keys
        self._keys: set[str] = set()

    def rows(self, scans: Iterable[Scan]) -> Iterator[Members]:
        """Yield the rows of the images chosen in each tar, int64 [images, 3] as in `Index.members`, with their new labels.

        A tar without a chosen image yields nothing.

        Args:
            scans: the scan of each tar, in the order of the tars.

        Raises:
            UsageError: images differ in size; or, after the last rows, a chosen class has no image, a label has no name, or a
                key is in no tar.
        """
        not_chosen: list[LeftOut] = []
        for tar, scan in zip(self._tars, scans, strict=True):
            rows = choose_by_class(scan.members, self._labels) if self._labels else scan.members
            self._note(scan)
            if len(rows):
                self._add(tar, scan, len(rows))
                yield rows
            if files := scan.shard.images - len(rows):
                not_chosen.append(LeftOut(tar.name, NOT_CHOSEN, files))
        self.left_out += not_chosen
        self._check()

    def selection(self) -> Selection:
        """Return the `Selection` for index.json. Only after the iterator that `rows` returns has ended."""
        used = {shard.file for shard in self.chosen}
        return Selection(
            images=sum(shard.images for shard in self.shards),
            labels=self._labels,
            classes=self.names,
            unused_tars=[shard.file for shard in self.shards if shard.file not in used],
        )

    def _note(self, scan: Scan) -> None:
        self.shards.append(scan.shard)
        self.left_out += scan.left_out
        self._keys |= scan.keys
        labels = scan.members[:, 2]
        self._counts = _sum_of_counts(self._counts, np.bincount(labels[labels >= 0]))

    def _add(self, tar: Tar, scan: Scan, images: int) -> None:
        if not self.size:
            self.size, self.sums = scan.size, no_sums(scan.size)
        if scan.size != self.size:
            first = self.chosen[0].file
            raise UsageError(f"images are {self.size} px in {first} but {scan.size} px in {tar.file}; {advice(tar.storage)}")
        self.chosen.append(scan.shard.model_copy(update={"images": images}))
        self.encodings |= set(scan.encodings)
        self.sums = self.sums + scan.sums.of_all(images)

    def _check(self) -> None:
        classes, class_names, keys = self._choice
        if keys is not None:
            check_keys(keys, self._keys)
        counts: list[int] = self._counts.tolist()
        if class_names is None:
            self.names = _known_classes(self._out, self.shards)
        else:
            self.names = read_class_names(class_names)
            check_class_names(class_names, self.names, counts)
        if classes is not None and parse_classes(classes, counts, self.names) != self._labels:
            raise UsageError(f"--classes {classes}: the names of the classes are those of other tars; give --class-names")


def _sum_of_counts(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    total = np.zeros(max(len(first), len(second)), dtype=np.int64)
    total[: len(first)] += first
    total[: len(second)] += second
    return total


def _tars(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """List the tars of a folder as `tars_in` does. Raises UsageError if `folder` does not exist, is a file or has no tar."""
    if not folder.exists():
        raise UsageError(f"{folder} does not exist; give the folder of the shards")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; give the folder of the shards, such as {folder.parent}")
    paths = tars_in(folder, left_out)
    if not paths:
        raise UsageError(f"{folder} holds no .tar; {_advice_without_tars(folder)}")
    return paths


def _classes_in(folder: Path) -> list[str]:
    """Return the names of the classes that the tars of an existing index have; an empty list without a readable index."""
    try:
        index = Index.load(folder)
    except WaveganError:
        return []
    return index.selection.classes if index.selection else index.classes


def _known_classes(folder: Path, shards: Sequence[Shard]) -> list[str]:
    """Return the class names of an existing index in `folder`; an empty list if it does not describe exactly the tars `shards`.

    Tars are the same if their names and digests are. For a tar without a chosen image, the index knows only the name.
    """
    try:
        existing = Index.load(folder)
    except WaveganError:
        return []
    unused = existing.selection.unused_tars if existing.selection else []
    digests = {shard.file: shard.sha256 for shard in shards}
    known = {shard.file: shard.sha256 for shard in existing.shards}
    if digests != known | {file: digests.get(file) for file in unused}:
        return []
    return _classes_in(folder)


def _advice_without_tars(folder: Path) -> str:
    names = [path.name for path in sorted(folder.iterdir())]
    if compressed := [name for name in names if reason_without_picture(name) == COMPRESSED]:
        return f"decompress the tars first, such as {compressed[0]}"
    if nested := sorted(folder.glob(f"*/{TARS}")):
        return f"give the folder that holds the tars, such as {nested[0].parent}"
    return "give the folder of the shards, or make some with `wavegan shards write`"
