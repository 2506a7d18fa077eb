"""Training on 1 and 2 processes of one thread: what a step's time goes to, and what `wavegan plan` says beforehand.

    make bench-scaling    or: python benchmarks/scaling.py --config configs/demo.yaml --batch 64

Launches live side by side and take turns: one process alone; two processes at once that know nothing of each other
(what the machine's shared memory and caches allow); 2 processes with the same batch each (weak); 2 with the same global batch
(strong). Medians. The prediction uses the lone process, the independent ones and all-reduces of several sizes, never the
steps of 2 processes together; a fifth launch with 2 images a step tells what operators cost that do nothing.
Writes benchmarks/results/scaling-CONFIG.json, and the machine's rates with --write-hardware.
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

from wavegan_dist import config
from wavegan_dist.data import write_shards
from wavegan_dist.files import atomic_file
from wavegan_dist.plan import Hardware, load_hardware, predict
from wavegan_dist.provenance import provenance

HERE = Path(__file__).parent
PROFILE = HERE.parent / "launchers" / "accelerate" / "cpu2.yaml"
PARTS = ("compute", "data", "gradients", "norms", "optimizer", "agreement", "other")
HEAD = f"{'':<22} {'images/s':>9} {'efficiency':>10} {'to ceiling':>10} {'s/step':>8} " + " ".join(
    f"{part:>9}" for part in PARTS
)


class Launch:
    """Processes of `benchmarks/scaling_worker.py` under one `accelerate launch`, each of one thread."""

    def __init__(self, name: str, processes: int, folder: Path, arguments: list[str]) -> None:
        self.name, self.processes, self.folder, self.asked = name, processes, folder, 0
        port = ["--main_process_port", "0"]
        how = (
            ["--config_file", str(PROFILE), "--num_processes", "2", *port]
            if processes == 2
            else ["--cpu", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        )
        worker = [str(HERE / "scaling_worker.py"), "--folder", str(folder), "--name", name, *arguments]
        began = time.time()
        accelerate = str(Path(sys.executable).with_name("accelerate"))
        self.process = subprocess.Popen([accelerate, "launch", *how, *worker], env=os.environ | {"OMP_NUM_THREADS": "1"})
        self.first_step = max(told["at"] for told in self.answers("first")) - began

    def ask(self, do: str, count: int = 0) -> int:
        """Have all its processes do something; returns the number of the answer."""
        with atomic_file(self.folder / f"go-{self.name}-{self.asked}") as file:
            json.dump({"do": do, "count": count}, file)
        self.asked += 1
        return self.asked - 1

    def answers(self, number: int | str) -> list[dict[str, Any]]:
        """What each process said, once all have."""
        paths = [self.folder / f"{self.name}-{number}.{rank}.json" for rank in range(self.processes)]
        while not all(path.exists() for path in paths):
            if self.process.poll() is not None:
                sys.exit(f"{self.name}: a process has ended")
            time.sleep(0.02)
        return [json.loads(path.read_text()) for path in paths]

    def close(self) -> None:
        """End it."""
        self.ask("quit")
        self.process.wait(timeout=60)


def main() -> None:
    """Measure, print the tables, write JSON."""
    options = parse()
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
    rows = [row(name, measured, options.batch) for name in ("alone", "independent", "weak", "strong")]
    show(rows, measured)
    check = [prediction(options, hardware, rows, name) for name in ("alone", "weak", "strong")]
    result = {"config": str(options.config), "batch": options.batch, "rows": rows, "prediction": check, "measured": measured}
    out = HERE / "results" / f"scaling-{options.config.stem}.json"
    with atomic_file(out) as file:
        json.dump(result | {"hardware": hardware.model_dump(), "cores": os.cpu_count(), **provenance()}, file, indent=2)
    print(out)


def measure(options: argparse.Namespace, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Each launch's steps, its time to the first and its peak memory; the all-reduces; the share of matrix products."""
    batches = {
        "alone": options.batch,
        "beside": options.batch,
        "weak": 2 * options.batch,
        "strong": options.batch,
        "tiny": scaling_rates.TINY,
    }
    launches: dict[str, Launch] = {}
    for name, batch in batches.items():
        arguments = ["--config", str(options.config), *overrides, f"train.batch_size={batch}"]
        launches[name] = Launch(name, 2 if name in ("weak", "strong") else 1, folder, arguments)
    steps: dict[str, list[dict[str, float]]] = {"alone": [], "independent": [], "weak": [], "strong": [], "tiny": []}
    peaks: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, taking_part in (
            ("alone", ["alone"]),
            ("independent", ["alone", "beside"]),
            ("weak", ["weak"]),
            ("strong", ["strong"]),
            ("tiny", ["tiny"]),
        ):
            asked = [(launches[each], launches[each].ask("steps", options.steps)) for each in taking_part]
            for told in [told for each, number in asked for told in each.answers(number)]:
                steps[name] += told["steps"]
                peaks[name] = max(peaks.get(name, 0), told["peak_bytes"] / 2**30)
    alone, weak = launches["alone"], launches["weak"]
    (products,) = alone.answers(alone.ask("products"))
    messages = weak.answers(weak.ask("network"))[0]["seconds"]
    for each in launches.values():
        each.close()
    return {
        "steps": steps,
        "peak_gib": peaks,
        "first_step_seconds": {name: each.first_step for name, each in launches.items()},
        "all_reduce_seconds": messages,
        "products_share": products["share"],
        "loop_decodes_megapixels_per_s": options.batch * options.side**2 / 1e6 / part(steps["alone"], "data"),
    }


def part(steps: list[dict[str, float]], name: str) -> float:
    """Median seconds of a part of a step, over all processes and rounds."""
    return statistics.median(step[name] for step in steps)


def row(name: str, measured: dict[str, Any], batch: int) -> dict[str, Any]:
    """One line of the table; efficiencies are to the process alone, and to the independent ones."""
    seconds = {each: part(steps, "total") for each, steps in measured["steps"].items()}
    images = {"alone": batch, "independent": 2 * batch, "weak": 2 * batch, "strong": batch}
    processes = 1 if name == "alone" else 2
    speed = images[name] / seconds[name]
    return {
        "run": name,
        "images_per_second": speed,
        "efficiency": speed / processes / (batch / seconds["alone"]),
        "to_ceiling": speed / processes / (batch / seconds["independent"]),
        "seconds_per_step": seconds[name],
        **{each: part(measured["steps"][name], each) / seconds[name] for each in PARTS},
        "peak_gib": measured["peak_gib"][name],
    }


def show(rows: list[dict[str, Any]], measured: dict[str, Any]) -> None:
    """The table."""
    names = {"alone": "1 process", "independent": "2 independent", "weak": "2 processes, weak", "strong": "2 processes, strong"}
    print(HEAD)
    for each in rows:
        shares = " ".join(f"{each[name]:>9.1%}" for name in PARTS)
        print(
            f"{names[each['run']]:<22} {each['images_per_second']:>9.1f} {each['efficiency']:>10.2f} "
            f"{each['to_ceiling']:>10.2f} {each['seconds_per_step']:>8.4f} {shares}"
        )
    started = measured["first_step_seconds"]
    print(f"accelerate launch to the first step done: 1 process {started['alone']:.1f} s, 2 processes {started['weak']:.1f} s")
    print("peak memory of a process, GiB: " + ", ".join(f"{each['run']} {each['peak_gib']:.2f}" for each in rows))


def prediction(options: argparse.Namespace, hardware: Hardware, rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """What the plan says of a run, and its error."""
    wanted = experiment(options, 2 if name == "weak" else 1)
    planned = predict(wanted, hardware, [1 if name == "alone" else 2])[0]
    (measured,) = (each["seconds_per_step"] for each in rows if each["run"] == name)
    error = planned.step.total / measured - 1
    basis = (
        "the rates' own basis"
        if name == "alone" and not options.hardware
        else f"within 15%: {'yes' if abs(error) <= 0.15 else 'NO'}"
    )
    print(f"plan, {name}: {planned.step.total:.4f} s a step, measured {measured:.4f}: {error:+.1%} ({basis})")
    return {"run": name, "predicted_seconds": planned.step.total, "measured_seconds": measured, "error": error}


def experiment(options: argparse.Namespace, times: int) -> config.Experiment:
    """The experiment with so many times the batch of one process."""
    return config.load(options.config, [*options.overrides, f"train.batch_size={times * options.batch}"])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"), metavar="FILE")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images of one process (default: 64)")
    parser.add_argument("--steps", type=int, default=6, metavar="N", help="timed steps of each run in a round (default: 6)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each run (default: 5)")
    parser.add_argument("--hardware", type=Path, metavar="FILE", help="predict from these rates in place of today's")
    parser.add_argument("--write-hardware", type=Path, metavar="FILE", help="write this machine's rates for `wavegan plan`")
    options = parser.parse_args()
    options.side = config.load(options.config, options.overrides).model.resolution
    return options


if __name__ == "__main__":
    main()
