"""The page of `wavegan explain`: parsed, and opened in a browser."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import needs_chromium, picture_widths
from tests.explain.helpers import MODELS, Page, make_snapshot, rounded
from tests.helpers import Command, refused
from wavegan_dist.data import Index
from wavegan_dist.errors import UsageError
from wavegan_dist.explain import explain
from wavegan_dist.explain.measure import measure
from wavegan_dist.explain.page import page
from wavegan_dist.files import sha256
from wavegan_dist.model.snapshot import load_snapshot
from wavegan_dist.sample import sample


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, few_images: None) -> dict[str, Path]:
    """The page of two images of each model."""
    folder = tmp_path_factory.mktemp("pages")
    for name, model in MODELS.items():
        explain(make_snapshot(folder / name, **model), folder / f"{name}.html", count=2)
    return {name: folder / f"{name}.html" for name in MODELS}


@pytest.fixture(scope="module")
def page_of_run(run: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory, few_images: None) -> Path:
    """The page of a snapshot of a run, with its discriminators and its training data."""
    snapshot = run / "snapshots" / "kimg-000000.320"
    return explain(snapshot, tmp_path_factory.mktemp("page") / "out", seed=4, data=str(shards / "index.json"))


def test_a_page_shows_every_part_of_every_image(pages: dict[str, Path]) -> None:
    bands = {"dcgan": 4, "pyramid": 10, "residual": 7, "classes": 4, "base only": 0}
    for name, path in pages.items():
        page = Page(path)
        columns = bands[name] + 4 if bands[name] else 1
        assert len(page.pictures) == 2 * columns + 16 + 1, name  # 16 swapped images, 1 plot
        assert all(link.startswith("data:") for link in page.links)
        assert "script" not in page.tags
        for heading in ("Images and their parts", "Energy of the bands", "Power spectra", "Swapped latents"):
            assert heading in page.text
        assert "There are no scores: the snapshot is not in a run folder" in page.text
        assert ("only the base network" in page.text) == (name == "base only")
        assert ("lam" in page.text.split()) == (name != "base only")


def test_the_images_of_the_page_are_those_of_wavegan_sample(pages: dict[str, Path], tmp_path: Path) -> None:
    for name, path in pages.items():
        sample(load_snapshot(path.with_name(name)), 2, 0, tmp_path / name)
        shown = {alt: pixels for alt, pixels in Page(path).pictures.items() if alt.startswith("fused of image")}
        assert len(shown) == 2
        for number, pixels in enumerate(shown.values()):
            with Image.open(tmp_path / name / f"{number:06d}.png") as picture:
                np.testing.assert_array_equal(pixels, np.asarray(picture), err_msg=name)


def test_real_images_of_another_data_set_are_named(
    page_of_run: Path, run: Path, index: Index, tmp_path: Path, few_images: None
) -> None:
    sentence = "is not the one that the run was trained on"
    assert sentence not in Page(page_of_run).text
    snapshot = load_snapshot(run / "snapshots" / "kimg-000000.320")
    assert not measure(snapshot, 2, 0, [], None).of_other_data
    other = measure(replace(snapshot, index_digest="0" * 64), 2, 0, [], index)
    (tmp_path / "page.html").write_text(page(other))
    assert sentence in Page(tmp_path / "page.html").text


def test_the_page_states_the_numbers(page_of_run: Path, run: Path, index: Index) -> None:
    snapshot = load_snapshot(run / "snapshots" / "kimg-000000.320")
    explanation = measure(snapshot, 8, 4, [], index)
    page = Page(page_of_run)
    assert page_of_run.name == "index.html"
    lines = [line.strip() for line in page.text.splitlines() if line.strip()]
    for column, energies in explanation.energies.items():
        assert column in lines
        assert {f"{value:.4g}" for value in energies.values()} <= set(lines)
    for of_part in explanation.scores.values():
        for network, logits in of_part.items():
            for logit in logits:
                assert any(line == f"{logit:.3f}" or f"{network} {logit:.3f}" in line for line in lines)
    for changes in explanation.swaps.changes.values():
        for change in changes.values():
            assert {f"{100 * change.low / change.both:.1f} %", f"{127.5 * change.both**0.5:.4g}"} <= set(lines)
    for fact in (f"{explanation.shown.lam:.6g}", sha256(snapshot.path / "model.safetensors"), "0.32 kimg", "4"):
        assert fact in lines
    np.testing.assert_array_equal(page.pictures["fused of image 3"], rounded(explanation, 3))
    assert "mean over 32 generated images" in page.text
    assert "A discriminator is trained to give at least 1 to real" in page.text
    assert "real" in lines


def test_names_of_classes_and_folders_are_text(few_images: None, tmp_path: Path) -> None:
    names = ("<b>bold</b>", 'a "&" b', "<script>alert(1)</script>")
    snapshot = make_snapshot(tmp_path / "<i>&amp;'kimg", names, num_classes=3)
    path = explain(snapshot, tmp_path / "page.html", count=3, classes="2,1,0")
    page = Page(path)
    assert {"script", "b", "i"}.isdisjoint(page.tags)
    for number, name in enumerate(reversed(names)):
        assert f"image {number}, {name}" in page.text
        assert f"fused of image {number}, {name}" in page.pictures
    assert str(snapshot) in page.text
    assert "All images are of the class of image 0, <script>alert(1)</script>." in page.text


def test_the_command_prints_the_path_and_replaces_an_older_page(
    wavegan: Command, pages: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "explain.html"
    arguments = ("explain", "--snapshot", pages["classes"].with_name("classes"), "--count", 1, "--out", out)
    for label in ("zero", "two"):
        outcome = wavegan(*arguments, "--class", label)
        assert (outcome.returncode, outcome.stdout) == (0, f"{out}\n"), outcome.stderr
        assert f"fused of image 0, {label}" in Page(out).pictures
    assert [path.name for path in out.parent.iterdir()] == ["explain.html"]


@pytest.mark.parametrize(
    ("model", "out", "options", "message"),
    [
        ("dcgan", "folder.html", {}, r"--out .*folder\.html is a folder; name a \.html file"),
        ("dcgan", "file", {}, r"--out .*file is not a folder; choose another name"),
        ("dcgan", "file/x.html", {}, "file is not a folder"),
        ("dcgan", "x.html", {"count": 8193}, "--count 8193: .* give at most 8192"),
        ("dcgan", "x.html", {"classes": "one"}, "--class one: .* was trained without classes"),
        ("classes", "x.html", {"classes": "on"}, "--class on: there is no class 'on'; did you mean 'one'"),
        ("pyramid", "x.html", {"data": ""}, "holds images of 32 px, but .* makes 64 px"),
        ("classes", "x.html", {"data": ""}, "has images without one of the model's 3 classes"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    pages: dict[str, Path], shards: Path, tmp_path: Path, model: str, out: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    options = {name: str(shards) if name == "data" else value for name, value in options.items()}
    with pytest.raises(UsageError, match=message) as error:
        explain(pages[model].with_name(model), tmp_path / out, **options)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]


def test_the_command_reports_errors_as_one_line(wavegan: Command, pages: dict[str, Path], tmp_path: Path) -> None:
    model = pages["dcgan"].with_name("dcgan")
    refused(wavegan("explain", "--snapshot", tmp_path, "--out", tmp_path / "x.html"), "is not a snapshot")
    refused(wavegan("explain", "--snapshot", model, "--data", "no.json", "--out", tmp_path / "x.html"), "no.json")
    refused(wavegan("explain", "--snapshot", model, "--out", tmp_path / "x.html", "--count", 0), "0 is not a positive number")
    assert not list(tmp_path.iterdir())


def test_a_missing_plot_library_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"explain needs packages that are not installed: pip install 'wavegan-dist\[eval\]'"):
        explain(tmp_path / "none", tmp_path / "x.html")


@needs_chromium
@pytest.mark.parametrize("name", ["run", "pyramid", "base only"])
def test_the_page_opens_in_a_browser_without_a_complaint(
    pages: dict[str, Path], page_of_run: Path, name: str, tmp_path: Path
) -> None:
    page = {"run": page_of_run, **pages}[name]
    widths = picture_widths(page, tmp_path)
    assert len(widths) == page.read_text().count("<img ")
    assert min(widths) == {"run": 8, "pyramid": 8, "base only": 32}[name]
