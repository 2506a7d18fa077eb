"""Where the result of an evaluation goes: to a file with its plot, and to MLflow."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluate.require import require
from wavegan_dist.evaluate.spectrum_plot import plot_spectrum
from wavegan_dist.evaluation_result import EvaluationResult
from wavegan_dist.files import check_folder
from wavegan_dist.log import log
from wavegan_dist.run_folder import RunFolder, ema_of
from wavegan_dist.tracking import log_evaluation, metric_name, update_best


def check_result_file(path: Path, metrics: Sequence[str] | None) -> None:
    """Check, before an evaluation begins, that `write_result` can write its result.

    Args:
        path: the file for the result.
        metrics: names of the metrics; None: the default metrics.

    Raises:
        UsageError: `path` is a folder, its folder cannot be created or may not be written to, or matplotlib, which plots the
            spectrum, is not installed.
    """
    check_folder(path.absolute().parent, f"the result {path}")
    if path.is_dir():
        raise UsageError(f"the result {path} is a folder; name a file")
    if metrics is None or "spectrum" in metrics:
        require("matplotlib.figure", "the plot of the metric spectrum")


def write_result(result: EvaluationResult, path: Path) -> None:
    """Write the result to `path` as JSON and, if the spectrum was measured, its plot beside `path` as `.png`.

    Creates the folder. An existing result of the same snapshot and conditions is completed: its other metrics are kept. Any
    other file is replaced, with its plot, and a warning names the values that disappear. The JSON file is written first.

    Raises:
        OSError: a file cannot be written.
        ImportError: the spectrum was measured and matplotlib is not installed.
    """
    earlier = _read_if_result(path)
    if earlier is not None and earlier.can_complete(result):
        result = result.completed_by(earlier)
    elif earlier is not None and (lost := [name for name in earlier.metrics if name not in result.metrics]):
        log.warning("%s held a result of another snapshot or protocol; its values %s are gone", path, ", ".join(lost))
    result.write(path)
    if "spectrum" in result.tables:
        plot_spectrum(result.tables["spectrum"], _plot_of(path))
    elif earlier is not None and "spectrum" in earlier.tables:
        _plot_of(path).unlink(missing_ok=True)


def _read_if_result(path: Path) -> EvaluationResult | None:
    with suppress(OSError, WaveganError):
        return EvaluationResult.read(path)
    return None


def _plot_of(path: Path) -> Path:
    """Return the file of the spectrum's plot: NAME.png for the result NAME.json, else the whole name with .png after it."""
    return path.with_name(f"{path.name.removesuffix('.json')}.png")


def publish_result(result: EvaluationResult, run: RunFolder, snapshot: str, file: Path) -> None:
    """Log the metrics to the MLflow run of `run` at the snapshot's image number, with the result's file and its plot.

    Metrics of the first EMA are named eval/METRIC, those of another EMA eval/EMA/METRIC, for example eval/ema-0500/fwd. An "@"
    in a name becomes "_at_". A result that is kept in the run, at `run.evaluation(snapshot)`, is logged as a file with its
    plot, and `update_best` names the run's best snapshot. Events that MLflow does not accept now stay in the run folder for
    `wavegan track sync`. Logs a warning instead of raising an OSError or WaveganError.

    Args:
        result: the result.
        run: the run that the snapshot belongs to.
        snapshot: name of the snapshot's folder.
        file: path that `write_result` has written the result to.
    """
    in_run = run.evaluation(snapshot)  # `file` may be the same path in another form, such as a relative one
    kept = file.resolve() == in_run.resolve()
    ema = ema_of(snapshot)
    prefix = f"eval/{ema}/" if ema else "eval/"
    log_evaluation(
        run.path,
        {f"{prefix}{metric_name(name)}": value for name, value in result.metrics.items()},
        result.protocol.nimg,
        spool=snapshot,
        files={in_run: "evaluations"} if kept else {},
        images={_plot_of(in_run): f"spectrum-{ema}" if ema else "spectrum"} if kept and "spectrum" in result.tables else {},
    )
    if kept:
        update_best(run, result)
