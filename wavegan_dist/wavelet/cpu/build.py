"""The CPU kernels' library: compiled once into the user's cache, by whichever process comes first."""

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file

HERE = Path(__file__).parent
FLAGS = ("-std=c++20", "-fPIC", "-fopenmp", "-ffp-contract=off", "-Wno-psabi")
INSTRUCTIONS: dict[str, tuple[str, ...]] = {"baseline": ()}  # of the kernels, which are compiled once for each
if platform.machine() == "x86_64":
    AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16")
    INSTRUCTIONS |= {"avx2": ("-mavx2",), "avx512": AVX512}
OBJECTS = {  # and what they are compiled from
    "operators": ("-O1", "operators.cpp"),
    "autograd": ("-O1", "autograd.cpp"),
    **{name: ("-O3", f"-DINSTRUCTIONS={name}", *flags, "haar.cpp") for name, flags in INSTRUCTIONS.items()},
}
COMPILE_TIMEOUT = 600  # seconds for one file


def library() -> Path:
    """Where the library of this source for this PyTorch and processor lies, built or not.

    Raises:
        WaveganError: no home folder to keep it in.
    """
    key = hashlib.sha256(repr((torch.__version__, platform.machine(), FLAGS, OBJECTS, _abi())).encode())
    for file in sorted((*HERE.glob("*.cpp"), *HERE.glob("*.h"))):
        key.update(file.read_bytes())
    return _cache() / f"haar-{key.hexdigest()[:16]}.so"


def build(again: bool = False) -> Path:
    """Compile the library where it is not there yet; processes that ask together wait for the one that compiles.

    Args:
        again: try even where an earlier try has failed.

    Returns:
        The library.

    Raises:
        WaveganError: no compiler, or it fails; its words are kept beside the library, in a file that ends in .log.
    """
    target = library()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_suffix(".lock")):
            if not target.exists():
                _compile_to(target, again)
    except OSError as error:
        raise WaveganError(f"cannot keep the CPU kernels in {target.parent} ({error.strerror}); set XDG_CACHE_HOME") from error
    return target


def _compile_to(target: Path, again: bool) -> None:
    log = target.with_suffix(".log")
    if log.exists() and not again:
        raise WaveganError(f"the CPU kernels did not compile before: see {log}, then `wavegan doctor --build`")
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if shutil.which(compiler[0]) is None:
        raise WaveganError(f"no C++ compiler ({compiler[0]}); install g++ or set CXX, then `wavegan doctor --build`")
    print("wavegan: compiling the CPU kernels, once (about 20 s)", file=sys.stderr)
    with TemporaryDirectory(dir=target.parent) as scratch:
        objects = [f"{scratch}/{name}.o" for name in OBJECTS]
        include = f"-isystem{Path(torch.__file__).parent / 'include'}"
        errors = _run(
            *[
                [*compiler, *FLAGS, _abi(), *flags, include, "-c", str(HERE / source), "-o", out]
                for (*flags, source), out in zip(OBJECTS.values(), objects, strict=True)
            ]
        )
        errors = errors or _run([*compiler, "-shared", "-o", f"{scratch}/library", *objects, *_link()])
        if errors:
            with atomic_file(log) as file:
                file.write(errors)
            raise WaveganError(f"the CPU kernels do not compile: see {log}, then `wavegan doctor --build`")
        Path(scratch, "library").replace(target)
    log.unlink(missing_ok=True)


def _run(*commands: list[str]) -> str:
    """Run all at once; what those that failed said, each after its command."""
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True) for command in commands]
    said = [process.communicate(timeout=COMPILE_TIMEOUT)[0] for process in processes]
    failed = zip(commands, processes, said, strict=True)
    return "".join(f"{shlex.join(command)}\n{words}\n" for command, process, words in failed if process.returncode)


def _abi() -> str:
    return f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"


def _link() -> list[str]:
    """Against PyTorch alone: its own OpenMP runtime serves `parallel_for`, so there is never a second one."""
    return [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-lc10"]


def _cache() -> Path:
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise WaveganError("no home folder to keep the CPU kernels in; set XDG_CACHE_HOME") from error
    return Path(home) / "wavegan" / "kernels"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process of this machine at a time; where the file system has no locks, the rename at the end still holds."""
    with path.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
