"""Compiling on first use: once, by whoever comes first, and never in the way of a machine that cannot."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.helpers import environment
from wavegan_dist.wavelet.choice import VARIABLE
from wavegan_dist.wavelet.cpu.build import OBJECTS, library

CHOICE = "from wavegan_dist.wavelet import choose; print(*choose('cpu'), sep=': ')"


def in_a_process(cache: Path, code: str = CHOICE, **variables: str) -> subprocess.CompletedProcess[str]:
    settings = {**environment(), "XDG_CACHE_HOME": str(cache), VARIABLE: "", **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings, timeout=300)


@pytest.fixture
def compiler(tmp_path, compiled) -> str:
    """A compiler that takes half a second, notes each call and "makes" the library that this machine has already."""
    script = tmp_path / "c++"
    script.write_text(
        f'#!/bin/sh\necho >> {tmp_path}/calls\nsleep 0.5\nwhile [ "$1" != -o ]; do shift; done\ncp {library()} "$2"\n'
    )
    script.chmod(0o755)
    return str(script)


def test_processes_that_start_together_compile_once(tmp_path, compiler):
    with ThreadPoolExecutor() as pool:
        ran = list(pool.map(lambda _: in_a_process(tmp_path, CXX=compiler), range(3)))
    assert all(each.stdout.startswith("C++: compiled") for each in ran), [each.stderr for each in ran]
    assert len((tmp_path / "calls").read_text().splitlines()) == len(OBJECTS) + 1  # and the link
    assert sum("compiling" in each.stderr for each in ran) == 1
    assert "compiling" not in in_a_process(tmp_path, CXX=compiler).stderr


def test_a_worker_process_does_not_compile(tmp_path, compiler):
    worker = "from concurrent.futures import ProcessPoolExecutor as P; from wavegan_dist.wavelet import choose\n"
    ran = in_a_process(tmp_path, worker + "print(P(1).submit(choose, 'cpu').result()[1])", CXX=compiler)
    assert "a worker process does not build" in ran.stdout
    assert not (tmp_path / "calls").exists()


def test_without_a_compiler_the_reference_runs_and_says_why(tmp_path):
    ran = in_a_process(tmp_path, CXX="no-such-compiler")
    assert ran.stdout.startswith("reference: no C++ compiler (no-such-compiler); install g++ or set CXX")
    assert ran.stderr == ""


def test_a_compiler_that_fails_is_asked_once_and_its_words_are_kept(tmp_path):
    first = in_a_process(tmp_path, CXX="false")
    log = next((tmp_path / "wavegan" / "kernels").glob("*.log"))
    assert first.stdout.startswith("reference: the CPU kernels do not compile: see ")
    assert str(log) in first.stdout
    assert "false -std" in log.read_text()
    assert "did not compile before" in in_a_process(tmp_path, CXX="false").stdout
    assert "compiling" in in_a_process(tmp_path, "from wavegan_dist.wavelet import build; build()", CXX="false").stderr
    assert [path.suffix for path in (tmp_path / "wavegan" / "kernels").iterdir() if path.suffix not in (".log", ".lock")] == []


def test_a_library_that_does_not_load_is_named(tmp_path, compiler):
    in_a_process(tmp_path, CXX=compiler)
    path = next((tmp_path / "wavegan" / "kernels").glob("*.so"))
    path.write_bytes(b"not a library")
    ran = in_a_process(tmp_path, CXX=compiler)
    assert ran.stdout.startswith(f"reference: {path} does not load")


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_a_cache_that_cannot_be_written_leaves_the_reference():
    ran = in_a_process(Path("/proc/self"))
    assert ran.stdout.startswith("reference: cannot keep the CPU kernels in /proc/self/wavegan/kernels")


def test_the_variable_forces_the_reference_and_takes_no_other_value(tmp_path):
    assert in_a_process(tmp_path, **{VARIABLE: "reference"}).stdout == "reference: WAVEGAN_KERNELS=reference\n"
    assert "the only value is `reference`" in in_a_process(tmp_path, **{VARIABLE: "fast"}).stderr


def test_all_instruction_sets_give_the_same(tmp_path, compiled):
    """Bit for bit: a run may go on on another processor."""
    code = (
        "import sys, torch; from wavegan_dist.wavelet import *; torch.manual_seed(0); results = []\n"
        "for layout in (torch.contiguous_format, torch.channels_last):\n"
        "    for dtype in (torch.float32, torch.bfloat16, torch.float64):\n"
        "        for channels in (1, 3, 5, 16):\n"
        "            x = torch.rand(2, channels, 12, 90).to(dtype, memory_format=layout).requires_grad_()\n"
        "            y = fuse(x, *dwt(x), lam := torch.tensor(0.3, requires_grad=True))\n"
        "            results += [y, *torch.autograd.grad(y, (x, lam), x.detach())]\n"
        "    images = torch.randint(0, 256, (2, 3, 12, 90)).byte().contiguous(memory_format=layout)\n"
        "    results += analyse(images, (1, 2, 3, 4))\n"
        "torch.save(results, sys.argv[1]); print(choose('cpu')[1])"
    )
    said, results = {}, {}
    for level in ("default", "avx2", "avx512"):
        command = [sys.executable, "-c", code, str(tmp_path / level)]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment(ATEN_CPU_CAPABILITY=level), check=True)
        said[level], results[level] = ran.stdout, torch.load(tmp_path / level)
    assert "baseline" in said["default"]
    if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        assert "AVX2" in said["avx2"]
    for level in ("avx2", "avx512"):
        assert all(torch.equal(a, b) for a, b in zip(results["default"], results[level], strict=True)), level


def test_a_wheel_holds_the_source(tmp_path):
    source = Path(__file__).parents[2]
    shutil.copytree(source / "wavegan_dist", tmp_path / "wavegan_dist", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(source / name, tmp_path)
    command = [sys.executable, "-c", "from setuptools import setup; setup()", "-q", "build"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    built = {path.name for path in (tmp_path / "build" / "lib" / "wavegan_dist" / "wavelet" / "cpu").iterdir()}
    assert built >= {path.name for path in (source / "wavegan_dist" / "wavelet" / "cpu").iterdir() if path.is_file()}
