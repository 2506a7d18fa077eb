"""The page of `wavegan gallery`: parsed, and opened in a browser."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import needs_chromium, picture_widths
from tests.explain.helpers import Page
from tests.gallery.helpers import add_grids, make_copying_run, make_run
from tests.helpers import Command, refused
from wavegan_dist.data import Index
from wavegan_dist.errors import UsageError
from wavegan_dist.gallery import gallery
from wavegan_dist.gallery.measure import measure, newest_snapshot
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.sample import sample


@pytest.fixture(scope="module")
def copying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_copying_run(tmp_path_factory.mktemp("runs") / "copying")


@pytest.fixture(scope="module")
def page(made: Path, copying: Path, data: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs, of which one copies and has no grids, with neighbors of 3 samples each."""
    return gallery([made, copying], tmp_path_factory.mktemp("page") / "out", str(data.folder), count=3)


def test_a_page_shows_frames_interpolations_and_neighbors_of_every_run(page: Path, made: Path, copying: Path) -> None:
    assert page.name == "index.html"
    shown = Page(page)
    for run, frames in ((made, ["0", "1.5", "2"]), (copying, [])):
        names = {name for name in shown.pictures if str(run) in name}
        assert {name for name in names if "kimg" in name} == {f"samples of {run} at {kimg} kimg" for kimg in frames}
        assert {f"from image {first} to image {first + 1} of {run}" for first in (0, 2, 4, 6)} <= names
        assert {f"neighbor {rank} of sample {number} of {run}" for rank in (1, 2, 3, 4) for number in range(3)} <= names
        assert len(names) == len(frames) + 4 + 3 * 5
    for kimg in ("0 kimg", "1.5 kimg", "2 kimg"):
        assert kimg in shown.text.splitlines()
    assert "The run folder holds no sample grids." in shown.text


def test_the_page_needs_nothing_from_outside_and_makes_sense_without_its_script(page: Path) -> None:
    text, shown = page.read_text(), Page(page)
    assert all(link.startswith("data:") for link in shown.links)
    assert text.count("<script>") == 1
    assert "url(" not in text
    markup = text.partition("<script>")[0]
    assert "<figure hidden" not in markup
    assert markup.count('<input type="range" hidden ') == 1  # of the run with grids


def test_pictures_of_the_page_are_those_of_the_run(page: Path, made: Path, tmp_path: Path) -> None:
    pictures = Page(page).pictures
    for kimg, name in (("0", "kimg-000000"), ("1.5", "kimg-000001.500"), ("2", "kimg-000002")):
        with Image.open(made / "samples" / f"{name}.png") as grid:
            np.testing.assert_array_equal(pictures[f"samples of {made} at {kimg} kimg"], np.asarray(grid))
    sample(newest_snapshot(RunFolder(made)), 3, 0, tmp_path / "samples")
    for number in range(3):
        with Image.open(tmp_path / "samples" / f"{number:06d}.png") as picture:
            np.testing.assert_array_equal(pictures[f"sample {number} of {made}"], np.asarray(picture))


def test_the_page_states_the_numbers_and_marks_copies(page: Path, made: Path, copying: Path, data: Index) -> None:
    lines = [line.strip() for line in Page(page).text.splitlines()]
    runs = measure({run: newest_snapshot(RunFolder(run)) for run in (made, copying)}, 3, data)
    for run in runs:
        assert {f"{run.real.median:.4f}", f"{run.real.quantile:.4f}"} <= set(lines)
        for distance, row, mirrored in zip(
            run.neighbors.distances.flatten(), run.neighbors.rows.flatten(), run.neighbors.mirrored.flatten(), strict=True
        ):
            assert f"{distance:.4f}, image {row}{', mirrored' if mirrored else ''}" in lines
    assert [line for line in lines if line.endswith(" of 3")] == ["0 of 3", "3 of 3"]
    assert [line for line in lines if line.startswith("sample ") and "quantile" in line] == [
        f"sample {n}: at or below the 5 % quantile" for n in range(3)
    ]
    assert page.read_text().count('class="row near"') == 3
    method = next(line for line in lines if "1 - cos" in line)
    assert "among 60 of the 60 real images, and their mirror images" in method
    assert "is not the one that the run was trained on" in method


def test_a_run_with_its_own_data_and_without_data(
    trained: Path, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegan_dist.gallery.neighbors.MAX_REAL", 40)
    text = Page(gallery([trained], tmp_path / "data.html", str(index.folder / "index.json"), count=1)).text
    assert f"among 40 of the {index.count} real images, without mirror images" in text
    assert "A copy of one of the other real images would not be found" in text
    assert "is not the one that the run was trained on" not in text
    text = Page(gallery([trained], tmp_path / "none.html", count=10**6)).text
    assert "0.32 kimg" in text
    assert "nearest" not in text


def test_names_of_classes_and_folders_are_text(tmp_path: Path, data: Index) -> None:
    names = ("<b>bold</b>", 'a "&" b', "</script><i>")
    run = add_grids(make_run(tmp_path / "<i>&amp;'run", names=names, num_classes=3), {0: 32})
    page = Page(gallery([run], tmp_path / "page.html", str(data.folder)))
    assert {"b", "i"}.isdisjoint(page.tags)
    assert str(run) in page.text
    drawn = newest_snapshot(RunFolder(run)).classes.draw(0, "class/evaluate", range(8)).tolist()
    for number, label in enumerate(drawn):
        assert f"sample {number}, {names[label]}" in page.text
    assert f"from image 0 to image 1 of {run}, {names[drawn[0]]}" in page.pictures


def test_the_command_prints_the_path_and_replaces_an_older_page(wavegan: Command, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "gallery.html"
    out.parent.mkdir()
    out.write_text("older")
    outcome = wavegan("gallery", made, "--out", out)
    assert (outcome.returncode, outcome.stdout) == (0, f"{out}\n"), outcome.stderr
    assert len(Page(out).pictures) == 3 + 4
    assert [path.name for path in out.parent.iterdir()] == ["gallery.html"]


def test_the_command_reports_errors_as_one_line(wavegan: Command, made: Path, data: Index, tmp_path: Path) -> None:
    out, empty = tmp_path / "x.html", tmp_path / "empty"
    shutil.copytree(made, empty)
    shutil.rmtree(empty / "snapshots")
    large = make_run(tmp_path / "large", resolution=64)
    refused(wavegan("gallery", tmp_path, "--out", out), f"{tmp_path} is not a run: it has no config.yaml")
    refused(wavegan("gallery", made, empty, "--out", out), f"{empty} has no snapshot")
    refused(wavegan("gallery", large, made, "--data", data.folder, "--out", out), "holds images of 32 px, but", "64 px")
    refused(wavegan("gallery", made, "--data", "no.json", "--out", out), "no.json")
    refused(wavegan("gallery", made, "--data", data.folder, "--count", 8193, "--out", out), "--count 8193", "at most 8192")
    refused(wavegan("gallery", made, "--out", made / "config.yaml" / "x.html"), "is not a folder")
    assert not out.exists()


def test_too_few_real_images_are_refused(made: Path, data: Index, tmp_path: Path) -> None:
    few = data.model_copy(update={"count": 4})
    with pytest.raises(UsageError, match="holds 4 images, too few for 4 neighbors"):
        measure({made: newest_snapshot(RunFolder(made))}, 1, few)


def test_missing_packages_are_said_at_once(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wavegan_dist.evaluate.efflite0", None)
    with pytest.raises(UsageError, match=r"gallery --data needs packages that .*: pip install 'wavegan-dist\[eval\]'"):
        gallery([tmp_path / "none"], tmp_path / "x.html", "index.json")
    assert gallery([made], tmp_path / "x.html").is_file()  # the pictures of a run need none of them


@needs_chromium
def test_the_slider_shows_one_frame_at_a_time(page: Path, made: Path, tmp_path: Path) -> None:
    text = page.read_text()
    assert len(picture_widths(page, tmp_path)) == text.count("<img ")
    for position, width in ((None, 48), (0, 32), (1, 40), (2, 48)):
        move = f"slider.value = {position}; slider.dispatchEvent(new Event('input'));" if position is not None else ""
        keep_visible = (
            f"<script>{{ const slider = document.querySelector('input'); {move}"
            "if (slider.checkVisibility()) for (const image of [...document.images]) "
            "if (!image.checkVisibility() || !image.closest('.frames')) image.remove(); }</script></body>"
        )
        moved = tmp_path / f"moved-{position}.html"
        moved.write_text(text.replace("</body>", keep_visible))
        assert picture_widths(moved, tmp_path) == [width]


def test_large_interpolations_are_shrunk_to_means_of_pixels(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Page(gallery([made], tmp_path / "full.html")).pictures
    monkeypatch.setattr("wavegan_dist.gallery.page.STRIP_SIDE", 8)
    name = f"from image 2 to image 3 of {made}"
    small = Page(gallery([made], tmp_path / "small.html")).pictures[name]
    means = full[name].astype(float).reshape(8, 4, 64, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small, means, atol=0.51)
