"""What does each part of the method contribute? Trains and evaluates every row of a study, with several seeds.

    make ablations                 or: python benchmarks/ablations.py configs/ablations/cifar10.yaml --jobs 2

A study is a YAML file: an experiment, settings that all rows share, and for each row the settings that differ. All rows see
equally many images, except those with `time_of`: these train for as long as another row, by the ratio of their seconds per
image, which interleaved steps measure before the first run (`benchmarks/step.py`).

Each run is one process of one thread, in runs/ablations. A finished run leaves one JSON file in benchmarks/ablations, which is
committed: the command skips these, so an interrupted study continues, also on another machine. A result of other settings is an
error. The table of all results so far is table.md in the same folder. `--gpu` runs the list with the study's `gpu` settings,
one run at a time, into a folder of its own.
"""

import argparse
import json
import math
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench_common import argument_parser, write_json
from pydantic import Field, PositiveInt
from step import measure

from wavegan_dist import config
from wavegan_dist.config import Experiment, FileKind, Section
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluate.registry import check_names
from wavegan_dist.files import atomic_file, locked
from wavegan_dist.model.discriminator import NETWORKS
from wavegan_dist.processes import cores
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder, images_of

ROOT = Path(__file__).parents[1]
STUDY = FileKind("study", "configs/ablations/cifar10.yaml is an example")
COST_STEPS = 20  # timed steps of each row
OF_THE_MACHINE = ("data.index", "data.workers", "tracking.uri")  # settings that may differ between results


class Row(Section):
    """A row of a study."""

    settings: list[str] = Field(default=[], description="KEY=VALUE settings, after those of the study")
    gpu: list[str] = Field(default=[], description="KEY=VALUE settings that follow these with --gpu")
    time_of: str | None = Field(None, description="the row whose training time this row gets; null: equally many images")
    seeds: PositiveInt | None = Field(None, description="seeds of this row; null: those of the study")


class Study(Section):
    """A study: experiments that differ in a few settings."""

    config: Path = Field(description="the experiment that all rows start from")
    data: str = Field(description="what to do if its data set is missing")
    settings: list[str] = Field(description="KEY=VALUE settings of all rows")
    gpu: list[str] = Field(description="KEY=VALUE settings that follow these with --gpu")
    seeds: PositiveInt
    count: PositiveInt = Field(description="images of each kind in an evaluation")
    metrics: str = Field(description="as in `wavegan evaluate --metrics`")
    shown: list[str] = Field(description="metrics in the table")
    rows: dict[str, Row] = Field(min_length=1, description="by name")


@dataclass(frozen=True)
class Run:
    """One row with one seed.

    Args:
        row: name of the row.
        settings: KEY=VALUE overrides of the study's experiment.
        experiment: the study's experiment with these.
        folder: the run folder.
        result: the file that a finished run leaves.
    """

    row: str
    settings: list[str]
    experiment: Experiment
    folder: RunFolder
    result: Path

    @property
    def snapshot(self) -> Path:
        """The last snapshot: a run ends with the first complete step at or after `train.total_kimg`."""
        train = self.experiment.train
        images = train.batch_size * train.d_steps
        return self.folder.snapshot(math.ceil(images_of(train.total_kimg) / images) * images)


class Ablations:
    """The runs of a study.

    Args:
        path: the study's file.
        gpu: train with the settings `gpu`, on GPUs.

    Raises:
        UsageError: the study is wrong, or its data set is missing.
    """

    def __init__(self, path: Path, gpu: bool = False) -> None:
        self._processes: set[subprocess.Popen[str]] = set()  # the commands that run
        self.path, self.gpu = path, gpu
        self.study = STUDY.validate(Study, STUDY.read(path), str(path))
        self.name = f"{path.stem}-gpu" if gpu else path.stem
        self.results = ROOT / "benchmarks" / "ablations" / self.name
        self.runs_folder = ROOT / "runs" / "ablations" / self.name
        check_names(self.study.metrics.split(","))
        stems = [_stem(name) for name in self.study.rows]
        for name, row in self.study.rows.items():
            target = None if row.time_of is None else self.study.rows.get(row.time_of)
            if row.time_of is not None and (target is None or target.time_of is not None):
                raise UsageError(f"{path}: rows.{name}.time_of = {row.time_of} is not a row with a length of its own")
            if stems.count(_stem(name)) > 1:
                raise UsageError(f"{path}: the results of two rows would be called {_stem(name)}; rename {name}")
            experiment = config.load(ROOT / self.study.config, self.settings(name))
            data = experiment.data.index_for_evaluation()
            if not (ROOT / data).exists():
                raise UsageError(f"{path}: the data set {data} is missing; {self.study.data}")

    def settings(self, row: str) -> list[str]:
        """Return the KEY=VALUE settings of a row, without its seed and its length."""
        of_row, of_all = self.study.rows[row], self.study
        on_gpu = (of_all.gpu, of_row.gpu) if self.gpu else ([], [])
        return [*of_all.settings, *on_gpu[0], *of_row.settings, *on_gpu[1], "tracking.enabled=false"]

    def costs(self) -> dict[str, float]:
        """Return the seconds per image of each row relative to the first row; measures them if the rows have changed."""
        path = self.results / "costs.json"
        settings = {name: self.settings(name) for name in self.study.rows}
        if path.exists() and (known := read_json(path, "costs", "settings"))["settings"] == settings:
            return dict(known["costs"])
        print(f"measuring the cost of {len(settings)} rows", flush=True)
        torch.set_num_threads(1)
        torch._dynamo.config.recompile_limit = 4 * len(settings)  # all rows compile the same two functions
        experiments = {name: config.load(ROOT / self.study.config, overrides) for name, overrides in settings.items()}
        seconds = measure(experiments, COST_STEPS)
        images = {name: experiment.train.batch_size * experiment.train.d_steps for name, experiment in experiments.items()}
        of_image = {name: seconds[name] / images[name] for name in settings}
        costs = {name: round(value / next(iter(of_image.values())), 3) for name, value in of_image.items()}
        write_json(path, {"costs": costs, "settings": settings, **provenance()})
        return costs

    def runs(self) -> list[Run]:
        """Return all runs, ordered by seed: every row has a first result before any has a second."""
        costs = self.costs()
        numbers = {name: row.seeds or self.study.seeds for name, row in self.study.rows.items()}
        seeds = range(max(numbers.values()))
        return [self._run(name, seed, costs) for seed in seeds for name, number in numbers.items() if seed < number]

    def _run(self, name: str, seed: int, costs: dict[str, float]) -> Run:
        settings, target = self.settings(name), self.study.rows[name].time_of
        kimg = config.load(ROOT / self.study.config, self.settings(target or name)).train.total_kimg
        if target is not None:
            kimg = round(kimg * costs[target] / costs[name], 3)
        settings += [f"train.total_kimg={kimg}", f"train.snapshot_kimg={kimg}", f"seed={seed}"]
        stem = f"{_stem(name)}-seed{seed}"
        experiment = config.load(ROOT / self.study.config, settings)
        return Run(name, settings, experiment, RunFolder(self.runs_folder / stem), self.results / f"{stem}.json")

    def result(self, run: Run) -> dict[str, Any] | None:
        """Return the result of a run that has finished.

        Raises:
            UsageError: the result is one of other settings.
        """
        if not run.result.exists():
            return None
        result = read_json(run.result, "row", "kimg", "d_loss", "metrics", "experiment")
        for key, value in run.experiment.flat().items():
            if result["experiment"].get(key) != value and key not in OF_THE_MACHINE:
                raise UsageError(
                    f"{run.result} is the result of {key} = {result['experiment'].get(key)}, now {value}; delete it and "
                    f"{run.folder.path} to run it again"
                )
        return result

    def train_and_evaluate(self, run: Run) -> dict[str, Any]:
        """Train and evaluate a run in processes of their own; write and return its result."""
        data = ROOT / run.experiment.data.index_for_evaluation()
        overrides = [*run.settings, f"data.index={data.resolve()}"]
        self._wavegan("train", "--config", ROOT / self.study.config, "--run-dir", run.folder.path, *overrides)
        evaluation = run.folder.evaluation(run.snapshot.name)
        words = f"--metrics {self.study.metrics} --count {self.study.count} --seed {run.experiment.seed}".split()
        self._wavegan("evaluate", "--snapshot", run.snapshot, "--data", data, *words, "--json", evaluation)
        keys = ("metrics", "floors", "protocol")
        evaluated = {key: value for key, value in read_json(evaluation, *keys).items() if key in keys}
        summary = {"row": run.row, **training_summary(run.folder), **evaluated}
        result = {**summary, "experiment": run.experiment.flat(), **provenance()}
        write_json(run.result, result)
        return result

    def _wavegan(self, *arguments: object) -> None:
        """Run the `wavegan` command on one thread; raises WaveganError with the last line of its output if it fails."""
        command = [sys.executable, "-m", "wavegan_dist", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._processes.add(process)
        output, _ = process.communicate()
        self._processes.discard(process)
        if process.returncode:
            last = (output.strip().splitlines() or ["no output"])[-1]
            raise WaveganError(f"wavegan {arguments[0]} failed with code {process.returncode}: {last}")

    def terminate(self) -> None:
        """Send SIGTERM to the runs under way, which save a checkpoint and end."""
        for process in self._processes.copy():
            process.terminate()

    def shown(self, result: dict[str, Any]) -> dict[str, float]:
        """Return the values of a result that the table shows. Raises WaveganError if one was not computed."""
        if missing := [name for name in self.study.shown if name not in result["metrics"]]:
            raise WaveganError(f"shown: no metric is called {missing[0]}; there are {', '.join(result['metrics'])}")
        return {name: result["metrics"][name] for name in self.study.shown}

    def table(self, runs: Sequence[Run]) -> str:
        """Return the results of `runs` so far as Markdown: mean and standard deviation over the seeds of each row."""
        costs, results = self.costs(), [result for result in map(self.result, runs) if result is not None]
        rows = {name: of_row for name in self.study.rows if (of_row := [r for r in results if r["row"] == name])}
        only = [] if len(rows) == len(self.study.rows) else ["--rows", *rows]
        command = ["python", "benchmarks/ablations.py", str(self.path), *["--gpu"] * self.gpu, *only]
        lines = [
            f"# {self.name}",
            "",
            f"`{shlex.join(command)}`; each row trains for as many "
            "images as the first, or for as long as another row where its name says so. Mean ± standard deviation over the "
            "seeds. Diversity: of the last samples, divided by that of real images. D losses: means over the last third.",
            "",
            "| row | seeds | cost of an image | kimg | "
            + " | ".join(f"`{name}`" for name in self.study.shown)
            + " | diversity | D losses |",
            "|---" * (6 + len(self.study.shown)) + "|",
        ]
        lines += [self._line(name, of_row, costs) for name, of_row in rows.items()]
        return "\n".join(lines) + "\n"

    def _line(self, name: str, results: list[dict[str, Any]], costs: dict[str, float]) -> str:
        shown = [self.shown(result) for result in results]
        values = [spread([values[metric] for values in shown]) for metric in self.study.shown]
        losses = [f"{network} {spread([r['d_loss'][network] for r in results])}" for network in results[0]["d_loss"]]
        diversity = [result["diversity"] for result in results if "diversity" in result]  # results before 28 Nov 2026 have none
        values += [spread(diversity) if diversity else "-", ", ".join(losses)]
        cells = [name, str(len(results)), f"{costs[name]:.2f}", f"{results[0]['kimg']:g}", *values]
        return f"| {' | '.join(cells)} |"


def _stem(row: str) -> str:
    """Return the part of file names that stands for a row."""
    return re.sub(r"[^a-z0-9]+", "-", row.lower()).strip("-")


def training_summary(folder: RunFolder) -> dict[str, Any]:
    """Return the length, speed, last `lam` and `diversity`, and the mean discriminator losses of the last third of a run."""
    reports = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    last_third = [report for report in reports if report["kimg"] > reports[-1]["kimg"] * 2 / 3]
    losses = {
        network: statistics.fmean(report[f"loss/d_{network}"] for report in last_third)
        for network in NETWORKS
        if f"loss/d_{network}" in reports[-1]
    }
    return {
        "kimg": reports[-1]["kimg"],
        "seconds_per_kimg": statistics.median(report["speed/seconds_per_kimg"] for report in reports),
        "lam": reports[-1].get("lam"),
        "diversity": reports[-1]["watch/diversity"],
        "d_loss": losses,
    }


def spread(values: list[float]) -> str:
    """Format a mean and, of several values, their standard deviation."""
    mean = f"{statistics.fmean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2g}"


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object. Raises WaveganError if it is damaged or lacks one of `keys`."""
    try:
        content = dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise WaveganError(f"{path} is damaged; delete it") from error
    if missing := [key for key in keys if key not in content]:
        raise WaveganError(f"{path} has no {missing[0]!r}; delete it")
    return content


def run_all(ablations: Ablations, options: argparse.Namespace) -> int:
    """Train and evaluate all runs that have no result yet, and write the table; return how many runs failed."""
    all_runs = ablations.runs()
    runs = [run for run in all_runs if ablations.result(run) is None and run.row in (options.rows or [run.row])]
    failures = 0
    with ThreadPoolExecutor(1 if options.gpu else options.jobs) as pool:
        try:
            waiting: dict[Future[dict[str, Any]], Run] = {pool.submit(ablations.train_and_evaluate, run): run for run in runs}
            for number, future in enumerate(as_completed(waiting), start=1):
                run = waiting[future]
                try:
                    values = ablations.shown(future.result())
                    text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
                except (WaveganError, OSError) as error:
                    failures, text = failures + 1, str(error)
                print(f"{number}/{len(runs)}  {run.row}, seed {run.experiment.seed}: {text}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # no further run starts
            ablations.terminate()
            raise
    table = ablations.results / "table.md"
    with atomic_file(table) as file:
        file.write(ablations.table(all_runs))
    print(table)
    return failures


def main() -> int:
    """Run a study; return the exit code."""
    options = parse_arguments()
    if not options.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # also of the runs
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        ablations = Ablations(options.study, options.gpu)
        if unknown := set(options.rows or ()) - set(ablations.study.rows):
            raise UsageError(f"{options.study} has no row {min(unknown)}")
        ablations.runs_folder.mkdir(parents=True, exist_ok=True)
        with locked(ablations.runs_folder / ".lock", wait=False):
            return int(run_all(ablations, options) > 0)
    except BlockingIOError:
        print(f"ablations: another process runs {options.study}", file=sys.stderr)
        return 2
    except (WaveganError, OSError) as error:
        print(f"ablations: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, WaveganError) else 1
    except KeyboardInterrupt:
        print("ablations: interrupted; the same command continues", file=sys.stderr)
        return 130


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    jobs = cores()
    parser.add_argument("study", type=Path, metavar="FILE", help="study, for example configs/ablations/cifar10.yaml")
    parser.add_argument(
        "--jobs", type=int, default=jobs, choices=range(1, 1025), metavar="N", help="runs at once (default: cores)"
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows (default: all)")
    parser.add_argument("--gpu", action="store_true", help="use the study's settings for a GPU, one run at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
