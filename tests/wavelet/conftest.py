"""Fixtures that select an implementation of the transform."""

from collections.abc import Iterator

import pytest
import torch

from wavegan_dist.wavelet import choose
from wavegan_dist.wavelet.choice import VARIABLE, reset

ONLY_REFERENCE = choose("cpu")[0] == "reference"  # WAVEGAN_KERNELS is set, or there is no compiler


@pytest.fixture
def compiled() -> None:
    """Skip a test of the compiled kernels where they are not available."""
    if ONLY_REFERENCE:
        pytest.skip(choose("cpu")[1])


@pytest.fixture(params=["fastest", "reference"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test with the compiled kernels and with the reference."""
    if request.param == "reference":
        monkeypatch.setenv(VARIABLE, "reference")
    elif ONLY_REFERENCE:
        pytest.skip(choose("cpu")[1])
    reset()
    torch._dynamo.reset()
    yield request.param
    monkeypatch.undo()
    reset()
