"""The best snapshot of a run, whatever the optimum of the metric is."""

import json
from pathlib import Path

import pytest

from wavegan_dist.evaluate.publish import publish_result
from wavegan_dist.evaluation_result import EvaluationProtocol, EvaluationResult
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import best_metric, tag_best, update_best

PROTOCOL = {
    "snapshot": "x", "snapshot_sha256": "0", "images_generated": 2, "image_size": 32, "seed": 0, "ema": True,
    "index_digest": "0", "wavegan_dist": "0", "git_commit": "0", "torch": "0", "device": "cpu", "metrics": {},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "evaluations").mkdir()
    return RunFolder(tmp_path)


def evaluated(run: RunFolder, snapshot: str, metrics: dict[str, float], images: int = 2) -> EvaluationResult:
    """Write the result of an evaluation with so many real images, and return it."""
    protocol = EvaluationProtocol(nimg=int(snapshot[-1]), images_real=images, **PROTOCOL)
    result = EvaluationResult(metrics=metrics, floors={}, intervals={}, tables={}, protocol=protocol)
    result.write(run.evaluation(snapshot))
    return result


def best(run: RunFolder) -> dict:
    return json.loads(run.best.read_text())


@pytest.mark.parametrize(
    ("metric", "values", "snapshot"),
    [
        ("fwd", {"kimg-000001": 0.4, "kimg-000002": 0.2, "kimg-000003": 0.3}, "kimg-000002"),
        ("spectrum_db_signed", {"kimg-000001": -0.1, "kimg-000002": 0.2}, "kimg-000001"),
        ("recall_efflite0@128", {"kimg-000001": 0.1, "kimg-000002": 0.6}, "kimg-000002"),
        ("precision_efflite0@128", {"kimg-000001": 0.9, "kimg-000002": 0.8}, "kimg-000001"),
        ("fwd", {"kimg-000001": 0.2, "kimg-000002": 0.2}, "kimg-000001"),
    ],
)
def test_the_best_snapshot_is_nearest_to_the_optimum_of_the_metric(run, metric, values, snapshot):
    results = [evaluated(run, name, {metric: value}) for name, value in values.items()]
    tag_best(run, results[-1], metric)
    assert best(run) == {"snapshot": snapshot, "metric": metric, "value": values[snapshot]}


@pytest.mark.parametrize("metric", ["glcm_score", "compression_ratio"])
def test_a_score_without_an_optimum_tags_no_snapshot(run, metric, caplog):
    result = evaluated(run, "kimg-000001", {metric: 0.1})
    tag_best(run, result, metric)
    assert f"{metric} has no best value" in caplog.text
    update_best(run, result)
    assert not run.best.exists()


def test_results_of_another_protocol_are_not_compared(run):
    evaluated(run, "kimg-000001", {"fwd": 0.1}, images=50)
    evaluated(run, "kimg-000002", {"fwd": 0.3})
    update_best(run, evaluated(run, "kimg-000003", {"fwd": 0.2}))
    assert best(run) == {"snapshot": "kimg-000003", "metric": "fwd", "value": 0.2}


def test_a_damaged_best_json_is_replaced(run):
    run.best.write_text("[]")
    update_best(run, evaluated(run, "kimg-000001", {"fwd": 0.5}))
    assert best(run)["snapshot"] == "kimg-000001"


def test_a_result_kept_elsewhere_leaves_the_best_snapshot_as_it_is(run, tmp_path):
    update_best(run, evaluated(run, "kimg-000001", {"fwd": 0.5}))
    stored = EvaluationResult.read(run.evaluation("kimg-000001"))
    elsewhere = stored.model_copy(update={"protocol": stored.protocol.model_copy(update={"images_generated": 7})})
    elsewhere.write(tmp_path / "elsewhere.json")
    publish_result(elsewhere, run, "kimg-000001", tmp_path / "elsewhere.json")
    assert best(run) == {"snapshot": "kimg-000001", "metric": "fwd", "value": 0.5}


def test_a_relative_path_of_the_result_in_the_run_is_known_as_such(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = evaluated(run, "kimg-000001", {"fwd": 0.5})
    publish_result(result, run, "kimg-000001", Path("evaluations", "kimg-000001.json"))
    assert best(run)["snapshot"] == "kimg-000001"


def test_an_evaluation_keeps_the_metric_of_the_earlier_ones(run):
    update_best(run, evaluated(run, "kimg-000001", {"glcm_score": 0.1, "swd": 0.1, "fwd": 0.5}))
    assert best(run)["metric"] == "fwd"
    tag_best(run, evaluated(run, "kimg-000002", {"swd": 0.2, "fwd": 0.4}), "swd")
    update_best(run, evaluated(run, "kimg-000003", {"swd": 0.05, "fwd": 0.6}))
    assert best(run) == {"snapshot": "kimg-000003", "metric": "swd", "value": 0.05}
    update_best(run, evaluated(run, "kimg-000004", {"fwd": 0.1}))
    assert best(run)["snapshot"] == "kimg-000003"
    run.best.unlink()
    update_best(run, evaluated(run, "kimg-000005", {"glcm_score": 0.1, "swd": 0.01}))
    assert best(run) == {"snapshot": "kimg-000005", "metric": "swd", "value": 0.01}


def test_a_damaged_result_of_another_snapshot_is_a_warning(run, caplog):
    run.evaluation("kimg-000001").write_text("{")
    update_best(run, evaluated(run, "kimg-000002", {"fwd": 0.3}))
    assert "kimg-000001.json is damaged" in caplog.text
    assert best_metric(run) is None


def test_a_result_that_was_replaced_under_other_conditions_meanwhile_chooses_nothing(run):
    result = evaluated(run, "kimg-000001", {"fwd": 0.5})
    evaluated(run, "kimg-000001", {"fwd": 0.4}, images=50)
    tag_best(run, result, "fwd")
    assert not run.best.exists()
