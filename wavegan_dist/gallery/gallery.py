"""Write the page of a gallery."""

from collections.abc import Sequence
from pathlib import Path

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.real_images import load_real_images
from wavegan_dist.evaluate.require import require
from wavegan_dist.files import atomic_file
from wavegan_dist.gallery.measure import measure, newest_snapshot
from wavegan_dist.gallery.page import page
from wavegan_dist.html_page import page_path
from wavegan_dist.run_folder import RunFolder

MAX_PIXELS = 2**23  # of the samples of one run; their neighbors have four times as many


def gallery(runs: Sequence[Path], out: Path, data: str | None = None, count: int = 8, cache: Path | None = None) -> Path:
    """Write one HTML page with the pictures of runs; computes on the CPU.

    Args:
        runs: run folders, at least one.
        out: a .html or .htm file, which is replaced, or a folder, which gets an index.html.
        data: location of the index of the training data of all runs (`Index.load`), in which the nearest neighbors of samples
            are searched; None: no search.
        count: number of samples of each run whose neighbors are shown: samples 0, 1, ... of `wavegan sample --device cpu`, at
            least 1. Without `data`, no samples are shown.
        cache: folder for shards that are not on this machine; None: `data.cache` of the first run.

    Returns:
        The path of the page.

    Raises:
        UsageError: an argument cannot be used, a folder is not a run or has no snapshot, the data is of another size, or the
            extra `eval` is not installed and `data` is given.
        WaveganError: a file of a run or the data is damaged, or an image is not finite.
        OSError: a sample grid cannot be read, or the page cannot be written.
    """
    path = page_path(out)
    if data is not None:
        require("wavegan_dist.evaluate.efflite0", "gallery --data")
    snapshots = {run: newest_snapshot(RunFolder(run)) for run in runs}
    most = MAX_PIXELS // max(snapshot.config.model.resolution for snapshot in snapshots.values()) ** 2
    if data is not None and count > most:
        raise UsageError(f"--count {count}: a page of so many images would be too large for a browser; give at most {most}")
    settings = next(iter(snapshots.values())).config.data
    html = page(measure(snapshots, count, None if data is None else load_real_images(data, settings, cache)))
    with atomic_file(path) as file:
        file.write(html)
    return path
