"""The first hour of a newcomer: run the commands of README.md, in its order, in a clone in an empty folder with an empty HOME.

Each step is timed. `CHANGED` makes long steps shorter; `LEFT_OUT` has the commands that are not run, and why. pip uses the
caller's cache and settings, so that the table does not measure the network. Everything else starts from nothing. The
newcomer's pictures, in ~/photos, are nine photographs that scikit-image and scikit-learn contain.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from bench_common import argument_parser, write_result

from wavegan_dist.data.embedded import PHOTOGRAPHS
from wavegan_dist.provenance import provenance

ROOT = Path(__file__).parents[1]
PROGRAMS = ("accelerate", "make", "mlflow", "pip", "python", "source", "wavegan")
CHANGED = {
    "train.total_kimg=2048": "train.total_kimg=2.048",
    "kimg-002048": "kimg-000002.048",
    "--count 50000": "--count 500",
    "runs/first runs/second": "runs/first runs/demo",
}
LEFT_OUT = {  # the beginning of a command: the reason
    "make test": "tests the package, in minutes",
    "accelerate launch --config_file launchers/accelerate/gpu8.yaml": "needs GPUs",
    "pip install '.[slurm]'": "needs Slurm",
    "wavegan submit": "needs Slurm",
}
SERVER = "mlflow ui"  # runs until it is interrupted
PAGE = "http://127.0.0.1:5000"  # of the server


def steps(readme: str) -> Iterator[str]:
    """Yield the commands in the indented lines of README.md, and each indented block of Python as one string."""
    for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", readme, re.MULTILINE):
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines() if line]
        if lines[0].startswith("from "):
            yield "\n".join(lines)
        yield from (re.sub(r" +", " ", line.partition(" #")[0]).strip() for line in lines if line.split()[0] in PROGRAMS)


def is_left_out(step: str) -> bool:
    """Whether a step is in LEFT_OUT."""
    return step.startswith(tuple(LEFT_OUT))


def changed(step: str) -> str:
    """Return the shorter version of a step."""
    for old, new in CHANGED.items():
        step = step.replace(old, new)
    return step


def environment(home: Path) -> dict[str, str]:
    """Return the caller's environment with another HOME and without an active virtual environment."""
    left_out = ("PYTHON", "VIRTUAL_ENV", "XDG_", "WAVEGAN_", "MLFLOW_", "ACCELERATE_", "MAKE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pip"
    settings = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "pip" / "pip.conf"
    return kept | {"HOME": str(home), "PIP_CACHE_DIR": str(cache), "PIP_CONFIG_FILE": str(settings)}


def copy_photographs(target: Path) -> None:
    """Copy nine photographs that scikit-image and scikit-learn contain to the folder `target`."""
    target.mkdir(parents=True)
    for name in PHOTOGRAPHS:
        package, _, file = name.partition("/")
        shutil.copy(str(files(package) / file), target)


def run(script: str, checkout: Path, env: dict[str, str]) -> None:
    """Run a bash script.

    Raises:
        SystemExit: the script failed; the message has the end of its output.
    """
    command = ["bash", "-e", "-c", script]
    outcome = subprocess.run(command, cwd=checkout, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if outcome.returncode:
        raise SystemExit(f"{script}\nfailed with exit code {outcome.returncode}:\n{outcome.stdout[-3000:]}")


def run_server(script: str, checkout: Path, env: dict[str, str]) -> None:
    """Run a bash script that starts the server, until the server answers.

    Raises:
        SystemExit: the server did not answer within two minutes.
    """
    command = ["bash", "-c", script]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=checkout, env=env, stdout=null, stderr=null, start_new_session=True) as server:
        try:
            for _ in range(240):
                try:
                    with urlopen(PAGE, timeout=10):
                        return
                except (URLError, OSError):
                    time.sleep(0.5)
            raise SystemExit(f"{script}\n{PAGE} does not answer")
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def run_steps(scratch: Path) -> Iterator[tuple[str, float, float]]:
    """Clone this checkout into `scratch` and run the steps there; yield each step, its seconds and its CPU seconds."""
    home, checkout, activate = scratch / "home", scratch / "wavegan-dist", ""
    copy_photographs(home / "photos")
    run(f"git clone --quiet {ROOT} {checkout}", scratch, environment(home))
    for step in map(changed, steps((checkout / "README.md").read_text())):
        if step.startswith("source "):
            activate = f"{step}\n"
        elif not is_left_out(step):
            script = activate + (f"python - <<'END'\n{step}\nEND" if "\n" in step else step)
            began, cpu = time.perf_counter(), cpu_seconds()
            (run_server if step.startswith(SERVER) else run)(script, checkout, environment(home))
            yield step, time.perf_counter() - began, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """CPU seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Run every step and print a table."""
    argument_parser(__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="wavegan-first-hour-") as scratch:
        print("| step | s | CPU s |\n|---|---|---|")
        for step, seconds, cpu in run_steps(Path(scratch)):
            rows.append({"step": step, "seconds": seconds, "cpu_seconds": cpu})
            print(f"| `{step.splitlines()[0]}` | {seconds:.0f} | {cpu:.0f} |", flush=True)
    print("| all | {:.0f} | {:.0f} |".format(*(sum(row[key] for row in rows) for key in ("seconds", "cpu_seconds"))))
    write_result("first_hour", {"rows": rows, "cores": os.cpu_count(), "load": os.getloadavg(), **provenance()})


if __name__ == "__main__":
    main()
