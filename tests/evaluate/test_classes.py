"""Classes of generated images: how they are drawn and chosen, and metrics under the data's frequencies and per class."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn

from tests.helpers import fresh_cache, run_ranks
from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment
from wavegan_dist.data import Index, images_at, write_shards
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluate import evaluate
from wavegan_dist.evaluate.accumulate import compute_statistics
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.per_class import class_metrics
from wavegan_dist.evaluate.real_images import draw_subsets
from wavegan_dist.evaluate.spectrum import SpectrumError
from wavegan_dist.evaluate.statistics import FeatureRows, Moments
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import Snapshot, labels_of_images, load_snapshot, save_snapshot, snapshot_images
from wavegan_dist.sample import sample

CLASSES = Classes([500, 300, 200, 0], ["ant", "bee", "cat, or dog", "7"])


class Flat(nn.Module):
    """Makes images of one color: class c has gray level 40 + 20 * c in all images, with the first latent as a texture."""

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(0)
        texture = torch.randn(3, 32, 32) * z[:, :1, None, None]
        return (40 + 20 * labels[:, None, None, None] + 4 * texture) / 127.5 - 1


def make(path: Path, num_classes: int, classes: Classes | None) -> Path:
    """Write a snapshot of an untrained generator."""
    model = {"width": 4, "z_dim": 8, "num_classes": num_classes}
    config = Experiment.model_validate({"data": {"index": "x"}, "model": model})
    weights = build_generator(config).state_dict()
    save_snapshot(path, weights, weights.items(), config, 2000, "1" * 64, classes=classes)
    return path


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A snapshot with four classes whose images show their class."""
    path = make(tmp_path_factory.mktemp("run") / "kimg-000002", 4, CLASSES)
    return replace(load_snapshot(path), generator=Flat())  # type: ignore[arg-type]


def classes_of(images: Tensor) -> list[int]:
    """The classes that images of `Flat` show."""
    return ((images.float().mean(dim=(1, 2, 3)) - 40) / 20).round().int().tolist()


def test_a_snapshot_stores_counts_and_names_and_one_without_them_is_damaged(conditional: Snapshot, tmp_path: Path) -> None:
    assert load_snapshot(conditional.path).classes == CLASSES
    assert load_snapshot(make(tmp_path / "none", 0, None)).classes is None
    path = make(tmp_path / "broken", 4, Classes([1, 2], []))
    with pytest.raises(WaveganError, match=r"snapshot\.json is damaged: it lacks the counts of 4 classes"):
        load_snapshot(path)


def test_drawn_classes_have_the_frequencies_of_the_data_and_depend_on_seed_and_number_only(conditional: Snapshot) -> None:
    labels = labels_of_images(conditional, 3)
    drawn = labels(range(4000)).numpy()
    shares = np.bincount(drawn, minlength=4) / 4000
    assert shares == pytest.approx([0.5, 0.3, 0.2, 0], abs=0.03)
    assert shares[3] == 0
    assert (labels(range(1000, 1100)).numpy() == drawn[1000:1100]).all()
    assert (labels_of_images(conditional, 4)(range(4000)).numpy() != drawn).mean() > 0.3


@pytest.mark.parametrize("batch_size", [16, 48])
def test_an_image_shows_its_class_with_any_batch_size_and_first_image(conditional: Snapshot, batch_size: int) -> None:
    for classes in ((), (2, 0, 1)):
        wanted = labels_of_images(conditional, 5, classes)(range(60)).tolist()
        images = torch.cat(list(snapshot_images(conditional, range(7, 60), 5, batch_size, classes=classes)))
        assert classes_of(images) == wanted[7:]


@pytest.mark.parametrize(
    ("text", "labels"),
    [("2", [2]), ("bee", [1]), ("2,ant, 1", [2, 0, 1]), ("cat, or dog", [2]), ("7", [3]), ("3,3", [3, 3])],
)
def test_classes_are_numbers_or_names(text: str, labels: list[int]) -> None:
    assert CLASSES.parse(text) == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4", r"there is no class '4'; the classes are 0 to 3 \(ant, bee, cat, or dog, 7\)"),
        ("-1", "there is no class '-1'; the classes are 0 to 3"),
        ("bees", "there is no class 'bees'; did you mean 'bee'\\?"),
        ("1,,2", "there is no class ''"),
    ],
)
def test_an_unknown_class_is_one_line(conditional: Snapshot, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--class {text}: {message}") as error:
        sample(conditional, 4, 0, tmp_path / "out", classes=text)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_fewer_images_than_classes_are_refused(conditional: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--class 0,1,2: 3 classes, but images: 2; make at least 3 images"):
        sample(conditional, 2, 0, tmp_path / "grid.png", classes="0,1,2")


def test_a_class_of_a_snapshot_without_classes_is_one_line(tmp_path: Path) -> None:
    snapshot = load_snapshot(make(tmp_path / "none", 0, None))
    with pytest.raises(
        UsageError, match=r"--class 1: .*none was trained without classes \(model\.num_classes = 0\); leave it out"
    ):
        sample(snapshot, 4, 0, tmp_path / "out", classes="1")


def test_a_grid_of_several_classes_has_a_row_for_each(conditional: Snapshot, tmp_path: Path) -> None:
    sample(conditional, 8, 0, tmp_path / "grid.png", classes="2,ant,1")
    with Image.open(tmp_path / "grid.png") as picture:
        grid = torch.from_numpy(np.array(picture))
    cells = grid.unfold(0, 32, 32).unfold(1, 32, 32).flatten(0, 1)  # [cells, 3, 32, 32], row by row
    assert grid.shape == (3 * 32, 3 * 32, 3)
    assert not cells[8].any()  # class 1 has two images
    assert classes_of(cells[:8]) == [2, 2, 2, 0, 0, 0, 1, 1]


def test_a_folder_lists_the_class_of_each_file(conditional: Snapshot, tmp_path: Path) -> None:
    sample(conditional, 20, 1, tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "labels.json").read_text())
    files = sorted(tmp_path.glob("out/*.png"))
    shown = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in files]
    assert listed == dict(zip((path.name for path in files), classes_of(torch.stack(shown)), strict=True))


def test_a_grid_too_large_for_a_picture_is_refused(conditional: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--count 65537: a grid of 65537 images of 32 px .* at most --count 65536, or a folder"
    ):
        sample(conditional, 65537, 0, tmp_path / "grid.png")


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of 500 pictures of `Flat`: 250 ants, 150 bees and 100 of class 2, with the names of CLASSES."""
    folder = tmp_path_factory.mktemp("labeled")
    draws = torch.Generator().manual_seed(9)
    names = ["0-ant"] * 250 + ["1-bee"] * 150 + ["2-cat"] * 100
    images = Flat()(torch.randn(500, 8, generator=draws), torch.tensor([int(name[0]) for name in names]))
    for number, (name, image) in enumerate(zip(names, ((images + 1) * 127.5).byte(), strict=True)):
        (folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "pictures" / name / f"{number}.png")
    index = write_shards(folder / "pictures", folder / "set", 32, labels=True, progress=False)
    index.model_copy(update={"classes": CLASSES.names}).save(folder / "set")
    return folder / "set"


@pytest.fixture
def _conditional_snapshots(conditional: Snapshot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Evaluation loads `conditional`, and has a cache of its own."""
    monkeypatch.setattr(evaluate, "load_snapshot", lambda _: conditional)
    monkeypatch.setenv("XDG_CACHE_HOME", fresh_cache(tmp_path / "cache"))


@pytest.mark.usefixtures("_conditional_snapshots")
def test_metrics_of_each_class_are_those_of_its_images_alone(conditional: Snapshot, labeled: Path) -> None:
    result = evaluate_snapshot(conditional.path, labeled, ("fwd", "spectrum"), count=400, seed=1, per_class=90)
    index = Index.load(labeled)
    assert result.protocol.class_counts == [500, 300, 200, 0]
    chosen = np.sort(draw_subsets(index, 400, 1)[0])
    real_labels = index.members[chosen, 2]
    drawn = labels_of_images(conditional, 1)(range(400)).numpy()
    assert [(c.images_real, c.images_generated) for c in result.classes] == [
        (int((real_labels == label).sum()), int((drawn == label).sum())) for label in range(4)
    ]
    ant, bee, cat, none = result.classes
    assert (ant.name, cat.name) == ("ant", "cat, or dog")
    assert "fwd" in ant.metrics or min(ant.images_real, ant.images_generated) < 193
    assert bee.left_out == {"fwd": "fewer than 193 images"}
    assert none.left_out == {"fwd": "fewer than 193 images", "spectrum": "fewer than 90 images"}
    assert (none.metrics, none.images_generated) == ({}, 0)

    generated = torch.cat(list(snapshot_images(conditional, range(400), 1, 64)))
    real = torch.cat(list(images_at(index, chosen, 64)))
    metric = SpectrumError(32, 1)
    sets = [metric.feature.statistics(metric.feature.extract(part)) for part in (real[real_labels == 1], generated[drawn == 1])]
    assert bee.metrics == pytest.approx(metric.compare(*sets).metrics, rel=1e-9)
    table = result.table()
    assert "left out: fwd (fewer than 193 images) of " in table


def test_features_of_classes_are_those_of_all_images_which_are_computed_once() -> None:
    images, labels = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1), torch.arange(100) % 3
    batches = []

    def tiles(batch: Tensor) -> Tensor:
        """Two rows of one number for each image."""
        batches.append(len(batch))
        return torch.stack([batch.flatten(), -batch.flatten().double()], dim=1).flatten().unsqueeze(1)

    features = [
        Feature(f"{kind.__name__} {label}", tiles, {}, kind, label=label)
        for kind in (FeatureRows, Moments)
        for label in (None, 0, 2, 5)
    ]
    result = compute_statistics(
        lambda numbers: iter(images[numbers.start : numbers.stop].split(64)), 100, features, PartialState(cpu=True), "", labels
    )
    assert batches == [64, 36]
    for label, chosen in ((None, images), (0, images[labels == 0]), (2, images[labels == 2])):
        wanted = tiles(chosen)
        assert torch.equal(result[f"FeatureRows {label}"].rows(), wanted)
        moments = result[f"Moments {label}"]
        assert moments.count == len(wanted)
        torch.testing.assert_close(moments.covariance(), wanted.var(dim=0)[None])
    assert result["Moments 5"].count == 0


def test_classes_with_too_few_images_do_not_count_in_the_memory_of_all_classes() -> None:
    classes, metrics = Classes([1] * 1000, []), {"fwd": WaveletDistance(32)}
    labels = torch.tensor([0, 7]).repeat(200)
    measured = [one.label for one in class_metrics(metrics, classes, labels, labels, 50) if one.metrics]
    assert measured == [0, 7]
    labels = torch.arange(1000).repeat(200)
    assert class_metrics(metrics, classes, labels, labels, 50)[0].left_out == {
        "fwd": "statistics of all classes would take 4.4 GiB"
    }


@pytest.mark.usefixtures("_conditional_snapshots")
def test_classes_are_drawn_with_the_frequencies_of_the_data_for_all_metrics(conditional: Snapshot, labeled: Path) -> None:
    result = evaluate_snapshot(conditional.path, labeled, ("spectrum", "bands"), count=250)
    assert result.classes == []
    assert set(result.floors) == set(result.metrics)


@pytest.mark.usefixtures("_conditional_snapshots")
def test_classes_that_cannot_be_measured_are_one_line(conditional: Snapshot, labeled: Path, data: Path) -> None:
    with pytest.raises(
        UsageError, match="--per-class needs one of fwd, swd, spectrum, bands, glcm, compression among --metrics"
    ):
        evaluate_snapshot(conditional.path, labeled, ("kid",), count=100, per_class=50)
    with pytest.raises(UsageError, match="--per-class: the real images have no labels"):
        evaluate_snapshot(conditional.path, data, ("spectrum",), count=100, per_class=50)


@pytest.mark.usefixtures("_conditional_snapshots")
@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["bee", "ant", "cat, or dog", "7"], "class 0 is ant in the snapshot and bee in"),
        (["ant", "bee", "cat, or dog"], "class 3 is 7 in the snapshot and without a name in"),
    ],
)
def test_classes_of_other_names_are_refused(
    conditional: Snapshot, labeled: Path, tmp_path: Path, names: list[str], problem: str
) -> None:
    shutil.copytree(labeled, tmp_path / "set")
    Index.load(labeled).model_copy(update={"classes": names}).save(tmp_path / "set")
    with pytest.raises(UsageError, match=f"--per-class: {problem}"):
        evaluate_snapshot(conditional.path, tmp_path / "set", ("spectrum",), count=250, per_class=50)
    without_names = Index.load(labeled).model_copy(update={"classes": []})
    without_names.save(tmp_path / "set")
    result = evaluate_snapshot(conditional.path, tmp_path / "set", ("spectrum",), count=250, per_class=50)
    assert [one.name for one in result.classes] == CLASSES.names


def test_a_label_that_the_snapshot_does_not_have_is_refused(
    labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = load_snapshot(make(tmp_path / "kimg-000002", 2, Classes([5, 3], [])))
    monkeypatch.setattr(evaluate, "load_snapshot", lambda _: two)
    with pytest.raises(UsageError, match="has the label 2, and the classes of the snapshot end at 1"):
        evaluate_snapshot(two.path, labeled, ("spectrum",), count=250, per_class=50)


def test_metrics_per_class_of_a_snapshot_without_classes_are_one_line(snapshot: Path, labeled: Path) -> None:
    with pytest.raises(UsageError, match=r"--per-class: .* was trained without classes"):
        evaluate_snapshot(snapshot, labeled, ("spectrum",), count=100, per_class=50)


def test_two_processes_measure_each_class_as_one_does(conditional: Snapshot, labeled: Path, tmp_path: Path) -> None:
    results = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        arguments = ["-m", "wavegan_dist", "evaluate", "--snapshot", conditional.path, "--data", labeled, "--json", out]
        arguments += ["--metrics", "spectrum,bands", "--count", 310, "--per-class", 50]
        run_ranks(processes, *arguments, XDG_CACHE_HOME=fresh_cache(tmp_path / f"cache-{processes}"))
        results.append(json.loads(out.read_text())["classes"])
    assert [one["name"] for one in results[0]] == ["ant", "bee", "cat, or dog", "7"]
    for one, two in zip(*results, strict=True):
        assert (one["images_real"], one["images_generated"]) == (two["images_real"], two["images_generated"])
        assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-9, abs=0)
    assert results[0][0]["metrics"]
