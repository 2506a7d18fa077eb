"""The Triton kernels without a GPU: their arithmetic in Triton's interpreter, their machine code by compiling ahead of time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers import environment
from wavegan_dist import wavelet
from wavegan_dist.wavelet import choice

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


def test_the_arithmetic_is_the_references_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/wavelet/interpreted.py"]
    settings = environment(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=settings, timeout=300)
    assert ran.returncode == 0, ran.stdout
    assert "4 passed" in ran.stdout


def test_a_forward_mode_derivative_raises():
    from wavegan_dist.wavelet import triton as kernels

    x = torch.rand(1, 1, 4, 4)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        kernels.dwt(torch.autograd.forward_ad.make_dual(x, x))


class Calls(TorchDispatchMode):
    """The names of all operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


def test_tensors_on_a_gpu_take_these_kernels(monkeypatch):
    monkeypatch.delenv("WAVEGAN_KERNELS", raising=False)
    choice.forget()
    with FakeTensorMode(), Calls() as calls:
        x = torch.empty(2, 3, 8, 8, device="cuda")
        image = wavelet.fuse(x, *wavelet.dwt(x), torch.empty((), device="cuda"))
        wavelet.analyse(torch.empty(2, 3, 8, 8, device="cuda", dtype=torch.uint8))
        wavelet.dwt(image.double())  # no kernel for this dtype: the reference
    choice.forget()
    assert {f"wavegan_triton.{name}.default" for name in ("dwt", "fuse", "analyse")} <= calls.names
    assert image.device.type == "cuda"
    assert image.shape == x.shape


def test_without_triton_the_reference_runs_and_says_why():
    code = "import sys; sys.modules['triton'] = None; from wavegan_dist.wavelet import choose; print(*choose('cuda'))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(WAVEGAN_KERNELS=""))
    assert ran.stdout.startswith("reference Triton cannot be imported"), ran.stderr


def test_machine_code_keeps_every_line_of_the_gate(tmp_path):
    """For sm_80, sm_90 and gfx942, every kernel and dtype: widths, no shared memory or barrier, no spills, ideal bytes."""
    code = (
        "import json, sys; from dataclasses import asdict; sys.path.insert(0, 'benchmarks'); import triton_gate\n"
        "print(json.dumps([asdict(row) for row in triton_gate.gate()]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment())
    rows = json.loads(ran.stdout)
    assert len(rows) == (4 * 3 + 1) * 3
    for row in rows:
        reduces = row["kernel"] == "fuse_backward"
        assert row["image_bits"] == [128], row
        assert row["band_bits"] == ([32, 64] if row["kernel"] == "analyse" else [64]), row
        assert row["bytes"] == row["ideal"], row
        assert row["spills"] == 0, row
        assert row["registers"] <= 80, row
        assert (row["shared"], row["barriers"]) == ((16, 1) if reduces else (0, 0)), row
