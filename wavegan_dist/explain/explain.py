"""Write the page that explains a snapshot."""

from pathlib import Path

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.real_images import load_real_images
from wavegan_dist.evaluate.require import require
from wavegan_dist.explain.measure import measure
from wavegan_dist.explain.page import page
from wavegan_dist.files import atomic_file
from wavegan_dist.html_page import page_path
from wavegan_dist.model.snapshot import load_snapshot, parse_class_option

MAX_PIXELS = 2**23  # of the shown images: 8 of 1024 px; with their parts, a page embeds about six times as many pixels


def explain(
    snapshot: Path,
    out: Path,
    count: int = 8,
    seed: int = 0,
    classes: str | None = None,
    data: str | None = None,
    cache: Path | None = None,
) -> Path:
    """Write one HTML page that shows what each network of a snapshot contributes; computes on the CPU.

    Args:
        snapshot: snapshot folder, or the name of a snapshot that this package contains (`load_snapshot`).
        out: a .html or .htm file, which is replaced, or a folder, which gets an index.html.
        count: number of images to show, at least 1: images 0, 1, ... of `wavegan sample --device cpu` with the same seed and
            classes.
        seed: seed of the latents, and of the choice of real images.
        classes: number or name of a class, or a comma-separated list that the images take turns in; None: classes are drawn
            with the frequencies of the training data.
        data: location of the index of the training data (`Index.load`), which the images are compared with; None: without
            comparison.
        cache: folder for shards that are not on this machine; None: `data.cache` of the snapshot's run.

    Returns:
        The path of the page.

    Raises:
        UsageError: an argument cannot be used, or the extra `eval` is not installed.
        WaveganError: the snapshot or the data is damaged, or an image is not finite.
        OSError: the page cannot be written.
    """
    require("matplotlib.figure", "explain")
    path = page_path(out)
    loaded = load_snapshot(snapshot)
    most = MAX_PIXELS // loaded.config.model.resolution**2
    if count > most:
        raise UsageError(f"--count {count}: a page of so many images would be too large for a browser; give at most {most}")
    index = None if data is None else load_real_images(data, loaded.config.data, cache)
    html = page(measure(loaded, count, seed, parse_class_option(loaded, classes), index))
    with atomic_file(path) as file:
        file.write(html)
    return path
