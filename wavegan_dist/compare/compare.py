"""Comparison of runs: reads the runs, draws plots and writes a self-contained HTML page."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from wavegan_dist.compare.columns import find_columns, write_csv
from wavegan_dist.compare.groups import group_runs
from wavegan_dist.compare.page import page
from wavegan_dist.compare.pictures import draw_all
from wavegan_dist.compare.runs import MLFLOW, read_run
from wavegan_dist.compare.samples import draw_samples
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file, check_folder


def compare(sources: Sequence[str], out: Path) -> Path:
    """Write `index.html`, its plots as PNG files and `comparison.csv` into the folder `out`; returns the path of the page.

    Args:
        sources: run folders, or mlflow:RUN_ID for runs in the store that MLFLOW_TRACKING_URI names; at least one.
        out: output folder; created if it does not exist.

    Raises:
        UsageError: a source is not a run or is given twice, `out` cannot be a folder, or the extra `eval` is not installed.
        WaveganError: a file of a run is damaged, an image of a snapshot is not finite, or the MLflow store does not answer.
        OSError: a file of a run cannot be read, or a file cannot be written.
    """
    check_folder(out, f"--out {out}")
    named = [source if source.startswith(MLFLOW) else str(Path(source).resolve()) for source in sources]
    if len(set(named)) < len(named):
        twice = next(source for source, name in zip(sources, named, strict=True) if named.count(name) > 1)
        raise UsageError(f"{twice} is given twice: it would count as two runs of one configuration; give each run once")
    with tempfile.TemporaryDirectory() as scratch:
        runs = [run for source in sources for run in read_run(source, Path(scratch))]
        groups, columns = group_runs(runs), find_columns(runs)
        samples = draw_samples(groups, out)
    pictures = draw_all(groups, columns, out)
    write_csv(groups, columns, out / "comparison.csv")
    with atomic_file(out / "index.html") as file:
        file.write(page(groups, columns, pictures, samples))
    return out / "index.html"
