"""Compilation on first use: once per machine, by the first process, and never fatal where it is impossible."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.helpers import environment
from wavegan_dist.errors import WaveganError
from wavegan_dist.wavelet.choice import VARIABLE
from wavegan_dist.wavelet.cpu.build import OBJECTS, build, library

LOGGING = "from wavegan_dist.log import configure; configure()\n"
PRINT_CHOICE = LOGGING + "from wavegan_dist.wavelet import choose; print(*choose('cpu'), sep=': ')"


def run_python(cache: Path, code: str = PRINT_CHOICE, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**environment(), "XDG_CACHE_HOME": str(cache), VARIABLE: "", **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture
def compiler(tmp_path: Path, compiled: None) -> str:
    """A fake compiler that takes half a second, records each call and copies the library that this machine has already."""
    script = tmp_path / "c++"
    script.write_text(
        f'#!/bin/sh\necho >> {tmp_path}/calls\nsleep 0.5\nwhile [ "$1" != -o ]; do shift; done\ncp {library()} "$2"\n'
    )
    script.chmod(0o755)
    return str(script)


def test_processes_that_start_together_compile_once(tmp_path: Path, compiler: str) -> None:
    with ThreadPoolExecutor() as pool:
        processes = list(pool.map(lambda _: run_python(tmp_path, CXX=compiler), range(3)))
    assert all(process.stdout.startswith("C++: compiled") for process in processes), [process.stderr for process in processes]
    assert len((tmp_path / "calls").read_text().splitlines()) == len(OBJECTS) + 1  # one call links the objects
    assert sum("compiling" in process.stderr for process in processes) == 1
    assert "compiling" not in run_python(tmp_path, CXX=compiler).stderr


def test_a_worker_process_does_not_compile(tmp_path: Path, compiler: str) -> None:
    worker = "from concurrent.futures import ProcessPoolExecutor as P; from wavegan_dist.wavelet import choose\n"
    process = run_python(tmp_path, worker + "print(P(1).submit(choose, 'cpu').result()[1])", CXX=compiler)
    assert "a worker process does not build" in process.stdout
    assert not (tmp_path / "calls").exists()


def test_without_a_compiler_the_reference_runs_and_the_choice_says_why(tmp_path: Path) -> None:
    process = run_python(tmp_path, CXX="no-such-compiler")
    assert process.stdout.startswith("reference: no C++ compiler (no-such-compiler); install g++ or set CXX")
    assert process.stderr == ""


def test_a_cxx_that_is_empty_or_no_command_does_not_end_the_process(tmp_path: Path, compiler: str) -> None:
    process = run_python(tmp_path, CXX='g++ "')
    assert process.stdout.startswith('reference: CXX=g++ " is not a command (No closing quotation); correct it')
    process = run_python(tmp_path, CXX=" ", PATH=f"{Path(compiler).parent}:{os.environ['PATH']}")
    assert process.stdout.startswith("C++: compiled"), process.stderr


def test_a_failing_compiler_is_called_once_and_its_output_is_kept(tmp_path: Path) -> None:
    first = run_python(tmp_path, CXX="false")
    error_log = next((tmp_path / "wavegan" / "kernels").glob("*.log"))
    assert first.stdout.startswith("reference: the CPU kernels do not compile: see ")
    assert str(error_log) in first.stdout
    assert "false -std" in error_log.read_text()
    assert "did not compile before" in run_python(tmp_path, CXX="false").stdout
    retry = run_python(tmp_path, LOGGING + "from wavegan_dist.wavelet import build; build()", CXX="false")
    assert "compiling" in retry.stderr
    assert [path.suffix for path in (tmp_path / "wavegan" / "kernels").iterdir() if path.suffix not in (".log", ".lock")] == []


def test_doctor_compiles_what_did_not_compile_before(tmp_path: Path, compiler: str) -> None:
    doctor = "import sys; from wavegan_dist.cli import main; sys.exit(main(['doctor', '--build', '--json']))"
    failed = run_python(tmp_path, doctor, CXX="false")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.splitlines()[-1].startswith("wavegan: the CPU kernels do not compile: see ")
    assert "did not compile before" in run_python(tmp_path, CXX=compiler).stdout
    built = run_python(tmp_path, doctor, CXX=compiler)
    assert json.loads(built.stdout)["kernels"]["cpu"]["kernel"] == "C++"
    assert run_python(tmp_path, CXX="false").stdout.startswith("C++: compiled")


def test_a_compiler_that_does_not_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "c++"
    script.write_text("#!/bin/sh\nexec sleep 20\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys.modules[library.__module__], "COMPILE_TIMEOUT", 0.1)
    with pytest.raises(WaveganError, match="the CPU kernels do not compile: see"):
        build()
    assert library().with_suffix(".log").read_text().count("stopped after 0.1 seconds") == len(OBJECTS)


def test_a_library_that_does_not_load_is_named(tmp_path: Path, compiler: str) -> None:
    run_python(tmp_path, CXX=compiler)
    path = next((tmp_path / "wavegan" / "kernels").glob("*.so"))
    path.write_bytes(b"not a library")
    process = run_python(tmp_path, CXX=compiler)
    assert process.stdout.startswith(f"reference: {path} does not load")


def test_a_library_in_a_cache_that_is_not_writable_is_used(tmp_path: Path, compiler: str) -> None:
    run_python(tmp_path, CXX=compiler)
    lock = next((tmp_path / "wavegan" / "kernels").glob("*.lock"))
    lock.unlink()
    lock.mkdir()  # root may write everywhere, but cannot open a folder as a file
    assert run_python(tmp_path, CXX="no-such-compiler").stdout.startswith("C++: compiled")


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs a folder that is not writable")
def test_with_a_cache_that_is_not_writable_the_reference_runs() -> None:
    process = run_python(Path("/proc/self"))
    assert process.stdout.startswith("reference: cannot keep the CPU kernels in /proc/self/wavegan/kernels")


def test_the_variable_forces_the_reference_and_has_no_other_value(tmp_path: Path) -> None:
    assert run_python(tmp_path, **{VARIABLE: "reference"}).stdout == "reference: WAVEGAN_KERNELS=reference\n"
    assert "the only value is `reference`" in run_python(tmp_path, **{VARIABLE: "fast"}).stderr


def test_all_instruction_sets_give_equal_results(tmp_path: Path, compiled: None) -> None:
    """Results are equal bit for bit: a run may resume on a machine with another processor."""
    code = (
        "import sys, torch; from wavegan_dist.wavelet import *; torch.manual_seed(0); results = []\n"
        "for layout in (torch.contiguous_format, torch.channels_last):\n"
        "    for dtype in (torch.float32, torch.bfloat16, torch.float64):\n"
        "        for channels in (1, 3, 5, 16):\n"
        "            x = torch.rand(2, channels, 12, 90).to(dtype, memory_format=layout).requires_grad_()\n"
        "            y = fuse(x, *dwt(x), lam := torch.tensor(0.3, requires_grad=True))\n"
        "            results += [y, *torch.autograd.grad(y, (x, lam), x.detach())]\n"
        "torch.save(results, sys.argv[1]); print(choose('cpu')[1])"
    )
    choices, results = {}, {}
    for level in ("default", "avx2", "avx512"):
        command = [sys.executable, "-c", code, str(tmp_path / level)]
        env = environment(ATEN_CPU_CAPABILITY=level)
        choices[level] = subprocess.run(command, capture_output=True, text=True, env=env, check=True).stdout
        results[level] = torch.load(tmp_path / level)
    assert "baseline" in choices["default"]
    if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        assert "AVX2" in choices["avx2"]
    for level in ("avx2", "avx512"):
        assert all(torch.equal(a, b) for a, b in zip(results["default"], results[level], strict=True)), level
