"""The fuzz of the C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import environment

SANITIZED = "c++ -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"


def runtime(name: str) -> str:
    """Return the path of a sanitizer's library; skip the test if the compiler has none."""
    outcome = subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True)
    if not Path(outcome.stdout.strip()).is_absolute():
        pytest.skip(f"the compiler has no {name}")
    return outcome.stdout.strip()


@pytest.mark.slow
def test_the_kernels_have_no_memory_error_and_no_undefined_behavior(tmp_path: Path, compiled: None) -> None:
    cache = environment(XDG_CACHE_HOME=str(tmp_path))
    build = "from wavegan_dist.wavelet.cpu.build import build; build()"
    subprocess.run([sys.executable, "-c", build], env={**cache, "CXX": SANITIZED}, check=True, timeout=600)
    options = {  # PyTorch's own leaks and its allocations before the preload are not ours
        "LD_PRELOAD": f"{runtime('libasan.so')}:{runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0:alloc_dealloc_mismatch=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    fuzz = [sys.executable, "-m", "tests.wavelet.test_fuzz"]
    outcome = subprocess.run(fuzz, env={**cache, **options}, capture_output=True, text=True, timeout=600)
    assert outcome.returncode == 0, outcome.stderr[-5000:]
    assert "runtime error" not in outcome.stderr
    assert min(map(int, outcome.stdout.split())) > 1000  # accepted and rejected calls
