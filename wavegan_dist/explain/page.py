"""The page of an explanation: a self-contained HTML file without scripts (docs/explain.md says how to read it)."""

import statistics
from collections.abc import Sequence
from html import escape

from wavegan_dist.explain.measure import Explanation
from wavegan_dist.explain.pictures import PERCENTILE, columns_of
from wavegan_dist.explain.spectra import GRAY_LEVELS, plot_spectra
from wavegan_dist.explain.swap import Change
from wavegan_dist.html_page import document, figure, paragraph, picture, table, table_of_html
from wavegan_dist.images import encode_png, to_uint8

STYLE = """
.facts thead { display: none; }
.facts td { text-align: left; }
.parts th { white-space: normal; font-weight: normal; font-size: 13px; vertical-align: bottom; max-width: 128px; }
.parts th, .parts td { padding: .2rem; text-align: center; }
.numbers th { white-space: normal; }
.parts img, .strip img { image-rendering: pixelated; width: 128px; max-width: none; }
.strip { display: flex; flex-wrap: wrap; gap: .5rem; }
.grid { display: inline-grid; grid-template-columns: repeat(4, 96px); gap: 2px; }
.grid img { image-rendering: pixelated; width: 96px; }
"""
FORMULA = "image = (1 - lam) * base(z) + lam * inverse transform(low(z_l), high(z_h))"


def page(explanation: Explanation) -> str:
    """Return the page of an explanation, a complete HTML document. Needs matplotlib."""
    path = explanation.snapshot.path.resolve()
    return document(
        f"What the networks of {path.name} contribute",
        [
            ("Snapshot", _snapshot(explanation)),
            ("Images and their parts", _parts(explanation)),
            ("Energy of the bands", _energies(explanation)),
            ("Power spectra", _spectra(explanation)),
            ("Swapped latents", _swaps(explanation)),
            ("Scores of the discriminators", _scores(explanation)),
        ],
        STYLE,
    )


def _snapshot(explanation: Explanation) -> str:
    snapshot, model = explanation.snapshot, explanation.snapshot.config.model
    rows = [
        ("snapshot", str(snapshot.path.resolve())),
        ("progress", f"{snapshot.nimg / 1000:g} kimg"),
        ("half-life of the EMA", f"{snapshot.half_life_kimg:g} kimg"),
        ("sha256 of the weights", snapshot.weights_sha256),
        ("backbone, resolution, width, levels", f"{model.backbone}, {model.resolution} px, {model.width}, {model.levels}"),
        ("seed of the latents", str(explanation.seed)),
    ]
    if explanation.shown.low is None:
        formula = (
            "This model has only the base network (model.base_only): image = base(z). Its images are called fused on this page."
        )
    else:
        rows.append(("lam", f"{explanation.shown.lam:.6g}"))
        formula = FORMULA
    warning = (
        "The data set of the real images is not the one that the run was trained on, or only a part of it: energies, spectra "
        "and scores of real images may differ from those in training."
    )
    note = paragraph(warning) if explanation.of_other_data else ""
    return f'<div class="facts">{table(("setting", "value"), rows)}</div>{paragraph(formula)}{note}'


def _parts(explanation: Explanation) -> str:
    columns = columns_of(explanation.shown)
    head = ["", *(f"{escape(column.name)}<br>±{column.limit:.3g}" for column in columns)]
    rows = []
    for number in range(len(explanation.shown.fused)):
        name = _image_name(explanation, number)
        cells = [picture(column.png(number), f"{column.name} of {name}") for column in columns]
        rows.append([escape(name), *cells])
    note = paragraph(
        "Row i is image i of wavegan sample --device cpu with this seed: the column fused has the same pixels. Under each "
        "heading is the value of white; black is the negative value and mid-gray is 0. Images have the range of pixels, the "
        f"low band of level j that of the low band of such images, ±2^j. The other columns have the range of {PERCENTILE:g} % "
        "of their values. LH are horizontal edges, HL vertical, HH diagonal; level 1 is the finest."
    )
    return note + f'<div class="parts">{table_of_html(head, rows)}</div>'


def _energies(explanation: Explanation) -> str:
    columns = explanation.energies
    rows = [[band, *(f"{energies[band]:.4g}" for energies in columns.values())] for band in columns["fused"]]
    note = (
        f"Mean square of the coefficients of each Haar band, for pixels in [-1, 1]: mean over {explanation.statistics_images} "
        "generated images and as many real ones, or all if there are fewer. LL contains the mean brightness. The terms are "
        "correlated, so that their energies do not add up to that of the fused image."
    )
    return paragraph(note) + table(["band", *columns], rows)


def _spectra(explanation: Explanation) -> str:
    note = (
        f"Power at each radius of the frequency plane, mean over the same {explanation.statistics_images} images. The curves "
        "of the networks include their factor in the fused image: a network far below the curve of fused has no visible effect "
        "there. No curve falls below the power of rounding to 8 bits."
    )
    plot = plot_spectra(explanation.spectra, explanation.snapshot.config.model.resolution)
    return paragraph(note) + picture(plot, f"power spectra of {', '.join(explanation.spectra)}")


def _swaps(explanation: Explanation) -> str:
    swaps = explanation.swaps
    images = to_uint8(swaps.images)
    cells = [
        picture(encode_png(images[row, column]), f"fused image of z_l {row} and z_h {column}")
        for row in range(images.shape[0])
        for column in range(images.shape[1])
    ]
    of_class = "" if explanation.labels is None else f" All images are of the class of {_image_name(explanation, 0)}."
    note = paragraph(
        "Along a row, z_l is fixed and z_h varies; along a column, z_h is fixed and z_l varies. The base network gets both. "
        f"The latents are those of images 0 to {len(images) - 1}, whose own combinations are on the diagonal.{of_class}"
    )
    head = ["band", *(f"{part}: {what}" for part in swaps.changes for what in ("z_h varied", "z_l varied", "both"))]
    rows = [
        [band, *(cell for of_part in swaps.changes.values() for cell in _change_cells(of_part[band]))]
        for band in next(iter(swaps.changes.values()))
    ]
    meaning = paragraph(
        "Change of each band: the root mean square difference of two images with other z_l and z_h (both), in gray levels of "
        "0..255, and the mean square difference of two images that have one of them in common, in percent of that."
    )
    return f'{note}<div class="grid">{"".join(cells)}</div>{meaning}<div class="numbers">{table(head, rows)}</div>'


def _change_cells(change: Change) -> list[str]:
    shares = [f"{100 * part / change.both:.1f} %" if change.both else "-" for part in (change.high, change.low)]
    return [*shares, f"{change.both**0.5 * GRAY_LEVELS:.4g}"]


def _scores(explanation: Explanation) -> str:
    scores = explanation.scores
    if not scores:
        return paragraph(explanation.scores_source)
    generated = {part: of_part for part, of_part in scores.items() if part != "real"}
    names = list(scores["fused"])
    head = ["image", *(f"{part}: {name}" for part in generated for name in names)]
    lists = [of_part[name] for of_part in generated.values() for name in names]
    rows = [
        [_image_name(explanation, number), *(f"{logits[number]:.3f}" for logits in lists)] for number in range(len(lists[0]))
    ]
    means = ["mean", *(f"{statistics.fmean(logits):.3f}" for logits in lists)]
    objective = explanation.snapshot.config.loss.objective
    meaning = {
        "hinge": "A discriminator is trained to give at least 1 to real and at most -1 to generated images.",
        "relativistic": "Only differences between the logits of real and generated images have a meaning.",
    }[objective]
    note = paragraph(
        f"{explanation.scores_source} Logits of the discriminators {', '.join(names)} for the images above, before they are "
        f"rounded to pixels and without augmentation. {meaning}"
    )
    return f'{note}<div class="numbers">{table(head, [*rows, means])}</div>{_real_scores(explanation, names)}'


def _real_scores(explanation: Explanation, names: Sequence[str]) -> str:
    if explanation.real is None:
        return ""
    scores = explanation.scores["real"]
    captions = [", ".join(f"{name} {scores[name][number]:.3f}" for name in names) for number in range(len(scores[names[0]]))]
    pictures = [figure(encode_png(image), caption) for image, caption in zip(explanation.real.images, captions, strict=True)]
    means = ", ".join(f"{name} {statistics.fmean(scores[name]):.3f}" for name in names)
    return paragraph(f"Real images; mean logits: {means}.") + f'<div class="strip">{"".join(pictures)}</div>'


def _image_name(explanation: Explanation, number: int) -> str:
    classes, labels = explanation.snapshot.classes, explanation.labels
    if classes is None or labels is None:
        return f"image {number}"
    return f"image {number}, {classes.name(int(labels[number]))}"
