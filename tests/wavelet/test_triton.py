"""The Triton kernels without a GPU: their arithmetic in Triton's interpreter, their machine code without running it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers import environment
from wavegan_dist import wavelet
from wavegan_dist.wavelet import choice

triton = pytest.importorskip("triton")
triton_gate = pytest.importorskip("triton_gate")  # a module of benchmarks/
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_arithmetic_equals_the_references_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/wavelet/interpreted.py"]
    env = environment(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)
    assert process.returncode == 0, process.stdout
    assert "5 passed" in process.stdout


def test_a_forward_mode_derivative_raises() -> None:
    from wavegan_dist.wavelet import triton as kernels

    x = torch.rand(1, 1, 4, 4)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        kernels.dwt(torch.autograd.forward_ad.make_dual(x, x))


class RecordOperators(TorchDispatchMode):
    """Records the names of all operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


def test_tensors_on_a_gpu_use_the_triton_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAVEGAN_KERNELS", raising=False)
    choice.reset()
    with FakeTensorMode(), RecordOperators() as recorded:
        x = torch.empty(2, 3, 8, 8, device="cuda")
        image = wavelet.fuse(x, *wavelet.dwt(x), torch.empty((), device="cuda"))
        low, highs = wavelet.wavedec(image, 3)
        assert wavelet.waverec(low, highs).shape == x.shape
        wavelet.dwt(image.double())  # there is no kernel for float64, so the reference runs
    choice.reset()
    assert {f"wavegan_triton.{name}.default" for name in ("dwt", "idwt", "fuse")} <= recorded.names
    assert image.device.type == "cuda"
    assert image.shape == x.shape


def test_without_triton_the_reference_runs_and_the_choice_says_why() -> None:
    code = "import sys; sys.modules['triton'] = None; from wavegan_dist.wavelet import choose; print(*choose('cuda'))"
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, env=environment(WAVEGAN_KERNELS=""))
    assert process.stdout.startswith("reference Triton cannot be imported"), process.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine on which Triton cannot run a kernel")
def test_where_triton_cannot_run_the_reference_does_and_the_choice_says_why() -> None:
    code = "from wavegan_dist.wavelet import choose; print(*choose('cuda'))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(WAVEGAN_KERNELS=""))
    assert process.stdout.startswith("reference Triton cannot run a kernel ("), process.stderr
    assert process.stdout.count("\n") == 1


def test_machine_code_meets_every_requirement_of_the_gate() -> None:
    """Every kernel and dtype on sm_80, sm_90 and gfx942: access widths, bytes moved, spills, registers, shared memory."""
    code = (
        "import json, sys; from dataclasses import asdict; sys.path.insert(0, 'benchmarks'); import triton_gate\n"
        "print(json.dumps([asdict(row) for row in triton_gate.gate()]))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment())
    rows = json.loads(process.stdout)
    assert len(rows) == 4 * 3 * 3  # kernels, dtypes, targets
    for row in rows:
        reduces = row["kernel"] == "fuse_backward"
        assert row["image_bits"] == [128], row
        assert row["band_bits"] == [64], row
        assert row["bytes"] == row["ideal"], row
        assert row["spills"] == 0, row
        assert row["registers"] <= 80, row
        assert (row["shared"], row["barriers"]) == ((16, 1) if reduces else (0, 0)), row


@pytest.mark.parametrize("kernel", ["dwt", "idwt", "fuse_backward"])
def test_kernels_compile_for_a_single_row_whose_sizes_are_constants(kernel: str) -> None:
    code = triton_gate.source(kernel, "fp32", triton_gate.kernels.tile(1, 4, 32), ones=("rows", "width", "ch"))
    assert triton.compile(code, target=triton_gate.TARGETS["sm_80"]).asm["cubin"]
