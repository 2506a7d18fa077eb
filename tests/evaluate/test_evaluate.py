import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wavegan_dist.config import Experiment
from wavegan_dist.data import Index, write_shards
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate import evaluate_snapshot, format_table, save_result
from wavegan_dist.images import save_png
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import save_snapshot


@pytest.fixture(scope="module")
def data(photos: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number, photo in enumerate(photos[:220]):
        save_png(photo.permute(1, 2, 0), folder / "photos" / f"{number:06d}.png")
    write_shards(folder / "photos", folder / "shards", 32, progress=False)
    return folder / "shards" / "index.json"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_snapshot(tmp_path_factory.mktemp("run") / "kimg-000002", 32)


def make_snapshot(path: Path, resolution: int) -> Path:
    torch.manual_seed(0)
    model = {"width": 8, "z_dim": 16, "resolution": resolution}
    config = Experiment.model_validate({"data": {"index": "x"}, "model": model})
    save_snapshot(path, build_generator(config), config, 2000, "1" * 64)
    return path


def test_result_holds_metrics_tables_and_the_whole_protocol(snapshot: Path, data: Path, tmp_path: Path) -> None:
    result = evaluate_snapshot(snapshot, data, ("fwd", "spectrum", "kid"), count=200, seed=3)
    save_result(result, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == result
    metrics, protocol = result["metrics"], result["protocol"]
    assert {"fwd", "fwd_low", "fwd_high", "spectrum_db", "spectrum_db_top_half_signed", "kid_efflite0@128"} <= set(metrics)
    assert set(result["tables"]) == {"fwd_packets", "spectrum"}
    assert (protocol["images_real"], protocol["images_generated"], protocol["image_size"]) == (200, 200, 32)
    assert (protocol["seed"], protocol["ema"], protocol["nimg"]) == (3, True, 2000)
    assert protocol["index_digest"] == Index.load(data).digest
    assert protocol["snapshot_sha256"] == json.loads((snapshot / "snapshot.json").read_text())["weights_sha256"]
    assert protocol["metrics"]["fwd"] == {"basis": "haar", "level": 2, "variables": 192, "range": [0, 1]}
    assert protocol["metrics"]["kid_efflite0@128"]["torch_fidelity"]
    table = format_table(result)
    assert all(name in table for name in metrics)
    assert "200 real and 200 generated images of 32 px, seed 3, EMA weights at 2 kimg" in table


def test_result_does_not_depend_on_the_batch_size(snapshot: Path, data: Path) -> None:
    one, other = (evaluate_snapshot(snapshot, data, ("fwd", "spectrum"), batch_size=size)["metrics"] for size in (16, 50))
    assert one == pytest.approx(other, rel=1e-6)


def test_all_images_are_used_where_there_are_fewer_than_the_default(snapshot: Path, data: Path) -> None:
    assert evaluate_snapshot(snapshot, data, ("spectrum",))["protocol"]["images_real"] == 220


@pytest.mark.parametrize(
    ("metrics", "count", "message"),
    [
        (("spektrum",), None, r"unknown metric 'spektrum'; did you mean 'spectrum'\? there are fwd, spectrum, fd, kid, fid"),
        ((), None, "no metric named"),
        (("spectrum",), 221, r"--count 221 is more than the 220 images of .*index\.json"),
        (("fwd",), 192, "fwd needs at least 193 images, got 192"),
        (("fd",), 220, "fd_efflite0@128 needs at least 1281 images, got 220"),
        (("spectrum",), 0, "spectrum needs at least 1 images, got 0"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    snapshot: Path, data: Path, metrics: tuple[str, ...], count: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        evaluate_snapshot(snapshot, data, metrics, count)
    assert "\n" not in str(error.value)


def test_missing_inception_weights_stop_before_any_image_is_made(snapshot: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the Inception weights .*nowhere\.pth are missing"):
        evaluate_snapshot(snapshot, data, ("fid",), inception_weights=tmp_path / "nowhere.pth")


def test_a_snapshot_of_another_size_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"makes images of 64 px but .*index\.json holds 32 px"):
        evaluate_snapshot(make_snapshot(tmp_path / "snapshot", 64), data, ("spectrum",))
