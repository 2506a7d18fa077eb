"""Build the wheel and the source archive, install the wheel into empty environments, and run the commands there.

    python benchmarks/packages.py --python python3.11 python3.12 python3.13
    python benchmarks/packages.py --python python3.11 --extras '' --require torch==2.13.0

An environment contains pip only, its PATH no compiler and no other program, and its HOME is empty. Each extra is installed
without the other extras. Before, the commands that need it must name it in one line; afterwards, they must work. The table has
a row for each environment.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_common import argument_parser, write_result, write_smooth_noise

from wavegan_dist.provenance import provenance

ROOT = Path(__file__).parents[1]
SNAPSHOT = "runs/first/snapshots/kimg-000000"
CONFIG = """
data: {index: data/index.json, workers: 1}
model: {resolution: 32, z_dim: 8, width: 4}
train: {batch_size: 32, total_kimg: 0.32, snapshot_kimg: 0.16, checkpoint_kimg: 0.16, report_kimg: 0.064}
"""
FIVE_LINES = """
from wavegan_dist import WaveletGenerator
generator = WaveletGenerator.from_pretrained("SNAPSHOT")
assert generator.sample(16, seed=0).shape == (16, 3, 32, 32)
generator.save_pretrained("my-generator")
""".replace("SNAPSHOT", SNAPSHOT)
TWO_PROCESSES = "torch.distributed.run --standalone --nproc-per-node 2"
VERSIONS = "import platform, torch; print(platform.python_version(), torch.__version__)"
# These need Matplotlib, which is in the extra `eval`, and which MLflow installs today.
COMPARE = "wavegan_dist compare runs/first --out comparison"
EXPLAIN = f"wavegan_dist explain --snapshot {SNAPSHOT} --out explain.html"
# What follows `python -m`: commands that need no extra, in this order, and those that need one.
COMMANDS = {
    "": (
        "wavegan_dist shards write photos data --size 32 --patches",
        "wavegan_dist train --config tiny.yaml --run-dir runs/first",
        f"wavegan_dist sample --snapshot {SNAPSHOT} --count 4 --out grid.png",
        f"wavegan_dist export --snapshot {SNAPSHOT} --format pt2 --out exported",
        f"wavegan_dist evaluate --snapshot {SNAPSHOT} --data data/index.json --count 200 --metrics fwd,swd,spectrum",
        "wavegan_dist plan --config tiny.yaml --gpus 8 --hardware h100.yaml",
    ),
    "eval": (
        f"wavegan_dist evaluate --snapshot {SNAPSHOT} --data data/index.json --count 301 --metrics fwd_db2,kid,prc",
        COMPARE,
        EXPLAIN,
        "wavegan_dist gallery runs/first --data data/index.json --out gallery.html",
    ),
    "export": (f"wavegan_dist export --snapshot {SNAPSHOT} --format onnx,onnx-uint8 --out onnx",),
    "embedded": ("wavegan_dist shards write embedded embedded --size 32",),
    "slurm": ("wavegan_dist submit train --config tiny.yaml --run-dir runs/job --profile gpu8 --dry-run",),
    "deepspeed": (f"{TWO_PROCESSES} -m wavegan_dist train --config tiny.yaml --run-dir runs/zero train.strategy=zero1",),
}
EXTRAS = tuple(name for name in COMMANDS if name)
STORES = ("s3", "gcs")  # extras whose commands need an object store; the tests of the loader start one for s3


@dataclass(frozen=True)
class Environment:
    """A virtual environment whose commands have an empty HOME and no compiler in PATH.

    Args:
        folder: the environment.
        work: the working folder of the commands; their HOME is `work`/home.
    """

    folder: Path
    work: Path

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin" / "python"

    def pip(self, *arguments: object) -> str:
        """Run pip with the caller's settings of pip, but without a compiler, and return its output."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return check([self.python, "-m", "pip", *arguments], self.folder, inherited | {"PATH": str(self.folder / "bin")})

    def run(self, arguments: Sequence[str], fails: bool = False) -> str:
        """Run the interpreter in the working folder and return its output, that on stderr included."""
        env = {"PATH": str(self.folder / "bin"), "HOME": str(self.work / "home"), "OMP_NUM_THREADS": "2"}
        return check([self.python, *arguments], self.work, env, fails)

    def run_module(self, command: str, fails: bool = False) -> str:
        """Run `python -m COMMAND`, split at spaces."""
        return self.run(["-m", *command.split()], fails)

    def copy(self, folder: Path) -> "Environment":
        """Copy the environment to `folder`, as hard links. Its scripts, such as bin/pip, still belong to the original."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=link)
        return Environment(folder, self.work)

    def mebibytes(self) -> int:
        """Size of all files on the disk."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*") if path.is_file()) >> 20


def check(command: Sequence[object], cwd: Path, env: dict[str, str], fails: bool = False) -> str:
    """Run a command and return its output.

    Raises:
        SystemExit: the command failed, or should fail (`fails`) and did not; the message has the end of the output.
    """
    words = [str(word) for word in command]
    outcome = subprocess.run(words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if bool(outcome.returncode) != fails:
        raise SystemExit(f"{' '.join(words)}: exit code {outcome.returncode}\n{outcome.stdout[-3000:]}")
    return outcome.stdout


def link(source: Path | str, target: Path | str) -> None:
    """Make `target` a hard link to `source`, or a copy on another file system. pip replaces files and never changes one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def build(folder: Path) -> tuple[Path, Path]:
    """Build the source archive, and the wheel from the source archive; check both with twine.

    Returns:
        The wheel and the source archive, in `folder`.
    """
    check([sys.executable, "-m", "build", "--outdir", folder, ROOT], ROOT, dict(os.environ))
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check([sys.executable, "-m", "twine", "check", "--strict", wheel, archive], ROOT, dict(os.environ))
    return wheel, archive


def create(python: str, folder: Path) -> Environment:
    """Create an empty environment in `folder`, with pictures and a config of a tiny model in its working folder.

    Args:
        python: the interpreter, a path or a name in PATH.
        folder: a folder that does not exist.
    """
    work = folder / "work"
    (work / "home").mkdir(parents=True)
    write_smooth_noise(work / "photos", count=2)
    (work / "tiny.yaml").write_text(CONFIG)
    check([python, "-m", "venv", folder / "base"], folder, dict(os.environ))
    (folder / "base" / "bin" / "bash").symlink_to("/bin/bash")  # the source archive of DeepSpeed starts it
    return Environment(folder / "base", work)


def check_base(environment: Environment) -> None:
    """Run the commands that need no extra. `wavegan doctor` must say that there is no compiler, and name every extra."""
    report = json.loads(environment.run_module("wavegan_dist doctor --json"))
    assert report["kernels"]["cpu"]["kernel"] == "reference", report
    assert report["kernels"]["cpu"]["why"].startswith("no C++ compiler (c++); install g++"), report
    assert missing_extras(report) == set(EXTRAS), report
    for command in COMMANDS[""]:
        environment.run_module(command)
    environment.run(["-c", FIVE_LINES])


def check_refusals(environment: Environment) -> None:
    """Run the commands that need an extra, in an environment without extras: each must name its extra in one line."""
    for extra in EXTRAS:
        for command in set(COMMANDS[extra]) - {COMPARE, EXPLAIN}:
            output = environment.run_module(command, fails=True)
            lines = {line for line in output.splitlines() if line.startswith("wavegan: ")}
            assert lines, output
            assert all(f"pip install 'wavegan-dist[{extra}]'" in line for line in lines), output
            assert "Traceback" not in output or command.startswith(TWO_PROCESSES), output


def check_extra(environment: Environment, extra: str) -> None:
    """Run the commands of an extra in an environment that has this extra only."""
    report = json.loads(environment.run_module("wavegan_dist doctor --json"))
    assert missing_extras(report) == set(EXTRAS) - {extra}, report
    for command in COMMANDS[extra]:
        environment.run_module(command)


def missing_extras(report: dict[str, list[str]]) -> set[str]:
    """Return the extras that `wavegan doctor` calls missing."""
    return {extra for extra in EXTRAS if any(f"wavegan-dist[{extra}]" in line for line in report["missing"])}


def install(environment: Environment, *requirements: str) -> float:
    """Install packages, check that all requirements of all packages are met, and return the seconds."""
    began = time.perf_counter()
    environment.pip("install", "--quiet", "--disable-pip-version-check", *requirements)
    environment.pip("check")
    return time.perf_counter() - began


def measure(python: str, wheel: Path, requirements: Sequence[str], extras: Sequence[str], folder: Path) -> list[list[Any]]:
    """Check one version of Python: the wheel alone, then each extra alone.

    Returns:
        A row for each environment: Python, PyTorch, the extra, seconds to install, size in MiB, seconds of the commands.
    """
    base = create(python, folder)
    rows: list[list[Any]] = []

    def row(environment: Environment, extra: str, seconds: float) -> None:
        began = time.perf_counter()
        if extra:
            check_extra(environment, extra)
        else:
            check_base(environment)
            check_refusals(environment)
        versions = environment.run(["-c", VERSIONS]).split()
        rows.append([*versions, extra or "none", seconds, environment.mebibytes(), time.perf_counter() - began])
        print("| {} | {} | {} | {:.0f} | {:,} | {:.0f} |".format(*rows[-1]), flush=True)

    row(base, "", install(base, str(wheel), *requirements))
    for extra in extras:
        environment = base.copy(folder / extra)
        row(environment, extra, install(environment, f"{wheel}[{extra}]", *requirements))
        shutil.rmtree(environment.folder)
    return rows


def main() -> None:
    """Build, check every version of Python, and print a table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters (default: this one)")
    parser.add_argument("--require", nargs="*", default=[], help="further requirements, such as torch==2.13.0")
    parser.add_argument("--extras", default=",".join(EXTRAS), help="comma-separated extras (default: all)")
    options = parser.parse_args()
    rows = []
    with TemporaryDirectory(prefix="wavegan-packages-") as scratch:
        wheel, archive = build(Path(scratch) / "dist")
        print(*(f"{path.name}: {path.stat().st_size >> 10} KiB, twine check passed" for path in (wheel, archive)), sep="\n")
        print("| Python | PyTorch | extra | install, s | MiB | commands, s |\n|---|---|---|---|---|---|")
        for number, python in enumerate(options.python):
            folder = Path(scratch) / str(number)
            rows += measure(python, wheel, options.require, [name for name in options.extras.split(",") if name], folder)
            shutil.rmtree(folder)
    write_result("packages", {"rows": rows, **provenance()})


if __name__ == "__main__":
    main()
