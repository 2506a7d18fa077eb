import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from tests.evaluate.helpers import make_snapshot
from tests.helpers import Command, fresh_cache, run_ranks
from wavegan_dist.data import Index
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluate.code_digest import code_digest
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.evaluate.publish import write_result
from wavegan_dist.evaluate.registry import EXTRACTORS, METRICS, ExtractorWeights
from wavegan_dist.evaluation_result import EXTRACTOR_NAMES, VALUES, EvaluationResult, value_names


def test_result_holds_metrics_floors_intervals_tables_and_the_whole_protocol(
    snapshot: Path, data: Path, tmp_path: Path
) -> None:
    measured = ("fwd", "swd", "spectrum", "bands", "glcm", "compression", "kid", "prc")
    result = evaluate_snapshot(snapshot, data, measured, count=200, seed=3)
    assert result is not None
    write_result(result, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == result.model_dump(mode="json")
    assert EvaluationResult.read(tmp_path / "result.json") == result
    metrics, protocol = result.metrics, result.protocol
    assert list(metrics) == [name for metric in measured for name in value_names(metric, "efflite0")]
    assert {"fwd_low", "spectrum_db_top_half_signed", "glcm_bits", "kid_efflite0@128", "recall_efflite0@128"} <= set(metrics)
    assert set(result.floors) == set(metrics) == set(protocol.metrics)
    assert result.floors["fwd"] < 0.2 * metrics["fwd"]
    for name in ("spectrum_db", "kid_efflite0@128"):
        low, high = result.intervals[name]
        assert low < metrics[name] < high
    assert result.floors["recall_efflite0@128"] > 0.5 > metrics["recall_efflite0@128"]
    assert set(result.tables) == {"fwd_packets", "swd_packets", "spectrum", "bands", "glcm", "compression"}
    assert (protocol.images_real, protocol.images_generated, protocol.image_size) == (200, 200, 32)
    assert (protocol.seed, protocol.ema, protocol.nimg) == (3, True, 2000)
    assert protocol.exact  # as always on a CPU
    assert protocol.index_digest == Index.load(data).digest
    assert protocol.snapshot_sha256 == json.loads((snapshot / "snapshot.json").read_text())["weights_sha256"]
    assert protocol.code_digest == code_digest()
    assert protocol.metrics["fwd"] == {"basis": "haar", "level": 2, "variables": 192, "range": [0, 1]}
    assert protocol.metrics["kid_efflite0@128"]["torch_fidelity"]
    table = result.table()
    assert all(name in table for name in metrics)
    assert "200 real and 200 generated images of 32 px, seed 3, EMA weights at 2 kimg" in table
    assert "floor: the same metric between two disjoint sets of 200 real images" in table


def test_half_of_the_real_images_is_the_default_and_more_have_no_floor(snapshot: Path, data: Path) -> None:
    result = evaluate_snapshot(snapshot, data, ("spectrum",))
    assert result is not None
    assert result.protocol.images_real == 300
    assert result.floors
    result = evaluate_snapshot(snapshot, data, ("spectrum",), count=301)
    assert result is not None
    assert result.floors == {}
    assert "no floors: they take 602 real images" in result.table()


def test_the_real_side_is_read_once_and_the_result_is_the_same(
    snapshot: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_snapshot(snapshot, data, ("fwd", "spectrum"), count=250)

    def unread(*_: object) -> Iterator[Tensor]:
        raise AssertionError("the real images were read again")

    monkeypatch.setattr("wavegan_dist.evaluate.real_images.read_images", unread)
    assert evaluate_snapshot(snapshot, data, ("fwd", "spectrum"), count=250) == first
    with pytest.raises(AssertionError):
        evaluate_snapshot(snapshot, data, ("fwd",), count=251)


@pytest.mark.slow
def test_one_two_and_four_processes_give_the_same_numbers(snapshot: Path, data: Path, tmp_path: Path) -> None:
    results = []
    for processes in (1, 2, 4):
        out = tmp_path / f"{processes}.json"
        steps = Path(__file__).with_name("steps.py")
        run_ranks(processes, steps, out, snapshot, data, XDG_CACHE_HOME=fresh_cache(tmp_path / f"cache-{processes}"))
        results.append(json.loads(out.read_text()))
    for other in results[1:]:
        assert other["metrics"] == pytest.approx(results[0]["metrics"], rel=1e-9, abs=0)
        for name, interval in other["intervals"].items():
            assert interval == pytest.approx(results[0]["intervals"][name], rel=1e-9, abs=0)
        for table in ("fwd_packets", "swd_packets", "glcm", "compression"):
            assert other["tables"][table] == pytest.approx(results[0]["tables"][table], rel=1e-9, abs=0)
        assert other["protocol"] == results[0]["protocol"]


def test_when_one_process_fails_all_say_why_and_stop(snapshot: Path, data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "set"
    shutil.copytree(data.parent, broken)
    for tar in sorted(broken.glob("*.tar"))[-1:]:
        tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 3])
    arguments = ("-m", "wavegan_dist", "evaluate", "--snapshot", snapshot, "--data", broken, "--metrics", "spectrum")
    cache = fresh_cache(tmp_path / "cache")
    for rank, errors in enumerate(run_ranks(2, *arguments, "--count", 600, exit_code=1, XDG_CACHE_HOME=cache)):
        (line,) = [line for line in errors.splitlines() if line.startswith("wavegan:")]
        assert "cut short" in line or "beyond the end" in line
        assert ("[rank 1]" in line) == (rank == 1)


@pytest.mark.parametrize(
    ("metrics", "count", "message"),
    [
        (
            ("spektrum",),
            None,
            r"unknown metric 'spektrum'; did you mean 'spectrum'\? there are fwd, fwd_db2, swd, spectrum, bands,",
        ),
        ((), None, "no metric named"),
        (("spectrum",), 601, r"--count 601 is more than the 600 images of .*index\.json"),
        (("fwd",), 192, "fwd needs at least 193 images, got 192"),
        (("fwd_db2",), 300, "fwd_db2 needs at least 301 images, got 300"),
        (("fd",), 600, "fd needs at least 1281 images, got 600; leave fd out of --metrics, because there are only 600 real"),
        (
            ("fwd", "spectrum", "fwd_db2"),
            100,
            "fwd needs at least 193 images, fwd_db2 needs at least 301 images, got 100; raise --count to 301$",
        ),
        (("prc",), 3, "prc needs at least 4 images, got 3"),
        (("spectrum",), 0, "spectrum needs at least 1 images, got 0"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    snapshot: Path, data: Path, metrics: tuple[str, ...], count: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        evaluate_snapshot(snapshot, data, metrics, count)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("metric", "count"),
    [("fwd", 193), ("swd", 2), ("spectrum", 1), ("bands", 1), ("glcm", 1), ("compression", 1), ("kid", 2), ("prc", 4)],
)
def test_the_fewest_images_of_a_metric_give_finite_numbers(
    snapshot: Path, data: Path, tmp_path: Path, metric: str, count: int
) -> None:
    result = evaluate_snapshot(snapshot, data, (metric,), count)
    write_result(result, tmp_path / "result.json")
    assert metric in METRICS

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)["metrics"]


def test_outside_exact_mode_the_protocol_says_so_and_values_are_equal_up_to_a_gray_level(
    snapshot: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = evaluate_snapshot(snapshot, data, ("fwd", "spectrum"), count=250)
    monkeypatch.setattr("wavegan_dist.evaluate.evaluate.uses_exact_mode", lambda *_: False)  # as on a GPU
    filled = evaluate_snapshot(snapshot, data, ("fwd", "spectrum"), count=250)
    assert filled.protocol == exact.protocol.model_copy(update={"exact": False})
    assert filled.conditions("fwd") != exact.conditions("fwd")
    assert filled.metrics == pytest.approx(exact.metrics, rel=1e-3)
    assert filled.floors == exact.floors


def test_missing_weights_stop_before_any_image_is_made(snapshot: Path, data: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.pth"
    with pytest.raises(UsageError, match=r"the Inception weights .*nowhere\.pth are missing"):
        evaluate_snapshot(snapshot, data, ("fid",), weights=ExtractorWeights(inception=nowhere))
    with pytest.raises(UsageError, match=r"dinov2: the weights .*nowhere\.pth are missing"):
        evaluate_snapshot(snapshot, data, ("kid",), weights=ExtractorWeights("dinov2", dinov2=nowhere))


def test_a_snapshot_of_another_size_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"makes images of 64 px but .*index\.json holds 32 px"):
        evaluate_snapshot(make_snapshot(tmp_path / "snapshot", 64), data, ("spectrum",))


def test_a_half_written_or_damaged_snapshot_is_one_line(snapshot: Path, data: Path, tmp_path: Path) -> None:
    files = ("model.safetensors", "config.yaml", "snapshot.json")
    for name in files:
        whole = (snapshot / name).read_bytes()
        for kind, content in {"gone": None, "empty": b"", "cut": whole[: len(whole) // 2 + 1]}.items():
            damaged = tmp_path / f"{kind}-{name}"
            shutil.copytree(snapshot, damaged)
            (damaged / name).unlink()
            if content is not None:
                (damaged / name).write_bytes(content)
            with pytest.raises(WaveganError, match=re.escape(name)) as error:
                evaluate_snapshot(damaged, data, ("spectrum",))
            assert "\n" not in str(error.value)


def test_every_metric_and_every_extractor_has_names_of_values() -> None:
    assert tuple(VALUES) == METRICS
    assert tuple(EXTRACTOR_NAMES) == EXTRACTORS
    assert value_names("fd", "efflite0") == ["fd_efflite0@128"]
    assert value_names("fd", "inception") == ["fd_inception-v3-compat"]
    assert value_names("fid", "dinov2") == ["fid"]


def test_the_command_line_offers_what_there_is(wavegan: Command) -> None:
    shown = wavegan("evaluate", "--help").stdout
    for name in (*METRICS, *EXTRACTORS):
        assert name in shown
