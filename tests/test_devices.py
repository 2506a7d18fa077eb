import re

import pytest
import torch

from wavegan_dist.devices import find_device
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
