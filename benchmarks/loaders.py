"""The data loaders that benchmarks compare with ours: their environments, and the common images in the format of each."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from wavegan_dist.data import index_shards, write_shards

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "benchmarks" / "peers"
ENVIRONMENTS = Path.home() / ".cache" / "wavegan-bench"
TORCH = "TORCH"  # stands for the requirement of torch in the lists below

# What each environment has, besides what these packages require. OpenCV decodes where the user gives the function that decodes;
# Energon and webdataset have their own, with Pillow. streaming imports torchvision, whose wheel fits no torch of CPUs alone.
REQUIREMENTS = {
    "torchdata": ("torchdata==0.11.0", TORCH, "opencv-python-headless"),
    "streaming": ("mosaicml-streaming==0.13.0", "torch", "torchvision", "opencv-python-headless"),
    "energon": ("megatron-energon[s3]==7.4.1", TORCH),
    "grain": ("grain==0.2.18", "opencv-python-headless"),
    "litdata": ("litdata==0.2.76", TORCH, "boto3", "opencv-python-headless"),
    "webdataset": ("webdataset==1.0.2", TORCH, "pillow"),
}
NAMES = ("ours", *REQUIREMENTS)


class NotInstalledError(Exception):
    """An environment cannot be created."""


def installed(folder: Path, requirements: Sequence[str], bare: Sequence[str] = ()) -> Path:
    """Create a virtual environment if it is missing or holds other packages, and return its interpreter.

    Args:
        folder: of the environment.
        requirements: packages, as pip takes them.
        bare: packages that are installed without those that they require.

    Raises:
        NotInstalledError: pip failed.
    """
    wanted, ready = [*requirements, *bare], folder / "requirements.json"
    if not ready.exists() or json.loads(ready.read_text()) != wanted:
        venv.create(folder, with_pip=True, clear=True)
        for words in (requirements, *(["--no-deps", one] for one in bare)):
            outcome = subprocess.run([folder / "bin" / "pip", "install", "-q", *words], capture_output=True, text=True)
            if outcome.returncode:
                raise NotInstalledError(outcome.stderr.strip().splitlines()[-1])
        ready.write_text(json.dumps(wanted))
    return folder / "bin" / "python"


@dataclass(frozen=True)
class Loaders:
    """Runs jobs of the adapters, each in the environment of its loader.

    Args:
        environments: folder of the environments; what is missing is installed.
        torch: requirement of torch for all environments, such as torch==2.13.0+cpu.
        scratch: an empty folder on this machine.
    """

    environments: Path
    torch: str
    scratch: Path
    _adapters: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def python(self, name: str) -> Path:
        """Return the interpreter of a loader's environment. Raises NotInstalledError."""
        if name == "ours":
            return Path(sys.executable)
        wanted = [one.replace(TORCH, self.torch) for one in REQUIREMENTS[name]]
        return installed(self.environments / name, wanted)

    def versions(self, name: str) -> dict[str, str]:
        """Return the versions of the packages that the results of a loader depend on."""
        packages = [
            one.partition("=")[0].partition("[")[0] for one in REQUIREMENTS.get(name, ("torch", "imagecodecs", "simplejpeg"))
        ]
        code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
        names = ["torch" if package == TORCH else package for package in packages]
        found = subprocess.run([self.python(name), "-c", code, *names], capture_output=True, text=True, check=True)
        return json.loads(found.stdout)  # type: ignore[no-any-return]

    def run(self, name: str, variables: dict[str, str] | None = None, **job: Any) -> list[dict[str, Any]]:
        """Do a job in a loader's adapter and return the results of its ranks: see peers/protocol.py.

        Args:
            name: the loader.
            variables: additional environment variables of the ranks.
            job: what to do.
        """
        cache = self.scratch / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        if name not in self._adapters:
            self._adapters[name] = self._start(name)
        adapter = self._adapters[name]
        assert adapter.stdin
        assert adapter.stdout
        adapter.stdin.write(json.dumps({"cache": str(cache), "timeout": 60, "variables": variables or {}, **job}) + "\n")
        adapter.stdin.flush()
        answer = adapter.stdout.readline()
        if not answer:
            raise RuntimeError(f"the adapter of {name} has ended:\n{self._log(name).read_text()}")
        return json.loads(answer)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the adapters."""
        for adapter in self._adapters.values():
            adapter.communicate()

    def _start(self, name: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.scratch), "PYTHONPATH": ""}
        if name == "ours":
            environment["PYTHONPATH"] = str(ROOT)
        command = [self.python(name), ADAPTERS / f"with_{name}.py"]
        with self._log(name).open("w") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=self.scratch
            )

    def _log(self, name: str) -> Path:
        return self.scratch / f"{name}.log"


def write_images(source: str, folder: Path, encoding: Any, size: int, images: int, shards: int) -> int:
    """Write and index the common images: tars whose members are ID.png or ID.jpg, and ID.cls with the same id as label.

    Args:
        source: pictures, as for `wavegan shards write`.
        folder: to be written.
        encoding: png or jpg.
        size: image side in pixels.
        images: number of images; the patches of the pictures are repeated if there are fewer.
        shards: number of tars, all with the same number of images to within one.

    Returns:
        The bytes of the largest tar.
    """
    patches = folder.with_name(folder.name + "-patches")
    index = write_shards(source, patches, size, encoding=encoding, patches=True, progress=False)
    contents = []
    for shard in index.shards:
        with tarfile.open(patches / shard.file) as archive:
            contents += [archive.extractfile(member).read() for member in archive]  # type: ignore[union-attr]
    folder.mkdir()
    numbered = enumerate(islice(cycle(contents), images))
    for shard_number in range(shards):
        with tarfile.open(folder / f"{shard_number:05d}.tar", "w") as archive:
            for number, content in islice(numbered, (shard_number + 1) * images // shards - shard_number * images // shards):
                _add(archive, f"{number:08d}.{encoding}", content)
                _add(archive, f"{number:08d}.cls", b"%d" % number)
    index_shards(folder)
    shutil.rmtree(patches)
    return max(path.stat().st_size for path in folder.glob("*.tar"))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_formats(loaders: Loaders, names: Sequence[str], encoding: str, shards: int, shard_bytes: int) -> dict[str, str]:
    """Write the images of SCRATCH/tars in the format of each loader.

    Returns:
        The folder of each loader's dataset; for a loader that is not here, the reason, after "not run: ".
    """
    tars, sources = loaders.scratch / "tars", {}
    for name in names:
        folder = tars if name in ("ours", "webdataset") else loaders.scratch / name
        job: dict[str, Any] = {
            "kind": "write",
            "tars": str(tars),
            "source": str(folder),
            "encoding": encoding,
            "shards": shards,
        }
        try:
            (written,) = loaders.run(name, **job, shard_bytes=shard_bytes, world=1, timeout=600)
            if "refused" in written:
                raise RuntimeError(f"{name} cannot write its dataset: {written['refused']}")
            sources[name] = str(folder)
        except NotInstalledError as error:
            sources[name] = f"not run: {error}"
    return sources
