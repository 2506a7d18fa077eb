"""Training on 1 and 2 processes of one thread: the parts of a step's time, and the prediction of `wavegan plan`.

    make bench-scaling    or: python benchmarks/scaling.py --config configs/demo.yaml --batch 64

All launches stay alive side by side and take turns: one process alone; two independent processes at the same time (the limit
that the machine's shared memory and caches set); 2 processes with the same batch each (weak scaling); 2 processes with the same
global batch (strong scaling). Reports medians. The prediction uses the single process, the independent processes and
all-reduces of several sizes, but never the steps of 2 processes together. A fifth launch with 2 images per step measures the
overhead of launching operators. Writes benchmarks/results/scaling-CONFIG.json, and the machine's rates with --write-hardware.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import scaling_rates
from bench_common import argument_parser, write_result

from wavegan_dist import config
from wavegan_dist.data import write_shards
from wavegan_dist.files import atomic_file
from wavegan_dist.plan import Hardware, load_hardware, predict
from wavegan_dist.provenance import provenance

HERE = Path(__file__).parent
PROFILE = HERE.parent / "launchers" / "accelerate" / "cpu2.yaml"
TWO_PROCESSES = ["--config_file", str(PROFILE), "--num_processes", "2", "--main_process_port", "0"]
ONE_PROCESS = ["--cpu", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
PARTS = ("compute", "data", "gradients", "norms", "optimizer", "agreement", "other")
TITLES = {"alone": "1 process", "independent": "2 independent", "weak": "2 processes, weak", "strong": "2 processes, strong"}
# The launches that train at the same time, by the name of the measurement.
CONCURRENT = {
    "alone": ["alone"],
    "independent": ["alone", "beside"],
    "weak": ["weak"],
    "strong": ["strong"],
    "tiny": ["tiny"],
}


class Launch:
    """One or two processes of `benchmarks/scaling_worker.py`, of one thread each, under one `accelerate launch`.

    The constructor returns when every process has taken its first step.
    """

    def __init__(self, name: str, processes: int, folder: Path, arguments: list[str]) -> None:
        self.name, self.processes, self.folder, self.requests = name, processes, folder, 0
        worker = [str(HERE / "scaling_worker.py"), "--folder", str(folder), "--name", name, *arguments]
        began = time.time()
        launch = [str(Path(sys.executable).with_name("accelerate")), "launch"]
        launch += TWO_PROCESSES if processes == 2 else ONE_PROCESS
        self.process = subprocess.Popen([*launch, *worker], env=os.environ | {"OMP_NUM_THREADS": "1"})
        self.first_step = max(answer["at"] for answer in self.answers("first")) - began

    def request(self, task: str, count: int = 0) -> int:
        """Send a task to all processes; return the number by which `answers` finds the results."""
        with atomic_file(self.folder / f"go-{self.name}-{self.requests}") as file:
            json.dump({"do": task, "count": count}, file)
        self.requests += 1
        return self.requests - 1

    def answers(self, number: int | str) -> list[dict[str, Any]]:
        """Wait until every process has answered the request of that number; return their answers by rank."""
        paths = [self.folder / f"{self.name}-{number}.{rank}.json" for rank in range(self.processes)]
        while not all(path.exists() for path in paths):
            if self.process.poll() is not None:
                sys.exit(f"{self.name}: a process has ended")
            time.sleep(0.02)
        return [json.loads(path.read_text()) for path in paths]

    def close(self) -> None:
        """End all processes."""
        self.request("quit")
        self.process.wait(timeout=60)


def main() -> None:
    """Measure, print the tables and write the result."""
    options = parse_arguments()
    data = HERE.parent / "data" / f"scaling{options.side}"
    if not (data / "index.json").exists():
        write_shards("embedded", data, options.side, patches=True)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(options, Path(folder), [f"data.index={data}/index.json", "data.workers=0", *options.overrides])
    hardware = (
        load_hardware(str(options.hardware)) if options.hardware else scaling_rates.rates(measured, experiment(options, 1))
    )
    if options.write_hardware:
        scaling_rates.write(hardware, options.write_hardware)
    rows = [make_row(name, measured, options.batch) for name in TITLES]
    print_table(rows, measured)
    predictions = [check_prediction(options, hardware, rows, name) for name in ("alone", "weak", "strong")]
    settings = {"config": str(options.config), "batch": options.batch, "rows": rows, "prediction": predictions}
    machine = {"measured": measured, "hardware": hardware.model_dump(), "cores": os.cpu_count()}
    write_result(f"scaling-{options.config.stem}", settings | machine | provenance())


def measure(options: argparse.Namespace, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Measure the steps, start-up and peak memory of each launch, all-reduces, and the share of matrix products."""
    launches = start_launches(options, folder, overrides)
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in CONCURRENT}
    peaks: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, members in CONCURRENT.items():
            requests = [(launches[member], launches[member].request("steps", options.steps)) for member in members]
            for answer in [answer for launch, number in requests for answer in launch.answers(number)]:
                steps[name] += answer["steps"]
                peaks[name] = max(peaks.get(name, 0), answer["peak_bytes"] / 2**30)
    alone, weak = launches["alone"], launches["weak"]
    (products,) = alone.answers(alone.request("products"))
    all_reduces = weak.answers(weak.request("network"))[0]["seconds"]
    for launch in launches.values():
        launch.close()
    return {
        "steps": steps,
        "peak_gib": peaks,
        "first_step_seconds": {name: launch.first_step for name, launch in launches.items()},
        "all_reduce_seconds": all_reduces,
        "products_share": products["share"],
        "loop_decodes_megapixels_per_s": options.batch * options.side**2 / 1e6 / part_seconds(steps["alone"], "data"),
    }


def start_launches(options: argparse.Namespace, folder: Path, overrides: list[str]) -> dict[str, Launch]:
    """Start all launches one after the other and return them by name."""
    batch = options.batch
    batches = {"alone": batch, "beside": batch, "weak": 2 * batch, "strong": batch, "tiny": scaling_rates.TINY_BATCH}
    launches = {}
    for name, global_batch in batches.items():
        arguments = ["--config", str(options.config), *overrides, f"train.batch_size={global_batch}"]
        launches[name] = Launch(name, 2 if name in ("weak", "strong") else 1, folder, arguments)
    return launches


def part_seconds(steps: list[dict[str, float]], name: str) -> float:
    """Return the median seconds of one part of a step, over all processes and rounds."""
    return statistics.median(step[name] for step in steps)


def make_row(name: str, measured: dict[str, Any], batch: int) -> dict[str, Any]:
    """Return one row of the table, with efficiencies relative to the process alone and to the independent processes."""
    seconds = {measurement: part_seconds(steps, "total") for measurement, steps in measured["steps"].items()}
    images = {"alone": batch, "independent": 2 * batch, "weak": 2 * batch, "strong": batch}
    processes = 1 if name == "alone" else 2
    speed = images[name] / seconds[name]
    return {
        "run": name,
        "images_per_second": speed,
        "efficiency": speed / processes / (batch / seconds["alone"]),
        "to_ceiling": speed / processes / (batch / seconds["independent"]),
        "seconds_per_step": seconds[name],
        **{part: part_seconds(measured["steps"][name], part) / seconds[name] for part in PARTS},
        "peak_gib": measured["peak_gib"][name],
    }


def print_table(rows: list[dict[str, Any]], measured: dict[str, Any]) -> None:
    """Print the rows, then start-up times and peak memory."""
    parts = " ".join(f"{part:>9}" for part in PARTS)
    print(f"{'':<22} {'images/s':>9} {'efficiency':>10} {'to ceiling':>10} {'s/step':>8} {parts}")
    for row in rows:
        shares = " ".join(f"{row[part]:>9.1%}" for part in PARTS)
        print(
            f"{TITLES[row['run']]:<22} {row['images_per_second']:>9.1f} {row['efficiency']:>10.2f} "
            f"{row['to_ceiling']:>10.2f} {row['seconds_per_step']:>8.4f} {shares}"
        )
    started = measured["first_step_seconds"]
    print(f"accelerate launch to the first step done: 1 process {started['alone']:.1f} s, 2 processes {started['weak']:.1f} s")
    print("peak memory of a process, GiB: " + ", ".join(f"{row['run']} {row['peak_gib']:.2f}" for row in rows))


def check_prediction(options: argparse.Namespace, hardware: Hardware, rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Print and return the predicted and the measured seconds per step of one run, and the relative error."""
    planned = predict(experiment(options, 2 if name == "weak" else 1), hardware, [1 if name == "alone" else 2])[0]
    (measured,) = (row["seconds_per_step"] for row in rows if row["run"] == name)
    error = planned.step.total / measured - 1
    basis = (
        "the rates' own basis"
        if name == "alone" and not options.hardware
        else f"within 15%: {'yes' if abs(error) <= 0.15 else 'NO'}"
    )
    print(f"plan, {name}: {planned.step.total:.4f} s a step, measured {measured:.4f}: {error:+.1%} ({basis})")
    return {"run": name, "predicted_seconds": planned.step.total, "measured_seconds": measured, "error": error}


def experiment(options: argparse.Namespace, times: int) -> config.Experiment:
    """Return the experiment with `times` the batch of one process."""
    return config.load(options.config, [*options.overrides, f"train.batch_size={times * options.batch}"])


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line, and `side`, the image side of the config."""
    parser = argument_parser(__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"), metavar="FILE")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images of one process (default: 64)")
    parser.add_argument("--steps", type=int, default=6, metavar="N", help="timed steps of each run in a round (default: 6)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    parser.add_argument("--hardware", type=Path, metavar="FILE", help="predict from these rates instead of today's")
    parser.add_argument("--write-hardware", type=Path, metavar="FILE", help="write this machine's rates for `wavegan plan`")
    options = parser.parse_args()
    options.side = config.load(options.config, options.overrides).model.resolution
    return options


if __name__ == "__main__":
    main()
