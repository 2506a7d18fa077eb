import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wavegan_dist
from wavegan_dist.errors import WaveganError
from wavegan_dist.evaluate import publish
from wavegan_dist.evaluate.code_digest import SOURCES, code_digest, digest_of
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.publish import write_result
from wavegan_dist.evaluation_result import ClassResult, EvaluationProtocol, EvaluationResult
from wavegan_dist.run_folder import RunFolder

PACKAGE = Path(wavegan_dist.__file__).parent


@pytest.fixture
def result() -> EvaluationResult:
    protocol = EvaluationProtocol(
        nimg=2500, snapshot="runs/x/snapshots/kimg-000002.500", snapshot_sha256="0" * 64, images_real=10, images_generated=10,
        image_size=32, seed=0, ema=True, index_digest="1" * 64, wavegan_dist="0.1", git_commit="abc", code_digest="2" * 64,
        torch="2.9", device="cpu", metrics={"fwd": {"basis": "haar"}, "kid": {}},
    )  # fmt: skip
    return EvaluationResult(
        metrics={"fwd": 0.1, "kid": 0.2}, floors={"fwd": 0.05}, intervals={"kid": (0.1, 0.3)}, tables={}, protocol=protocol
    )


def test_a_result_survives_its_file(result: EvaluationResult, tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "kimg-000002.500.json"
    result.write(path)
    assert EvaluationResult.read(path) == result
    content = json.loads(path.read_text())
    assert list(content) == ["metrics", "floors", "intervals", "tables", "protocol", "classes"]
    assert content["intervals"] == {"kid": [0.1, 0.3]}
    assert path.read_text().endswith("}\n")
    assert not path.with_suffix(".png").exists()


def test_a_file_of_a_version_without_classes_has_none(result: EvaluationResult, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    content = result.model_dump()
    del content["classes"], content["protocol"]["class_counts"]
    path.write_text(json.dumps(content))
    assert EvaluationResult.read(path) == result


def test_the_table_shows_each_class_and_why_one_is_left_out(result: EvaluationResult) -> None:
    cat = ClassResult(
        label=0, name="cat", images_real=60, images_generated=70, metrics={"spectrum_db": 1.5, "spectrum_db_signed": -1.5},
        intervals={}, left_out={"fwd": "fewer than 193 images"},
    )  # fmt: skip
    counts = {"images_real": 3, "images_generated": 70, "metrics": {}}
    dog = cat.model_copy(update={"label": 1, "name": "dog", **counts, "left_out": {"spectrum": "fewer than 50 images"}})
    lines = result.model_copy(update={"classes": [cat, dog]}).table().splitlines()
    assert ["cat", "60", "70", "1.5"] in [line.split() for line in lines]
    assert "left out: fwd (fewer than 193 images) of 1 classes: cat" in lines
    assert "left out: spectrum (fewer than 50 images) of 1 classes: dog" in lines


def test_a_file_of_a_version_without_exact_mode_was_exact(result: EvaluationResult, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    content = result.model_dump()
    del content["protocol"]["exact"]
    path.write_text(json.dumps(content))
    assert EvaluationResult.read(path).conditions("fwd") == result.conditions("fwd")
    assert result.protocol.exact


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", ["metrics", "tables", "intervals"])
def test_a_number_that_json_lacks_is_one_line_that_names_the_value(field: str, bad: float) -> None:
    content: dict[str, Any] = {"metrics": {"kid": bad}, "tables": {"kid": {"a": [0.0, bad]}}, "intervals": {"kid": (0.0, bad)}}
    with pytest.raises(WaveganError, match=r"^kid is not a finite number .*--metrics$"):
        MetricResult(**{"metrics": {"fd": 0.0}, field: content[field]})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"metrics": {}}', "\ud800"])
def test_a_damaged_file_is_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "kimg-000001.json"
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(WaveganError, match=r"kimg-000001\.json is damaged or not an evaluation result") as error:
        EvaluationResult.read(path)
    assert "\n" not in str(error.value)


def test_values_are_comparable_unless_something_but_the_snapshot_and_the_commit_differs(result: EvaluationResult) -> None:
    def conditions(metric: str = "fwd", **changes: Any) -> dict[str, Any]:
        return result.model_copy(update={"protocol": result.protocol.model_copy(update=changes)}).conditions(metric)

    same: dict[str, Any] = {
        "nimg": 1,
        "snapshot": "other",
        "snapshot_sha256": "3",
        "git_commit": "def",
        "metrics": {"fwd": {"basis": "haar"}},
        "class_counts": [3, 4],
        "ema_half_life_kimg": 5.0,
    }
    assert conditions(**same) == conditions()
    for name, value in result.protocol.model_dump(exclude=set(same)).items():
        changes: dict[str, Any] = {name: not value if isinstance(value, bool) else value * 2 + type(value)(1)}
        assert conditions(**changes) != conditions(), name
    assert conditions("kid") != conditions("fwd")
    assert conditions(code_digest="", git_commit="def") != conditions(code_digest="", git_commit="abc")


def test_a_result_is_read_without_torch() -> None:
    code = "import sys; import wavegan_dist.evaluation_result; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "torch_fidelity", "mlflow", "matplotlib"} & set(modules)


def test_the_digest_of_the_code_covers_what_evaluation_imports_and_changes_with_any_of_it(tmp_path: Path) -> None:
    for pattern in SOURCES:
        assert list(PACKAGE.glob(pattern)), pattern
    for path in ("evaluate/statistics.py", "wavelet/cpu/build.py", "model/hub.py", "model/pretrained.py", "counted.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("1")
    digest = digest_of(tmp_path)
    (tmp_path / "cli.py").write_text("not part of it")
    assert digest_of(tmp_path) == digest
    for path in ("counted.py", "model/hub.py", "model/pretrained.py"):  # the last two load the weights
        (tmp_path / path).write_text("2")
        assert digest_of(tmp_path) != digest
        (tmp_path / path).write_text("1")
    assert len(code_digest()) == 64


def test_words_about_the_code_do_not_change_its_digest(tmp_path: Path) -> None:
    def digest(source: str) -> str:
        (tmp_path / "counted.py").write_text(source)
        return digest_of(tmp_path)

    first = digest('"""One."""\n\ndef f(x):\n    """Two.\n\n    Three # four.\n    """\n    return "# five", x\n')
    assert digest('"""A."""\n# B\ndef f(x):  # C\n    """D."""\n\n    return "# five", x  # E\n') == first
    for other in (
        'def f(x):\n    return "# six", x\n',
        'def f(x):\n    return "# five", x + 1\n',
        'def f(x):\n  return "# five", x\n',
    ):
        assert digest(other) != first
    assert digest('def f(x):\n    return "# five", x') == first


def test_the_table_shows_how_many_times_its_floor_a_value_is(result: EvaluationResult) -> None:
    changed = result.model_copy(
        update={
            "metrics": {"fwd": 0.1, "kid": 0.2, "spectrum_db_signed": -0.3, "prc": 1.0},
            "floors": {"fwd": 0.05, "spectrum_db_signed": 0.1, "prc": 0.0},
        }
    )
    head, *lines = changed.table().splitlines()
    assert head.split() == ["value", "floor", "x", "floor", "95%", "interval"]
    assert [line.split()[:4] for line in lines[:4]] == [
        ["fwd", "0.1", "0.05", "2"],
        ["kid", "0.2", "-", "-"],
        ["spectrum_db_signed", "-0.3", "0.1", "3"],
        ["prc", "1", "0", "-"],
    ]


SPECTRUM = {"frequency": [0.1, 0.5], "real_db": [0.0, -1.0], "generated_db": [0.0, -2.0]}


def of_protocol(result: EvaluationResult, **changes: Any) -> EvaluationResult:
    return result.model_copy(update={"protocol": result.protocol.model_copy(update=changes)})


def test_further_metrics_of_a_snapshot_are_added_to_its_result(result: EvaluationResult, tmp_path: Path) -> None:
    path, classes = tmp_path / "kimg-000002.500.json", {"images_real": 60, "images_generated": 70, "intervals": {}}
    of_class = ClassResult(label=1, name="cat", metrics={"swd": 1.0}, left_out={"fwd": "few", "glcm": "few"}, **classes)
    other = ClassResult(label=0, name="dog", metrics={"swd": 3.0}, left_out={}, **classes)
    first = result.model_copy(update={"tables": {"spectrum": SPECTRUM}, "classes": [other, of_class]})
    write_result(first, path)
    second = of_protocol(result, snapshot="/runs/x", git_commit="def", metrics={"fid": {"a": 1}, "kid": {}}).model_copy(
        update={
            "metrics": {"fid": 9.0, "kid": 0.4},
            "floors": {"fid": 1.0},
            "intervals": {},
            "classes": [of_class.model_copy(update={"metrics": {"fwd": 2.0}, "left_out": {"swd": "few"}})],
        }
    )
    write_result(second, path)
    both = EvaluationResult.read(path)
    assert both.metrics == {"fwd": 0.1, "kid": 0.4, "fid": 9.0}
    assert both.floors == {"fwd": 0.05, "fid": 1.0}
    assert both.intervals == {}  # that of kid belonged to the earlier value
    assert both.tables == {"spectrum": SPECTRUM}
    assert path.with_suffix(".png").is_file()
    assert both.protocol == second.protocol.model_copy(
        update={"metrics": {"fwd": {"basis": "haar"}, "fid": {"a": 1}, "kid": {}}}
    )
    cat = of_class.model_copy(update={"metrics": {"swd": 1.0, "fwd": 2.0}, "left_out": {"glcm": "few"}})
    assert both.classes == [other, cat]


@pytest.mark.parametrize("change", [{"snapshot_sha256": "3" * 64}, {"images_real": 20}, {"code_digest": "3" * 64}])
def test_a_result_of_another_snapshot_or_protocol_is_replaced_with_its_plot_and_a_warning(
    result: EvaluationResult, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    path = tmp_path / "kimg-000002.500.json"
    write_result(result.model_copy(update={"tables": {"spectrum": SPECTRUM}}), path)
    second = of_protocol(result, **change).model_copy(update={"metrics": {"kid": 0.4}, "floors": {}})
    write_result(second, path)
    assert EvaluationResult.read(path) == second
    assert not path.with_suffix(".png").exists()
    assert "its values fwd are gone" in caplog.text
    caplog.clear()
    write_result(of_protocol(result, seed=1), path)
    assert not caplog.text  # no value disappears


def test_a_plot_is_logged_only_with_the_result_that_it_belongs_to(
    result: EvaluationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[Path, str]] = []
    monkeypatch.setattr(publish, "log_evaluation", lambda *_, images, **__: logged.append(images))
    run, name = RunFolder(tmp_path), "kimg-000002.500"
    plot = run.evaluation(name).with_suffix(".png")
    for measured in (result.model_copy(update={"tables": {"spectrum": SPECTRUM}}), result):
        write_result(measured, run.evaluation(name))
        publish.publish_result(measured, run, name, run.evaluation(name))
    assert plot.is_file()
    assert logged == [{plot: "spectrum"}, {}]


def test_plots_of_results_of_different_names_are_different_files(result: EvaluationResult, tmp_path: Path) -> None:
    measured = result.model_copy(update={"tables": {"spectrum": SPECTRUM}})
    for name in ("pc.064", "pc.128", "pc.json"):
        write_result(measured, tmp_path / name)
    assert {path.name for path in tmp_path.glob("*.png")} == {"pc.064.png", "pc.128.png", "pc.png"}


@pytest.mark.parametrize(
    "values", [{"metrics": {"a": math.nan}}, {"intervals": {"a": (0.0, math.inf)}}, {"tables": {"a": [math.nan]}}], ids=str
)
def test_a_number_that_is_not_finite_is_one_line_wherever_it_is(values: dict[str, Any]) -> None:
    with pytest.raises(WaveganError, match=r"^a is not a finite number for these images; raise --count"):
        MetricResult(**{"metrics": {"a": 1.0}, **values})
