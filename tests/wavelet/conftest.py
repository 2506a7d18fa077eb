"""Both kernels of this machine."""

import pytest
import torch

from wavegan_dist.wavelet import choose
from wavegan_dist.wavelet.choice import VARIABLE, forget

FORCED = choose("cpu")[0] == "reference"  # by the environment, or for want of a compiler


@pytest.fixture
def compiled():
    """For what only the compiled kernel promises."""
    if FORCED:
        pytest.skip(choose("cpu")[1])


@pytest.fixture(params=["fastest", "reference"])
def kernel(request, monkeypatch):
    """Each kernel in turn."""
    if request.param == "reference":
        monkeypatch.setenv(VARIABLE, "reference")
    elif FORCED:
        pytest.skip(choose("cpu")[1])
    forget()
    torch._dynamo.reset()
    yield request.param
    monkeypatch.undo()
    forget()
