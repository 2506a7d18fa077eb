"""The package itself: what it gives out, and that importing it costs nothing."""

import subprocess
import sys

import pytest

import wavegan_dist
from wavegan_dist.model.generator import WaveletGenerator


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, wavegan_dist; assert 'sample' not in dir(wavegan_dist); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "huggingface_hub", "pydantic", "safetensors", "typing_extensions"} & set(modules)


def test_every_public_name_is_there_and_no_other() -> None:
    names: dict[str, object] = {}
    exec("from wavegan_dist import *", names)
    assert {*names, "__version__"} - {"__builtins__"} == set(wavegan_dist.__all__)
    assert set(wavegan_dist.__all__) <= set(dir(wavegan_dist))
    assert names["WaveletGenerator"] is WaveletGenerator
    assert wavegan_dist.__all__ == sorted(wavegan_dist.__all__)


def test_an_unknown_name_is_the_usual_error() -> None:
    with pytest.raises(AttributeError, match="module 'wavegan_dist' has no attribute 'WaveletGenerators'"):
        wavegan_dist.WaveletGenerators  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        exec("from wavegan_dist import WaveletGenerators")
