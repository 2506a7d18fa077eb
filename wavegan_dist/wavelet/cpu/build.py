"""Compiles the CPU kernels into the user's cache, once for each version of the source, PyTorch and processor type."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file, locked, user_cache
from wavegan_dist.log import log

SOURCE = Path(__file__).parent
FLAGS = ("-std=c++20", "-fPIC", "-fopenmp", "-ffp-contract=off", "-Wno-psabi")
INSTRUCTIONS: dict[str, tuple[str, ...]] = {"baseline": ()}  # compiler flags of each instruction set
if platform.machine() == "x86_64":
    AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16")
    INSTRUCTIONS |= {"avx2": ("-mavx2",), "avx512": AVX512}
OBJECTS = {  # object file: flags and source file
    "operators": ("-O1", "operators.cpp"),
    "autograd": ("-O1", "autograd.cpp"),
    **{name: ("-O3", f"-DINSTRUCTIONS={name}", *flags, "haar.cpp") for name, flags in INSTRUCTIONS.items()},
}
COMPILE_TIMEOUT = 600  # seconds for one file


def library() -> Path:
    """Return the path of the compiled library for this source, PyTorch and processor type, whether or not it exists.

    Raises:
        WaveganError: there is no home folder for a cache.
    """
    key = hashlib.sha256(repr((torch.__version__, platform.machine(), FLAGS, OBJECTS, _abi_flag())).encode())
    for file in sorted((*SOURCE.glob("*.cpp"), *SOURCE.glob("*.h"))):
        key.update(file.read_bytes())
    return user_cache() / "kernels" / f"haar-{key.hexdigest()[:16]}.so"


def build(retry: bool = False) -> Path:
    """Compile the library unless it is in the cache. Of several processes, one compiles and the others wait for it.

    Args:
        retry: compile even if an earlier attempt failed; False: raise WaveganError in this case.

    Returns:
        The path of the library.

    Raises:
        WaveganError: there is no home folder for a cache; or the cache does not have the library, and there is no compiler,
            the cache is not writable, or compilation fails. If it fails, the compiler's output is next to the library, in a
            file that ends in .log.
    """
    path = library()
    if path.exists():  # without the lock, because the cache may be read-only
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                _compile(path, retry)
    except OSError as error:
        raise WaveganError(f"cannot keep the CPU kernels in {path.parent} ({error.strerror}); set XDG_CACHE_HOME") from error
    return path


def _compile(path: Path, retry: bool) -> None:
    error_log = path.with_suffix(".log")
    if error_log.exists() and not retry:
        raise WaveganError(f"the CPU kernels did not compile before: see {error_log}, then run `wavegan doctor --build`")
    try:
        compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    except ValueError as error:
        raise WaveganError(f"CXX={os.environ['CXX']} is not a command ({error}); correct it") from error
    if shutil.which(compiler[0]) is None:
        raise WaveganError(f"no C++ compiler ({compiler[0]}); install g++ or set CXX, then run `wavegan doctor --build`")
    log.info("compiling the CPU kernels, once (about 20 s)")
    with TemporaryDirectory(dir=path.parent) as scratch:
        objects = [f"{scratch}/{name}.o" for name in OBJECTS]
        include = f"-isystem{Path(torch.__file__).parent / 'include'}"
        errors = _run(
            *[
                [*compiler, *FLAGS, _abi_flag(), *flags, include, "-c", str(SOURCE / source), "-o", out]
                for (*flags, source), out in zip(OBJECTS.values(), objects, strict=True)
            ]
        )
        errors = errors or _run([*compiler, "-shared", "-o", f"{scratch}/library", *objects, *_link_flags()])
        if errors:
            with atomic_file(error_log) as file:
                file.write(errors)
            raise WaveganError(f"the CPU kernels do not compile: see {error_log}, then run `wavegan doctor --build`")
        Path(scratch, "library").replace(path)
    error_log.unlink(missing_ok=True)


def _run(*commands: list[str]) -> str:
    """Run commands in parallel; return the output of those that failed, each after its command line; empty if none failed."""
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    processes = [subprocess.Popen(command, **settings) for command in commands]
    outputs = [_output(process) for process in processes]
    results = zip(commands, processes, outputs, strict=True)
    return "".join(f"{shlex.join(command)}\n{output}\n" for command, process, output in results if process.returncode)


def _output(process: "subprocess.Popen[str]") -> str:
    """Wait for a process and return its output; kill it after COMPILE_TIMEOUT and return a sentence that says so."""
    try:
        return process.communicate(timeout=COMPILE_TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"stopped after {COMPILE_TIMEOUT} seconds"


def _abi_flag() -> str:
    return f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"


def _link_flags() -> list[str]:
    """Return flags that link PyTorch only: `at::parallel_for` uses its OpenMP runtime, and a second one must not be loaded."""
    return [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-lc10"]
