"""The best snapshot of a run, whatever the optimum of the metric is."""

import json
from pathlib import Path

import pytest

from wavegan_dist.cluster.best import tag_best
from wavegan_dist.run_folder import RunFolder

PROTOCOL = {
    "snapshot": "x", "snapshot_sha256": "0", "images_real": 2, "images_generated": 2, "image_size": 32, "seed": 0, "ema": True,
    "index_digest": "0", "wavegan_dist": "0", "git_commit": "0", "torch": "0", "device": "cpu", "metrics": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("fwd", {"kimg-000001": 0.4, "kimg-000002": 0.2, "kimg-000003": 0.3}, "kimg-000002"),
        ("spectrum_db_signed", {"kimg-000001": -0.1, "kimg-000002": 0.2}, "kimg-000001"),
        ("recall_efflite0@128", {"kimg-000001": 0.1, "kimg-000002": 0.6}, "kimg-000002"),
        ("precision_efflite0@128", {"kimg-000001": 0.9, "kimg-000002": 0.8}, "kimg-000001"),
        ("fwd", {"kimg-000001": 0.2, "kimg-000002": 0.2}, "kimg-000001"),
    ],
)
def test_the_best_snapshot_is_nearest_to_the_optimum_of_the_metric(
    tmp_path: Path, metric: str, values: dict[str, float], best: str
) -> None:
    run = RunFolder(tmp_path)
    run.cluster.mkdir()
    for nimg, (snapshot, value) in enumerate(values.items()):
        result = {
            "metrics": {metric: value},
            "floors": {},
            "intervals": {},
            "tables": {},
            "protocol": {**PROTOCOL, "nimg": nimg},
        }
        run.evaluation(snapshot).parent.mkdir(exist_ok=True)
        run.evaluation(snapshot).write_text(json.dumps(result))
    tag_best(tmp_path, metric)
    assert json.loads(run.best.read_text()) == {"snapshot": best, "metric": metric, "value": values[best]}


@pytest.mark.parametrize("metric", ["glcm_score", "compression_ratio"])
def test_a_score_without_an_optimum_tags_no_snapshot(tmp_path: Path, metric: str, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(tmp_path)
    tag_best(tmp_path, metric)
    assert f"{metric} has no best value" in caplog.text
    assert not run.best.exists()
