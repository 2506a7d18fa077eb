"""Fuzz the readers of this package, all of them or one target:

    PYTHONPATH=.:benchmarks python -m tests.fuzz [--target tars] [--inputs 100000]

Prints one line for each target. Inputs that find a fault are written to build/fuzz/TARGET/NUMBER, beside a text that says what
happened. Input N is a function of the target, the seed and N: an interrupted run continues with --first N.
"""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from tests.fuzz.harness import Summary, corpus, cpu_seconds, inputs, limit_memory, scratch_folder, try_input, write_files
from tests.fuzz.targets import TARGETS
from wavegan_dist.log import log

OUT = Path("build/fuzz")
HEAD = f"{'target':<12} {'inputs':>8} {'refused':>8} {'faults':>7} {'CPU s':>8} {'slowest':>8} {'peak MiB':>9}"


def main() -> None:
    """Fuzz one target in this process, or each target in a process of its own. The exit code is 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    options = parser.parse_args()
    if options.target is None:
        print(HEAD, flush=True)
        codes = [_run(name, int(options.inputs * target.share), options) for name, target in TARGETS.items()]
        sys.exit(any(codes))
    summary = fuzz(options.target, options.seed, range(options.first, options.first + options.inputs))
    print(_line(options.target, summary), flush=True)
    for kind, (number, fault, files) in summary.faults.items():
        folder = OUT / options.target / str(number)
        write_files(folder, files)
        folder.with_suffix(".txt").write_text(f"{kind}, {summary.counts[kind]} times\n{fault.detail}\n")
        print(f"  {summary.counts[kind]:>6} x {kind}: {folder}", flush=True)
    sys.exit(bool(summary.faults))


def _run(name: str, inputs: int, options: argparse.Namespace) -> int:
    numbers = ("--inputs", str(inputs), "--first", str(options.first), "--seed", str(options.seed))
    return subprocess.run([sys.executable, "-m", "tests.fuzz", "--target", name, *numbers]).returncode


def fuzz(name: str, seed: int, numbers: range) -> Summary:
    """Run the target `name` on its inputs of these numbers. The memory of this process stays limited afterwards."""
    target = TARGETS[name]()
    log.setLevel(logging.CRITICAL)
    with scratch_folder() as scratch:
        (scratch / "seeds").mkdir()
        seeds = target.seeds(scratch / "seeds")
        for files in seeds:
            result = try_input(target, files, scratch)
            assert not result.refused, f"a valid input of {name} is refused"
            assert result.fault is None, result.fault
        limit_memory()
        summary = Summary()
        for kind, files in corpus(name).items():
            whole = target.fitted({**seeds[0], **files})
            summary.add(f"corpus/{name}/{kind}", whole, try_input(target, whole, scratch), 0.0)
        for number, files in inputs(target, name, seeds, seed, numbers):
            started = cpu_seconds()
            summary.add(number, files, try_input(target, files, scratch), cpu_seconds() - started)
    return summary


def _line(name: str, summary: Summary) -> str:
    return (
        f"{name:<12} {summary.tried:>8,} {summary.refused:>8,} {sum(summary.counts.values()):>7,} {summary.seconds:>8.0f} "
        f"{summary.slowest:>7.2f}s {summary.memory / 2**20:>9.0f}"
    )


if __name__ == "__main__":
    main()
