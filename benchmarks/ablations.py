"""What does each part of the method contribute? Trains and evaluates every row of a study, with several seeds.

    make ablations                 or: python benchmarks/ablations.py configs/ablations/cifar10.yaml --jobs 2

A study is a YAML file: an experiment, settings that all rows share, and for each row the settings that differ. All rows see
equally many images, except those with `time_of`: these train for as long as another row, by the ratio of the costs of a step,
which `benchmarks/step.py` measures with interleaved steps before the first run.

Each run is one process of one thread, in runs/ablations. A finished run leaves one JSON file in benchmarks/ablations, which is
committed: the command skips these, so an interrupted study continues, also on another machine. The table of all results so far
is table.md in the same folder. `--gpu` runs the list with the study's `gpu` settings, into a folder of its own.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench_common import argument_parser
from pydantic import Field, PositiveInt
from step import measure

from wavegan_dist import config
from wavegan_dist.config import Experiment, FileKind, Section
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
STUDY = FileKind("study", "configs/ablations/cifar10.yaml is an example")
COST_STEPS = 20  # timed steps of each row
NETWORKS = ("image", "low", "high")


class Row(Section):
    """A row of a study."""

    settings: list[str] = Field(default=[], description="KEY=VALUE settings, after those of the study")
    time_of: str | None = Field(None, description="the row whose training time this row gets; null: equally many images")


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
    rows: dict[str, Row] = Field(description="by name")


@dataclass(frozen=True)
class Run:
    """One row with one seed.

    Args:
        row: name of the row.
        seed: seed of the run and of its evaluation.
        settings: KEY=VALUE overrides of the study's experiment.
        folder: the run folder.
        result: the file that a finished run leaves.
    """

    row: str
    seed: int
    settings: list[str]
    folder: RunFolder
    result: Path


class Ablations:
    """The runs of a study.

    Args:
        path: the study's file.
        gpu: train with the settings `gpu`, on GPUs.
    """

    def __init__(self, path: Path, gpu: bool = False) -> None:
        self.study = STUDY.validate(Study, STUDY.read(path), str(path))
        self.name = f"{path.stem}-gpu" if gpu else path.stem
        self.shared = [*self.study.settings, *(self.study.gpu if gpu else []), "tracking.enabled=false"]
        self.results = ROOT / "benchmarks" / "ablations" / self.name
        self.runs_folder = ROOT / "runs" / "ablations" / self.name
        for name, row in self.study.rows.items():
            if row.time_of is not None and row.time_of not in self.study.rows:
                raise UsageError(f"{path}: rows.{name}.time_of = {row.time_of} is not a row")
            self.experiment(name)  # raises UsageError for settings that are wrong
        if not Path(self.experiment(next(iter(self.study.rows))).data.index).exists():
            raise UsageError(f"{path}: the data set is missing; {self.study.data}")

    def experiment(self, row: str) -> Experiment:
        """Return the experiment of a row with the first seed, for as many images as all rows."""
        return config.load(ROOT / self.study.config, [*self.shared, *self.study.rows[row].settings])

    def costs(self) -> dict[str, float]:
        """Return the seconds of a step of each row relative to the first row; measures those that have not been measured."""
        path = self.results / "costs.json"
        costs: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        first, *others = self.study.rows
        missing = [name for name in others if name not in costs]
        if missing:
            print(f"measuring the cost of a step of {len(missing)} rows", flush=True)
            torch.set_num_threads(1)
            seconds = measure({name: self.experiment(name) for name in (first, *missing)}, COST_STEPS)
            costs |= {name: round(value / seconds[first], 3) for name, value in seconds.items()}
            write_json(path, costs)
        return costs

    def runs(self) -> list[Run]:
        """Return all runs, ordered by seed: every row has a first result before any has a second."""
        costs = self.costs()
        return [self._run(name, seed, costs) for seed in range(self.study.seeds) for name in self.study.rows]

    def _run(self, name: str, seed: int, costs: dict[str, float]) -> Run:
        row = self.study.rows[name]
        kimg = self.experiment(name).train.total_kimg
        if row.time_of is not None:
            kimg = round(kimg * costs[row.time_of] / costs[name], 3)
        length = [f"train.{key}={kimg}" for key in ("total_kimg", "snapshot_kimg")]
        stem = f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
        folder = RunFolder(self.runs_folder / stem)
        settings = [*self.shared, *row.settings, *length, f"seed={seed}"]
        return Run(name, seed, settings, folder, self.results / f"{stem}.json")

    def train_and_evaluate(self, run: Run) -> dict[str, Any]:
        """Train and evaluate a run in processes of their own; write and return its result."""
        words = ["--config", str(ROOT / self.study.config), "--run-dir", str(run.folder.path), *run.settings]
        wavegan("train", *words)
        index = config.load(ROOT / self.study.config, run.settings).data.index
        snapshot = run.folder.snapshots()[-1]
        evaluation = run.folder.evaluation(snapshot.name)
        words = ["--metrics", self.study.metrics, "--count", str(self.study.count), "--seed", str(run.seed)]
        wavegan("evaluate", "--snapshot", str(snapshot), "--data", index, *words, "--json", str(evaluation))
        evaluated = json.loads(evaluation.read_text())
        result = {
            "row": run.row, "seed": run.seed, "settings": run.settings, **training_summary(run.folder),
            **{key: evaluated[key] for key in ("metrics", "floors", "protocol")}, **provenance(),
        }  # fmt: skip
        write_json(run.result, result)
        return result

    def table(self) -> str:
        """Return the results so far as Markdown: mean and standard deviation over the seeds of each row."""
        costs = self.costs()
        lines = [
            f"# {self.name}",
            "",
            f"`python benchmarks/ablations.py {' '.join(map(shlex.quote, sys.argv[1:]))}`; each row trains for as many "
            "images as the first, or for as long as another row where its name says so. Mean ± standard "
            "deviation over the seeds.",
            "",
            "| row | seeds | cost of a step | kimg | " + " | ".join(f"`{name}`" for name in self.study.shown) + " | D losses |",
            "|---" * (5 + len(self.study.shown)) + "|",
        ]
        for name in self.study.rows:
            results = [json.loads(path.read_text()) for path in sorted(self.results.glob("*-seed*.json"))]
            results = [result for result in results if result["row"] == name]
            if results:
                lines.append(self._line(name, results, costs))
        return "\n".join(lines) + "\n"

    def _line(self, name: str, results: list[dict[str, Any]], costs: dict[str, float]) -> str:
        values = [spread([result["metrics"][metric] for result in results]) for metric in self.study.shown]
        losses = [f"{network} {spread([r['d_loss'][network] for r in results])}" for network in results[0]["d_loss"]]
        cells = [name, str(len(results)), f"{costs[name]:.2f}", f"{results[0]['kimg']:g}", *values, ", ".join(losses)]
        return f"| {' | '.join(cells)} |"


def training_summary(folder: RunFolder) -> dict[str, Any]:
    """Return the length, speed, last `lam` and mean discriminator losses of the last third of a run."""
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
        "d_loss": losses,
    }


def spread(values: list[float]) -> str:
    """Format a mean and, of several values, their standard deviation."""
    mean = f"{statistics.fmean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2g}"


def wavegan(*arguments: str) -> None:
    """Run the `wavegan` command on one thread; raises UsageError with the end of its output if it fails."""
    command = [sys.executable, "-m", "wavegan_dist", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if outcome.returncode:
        last = (outcome.stdout.strip().splitlines() or ["no output"])[-1]
        raise UsageError(f"wavegan {arguments[0]} failed with code {outcome.returncode}: {last}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        json.dump(content, file, indent=2)


def main() -> int:
    """Train and evaluate all runs that have no result yet."""
    options = parse_arguments()
    try:
        ablations = Ablations(options.study, options.gpu)
        runs = [run for run in ablations.runs() if not run.result.exists()]
    except UsageError as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 2
    if options.rows:
        runs = [run for run in runs if run.row in options.rows]
    failures = 0
    with ThreadPoolExecutor(1 if options.gpu else options.jobs) as pool:
        waiting = {pool.submit(ablations.train_and_evaluate, run): run for run in runs}
        for number, future in enumerate(as_completed(waiting), start=1):
            run = waiting[future]
            try:
                metrics = future.result()["metrics"]
                text = "  ".join(f"{name} {metrics[name]:.4g}" for name in ablations.study.shown)
            except UsageError as error:
                failures, text = failures + 1, str(error)
            print(f"{number}/{len(runs)}  {run.row}, seed {run.seed}: {text}", flush=True)
    table = ablations.results / "table.md"
    with atomic_file(table) as file:
        file.write(ablations.table())
    print(table)
    return int(failures > 0)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("study", type=Path, metavar="FILE", help="study, for example configs/ablations/cifar10.yaml")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="runs at the same time (default: cores)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows (default: all)")
    parser.add_argument("--gpu", action="store_true", help="use the study's settings for a GPU, one run at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
