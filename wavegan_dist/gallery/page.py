"""The page of a gallery: a self-contained HTML file (docs/gallery.md says how to read it).

Without its script, the page shows all sample grids of a run side by side; the script shows one at a time, with a slider.
"""

from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from wavegan_dist.gallery.frames import MAX_SIDE
from wavegan_dist.gallery.measure import SEED, RunPictures
from wavegan_dist.gallery.neighbors import QUANTILE, Neighbors, RealFeatures
from wavegan_dist.html_page import document, figure, paragraph, picture, table
from wavegan_dist.images import encode_png

STRIP_SIDE = 256  # pixels of an image of an interpolation; larger ones are shrunk
PERCENT = f"{100 * QUANTILE:g} %"
STYLE = """
.frames { display: flex; flex-wrap: wrap; gap: 1rem; }
.frames img { image-rendering: pixelated; width: 260px; }
.frames.one { display: block; }
.frames.one img { width: 768px; }
.frames input { width: 768px; max-width: 100%; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: .5rem; }
.row img { image-rendering: pixelated; width: 128px; }
.row figcaption { max-width: 128px; }
.row > :first-child { margin-right: 1rem; }
.near { outline: 3px solid #c00; }
.interpolation img { image-rendering: pixelated; width: 1024px; }
"""
SCRIPT = """
for (const frames of document.querySelectorAll(".frames")) {
  const slider = frames.querySelector("input"), figures = frames.querySelectorAll("figure");
  const show = () => figures.forEach((figure, number) => { figure.hidden = number !== Number(slider.value); });
  slider.addEventListener("input", show);
  slider.hidden = false;
  frames.classList.add("one");
  show();
}
"""


def page(runs: Sequence[RunPictures]) -> str:
    """Return the page of a gallery, a complete HTML document."""
    sections = []
    for run in runs:
        name = str(run.path)
        sections += [
            (f"{name}: samples over training", _frames(run)),
            (f"{name}: interpolations", _interpolations(run)),
            (f"{name}: nearest training images", _neighbors(run)),
        ]
    return document("Gallery of " + ", ".join(run.path.resolve().name for run in runs), sections, STYLE, SCRIPT)


def _frames(run: RunPictures) -> str:
    if not run.frames:
        return paragraph("The run folder holds no sample grids.")
    note = "The same latents at each snapshot."
    if len(run.frames) < run.grids:
        note += f" {len(run.frames)} of the {run.grids} grids of the run are shown."
    note += f" Grids of more than {MAX_SIDE} px are shrunk."
    slider = (
        f'<input type="range" hidden min="0" max="{len(run.frames) - 1}" value="{len(run.frames) - 1}" '
        f'aria-label="snapshot of {escape(str(run.path))}">'
    )
    figures = "".join(
        f"<figure><figcaption>{frame.nimg / 1000:g} kimg</figcaption>"
        f"{picture(frame.png, f'samples of {run.path} at {frame.nimg / 1000:g} kimg')}</figure>\n"
        for frame in run.frames
    )
    return paragraph(note) + f'<div class="frames">{slider}\n{figures}</div>'


def _interpolations(run: RunPictures) -> str:
    note = paragraph(
        f"Spherical interpolation between the latents of two images of wavegan sample --seed {SEED}, at equal angles; "
        f"the newest snapshot, {run.snapshot.nimg / 1000:g} kimg. A generator that has memorized single images tends to "
        f"jump from one to another. Images of more than {STRIP_SIDE} px are shrunk."
    )
    rows = []
    for row in run.interpolations:
        of_class = "" if row.label is None else f", {_class_name(run, row.label)}"
        strip = torch.cat(list(_shrunk(row.images)), dim=-1)
        rows.append(figure(encode_png(strip), f"from image {row.first} to image {row.first + 1} of {run.path}{of_class}"))
    return note + f'<div class="interpolation">{"".join(rows)}</div>'


def _shrunk(images: Tensor) -> Tensor:
    """Shrink uint8 images [B, 3, R, R], R a power of two, to at most `STRIP_SIDE` px: means of pixels."""
    factor = max(images.shape[-1] // STRIP_SIDE, 1)
    return torch.nn.functional.avg_pool2d(images.float(), factor).round().to(torch.uint8)


def _neighbors(run: RunPictures) -> str:
    neighbors, real = run.neighbors, run.real
    if neighbors is None or real is None:
        return ""
    rows = [_row(run, neighbors, number) for number in range(len(neighbors.samples))]
    return _method(run, real) + _summary(neighbors, real) + "".join(rows)


def _method(run: RunPictures, real: RealFeatures) -> str:
    mirrored = (
        "and their mirror images, which are training images, too" if real.mirrored is not None else "without mirror images"
    )
    text = (
        f"Samples of {run.snapshot.nimg / 1000:g} kimg and their nearest images among {len(real.rows)} of the "
        f"{real.index.count} real images, {mirrored}. Distance: 1 - cos between the features of EfficientNet-Lite0 at 128 px. "
    )
    if len(real.rows) < real.index.count:
        text += "A copy of one of the other real images would not be found. "
    if run.snapshot.index_digest != real.index.digest:
        text += "This data set is not the one that the run was trained on, or only a part of it: copies may not be found. "
    return paragraph(text)


def _summary(neighbors: Neighbors, real: RealFeatures) -> str:
    marked, count = int(neighbors.marked.sum()), len(neighbors.marked)
    rows = [
        ("real image to the nearest other real image, median", f"{real.median:.4f}"),
        (f"real image to the nearest other real image, {PERCENT} quantile", f"{real.quantile:.4f}"),
        ("sample to the nearest real image, median", f"{neighbors.distances[:, 0].median():.4f}"),
        (f"samples at or below the {PERCENT} quantile", f"{marked} of {count}"),
    ]
    text = (
        f"Samples at or below the {PERCENT} quantile have a red frame: look at these for copies. A generator that makes "
        f"new images like the real ones has {PERCENT} of them, on average."
    )
    return table(["distance", "value"], rows) + paragraph(text)


def _row(run: RunPictures, neighbors: Neighbors, number: int) -> str:
    of_class = "" if run.labels is None else f", {_class_name(run, int(run.labels[number]))}"
    near = bool(neighbors.marked[number])
    name = f"sample {number} of {run.path}"
    caption = f"sample {number}{of_class}{f': at or below the {PERCENT} quantile' if near else ''}"
    cells = [_cell(encode_png(neighbors.samples[number]), name, caption)]
    for rank, (row, distance, mirrored) in enumerate(
        zip(neighbors.rows[number], neighbors.distances[number], neighbors.mirrored[number], strict=True)
    ):
        caption = f"{distance:.4f}, image {row}{', mirrored' if mirrored else ''}"
        cells.append(_cell(encode_png(neighbors.pictures[number, rank]), f"neighbor {rank + 1} of {name}", caption))
    return f'<div class="row{" near" if near else ""}">{"".join(cells)}</div>\n'


def _cell(content: bytes, name: str, caption: str) -> str:
    return f"<figure>{picture(content, name)}<figcaption>{escape(caption)}</figcaption></figure>"


def _class_name(run: RunPictures, label: int) -> str:
    return str(label) if run.snapshot.classes is None else run.snapshot.classes.name(label)
