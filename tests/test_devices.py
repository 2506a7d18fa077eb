import re
from typing import Any

import pytest
import torch

from wavegan_dist.devices import allow_tf32, find_device, full_float32
from wavegan_dist.errors import UsageError


def pretend_gpus(count: int, patch: pytest.MonkeyPatch) -> None:
    accelerator = torch.device("cuda") if count else None
    patch.setattr(torch.accelerator, "current_accelerator", lambda check_available: accelerator)
    patch.setattr(torch.accelerator, "device_count", lambda: count)


def test_the_default_is_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(0, monkeypatch)
    assert find_device() == torch.device("cpu")
    pretend_gpus(2, monkeypatch)
    assert find_device() == torch.device("cuda")


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_there_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(2, monkeypatch)
    assert find_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:7", "cuda:2", "cuda:x", "cuda:-1", "cpu:1", "meta", "mps", "CPU"])
@pytest.mark.parametrize(("gpus", "choice"), [(0, "cpu"), (2, "cpu, cuda:0, cuda:1")])
def test_a_device_that_is_not_there_is_one_line_with_those_that_are(
    name: str, gpus: int, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(gpus, monkeypatch)
    with pytest.raises(UsageError, match=rf"^--device {re.escape(name)}: there is no such device; choose from {choice}$"):
        find_device(name)


def tf32_settings() -> list[str]:
    backends: Any = torch.backends
    operations = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    return [operation.fp32_precision for operation in operations]


def test_tf32_is_allowed_and_forbidden_for_every_operation_even_after_one_was_set_by_itself() -> None:
    with full_float32():
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))  # sets the precision of torch.backends.cuda.matmul
        for allowed in (True, False, True):
            allow_tf32(allowed)
            assert set(tf32_settings()) == {"tf32" if allowed else "ieee"}


@pytest.mark.parametrize("allowed", [False, True])
def test_pytorch_can_export_and_compile_after_tf32_was_allowed_or_forbidden(allowed: bool) -> None:
    module, x = torch.nn.Conv2d(3, 3, 3), torch.rand(2, 3, 8, 8)
    with full_float32():
        allow_tf32(allowed)
        torch.export.export(module, (x,))
        torch.compile(module, backend="eager")(x)
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (allowed, allowed)
        assert set(tf32_settings()) == {"tf32" if allowed else "ieee"}
    torch.export.export(module, (x,))


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_full_float32_forbids_tf32_and_restores_each_setting(precision: str) -> None:
    backends: Any = torch.backends
    with full_float32():
        allow_tf32(True)
        backends.cuda.matmul.fp32_precision = precision
        before = tf32_settings()
        assert before == [precision, "tf32", "tf32"]
        with full_float32():
            assert set(tf32_settings()) == {"ieee"}
            assert torch.backends.cudnn.deterministic
        assert tf32_settings() == before
