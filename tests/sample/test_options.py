"""Seeds, truncation, and combinations of options that make no sense."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from tests.sample.snapshots import colored, conditional
from wavegan_dist import counted
from wavegan_dist.cli import main, parse
from wavegan_dist.errors import UsageError
from wavegan_dist.images import to_uint8
from wavegan_dist.model.snapshot import Snapshot, labels_of_images
from wavegan_dist.sample import sample
from wavegan_dist.sample.checks import parse_seeds
from wavegan_dist.sample.workers import worker_threads


def pixels(path: Path | BytesIO) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_the_image_of_a_seed_is_the_first_image_that_the_seed_gives(loaded: Snapshot, tmp_path: Path) -> None:
    sample(loaded, None, None, tmp_path / "out", seeds="31,5-8,100")
    assert sorted(path.name for path in tmp_path.glob("out/*")) == [f"{seed:06d}.png" for seed in (5, 6, 7, 8, 31, 100)]
    for seed in (31, 5, 8, 100):
        sample(loaded, 1, seed, tmp_path / f"{seed}.png")
        assert np.abs(pixels(tmp_path / f"{seed}.png") - pixels(tmp_path / "out" / f"{seed:06d}.png")).max() <= 1


def test_seeds_have_their_own_classes_or_take_turns_in_the_given_ones(loaded: Snapshot, tmp_path: Path) -> None:
    snapshot, seeds = conditional(loaded), [3, *range(40, 60)]
    for name, classes in (("drawn", None), ("given", "cat,ant")):
        sample(snapshot, None, None, tmp_path / name, seeds="3,40-59", classes=classes, format="shards")
    drawn, given = (
        list(webdataset.WebDataset([str(path) for path in sorted(tmp_path.glob(f"{name}/*"))], shardshuffle=False))
        for name in ("drawn", "given")
    )
    assert [int(entry["__key__"]) for entry in drawn] == seeds
    first = [int(labels_of_images(snapshot, seed)(range(1))) for seed in seeds]
    assert [int(entry["cls"]) for entry in drawn] == first
    assert len(set(first)) > 1
    assert [int(entry["cls"]) for entry in given] == [2, 0] * 10 + [2]
    for entry in (*drawn, *given):
        assert (pixels(BytesIO(entry["png"])) == 100 * int(entry["cls"])).all()


def test_truncation_multiplies_the_latents(loaded: Snapshot, tmp_path: Path) -> None:
    sample(colored(loaded), 3, 2, tmp_path / "half", truncation=0.5)
    for number, z in enumerate(counted.normal(2, "latent/evaluate", range(3), 16)):
        color = to_uint8(0.5 * z[:3] / 4).tolist()
        assert color != to_uint8(z[:3] / 4).tolist()
        assert (pixels(tmp_path / "half" / f"{number:06d}.png") == color).all()
    sample(loaded, 3, 2, tmp_path / "one", truncation=1)
    sample(loaded, 3, 2, tmp_path / "none")
    assert [path.read_bytes() for path in sorted((tmp_path / "one").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "none").iterdir())
    ]


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", [7]), ("1,5-8", [1, 5, 6, 7, 8]), (" 9 , 2-2", [9, 2]), (f"{2**63 - 1}", [2**63 - 1]), ("3-4,1", [3, 4, 1])],
)
def test_seeds_are_numbers_and_ranges_in_the_given_order(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is neither a seed nor a range"),
        ("1,,2", "'' is neither"),
        ("-3", "'-3' is neither"),
        ("8-5", "'8-5' is neither"),
        ("1-2-3", "'1-2-3' is neither"),
        ("1.5", "'1.5' is neither"),
        ("²", "'²' is neither"),
        (f"{2**63}", "is neither"),
        ("9" * 5000, "is neither"),
        (f"0-{2**63 - 1}", "more than 10,000,000 seeds"),
        ("1,2,0-1", "a seed occurs twice"),
    ],
)
def test_other_lists_of_seeds_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=r"^--seeds ") as error:
        parse_seeds(text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("out", "arguments", "words"),
    [
        ("out", {"count": 0}, "--count 0: give at least one image"),
        ("x.jpg", {}, "images are written as PNG only"),
        ("x.TIFF", {}, "images are written as PNG only"),
        ("x.heic", {}, "images are written as PNG only"),
        ("x.NPZ", {}, "images are written as PNG only"),
        ("x.json", {}, "images are written as PNG only"),
        ("x.tar.gz", {}, "name a folder; --format shards writes tars into it"),
        ("x.mp4", {"walk": 9}, "no video encoder; name a .webp or .gif file"),
        ("x.mp4", {}, "no video encoder"),
        ("x.tar", {"format": "shards"}, "name a folder; --format shards writes tars into it"),
        ("x.png", {"format": "shards"}, "--format shards needs the name of a folder"),
        ("x.png", {"format": "folder"}, "--format folder needs the name of a folder"),
        ("x.png", {"format": "walk"}, "--format walk needs the name of a .webp or .gif file"),
        ("out", {"format": "grid"}, "--format grid needs the name of a .png file"),
        ("x.gif", {"format": "grid"}, "--format grid needs the name of a .png file"),
        ("x.gif", {}, "an animation needs a number of frames; add --walk 200"),
        ("x.webp", {"format": "walk"}, "an animation needs a number of frames"),
        ("x.png", {"walk": 100}, "--walk 100: --out .* is no animation"),
        ("out", {"walk": 100, "format": "shards"}, "--walk 100: --out .* is no animation"),
        ("x.gif", {"walk": 7}, "a walk through 8 latents needs at least as many frames; give --walk 8"),
        ("x.gif", {"walk": 7, "count": 1}, "at least two latents"),
        ("x.gif", {"walk": 7, "seeds": "5"}, "at least two latents"),
        ("x.gif", {"walk": 262145}, "too many frames of 32 px for the memory; give at most --walk 262144"),
        ("x.png", {"count": 65537}, "at most --count 65536, or a folder"),
        ("x.png", {"count": 3, "seeds": "1-3"}, "--count and --seeds exclude each other"),
        ("out", {"seed": 0, "seeds": "1-3"}, "--seed and --seeds exclude each other"),
        ("out", {"truncation": 0.0}, "--truncation 0: give a number above 0 and at most 1"),
        ("out", {"truncation": 1.01}, "--truncation 1.01: give"),
        ("out", {"truncation": float("nan")}, "--truncation nan: give"),
        ("file", {}, "is a file; name a path that ends in .png, or a folder"),
        ("file/out", {}, "file is not a folder"),
        ("folder.png", {}, "is a folder; name a file, or a folder without .png in its name"),
        ("folder.gif", {"walk": 9}, "is a folder; name a file, or a folder without .gif in its name"),
        ("full", {}, "already holds files; remove it or choose another folder"),
        (".", {}, "is a mount point or the working folder; name a new folder in it"),
        ("out", {"classes": "1"}, "was trained without classes"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_and_nothing_is_written(
    loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, arguments: dict[str, Any], words: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for name in ("here", "folder.png", "folder.gif"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path / "here")
    path = Path() if out == "." else tmp_path / out
    with pytest.raises(UsageError, match=words) as error:
        sample(loaded, arguments.pop("count", None), arguments.pop("seed", None), path, **arguments)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_walk_through_several_classes_and_more_classes_than_seeds_are_refused(loaded: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--walk 9: a walk stays in one class, and --class names 2; give one of them"):
        sample(conditional(loaded), None, None, tmp_path / "x.gif", walk=9, classes="ant,bee")
    with pytest.raises(UsageError, match="--class ant,bee: 2 classes, but images: 1; make at least 2 images"):
        sample(conditional(loaded), None, None, tmp_path / "out", seeds="4", classes="ant,bee")


@pytest.mark.parametrize(
    ("out", "arguments", "files"),
    [("tars", ("--seeds", "4-6", "--format", "shards"), 3), ("walk.gif", ("--walk", "6", "--count", "3", "--seed", "2"), 0)],
)
def test_the_command_passes_every_option_on(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, arguments: tuple[str, ...], files: int
) -> None:
    path = tmp_path / out
    command = ["sample", "--snapshot", str(snapshot), "--device", "cpu", "--truncation", "0.7", "--out", str(path)]
    assert main([*command, *arguments]) == 0
    assert capsys.readouterr() == (f"{path}\n", "")
    assert path.is_file() if not files else len(list(path.iterdir())) == files


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "tar"), "'grid', 'folder', 'shards', 'walk'"),
        (("--walk", "0"), "--walk: 0 is not a positive number"),
        (("--seed", "-1"), "-1 is not a seed"),
        (("--truncation", "half"), "--truncation"),
    ],
)
def test_values_that_an_option_does_not_have_are_refused(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(["sample", "--snapshot", "x", "--out", "x", *arguments])


def test_the_settings_of_pytorch_are_as_before() -> None:
    backends: Any = torch.backends
    before = torch.get_num_threads(), backends.cudnn.conv.fp32_precision, backends.cudnn.deterministic
    with worker_threads():
        assert backends.cudnn.conv.fp32_precision == "ieee"
    assert (torch.get_num_threads(), backends.cudnn.conv.fp32_precision, backends.cudnn.deterministic) == before


def test_too_many_images_are_refused_before_anything_is_written(loaded: Snapshot, tmp_path: Path) -> None:
    for count in (10_000_001, 10**24):
        with pytest.raises(UsageError, match=f"--count {count}: more than 10,000,000 images"):
            sample(loaded, count, 0, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_link_that_leads_nowhere_is_one_line(loaded: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("loop", "loop.png"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(tmp_path / name)
        with pytest.raises(UsageError, match="is a link that leads nowhere"):
            sample(loaded, 1, 0, tmp_path / name)
    with pytest.raises(UsageError, match="--out / already holds files"):
        sample(loaded, 1, 0, Path("/"))


@pytest.mark.parametrize("content", [b"", b"junk", b"[]", b"null", b"\xff"])
def test_a_damaged_plan_of_an_unfinished_folder_is_one_line(loaded: Snapshot, tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "plan.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"plan\.json is damaged; remove .*\.out\.partial and start again"):
        sample(loaded, 1, 0, tmp_path / "out")
